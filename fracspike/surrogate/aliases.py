"""Other libraries' surrogates: their names, parameters and defaults, written in ours.

Each entry is the library's name, our family, and a function from its parameters (with its defaults) to ours.
The table at the end says which libraries spike at x >= 0 and which (strict) at x > 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Surrogate
from .bells import Erf, Gaussian, MultiGaussian, PiecewiseExponential, ShiftedExponential
from .noisy import NoisyThreshold
from .piecewise import LeakyRectangle, LeakyReLU, LogTailedReLU, Rectangle, StraightThrough, Triangle
from .registry import register_peer
from .sigmoids import ATan, Circular, FastSigmoid, QPseudoSpike, Sigmoid, SoftSign, SparseFastSigmoid
from .unusual import S2NN, NonzeroSignLog, SquarewaveFourier

Translation = Callable[..., dict[str, Any]]


def _same(name: str, default: float) -> Translation:
    """Return a translation for a peer whose only parameter ``alpha`` is our ``name``."""
    return lambda alpha=default: {name: alpha}


def _no_parameters() -> dict[str, Any]:
    return {}


_SPIKEDE: list[tuple[str, type[Surrogate], Translation]] = [
    ("sigmoid", Sigmoid, lambda scale=5.0: {"alpha": scale}),
    ("arctan", ATan, lambda scale=2.0: {"alpha": scale}),
    ("gaussian", Gaussian, lambda sigma=1.0: {"sigma": sigma}),
    ("piecewise_linear", Rectangle, lambda gamma=1.0: {"width": gamma}),
    ("linear", Rectangle, lambda gamma=1.0: {"width": gamma}),
    (
        "noisy_threshold_spike",
        NoisyThreshold,
        lambda scale=5.0, sample=True: {"scale": scale, "mode": "soft" if sample else "meanfield"},
    ),
    (
        "noisy_threshold",
        NoisyThreshold,
        lambda gamma=0.2, train_spike_mode="hard_concrete", concrete_temp=0.25: {
            "scale": 1.0 / gamma,
            "mode": "soft" if train_spike_mode == "soft_noisy" else train_spike_mode,
            "temperature": concrete_temp,
        },
    ),
]

_SPIKINGJELLY: list[tuple[str, type[Surrogate], Translation]] = [
    ("Sigmoid", Sigmoid, _same("alpha", 4.0)),
    ("ATan", ATan, _same("alpha", 2.0)),
    ("SoftSign", SoftSign, _same("alpha", 2.0)),
    # Their alpha is an amplitude; the slope is 1.
    ("SuperSpike", FastSigmoid, lambda alpha=1.0: {"slope": 1.0, "amplitude": alpha}),
    ("QPseudoSpike", QPseudoSpike, _same("q", 2.0)),
    ("Erf", Erf, _same("alpha", 2.0)),
    ("PiecewiseExp", PiecewiseExponential, _same("alpha", 1.0)),
    ("PiecewiseQuadratic", Triangle, lambda alpha=1.0: {"width": 1.0 / alpha, "amplitude": alpha}),
    ("Rect", Rectangle, lambda alpha=1.0: {"width": 0.5 / alpha, "closed": False}),
    ("PiecewiseLeakyReLU", LeakyRectangle, lambda w=1.0, c=0.01: {"width": w, "c": c, "closed": False}),
    ("LeakyKReLU", LeakyReLU, lambda leak=0.0, k=1.0: {"slope": k, "leak": leak}),
    ("LogTailedReLU", LogTailedReLU, _same("alpha", 0.0)),
    ("NonzeroSignLogAbs", NonzeroSignLog, _same("alpha", 1.0)),
    ("S2NN", S2NN, lambda alpha=4.0, beta=1.0: {"alpha": alpha, "beta": beta}),
    # Their sum runs over i < n.
    (
        "SquarewaveFourierSeries",
        SquarewaveFourier,
        lambda n=2, T_period=8.0: {"n": n - 1, "period": T_period},
    ),
    ("DeterministicPass", StraightThrough, _no_parameters),
]

_BRAINTOOLS: list[tuple[str, type[Surrogate], Translation]] = [
    ("Sigmoid", Sigmoid, _same("alpha", 4.0)),
    ("Arctan", ATan, _same("alpha", 1.0)),
    ("SoftSign", SoftSign, _same("alpha", 1.0)),
    ("InvSquareGrad", FastSigmoid, _same("slope", 100.0)),
    ("QPseudoSpike", QPseudoSpike, lambda alpha=2.0: {"q": alpha, "width": (alpha + 1.0) / 2.0}),
    ("GaussianGrad", Gaussian, lambda sigma=0.5, alpha=0.5: {"sigma": sigma, "amplitude": alpha}),
    ("ERF", Erf, _same("alpha", 1.0)),
    (
        "MultiGaussianGrad",
        MultiGaussian,
        lambda h=0.15, s=6.0, sigma=0.5, scale=0.5: {"sigma": sigma, "h": h, "s": s, "amplitude": scale},
    ),
    ("PiecewiseExp", PiecewiseExponential, _same("alpha", 1.0)),
    ("SlayerGrad", PiecewiseExponential, lambda alpha=1.0: {"alpha": alpha, "amplitude": 2.0 / alpha}),
    ("PiecewiseQuadratic", Triangle, lambda alpha=1.0: {"width": 1.0 / alpha, "amplitude": alpha}),
    # alpha * max(0, width - |x|)
    ("ReluGrad", Triangle, lambda alpha=0.3, width=1.0: {"width": width, "amplitude": alpha * width}),
    ("PiecewiseLeakyRelu", LeakyRectangle, lambda c=0.01, w=1.0: {"width": w, "c": c}),
    ("LeakyRelu", LeakyReLU, lambda alpha=0.1, beta=1.0: {"slope": beta, "leak": alpha}),
    ("LogTailedRelu", LogTailedReLU, _same("alpha", 0.0)),
    ("NonzeroSignLog", NonzeroSignLog, _same("alpha", 1.0)),
    # Their epsilon enters the primitive alone, which is exact here without it.
    ("S2NN", S2NN, lambda alpha=4.0, beta=1.0, epsilon=1e-8: {"alpha": alpha, "beta": beta}),
    ("SquarewaveFourierSeries", SquarewaveFourier, lambda n=2, t_period=8.0: {"n": n, "period": t_period}),
]

_SNNTORCH: list[tuple[str, type[Surrogate], Translation]] = [
    ("sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("atan", ATan, _same("alpha", 2.0)),
    ("fast_sigmoid", FastSigmoid, lambda slope=25.0: {"slope": slope}),
    ("SFS", SparseFastSigmoid, lambda slope=25.0, B=1.0: {"slope": slope, "B": B}),
    ("spike_rate_escape", ShiftedExponential, lambda beta=1.0, slope=25.0: {"beta": beta, "slope": slope}),
    # Theirs is +threshold below and -threshold above, which drives the potential away from the threshold;
    # this is the triangle of that width which the name announces.
    ("triangular", Triangle, lambda threshold=1.0: {"width": threshold}),
    ("LSO", LeakyReLU, lambda slope=0.1: {"slope": 1.0, "leak": slope}),
    ("heaviside", LeakyReLU, lambda: {"slope": 1.0, "leak": 0.0}),
    ("straight_through_estimator", StraightThrough, _no_parameters),
]

_NWAVE: list[tuple[str, type[Surrogate], Translation]] = [
    ("sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("atan", ATan, _same("alpha", 2.0)),
    ("fast_sigmoid", FastSigmoid, lambda slope=25.0: {"slope": slope}),
]

_NORSE: list[tuple[str, type[Surrogate], Translation]] = [
    ("super", FastSigmoid, _same("slope", 100.0)),
    ("superspike", FastSigmoid, _same("slope", 100.0)),
    # The derivative of tanh(alpha x) and the like, without the factor alpha: the peak stays 1.
    ("tanh", Sigmoid, lambda alpha=100.0: {"alpha": 2.0 * alpha, "amplitude": 2.0 / alpha}),
    ("heavi_erfc", Erf, lambda alpha=100.0: {"alpha": alpha, "amplitude": 2.0 / alpha}),
    ("circ", Circular, _same("width", 100.0)),
    ("triangle", Triangle, lambda alpha=0.3: {"width": 1.0, "amplitude": alpha}),
    ("tent", Triangle, lambda alpha=0.3: {"width": 1.0, "amplitude": alpha}),
]

_MLX_SNN: list[tuple[str, type[Surrogate], Translation]] = [
    ("sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("arctan", ATan, _same("alpha", 2.0)),
    ("fast_sigmoid", SoftSign, lambda scale=25.0: {"alpha": scale}),
    # Their scale is accepted and not used.
    ("triangular", Triangle, lambda scale=1.0: {"width": 1.0}),
    ("straight_through", StraightThrough, lambda scale=1.0: {}),
]

_SINABS: list[tuple[str, type[Surrogate], Translation]] = [
    (
        "Gaussian",
        Gaussian,
        lambda mu=0.0, sigma=0.5, grad_scale=1.0: {"sigma": sigma, "mu": mu, "amplitude": grad_scale},
    ),
    (
        "MultiGaussian",
        MultiGaussian,
        lambda mu=0.0, sigma=0.5, h=0.15, s=6.0, grad_scale=1.0: {
            "sigma": sigma,
            "h": h,
            "s": s,
            "mu": mu,
            "amplitude": grad_scale,
        },
    ),
    # grad_scale / w * exp(-|x| / w), with w in units of the threshold, taken as 1.
    (
        "SingleExponential",
        PiecewiseExponential,
        lambda grad_width=0.5, grad_scale=1.0: {"alpha": 1.0 / grad_width, "amplitude": 2.0 * grad_scale},
    ),
]

for _library, _strict, _table in (
    ("spikede", False, _SPIKEDE),
    ("spikingjelly", False, _SPIKINGJELLY),
    ("braintools", False, _BRAINTOOLS),
    ("mlx-snn", False, _MLX_SNN),
    ("sinabs", False, _SINABS),
    ("snntorch", True, _SNNTORCH),
    ("nwave", True, _NWAVE),
    ("norse", True, _NORSE),
):
    for _name, _family, _translate in _table:
        register_peer(f"{_library}.{_name}", _family, _translate, strict=_strict)
