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
    assert float(s.derivative(x).max()) == pytest.approx(peak, rel=1e-6)
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
