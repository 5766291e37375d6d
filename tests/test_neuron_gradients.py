"""Gradients of every neuron: finite differences where spikes are smooth, two ways where they are hard."""

from __future__ import annotations

import pytest
import torch
from neuron_cases import CASES, LEARNABLE, LINEAR, N, build, current
from torch import Tensor, nn
from torch.func import functional_call

from fracspike import surrogate
from fracspike.neurons import membrane
from fracspike.solvers import GRADIENTS, Exponentials, Full, Memory

#: how steep the smooth spike is, per unit of the potential
SCALE = {"izhikevich": 0.1, "adex": 0.3}


def smooth(name: str, **kwargs: object) -> nn.Module:
    """A layer whose spikes are the mean of a noisy threshold: what it returns is what is differentiated."""
    spike = surrogate.get("noisy_threshold", scale=SCALE.get(name, 3.0), mode="meanfield")
    own = {} if name == "li" else {"surrogate": spike}
    return build(name, learn=LEARNABLE[name], **own, **kwargs).train()


def check(layer: nn.Module, drive: Tensor, weight: Tensor) -> None:
    names = [key for key, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def outcome(drive: Tensor, *values: Tensor) -> Tensor:
        out = functional_call(layer, dict(zip(names, values, strict=True)), (drive,))
        return (out * weight).sum(0)

    assert torch.autograd.gradcheck(
        outcome, (drive, *values), eps=1e-6, atol=2e-7, rtol=2e-5, fast_mode=False
    )


@pytest.mark.parametrize("name", list(CASES))
def test_input_and_parameters_against_finite_differences(name: str) -> None:
    drive = current(name, 7, 2, N).requires_grad_()
    check(smooth(name), drive, torch.linspace(0.5, 1.5, 7, dtype=torch.float64).reshape(-1, 1, 1))


@pytest.mark.parametrize("memory", ["overwrite", "current"])
@pytest.mark.parametrize("reset", ["subtract", "value"])
@pytest.mark.parametrize("name", [name for name in LINEAR if name != "li"])
def test_other_reset_memories_against_finite_differences(name: str, reset: str, memory: str) -> None:
    layer = smooth(name, reset_memory=memory, reset=reset, **({"v_reset": 0.1} if reset == "value" else {}))
    check(layer, current(name, 6, 1, N).requires_grad_(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("kwargs", [{"method": "l1"}, {"method": "gl"}, {}])
def test_several_orders_against_finite_differences(kwargs: dict) -> None:
    learn = ("alpha", "coefficients", "tau")
    spike = surrogate.get("noisy_threshold", scale=3.0, mode="meanfield")
    layer = build("lif", alpha=[0.4, 0.9], coefficients=[1.0, 0.5], learn=learn, surrogate=spike, **kwargs)
    check(layer, current("lif", 7, 2, N).requires_grad_(), torch.ones((), dtype=torch.float64))


def gradients(layer: nn.Module, drive: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    drive = drive.clone().requires_grad_()
    run = layer.simulate(drive)
    weight = torch.linspace(0.5, 1.5, len(drive), dtype=torch.float64).reshape(-1, 1, 1)
    loss = (weight * (run.spikes + 0.01 * run.voltage)).sum()
    return run.spikes, torch.autograd.grad(loss, (drive, *layer.parameters()))


@pytest.mark.parametrize("kept", [Full(), Exponentials(1e-9)], ids=repr)
@pytest.mark.parametrize("reset_memory", ["jump", "restart"])
@pytest.mark.parametrize("name", list(CASES))
def test_adjoint_equals_plain_autograd_through_hard_spikes(
    name: str, reset_memory: str, kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs it, with either memory, against a graph over the full past."""
    own = {} if name == "li" else {"surrogate": "atan", "reset_memory": reset_memory}
    shared = {"learn": LEARNABLE[name], "size": (N,), **own}
    drive = current(name, 40)
    spikes, found = gradients(build(name, memory=kept, **shared), drive)
    monkeypatch.setattr(membrane, "AdjointHistory", GRADIENTS["autograd"])
    choice = {} if name in LINEAR else {"gradient": "autograd"}
    same, expected = gradients(build(name, memory=Full(), **shared, **choice), drive)
    assert torch.equal(spikes, same)
    assert name == "li" or spikes.sum() > 5
    close = 1e-9 if isinstance(kept, Full) else 3e-6  # the kernel is met to 1e-9, its slope to less
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=close, atol=close * b.abs().max().item())
