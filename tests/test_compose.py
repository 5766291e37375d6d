"""Layers inside torch's own tools: compiled without a break, exported, run without a look at any value."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from fracspike import (
    FractionalALIF,
    FractionalCubaLIF,
    FractionalLI,
    FractionalLIF,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
)

SIZE = 5
LAYERS: dict[str, Callable[[], FractionalLIF]] = {
    "lif": lambda: FractionalLIF(0.6, surrogate="atan", learn=("alpha", "tau", "threshold")),
    "lif near order 1": lambda: FractionalLIF(0.95, surrogate="sigmoid", refractory=2.0, reset="value"),
    "per neuron": lambda: FractionalLIF(torch.linspace(0.1, 1.0, SIZE)),
    "readout": lambda: FractionalLI(0.8, learn="alpha"),
    "cuba": lambda: FractionalCubaLIF(0.8, learn="alpha"),
    "alif": lambda: FractionalALIF(0.8, coupling=0.1, learn=("alpha", "beta")),
    "recurrent": lambda: RecurrentFractionalLIF(0.8, size=(SIZE,), learn="alpha"),
    "recurrent alif": lambda: RecurrentFractionalALIF(0.8, size=(SIZE,), recurrent="one_to_one"),
}


def some(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(run: Callable[[Tensor], Tensor], layer: nn.Module, current: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of a loss that weighs it, in input and parameters."""
    current = current.clone().requires_grad_()
    spikes = run(current)
    loss = (spikes * torch.linspace(1, 2, len(spikes)).reshape(-1, 1, 1)).sum()
    found = torch.autograd.grad(loss, [current, *layer.parameters()], allow_unused=True)
    return [spikes.detach(), *(x for x in found if x is not None)]


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_whole_for_any_length(name: str) -> None:
    torch._dynamo.reset()
    layer = LAYERS[name]()
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=count)
    seen = []
    for shape in ((20, 3, SIZE), (31, 2, SIZE), (7, 4, SIZE)):
        current = some(*shape)
        for a, b in zip(outputs(compiled, layer, current), outputs(layer, layer, current), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        seen.append(count.frame_count)
    assert len(set(seen)) == 1


@pytest.mark.parametrize("name", LAYERS)
def test_exported_for_any_length(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]().eval()
    time, batch = torch.export.Dim("time", min=2, max=4000), torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(layer, (some(12, 3, SIZE),), dynamic_shapes=({0: time, 1: batch},))
        module = program.module()
        for shape in ((33, 7, SIZE), (5, 2, SIZE)):
            current = some(*shape, seed=1)
            assert torch.equal(module(current), layer(current))


def test_a_saved_program_needs_no_more_than_the_library(tmp_path: Path) -> None:
    layer = LAYERS["lif"]().eval()
    current = some(12, 3, SIZE)
    with torch.no_grad():
        program = torch.export.export(layer, (current,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        expected = layer(current)
    torch.export.save(program, tmp_path / "layer.pt2")
    torch.save({"current": current, "spikes": expected}, tmp_path / "data.pt")
    code = (
        "import sys, torch, fracspike; d = torch.load(sys.argv[2], weights_only=True); "
        "print(torch.equal(torch.export.load(sys.argv[1]).module()(d['current']), d['spikes']))"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", code, tmp_path / "layer.pt2", tmp_path / "data.pt"]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("name", LAYERS)
def test_a_call_reads_no_value(name: str) -> None:
    layer = LAYERS[name]()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        spikes = layer(mode.from_tensor(some(9, 3, SIZE)))
        assert spikes.shape == (9, 3, SIZE)


def test_inductor_compiles_a_network() -> None:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(SIZE, SIZE), LAYERS["lif"](), nn.Linear(SIZE, SIZE), LAYERS["readout"]())
    compiled: Any = torch.compile(net, fullgraph=True)
    current = some(10, 3, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        found = outputs(compiled, net, current)
    for a, b in zip(found, outputs(net, net, current), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
