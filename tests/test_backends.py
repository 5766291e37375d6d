"""Every backend that runs whole sequences against the differentiable loop, over layers and options.

The loop in torch keeps its graph, so its gradients are autograd's; the others have an adjoint of their own.
The Triton kernels run in Triton's interpreter.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from fracspike import (
    FractionalALIF,
    FractionalLI,
    FractionalLIF,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
)
from fracspike.neurons import exact
from fracspike.neurons.backend import Choice

F64 = torch.float64
SIZE = 5
HARD = {"reset": "value", "v_reset": 0.1}


def some(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, SIZE, dtype=F64)


CASES: list[tuple[type[FractionalLIF], dict[str, Any]]] = [
    (FractionalLIF, {}),
    (FractionalLIF, HARD),
    (FractionalLIF, {"refractory": 2.0}),
    (FractionalLIF, {"reset_memory": "restart"}),
    (FractionalLIF, {"reset_memory": "restart", "refractory": 2.0, "detach_reset": True} | HARD),
    (FractionalLIF, {"surrogate": "sigmoid", "tau": some(1.0, 3.0)}),
    (FractionalLIF, {"alpha": some(0.2, 0.9), "threshold": some(0.5, 1.5)}),
    (FractionalLI, {}),
    (FractionalALIF, {}),
    (FractionalALIF, {"coupling": 0.3, "refractory": 1.0} | HARD),
    (RecurrentFractionalLIF, {"size": (SIZE,)}),
    (RecurrentFractionalLIF, {"size": (SIZE,), "recurrent": "one_to_one"}),
    (RecurrentFractionalALIF, {"size": (SIZE,), "coupling": 0.2, "recurrent": "one_to_one"}),
]


def layer(kind: type[FractionalLIF], kwargs: dict[str, Any]) -> FractionalLIF:
    learn = ["alpha", "tau", "resistance"]
    if kind is not FractionalLI:
        learn += ["threshold"]
        kwargs = {"surrogate": "atan"} | kwargs
    if kwargs.get("reset") == "value":
        learn += ["v_reset"]
    if issubclass(kind, FractionalALIF):
        learn += ["beta", "tau_adaptation"] + ["coupling"] * ("coupling" in kwargs)
    made = kind(**({"alpha": 0.6, "learn": learn} | kwargs)).double()
    if hasattr(made, "recurrent"):
        with torch.no_grad():
            made.recurrent.weight.copy_(
                torch.linspace(-0.5, 0.5, made.recurrent.weight.numel()).reshape_as(made.recurrent.weight)
            )
    return made


def everything(made: FractionalLIF, current: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What comes out of two chunks, and the gradients of a loss that weighs all of it."""
    current = current.clone().requires_grad_()
    cut = len(current) // 2
    first = made.simulate(current[:cut])
    second = made.simulate(current[cut:], first.state)
    outputs = [torch.cat(pair) for pair in ((first.spikes, second.spikes), (first.voltage, second.voltage))]
    outputs += [torch.cat([x, second.variables[name]]) for name, x in first.variables.items()]
    weights = torch.linspace(1, 2, len(current), dtype=current.dtype).reshape(-1, 1, 1)
    loss = sum((weights * x.square()).sum() for x in outputs)
    wanted = [current, *made.parameters()]
    return [x.detach() for x in outputs], list(torch.autograd.grad(loss, wanted))


def by(backend: str, monkeypatch: pytest.MonkeyPatch, made: FractionalLIF, current: Tensor) -> Any:
    with monkeypatch.context() as patch:
        if backend == "graph":
            made.backend = "torch"
        else:
            made.backend = "auto"
            patch.setattr(exact, "choose", lambda *args, **kwargs: Choice(backend, "the test wants it"))
        return everything(made, current)


@pytest.mark.parametrize(("kind", "kwargs"), CASES, ids=str)
@pytest.mark.parametrize("backend", ["native", "torch", "triton"])
def test_values_and_gradients(
    backend: str, kind: type[FractionalLIF], kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "triton":
        if kwargs.get("size") and kwargs.get("recurrent") is None:
            pytest.skip("recurrence from all neurons to all has no Triton kernel")
        pytest.importorskip("triton")
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("the kernels run in the interpreter only where there is no GPU")
    made = layer(kind, kwargs)
    current = 3 * torch.rand(17, 3, SIZE, dtype=F64, generator=torch.Generator().manual_seed(0))
    expected, expected_gradients = by("graph", monkeypatch, made, current)
    found, gradients = by(backend, monkeypatch, made, current)
    assert kind is FractionalLI or 0 < expected[0].sum() < expected[0].numel()
    assert torch.equal(found[0], expected[0])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()) + 1e-14)


def test_chunks_by_different_backends_have_one_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    made = layer(FractionalLIF, {})
    current = 3 * torch.rand(20, 3, SIZE, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = []
    for backends in (("torch", "torch"), ("native", "torch"), ("torch", "native")):
        state, total = None, torch.zeros((), dtype=F64)
        for backend, chunk in zip(backends, current.split(10), strict=True):
            with monkeypatch.context() as patch:
                choice = Choice(backend, "the test wants it")
                patch.setattr(exact, "choose", lambda *args, chosen=choice, **kwargs: chosen)
                run = made.simulate(chunk, state)
            state, total = run.state, total + run.voltage.square().sum()
        found.append(torch.autograd.grad(total, list(made.parameters())))
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
