"""Other libraries' surrogates: their names, parameters and defaults, written in ours.

Each entry is the library's name, our family, and a function from its parameters (with its defaults) to ours.
What is > 0 here at x = 0, and what >= 0, is the library's forward convention: ``STRICT``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Surrogate
from .bells import Gaussian
from .noisy import NoisyThreshold
from .piecewise import Rectangle
from .registry import register_peer
from .sigmoids import ATan, FastSigmoid, Sigmoid

STRICT = {
    "spikede": False,
    "spikingjelly": False,
    "braintools": False,
    "mlx-snn": False,
    "sinabs": False,
    "snntorch": True,
    "nwave": True,
    "norse": True,
}
"""Whether a library's spike at x = 0 is 0."""

_TABLE: list[tuple[str, type[Surrogate], Callable[..., dict[str, Any]]]] = [
    ("spikede.sigmoid", Sigmoid, lambda scale=5.0: {"alpha": scale}),
    ("spikingjelly.Sigmoid", Sigmoid, lambda alpha=4.0: {"alpha": alpha}),
    ("braintools.Sigmoid", Sigmoid, lambda alpha=4.0: {"alpha": alpha}),
    ("snntorch.sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("nwave.sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("mlx-snn.sigmoid", Sigmoid, lambda slope=25.0: {"alpha": slope}),
    ("norse.tanh", Sigmoid, lambda alpha=100.0: {"alpha": 2.0 * alpha, "amplitude": 2.0 / alpha}),
    ("spikede.arctan", ATan, lambda scale=2.0: {"alpha": scale}),
    ("snntorch.atan", ATan, lambda alpha=2.0: {"alpha": alpha}),
    ("spikingjelly.ATan", ATan, lambda alpha=2.0: {"alpha": alpha}),
    ("nwave.atan", ATan, lambda alpha=2.0: {"alpha": alpha}),
    ("mlx-snn.arctan", ATan, lambda alpha=2.0: {"alpha": alpha}),
    ("braintools.Arctan", ATan, lambda alpha=1.0: {"alpha": alpha}),
    ("snntorch.fast_sigmoid", FastSigmoid, lambda slope=25.0: {"slope": slope}),
    ("nwave.fast_sigmoid", FastSigmoid, lambda slope=25.0: {"slope": slope}),
    ("norse.super", FastSigmoid, lambda alpha=100.0: {"slope": alpha}),
    ("braintools.InvSquareGrad", FastSigmoid, lambda alpha=100.0: {"slope": alpha}),
    ("spikingjelly.SuperSpike", FastSigmoid, lambda alpha=1.0: {"slope": 1.0, "amplitude": alpha}),
    ("spikede.gaussian", Gaussian, lambda sigma=1.0: {"sigma": sigma}),
    (
        "sinabs.Gaussian",
        Gaussian,
        lambda mu=0.0, sigma=0.5, grad_scale=1.0: {"sigma": sigma, "mu": mu, "amplitude": grad_scale},
    ),
    ("braintools.GaussianGrad", Gaussian, lambda sigma=0.5, alpha=0.5: {"sigma": sigma, "amplitude": alpha}),
    ("spikede.piecewise_linear", Rectangle, lambda gamma=1.0: {"width": gamma}),
    ("spikede.linear", Rectangle, lambda gamma=1.0: {"width": gamma}),
    ("spikingjelly.Rect", Rectangle, lambda alpha=1.0: {"width": 0.5 / alpha, "closed": False}),
    (
        "spikede.noisy_threshold",
        NoisyThreshold,
        lambda scale=5.0, sample=True: {"scale": scale, "mode": "soft" if sample else "meanfield"},
    ),
]

for _name, _family, _translate in _TABLE:
    register_peer(_name, _family, _translate, strict=STRICT[_name.partition(".")[0]])
