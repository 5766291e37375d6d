"""Implicit steps and their gradients, for right-hand sides of every kind of Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fracspike import surrogate
from fracspike.solvers import METHODS, Exponentials, Full, Memory, fdeint, march
from fracspike.solvers.jacobian import Root

F64 = torch.float64
IMPLICIT = [name for name, method in METHODS.items() if method.implicit]
STATES = 3

MIX = torch.tensor([[0.2, 0.5, -0.3], [0.1, -0.4, 0.2], [-0.6, 0.3, 0.1]], dtype=F64)
START = torch.tensor([0.4, -0.9, 1.1], dtype=F64)
RightHandSide = Callable[[Tensor, Tensor, Tensor], Tensor]
DIAGONAL: dict[str, RightHandSide] = {
    "one slope": lambda t, y, k: torch.cos(t) - k * y,
    "slopes that change": lambda t, y, k: torch.cos(3 * t) - k * y**3,
    # it starts near its equilibrium: the trapezoid rule does not resolve so steep a decay
    "steep slopes": lambda t, y, k: k - 60 * torch.tanh(y - torch.sin(t) - START.to(y)),
    "independent of y": lambda t, y, k: k * torch.sin(t),
    "no graph": lambda t, y, k: torch.ones_like(y),
    "a graph of its own": lambda t, y, k: torch.cos(t) - torch.exp(k) * y,
}
COUPLED: dict[str, RightHandSide] = {
    "coupled": lambda t, y, k: torch.cos(t) - torch.tanh(y @ MIX.to(y)) - k * y,
    "coupled late": lambda t, y, k: -k * y - (torch.sin(y) @ MIX.to(y) if t > 0.7 else y**2),
    "coupled early": lambda t, y, k: -k * y - (torch.sin(y) @ MIX.to(y) if t < 0.7 else y**2),
    "hardly coupled": lambda t, y, k: -k * y - 1e-9 * (y @ MIX.to(y)),
    "coupled to the next alone": lambda t, y, k: -k * y + 0.1 * y.roll(1, -1),
    "coupled to one another by their mean": lambda t, y, k: y.mean() - k * y,
}
FIELDS = DIAGONAL | COUPLED


def solution(
    field: RightHandSide,
    method: str,
    start: Tensor,
    k: Tensor,
    alpha: Tensor,
    steps: int = 70,
    memory: Memory | None = None,
    gradient: str = "adjoint",
) -> Tensor:
    t = torch.linspace(0, 1.5, steps + 1, dtype=start.dtype)
    return fdeint(
        lambda t, y: field(t, y, k), start, t, alpha, method=method, memory=memory, gradient=gradient
    )


def arguments(alpha: object = 0.6, dtype: torch.dtype = F64) -> list[Tensor]:
    values = [START.tolist(), [0.3, 1.0, 0.7], alpha]
    return [torch.tensor(x, dtype=dtype, requires_grad=True) for x in values]


@pytest.mark.parametrize("alpha", [0.6, [0.35, 0.8, 1.0]], ids=["scalar", "per-element"])
@pytest.mark.parametrize("memory", [Full(), Exponentials(1e-9)], ids=repr)
@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", FIELDS)
def test_gradients_agree_with_plain_autograd(name: str, method: str, memory: Memory, alpha: object) -> None:
    found = []
    for gradient in ("adjoint", "autograd"):
        start, k, order = arguments(alpha)
        y = solution(FIELDS[name], method, start, k, order, memory=memory, gradient=gradient)
        loss = (y**2 * torch.linspace(1, 2, len(y), dtype=F64).unsqueeze(1)).sum()
        found.append(torch.autograd.grad(loss, (start, k, order), allow_unused=True, materialize_grads=True))
    for adjoint, autograd in zip(*found, strict=True):
        torch.testing.assert_close(adjoint, autograd, rtol=1e-10, atol=1e-10 * float(autograd.abs().max()))


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", FIELDS)
def test_gradients_agree_with_finite_differences(name: str, method: str) -> None:
    def some(start: Tensor, k: Tensor, alpha: Tensor) -> Tensor:
        return solution(FIELDS[name], method, start, k, alpha, steps=40)[[3, 33, 40]]

    assert torch.autograd.gradcheck(some, arguments([0.45, 0.6, 0.8]), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", FIELDS)
def test_single_precision_differs_by_rounding_alone(name: str, method: str) -> None:
    found = []
    for dtype in (torch.float32, F64):
        start, k, alpha = arguments(dtype=dtype)
        y = solution(FIELDS[name], method, start, k, alpha, steps=400)
        y.sum().backward()
        found.append([y.detach(), start.grad, k.grad, alpha.grad])
    for single, double in zip(*found, strict=True):
        if double is not None:
            close = 1e-5 * float(double.abs().max())
            torch.testing.assert_close(single.double(), double, rtol=0, atol=close)


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", DIAGONAL)
def test_no_step_waits_for_another_where_the_jacobian_is_diagonal(
    monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    monkeypatch.setattr(Root, "pull_back", lambda *_: pytest.fail("a step was looked at by itself"))
    for dtype in (torch.float32, F64):
        start, k, alpha = arguments(dtype=dtype)
        solution(DIAGONAL[name], method, start, k, alpha).sum().backward()
        assert start.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", DIAGONAL)
def test_a_step_takes_about_two_evaluations(name: str, method: str, dtype: torch.dtype) -> None:
    calls, steps = 0, 500

    def counted(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return DIAGONAL[name](t, y, k)

    start, k, alpha = arguments(dtype=dtype)
    with torch.no_grad():
        without = solution(counted, method, start, k, alpha, steps=steps)
    assert calls < 2.5 * steps
    calls = 0
    torch.testing.assert_close(solution(counted, method, start, k, alpha, steps=steps).detach(), without)
    assert calls < 2.5 * steps


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("steps", [1, 7])
def test_large_states_are_looked_at_in_smaller_blocks(
    monkeypatch: pytest.MonkeyPatch, steps: int, name: str, method: str
) -> None:
    found = []
    for numbers in (march.NUMBERS, steps * STATES + 1):
        monkeypatch.setattr(march, "NUMBERS", numbers)
        start, k, alpha = arguments()
        y = solution(FIELDS[name], method, start, k, alpha)
        nodes = y.grad_fn.next_functions if y.grad_fn is not None else ()
        found.append((len(nodes), torch.autograd.grad((y**2).sum(), (start, alpha))))
    assert [count for count, _ in found] == [1 + 1 + 3, 1 + 1 + 70 // steps]  # buffer, start, blocks
    for pair in zip(*(gradients for _, gradients in found), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", FIELDS)
def test_backward_passes_do_not_mix(name: str, method: str) -> None:
    start, k, alpha = arguments()
    y = solution(FIELDS[name], method, start, k, alpha)
    alone = [torch.autograd.grad(y[n].sum(), (start, alpha), retain_graph=True) for n in (9, 70)]
    again = [torch.autograd.grad(y[n].sum(), (start, alpha), retain_graph=True) for n in (70, 9)][::-1]
    for first, second in zip(alone, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("method", IMPLICIT)
def test_a_slope_may_be_wrong(method: str) -> None:
    """As that of a surrogate, away from its threshold: many evaluations, and the same solution."""
    calls, spike = 0, surrogate.get("atan")

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 1.5 - y - 40 * spike(y - 3)

    t, start = torch.linspace(0, 1, 41, dtype=F64), torch.zeros(2, dtype=F64)
    y = fdeint(rhs, start, t, 0.6, method=method)
    torch.testing.assert_close(y, fdeint(lambda t, y: 1.5 - y, start, t, 0.6, method=method))
    assert calls < 8 * 40


def test_a_graph_is_made_only_where_it_is_wanted() -> None:
    start, k, alpha = arguments()
    with torch.no_grad():
        assert not solution(FIELDS["slopes that change"], "l1", start, k, alpha).requires_grad
    with torch.inference_mode():
        y = solution(FIELDS["slopes that change"], "l1", start, k, alpha)
    torch.testing.assert_close(y, solution(FIELDS["slopes that change"], "l1", start, k, alpha).detach())
