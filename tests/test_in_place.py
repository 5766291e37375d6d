"""What a layer returns may be written to: gradients are right, and no other result changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from neuron_cases import CASES, build
from neuron_cases import current as drive
from torch import Tensor, nn

from fracspike import FractionalALIF, FractionalLI, FractionalLIF, RecurrentFractionalLIF
from fracspike.surrogate import NoisyThreshold

F64 = torch.float64
N = 21  # more than a vector of neurons, and no whole number of them
SEED = 3


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


LAYERS: dict[str, Any] = {
    "plain": lambda **kw: FractionalLIF(0.6, learn=("alpha",), **kw),
    "form": lambda **kw: FractionalLIF(0.6, learn=("alpha",), surrogate="atan", **kw),
    "hard": lambda **kw: FractionalLIF(0.6, learn=("alpha",), reset="value", surrogate="atan", **kw),
    "refractory": lambda **kw: FractionalLIF(0.6, learn=("alpha",), refractory=2.0, **kw),
    "restart": lambda **kw: FractionalLIF(0.6, learn=("tau",), reset_memory="restart", **kw),
    "noisy": lambda **kw: FractionalLIF(
        0.6, surrogate=NoisyThreshold(generator=torch.Generator().manual_seed(SEED)), **kw
    ),
    "never": lambda **kw: FractionalLI(0.6, learn=("alpha",), **kw),
    "adaptive": lambda **kw: FractionalALIF(0.6, learn=("alpha", "beta"), **kw),
    "recurrent": lambda **kw: RecurrentFractionalLIF(0.6, size=N, **kw).double(),
}


def outputs(name: str, result: str, **kwargs: Any) -> tuple[Tensor, Tensor, nn.Module]:
    """The current, one result of a layer, and the layer: the same numbers in every call."""
    torch.manual_seed(SEED)
    layer = LAYERS[name](backend="native", **kwargs)
    current = (3 * uniform(40, 3, N)).requires_grad_()
    return current, layer(current) if result == "forward" else getattr(layer.simulate(current), result), layer


def out_of_place(y: Tensor, current: Tensor) -> Tensor:
    return torch.relu(0.5 * y + current - 1)


def in_place(y: Tensor, current: Tensor) -> Tensor:
    y *= 0.5
    y += current
    y -= 1
    return nn.ReLU(inplace=True)(y)


RESULTS = [
    (name, result) for name in LAYERS for result in ("forward", "spikes", "voltage", "pre_reset")
    if name != "never" or result == "forward"  # a readout has no others
]  # fmt: skip


@pytest.mark.parametrize(("name", "result"), RESULTS)
def test_gradients_are_those_without_writing(name: str, result: str) -> None:
    found = []
    for use in (out_of_place, in_place):
        current, y, layer = outputs(name, result)
        loss = (uniform(40, 3, N, seed=1) * use(y, current)).sum()
        found.append(torch.autograd.grad(loss, [current, *layer.parameters()]))
    for a, b in zip(*found, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("name", ["form", "adaptive"])
def test_writing_past_autograd_is_undone_or_refused(name: str, detached: bool) -> None:
    """Every way to write is counted; the adjoint does not take what it finds there for its spikes."""
    current, y, layer = outputs(name, "forward")
    wanted = [current, *layer.parameters()]
    expected = torch.autograd.grad(y.sum(), wanted, retain_graph=True)
    loss = y.sum()
    with torch.no_grad():
        (y.detach() if detached else y[3:]).fill_(7.0)
    torch.testing.assert_close(torch.autograd.grad(loss, wanted), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "adaptive", "recurrent", "never"])
def test_what_was_made_without_a_graph_can_be_written_to_with_one(name: str) -> None:
    with torch.no_grad():
        _, y, _ = outputs(name, "forward")
    weight = torch.ones((), dtype=F64, requires_grad=True)
    before = y.clone()
    y *= weight
    assert torch.autograd.grad(y.sum(), weight)[0] == pytest.approx(before.sum().item())


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("reset", ["subtract", "value", "none"])
def test_results_share_no_memory(reset: str, backend: str) -> None:
    run = FractionalALIF(0.6, reset=reset, backend=backend).simulate(3 * uniform(40, 3, N))
    results = [run.spikes, run.voltage, run.pre_reset, *run.variables.values()]
    assert len({x.untyped_storage().data_ptr() for x in results}) == len(results)


def test_between_layers_of_a_network() -> None:
    found = []
    for inplace in (False, True):
        torch.manual_seed(SEED)
        after = nn.Dropout(0.2, inplace=inplace), nn.ReLU(inplace=inplace)
        net = nn.Sequential(nn.Linear(4, N), FractionalLIF(0.6), *after, nn.Linear(N, 1)).double()
        found.append(torch.autograd.grad(net(20 * uniform(10, 3, 4)).sum(), [*net.parameters()]))
    assert found[0][0].abs().max() > 0
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_every_neuron(name: str) -> None:
    found = []
    for use in (out_of_place, in_place):
        current = drive(name, 12).requires_grad_()
        loss = use(build(name)(current), current).square().sum()
        found.append(torch.autograd.grad(loss, current)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
