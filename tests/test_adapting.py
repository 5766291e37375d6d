"""The published neurons that adapt: against their recurrences, written out entry by entry in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fracspike.experiments.adapting import CurrentAdapting, ThresholdAdapting

STEPS, SAMPLES, SIZE = 30, 5, 4
RECTANGLE = "rectangle:width=0.2,normalize=peak"


def current(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, SAMPLES, SIZE, generator=generator, dtype=torch.float64)


def weights_of(layer: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in layer.named_parameters()}


def shaken(layer: torch.nn.Module, spread: float) -> torch.nn.Module:
    """Move every parameter a little, so that neurons differ and none is 0."""
    generator = torch.Generator().manual_seed(1)
    layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p += spread * torch.rand(p.shape, generator=generator, dtype=p.dtype)
    return layer


@pytest.mark.parametrize("recurrent", [False, True])
def test_alif_is_the_published_recurrence(recurrent: bool) -> None:
    torch.manual_seed(0)
    layer = shaken(ThresholdAdapting(SIZE, 0.4, RECTANGLE, recurrent=recurrent, beta=0.2), 0.3)
    x, p = current(), weights_of(layer)
    found = layer(x).detach().numpy()
    expected = np.zeros_like(found)
    for k in range(SAMPLES):
        v, s, b = np.zeros(SIZE), np.zeros(SIZE), np.full(SIZE, 0.01)
        for n in range(STEPS):
            before = s.copy()
            for i in range(SIZE):
                drive = x[n, k, i].item()
                if recurrent:
                    drive += sum(p["recurrent.weight"][i, j] * before[j] for j in range(SIZE))
                    drive += p["recurrent.bias"][i]
                rho = math.exp(-1 / p["tau_adaptation"][i])
                b[i] = rho * b[i] + (1 - rho) * before[i]
                theta = 0.4 + 0.2 * b[i]
                v[i] = math.exp(-1 / p["tau"][i]) * v[i] + drive - theta * before[i]
                s[i] = float(v[i] >= theta)
            expected[n, k] = s
    assert 0.1 < expected.mean() < 0.6
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("recurrent", [False, True])
def test_adlif_is_the_published_recurrence(recurrent: bool) -> None:
    torch.manual_seed(0)
    layer = shaken(CurrentAdapting(SIZE, 0.2, RECTANGLE, recurrent=recurrent), 0.1)
    assert isinstance(layer, CurrentAdapting)
    with torch.no_grad():
        layer.keep[0], layer.keep_current[1], layer.coupling[2], layer.jump[3] = 2.0, -1.0, 3.0, -0.5
    x, p = 6 * current(), weights_of(layer)
    found = layer(x).detach().numpy()
    flat = x.numpy().reshape(-1, SIZE)
    scale = p["normalise.weight"] / np.sqrt(flat.var(0) + 1e-5)
    normal = (x.numpy() - flat.mean(0)) * scale + p["normalise.bias"]
    keep = np.clip(p["keep"], math.exp(-1 / 5), math.exp(-1 / 25))
    slow = np.clip(p["keep_current"], math.exp(-1 / 30), math.exp(-1 / 120))
    a, b = np.clip(p["coupling"], -1, 1), np.clip(p["jump"], 0, 2)
    expected = np.zeros_like(found)
    for k in range(SAMPLES):
        v, s, w = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
        for n in range(STEPS):
            before = s.copy()
            for i in range(SIZE):
                drive = normal[n, k, i]
                if recurrent:
                    drive += sum(before[j] * p["recurrent"][j, i] for j in range(SIZE) if j != i)
                w[i] = slow[i] * w[i] + a[i] * v[i] + b[i] * before[i]
                v[i] = keep[i] * (v[i] - before[i]) + (1 - keep[i]) * (drive - w[i])
                s[i] = float(v[i] >= 0.2)
            expected[n, k] = s
    assert 0.02 < expected.mean() < 0.6
    assert np.array_equal(found, expected)


def test_the_gradient_goes_through_steps_reset_and_threshold() -> None:
    """Two steps of one ALIF neuron by hand: a rectangle of height 1 within 0.2 of the threshold."""
    layer = ThresholdAdapting(1, 0.4, RECTANGLE, beta=0.2).double()
    x = torch.tensor([0.45, 0.7], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    spikes = layer(x)
    assert spikes.flatten().tolist() == [1.0, 0.0]
    spikes[1].sum().backward()
    kappa, rho = math.exp(-1.0), math.exp(-0.5)
    b2 = rho * rho * 0.01 + (1 - rho)
    theta2 = 0.4 + 0.2 * b2
    v2 = kappa * 0.45 + 0.7 - theta2
    assert abs(v2 - theta2) < 0.2
    ds1 = 1.0  # |0.45 - theta_1| < 0.2
    dtheta2 = 0.2 * (1 - rho) * ds1
    wanted = [kappa - theta2 * ds1 - dtheta2 - dtheta2, 1.0]
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("kind", [ThresholdAdapting, CurrentAdapting])
def test_all_parameters_learn(kind: type[ThresholdAdapting] | type[CurrentAdapting]) -> None:
    torch.manual_seed(0)
    layer = shaken(kind(SIZE, 0.2, "sigmoid", recurrent=True), 0.01)
    layer(3 * current()).sum().backward()
    for name, p in layer.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


def test_adlif_starts_as_published() -> None:
    torch.manual_seed(0)
    layer = CurrentAdapting(200, 0.5, RECTANGLE, recurrent=True)
    assert layer.recurrent is not None
    torch.testing.assert_close(layer.recurrent @ layer.recurrent.T, torch.eye(200), atol=1e-4, rtol=0)
    for values, taus in ((layer.keep, (5, 25)), (layer.keep_current, (30, 120))):
        low, high = (math.exp(-1 / tau) for tau in taus)
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
    assert not layer.coupling.any()
    assert not layer.jump.any()
