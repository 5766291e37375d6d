"""Values of every surrogate against formulas written here from the papers, in mpmath with 30 digits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch

from fracspike import surrogate

mp.mp.dps = 30
REAL = mp.mpf
POINTS = [-30.0, -3.1, -1.5, -1.0, -0.7, -0.2, -0.011, 0.013, 0.2, 0.55, 0.99, 1.01, 2.3, 17.0]


def logistic(y: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-y))


def tent_area(x: mp.mpf, w: mp.mpf) -> mp.mpf:
    """Area under the tent of half-width w left of x, as two triangles."""
    if x <= -w:
        return REAL(0)
    if x < 0:
        return (x + w) ** 2 / (2 * w)
    return w - (w - min(x, w)) ** 2 / (2 * w)


def normal_cdf(y: mp.mpf) -> mp.mpf:
    return mp.erfc(-y / mp.sqrt(2)) / 2


# name -> parameters and primitive G(x), as printed in the papers; g is its numerical derivative.
PRIMITIVES: dict[str, tuple[dict[str, float], Callable[[mp.mpf], mp.mpf]]] = {
    "sigmoid": ({"alpha": 3.0}, lambda x: logistic(3 * x)),
    "atan": ({"alpha": 1.7}, lambda x: mp.atan(mp.pi * REAL(1.7) * x / 2) / mp.pi + REAL(1) / 2),
    "fast_sigmoid": ({"slope": 10.0}, lambda x: x / (1 + 10 * abs(x))),
    "gaussian": ({"sigma": 0.6, "mu": 0.25}, lambda x: normal_cdf((x - REAL("0.25")) / REAL(0.6))),
    "rectangle": ({"width": 0.8}, lambda x: min(max(x / REAL(1.6) + REAL(1) / 2, REAL(0)), REAL(1))),
    "noisy_threshold": ({"scale": 5.0}, lambda x: logistic(5 * x)),
    "soft_sign": ({"alpha": 3.0}, lambda x: (3 * x / (1 + 3 * abs(x)) + 1) / 2),
    "sparse_fast_sigmoid": (
        {"slope": 10.0, "B": 0.5},
        lambda x: x / (1 + 10 * x) - REAL("0.5") / 6 if x > 0.5 else REAL(0),
    ),
    "q_pseudo_spike": (
        {"q": 2.5},
        lambda x: (
            (1 - 2 * x / REAL("1.5")) ** REAL("-1.5") / 2
            if x < 0
            else 1 - (1 + 2 * x / REAL("1.5")) ** REAL("-1.5") / 2
        ),
    ),
    "circular": ({"width": 0.7}, lambda x: x / mp.sqrt(1 + (x / REAL(0.7)) ** 2)),
    "erf": ({"alpha": 2.5}, lambda x: mp.erfc(REAL(-2.5) * x) / 2),
    "multi_gaussian": (
        {"sigma": 0.5, "h": 0.15, "s": 6.0, "mu": 0.0},
        lambda x: (
            (1 + REAL(0.15)) * normal_cdf(2 * x)
            - REAL(0.15) * (normal_cdf((x - 0.5) / 3) + normal_cdf((x + 0.5) / 3))
        ),
    ),
    "piecewise_exponential": (
        {"alpha": 1.5},
        lambda x: mp.exp(REAL(1.5) * x) / 2 if x < 0 else 1 - mp.exp(REAL(-1.5) * x) / 2,
    ),
    "shifted_exponential": (
        {"beta": 2.0, "slope": 3.0},
        lambda x: REAL(1.5) * (mp.exp(2 * (x - 1)) if x < 1 else 2 - mp.exp(-2 * (x - 1))),
    ),
    "triangle": ({"width": 0.75, "amplitude": 0.3}, lambda x: REAL(0.3) * tent_area(x, REAL(0.75))),
    "leaky_rectangle": (
        {"width": 0.8, "c": 0.02},
        lambda x: (
            REAL(0.02) * (x + REAL(0.8))
            if x < -0.8
            else (x / REAL(1.6) + REAL(1) / 2 if x < 0.8 else 1 + REAL(0.02) * (x - REAL(0.8)))
        ),
    ),
    "leaky_relu": ({"slope": 1.5, "leak": 0.2}, lambda x: x * (REAL(1.5) if x >= 0 else REAL(0.2))),
    "log_tailed_relu": (
        {"alpha": 0.3},
        lambda x: REAL(0.3) * x if x <= 0 else (x if x <= 1 else 1 + mp.log(x)),
    ),
    "straight_through": ({}, lambda x: x),
    "nonzero_sign_log": ({"alpha": 2.0}, lambda x: mp.sign(x) * mp.log(1 + 2 * abs(x))),
    "s2nn": (
        {"alpha": 4.0, "beta": 1.5},
        lambda x: logistic(4 * x) if x < 0 else REAL(1) / 2 + REAL(1.5) * mp.log(1 + x),
    ),
    "squarewave_fourier": (
        {"n": 3, "period": 5.0},
        lambda x: REAL(1) / 2 + 2 / mp.pi * sum(mp.sin(c * 2 * mp.pi * x / 5) / c for c in (1, 3, 5)),
    ),
}
"""Closed forms, by name.  A surrogate added to the registry must be added here."""

# name -> parameters, peak and area as documented.
PEAK_AND_AREA: dict[str, tuple[dict[str, float], float, float]] = {
    "sigmoid": ({"alpha": 3.0}, 0.75, 1.0),
    "atan": ({"alpha": 3.0}, 1.5, 1.0),
    "fast_sigmoid": ({"slope": 10.0}, 1.0, 0.2),
    "gaussian": ({"sigma": 0.5}, 0.7978845608028654, 1.0),
    "rectangle": ({"width": 0.25}, 2.0, 1.0),
    "noisy_threshold": ({"scale": 5.0}, 1.25, 1.0),
    "soft_sign": ({"alpha": 3.0}, 1.5, 1.0),
    "sparse_fast_sigmoid": ({"slope": 2.0, "B": 0.5}, 0.25, 0.25),
    "q_pseudo_spike": ({"q": 3.0}, 1.0, 1.0),
    "circular": ({"width": 0.7}, 1.0, 1.4),
    "erf": ({"alpha": 2.0}, 1.1283791670955126, 1.0),
    "multi_gaussian": ({"sigma": 0.5, "h": 0.15, "s": 6.0}, 0.878223273313101, 0.85),
    "piecewise_exponential": ({"alpha": 3.0}, 1.5, 1.0),
    "shifted_exponential": ({"beta": 2.0, "slope": 3.0}, 3.0, 3.0),
    "triangle": ({"width": 0.75}, 1.0, 0.75),
    "leaky_rectangle": ({"width": 0.25, "c": 0.01}, 2.0, math.inf),
    "leaky_relu": ({"slope": 1.5, "leak": 0.2}, 1.5, math.inf),
    "log_tailed_relu": ({"alpha": 0.3}, 1.0, math.inf),
    "straight_through": ({}, 1.0, math.inf),
    "nonzero_sign_log": ({"alpha": 2.0}, 2.0, math.inf),
    "s2nn": ({"alpha": 4.0, "beta": 1.5}, 1.5, math.inf),
    "squarewave_fourier": ({"n": 2, "period": 8.0}, 1.0, math.inf),
}


def known(table: dict[str, object]) -> list[str]:
    return [name for name in surrogate.names() if not name.startswith("test_") and name in table]


def test_every_name_has_a_reference() -> None:
    assert set(surrogate.names()) == set(PRIMITIVES) == set(PEAK_AND_AREA)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_derivative_is_that_of_the_published_primitive(name: str) -> None:
    parameters, primitive = PRIMITIVES[name]
    expected = [float(mp.diff(primitive, REAL(x))) for x in POINTS]
    x = torch.tensor(POINTS, dtype=torch.float64)
    torch.testing.assert_close(
        surrogate.get(name, **parameters).derivative(x),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-10,
        atol=1e-14,
    )


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_backward_multiplies_by_the_derivative(name: str) -> None:
    parameters, primitive = PRIMITIVES[name]
    s = surrogate.get(name, **parameters).eval()
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    weight = torch.linspace(-2, 3, len(POINTS), dtype=torch.float64)
    spikes = s(x)
    (spikes * weight).sum().backward()
    assert spikes.tolist() == [float(p >= 0) for p in POINTS]
    expected = [float(mp.diff(primitive, REAL(p))) * float(w) for p, w in zip(POINTS, weight, strict=True)]
    torch.testing.assert_close(x.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_primitive_is_the_published_one(name: str) -> None:
    parameters, primitive = PRIMITIVES[name]
    x = torch.tensor(POINTS, dtype=torch.float64)
    expected = torch.tensor([float(primitive(REAL(p))) for p in POINTS], dtype=torch.float64)
    torch.testing.assert_close(
        surrogate.get(name, **parameters).primitive(x), expected, rtol=1e-12, atol=1e-15
    )


def integrate(s: surrogate.Surrogate) -> float:
    """Integral of the derivative, by scipy on finite pieces and two infinite tails."""
    from scipy.integrate import quad

    def value(x: float) -> float:
        return float(s.derivative(torch.tensor(x, dtype=torch.float64)))

    cuts = [-math.inf, -9.0, -2.0, -1.0, -0.25, -0.01, 0.0, 0.01, 0.25, 1.0, 2.0, 9.0, math.inf]
    return sum(quad(value, a, b, limit=200)[0] for a, b in itertools.pairwise(cuts))


@pytest.mark.parametrize("name", sorted(PEAK_AND_AREA))
def test_peak_and_area(name: str) -> None:
    parameters, peak, area = PEAK_AND_AREA[name]
    s = surrogate.get(name, **parameters)
    x = torch.linspace(-4, 4, 800_001, dtype=torch.float64)
    assert s.peak() == pytest.approx(peak, rel=1e-12)
    assert float(s.derivative(x).max()) == pytest.approx(peak, rel=1e-4)
    assert s.area() == pytest.approx(area, rel=1e-12)
    if math.isfinite(area):
        assert integrate(s) == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("name", sorted(PEAK_AND_AREA))
def test_normalize(name: str) -> None:
    parameters, peak, area = PEAK_AND_AREA[name]
    mode = {"mode": "hard_st"} if name == "noisy_threshold" else {}
    plain = surrogate.get(name, **parameters)
    x = torch.tensor(POINTS, dtype=torch.float64)
    for normalize, measure in (("peak", peak), ("area", area)):
        if not math.isfinite(measure):
            with pytest.raises(ValueError, match="`normalize`"):
                surrogate.get(name, **parameters, normalize=normalize)
            continue
        scaled = surrogate.get(name, **parameters, **mode, amplitude=7.0, normalize=normalize)
        torch.testing.assert_close(scaled.derivative(x), plain.derivative(x) / measure)
        torch.testing.assert_close(scaled.primitive(x), plain.primitive(x) / measure)
        assert getattr(scaled, normalize)() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_lower_precision_keeps_its_digits(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([-2.25, -1.0, -0.375, -0.0625, 0.0, 0.125, 0.75, 1.5, 2.0], dtype=dtype)
    s = surrogate.get(name, **PRIMITIVES[name][0])
    exact = s.derivative(x.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(s.derivative(x).double(), exact, rtol=30 * eps, atol=3 * eps * s.peak())


def test_a_small_leak_is_not_rounded_to_the_precision_of_the_peak() -> None:
    x = torch.tensor([3.0], dtype=torch.bfloat16)
    leak = torch.tensor([1e-4], dtype=torch.bfloat16)
    assert torch.equal(surrogate.LeakyRectangle(width=1.0, c=1e-4).derivative(x), leak)
    assert torch.equal(surrogate.LeakyReLU(slope=1.0, leak=1e-4).derivative(-x), leak)
    assert torch.equal(surrogate.LogTailedReLU(alpha=1e-4).derivative(-x), leak)


def test_a_leak_as_steep_as_the_slope_is_a_straight_line() -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], dtype=torch.float64)
    assert torch.equal(surrogate.LeakyReLU(slope=1.0, leak=1.0).derivative(x), torch.ones_like(x))
    assert torch.equal(surrogate.LeakyReLU(slope=2.0, leak=0.0).derivative(x), 2.0 * (x >= 0).double())
