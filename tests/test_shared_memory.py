"""What a call returns shares no memory with anything else."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from neuron_cases import CASES, LINEAR, build, current
from torch import Tensor

from fracspike.neurons import FractionalLI, FractionalLIF, Simulation, State

CALLS = [(name, None) for name in CASES] + [(name, "native") for name in LINEAR if name != "if"]


def held(state: State, name: str) -> dict[str, Tensor]:
    """All tensors of a state, and of the states of its parts, by name."""
    found = {f"{name}.{k}": getattr(state, k) for k in ("v", "past", "drive", "refractory")}
    for key, value in state.extra.items():
        found |= held(value, f"{name}.{key}") if isinstance(value, State) else {f"{name}.{key}": value}
    return found


def returned(run: Simulation, name: str) -> dict[str, Tensor]:
    """All tensors of a run, by name."""
    found = {f"{name}.{k}": getattr(run, k) for k in ("spikes", "voltage", "pre_reset")}
    found |= {f"{name}.{key}": value for key, value in run.variables.items()}
    return found | held(run.state, f"{name}.state")


def check(tensors: dict[str, Tensor]) -> None:
    real = {name: x for name, x in tensors.items() if x.numel()}
    for (one, x), (other, y) in combinations(real.items(), 2):
        assert x.untyped_storage().data_ptr() != y.untyped_storage().data_ptr(), (one, other)


@pytest.mark.parametrize(("name", "backend"), CALLS)
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("steps", [1, 30])
def test_no_two_results_share_memory(name: str, backend: str | None, graph: bool, steps: int) -> None:
    layer = build(name, **({} if backend is None else {"backend": backend}))
    with torch.set_grad_enabled(graph):
        drive = current(name, steps)
        first = layer.simulate(drive)
        second = layer.simulate(drive, first.state)
    own = {name: x.detach() for name, x in (*layer.named_buffers(), *layer.named_parameters())}
    check(returned(first, "first") | returned(second, "second") | own | {"current": drive})


@pytest.mark.parametrize(
    "kwargs", [{"reset": "none"}, {"refractory": 2.0}, {"reset_memory": "restart"}], ids=str
)
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_nor_with_other_options(kwargs: dict[str, object], backend: str) -> None:
    layer, drive = FractionalLIF(0.6, backend=backend, **kwargs), 3 * torch.ones(20, 2)  # type: ignore[arg-type]
    check(returned(layer.simulate(drive), "run") | {"current": drive})


@pytest.mark.parametrize("name", CASES)
def test_a_state_at_rest_is_its_own(name: str) -> None:
    layer = build(name)
    one = torch.zeros(1, dtype=torch.float64) if not name.startswith("recurrent") else current(name, 1)[0]
    check(held(layer.initial_state(one), "state") | dict(layer.named_buffers()) | {"like": one})
    start = torch.zeros_like(one)
    check(held(layer.initial_state(one, v=start), "state") | {"start": start})


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_writing_into_what_came_back_changes_nothing_else(name: str) -> None:
    layer, drive = build(name), current(name, 20)
    kept = layer.simulate(drive)
    expected = layer.simulate(drive, kept.state)
    used = layer.simulate(drive)
    for tensor in (used.spikes, used.voltage, used.pre_reset, *used.variables.values()):
        tensor.mul_(1000)
    found = layer.simulate(drive, used.state)
    assert torch.equal(found.voltage, expected.voltage)
    for tensor in held(used.state, "state").values():
        tensor.mul_(7)
    assert torch.equal(layer.simulate(drive, kept.state).voltage, expected.voltage)
    assert torch.equal(layer.simulate(drive).voltage, kept.voltage)


def test_a_readout_returns_what_may_be_written_into() -> None:
    readout, x = FractionalLI(0.6), torch.ones(5, 1, requires_grad=True)
    y = readout(x)
    y.add_(1.0)
    y.sum().backward()
    assert x.grad is not None
