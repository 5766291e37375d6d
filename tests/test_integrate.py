"""fdeint against closed forms: orders two-sided, initial values, gradients, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fracspike.solvers import METHODS, fdeint
from fracspike.solvers.implicit import ImplicitStep
from fracspike.solvers.jacobian import LARGEST_JACOBIAN, Root, Roots

F64 = torch.float64
ALPHAS = (0.3, 0.5, 0.7, 0.9, 1.0)


def grid(end: float, steps: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.linspace(0.0, end, steps + 1, dtype=dtype)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_stays_from_any_initial_value(method: str, alpha: float) -> None:
    start = torch.tensor([1.0, -70.0, 0.0], dtype=F64)
    y = fdeint(lambda t, y: torch.zeros_like(y), start, grid(5.0, 300), alpha, method=method)
    torch.testing.assert_close(y, start.expand_as(y), rtol=1e-13, atol=1e-13)


def test_order_one_is_the_euler_method_backward_and_forward() -> None:
    t, h = grid(1.0, 10), 0.1
    implicit = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), t, 1.0, method="l1")
    explicit = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), t, 1.0, method="l1_explicit")
    n = torch.arange(11, dtype=F64)
    torch.testing.assert_close(implicit[:, 0], (1 + h) ** -n, rtol=1e-12, atol=0)
    torch.testing.assert_close(explicit[:, 0], (1 - h) ** n, rtol=1e-12, atol=0)


def test_float32_stays_close_to_float64_over_many_steps() -> None:
    values = [
        fdeint(lambda t, y: -y, torch.ones(1, dtype=dtype), grid(1.0, 2000, dtype), 0.7)[-1].double()
        for dtype in (torch.float32, F64)
    ]
    torch.testing.assert_close(*values, rtol=2e-5, atol=0)


def test_alpha_per_element_equals_each_alone() -> None:
    alphas = torch.tensor([0.3, 0.6, 1.0], dtype=F64)
    together = fdeint(lambda t, y: t - y, torch.ones(2, 3, dtype=F64), grid(1.0, 150), alphas)
    for i, alpha in enumerate(alphas):
        alone = fdeint(lambda t, y: t - y, torch.ones(2, dtype=F64), grid(1.0, 150), alpha.item())
        torch.testing.assert_close(together[..., i], alone, rtol=1e-12, atol=1e-14)


def test_tuple_state_equals_concatenated_state() -> None:
    a, b = torch.tensor([1.0, 2.0], dtype=F64), torch.tensor(-1.0, dtype=F64)
    ya, yb = fdeint(lambda t, y: (-y[0] * y[1], y[0].sum() - y[1]), (a, b), grid(1.0, 20), 0.6)
    whole = fdeint(
        lambda t, y: torch.cat([-y[:2] * y[2], (y[:2].sum() - y[2]).reshape(1)]),
        torch.cat([a, b.reshape(1)]),
        grid(1.0, 20),
        0.6,
    )
    assert ya.shape == (21, 2)
    assert yb.shape == (21,)
    torch.testing.assert_close(torch.cat([ya, yb.unsqueeze(1)], 1), whole, rtol=1e-12, atol=0)


def test_initial_time_is_where_the_memory_begins() -> None:
    y = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), grid(1.0, 50), 0.5)
    shifted = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), grid(1.0, 50) + 3.0, 0.5)
    torch.testing.assert_close(y, shifted, rtol=1e-12, atol=0)


def test_module_as_right_hand_side_gets_gradients() -> None:
    field = torch.nn.Linear(3, 3).double()

    class Rhs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = field

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.field(y))

    fdeint(Rhs(), torch.ones(2, 3, dtype=F64), grid(1.0, 10), 0.6)[-1].sum().backward()
    assert field.weight.grad is not None
    assert field.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", METHODS)
def test_gradients_agree_with_finite_differences(method: str) -> None:
    torch.manual_seed(0)
    weight = (0.7 * torch.randn(3, 3, dtype=F64) - torch.eye(3, dtype=F64)).requires_grad_()
    start = torch.randn(2, 3, dtype=F64, requires_grad=True)
    alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)

    def solve(alpha: Tensor, weight: Tensor, start: Tensor) -> Tensor:
        return fdeint(lambda t, y: torch.tanh(y @ weight) + t, start, grid(3.0, 70), alpha, method=method)[-1]

    assert torch.autograd.gradcheck(solve, (alpha, weight, start), atol=1e-7)


def test_gradient_in_alpha_is_finite_at_order_one() -> None:
    alpha = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), grid(1.0, 20), alpha)
    (slope,) = torch.autograd.grad(y[-1].sum(), alpha)
    below = [
        fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), grid(1.0, 20), 1 - e)[-1].item() for e in (0, 1e-6)
    ]
    assert slope.item() == pytest.approx((below[0] - below[1]) / 1e-6, rel=1e-4)


def test_stiff_implicit_step_converges_where_plain_iteration_would_not() -> None:
    t = grid(1.0, 20)
    y = fdeint(lambda t, y: -1e4 * y, torch.ones(1, dtype=F64), t, 0.8)
    assert 0 < y[-1].item() < 1e-3


@pytest.mark.parametrize("method", ["l1", "gl", "trapezoid"])
def test_a_smooth_implicit_solve_evaluates_the_rate_once_a_step(method: str) -> None:
    calls = 0

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(3 * t) - y**3

    start = torch.tensor([0.3, 1.0])
    y = fdeint(rhs, start, grid(1.0, 1000, torch.float32), 0.6, method=method)
    assert calls < 1100
    exact = fdeint(rhs, start.double(), grid(1.0, 1000), 0.6, method=method)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-6)


def test_a_foreseen_root_outside_the_domain_is_not_the_end() -> None:
    step, gain = ImplicitStep(), torch.tensor(0.5)
    one = torch.ones(LARGEST_JACOBIAN + 1)  # too many states for the whole Jacobian to help out
    with torch.no_grad():
        for level in torch.arange(6.0, 1.0, -0.5):  # after eight steps it looks ahead
            step.solve(lambda y: -torch.ones_like(y), level * one, gain, level * one)
        y, rate = step.solve(torch.sqrt, 0.2 * one, gain, 0.2 * one)  # at the rate before, y would be -0.3
    torch.testing.assert_close(y, 0.2 + 0.5 * torch.sqrt(y))
    torch.testing.assert_close(rate, torch.sqrt(y))


@pytest.mark.parametrize("method", ["l1", "trapezoid"])
@pytest.mark.parametrize("coupled", [False, True])
def test_roots_keep_nothing_of_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch, method: str, coupled: bool
) -> None:
    roots = {}

    def watched(method: Callable) -> Callable:
        def call(self: Root | Roots, upstream: Tensor) -> Tensor:
            roots.update((id(at), at) for at in (self.at if isinstance(self, Roots) else (self.at,)))
            result: Tensor = method(self, upstream)
            return result

        return call

    monkeypatch.setattr(Root, "pull_back", watched(Root.pull_back))
    monkeypatch.setattr(Roots, "products", watched(Roots.products))
    start, mix = torch.ones(3, requires_grad=True), torch.ones(3, 3) if coupled else torch.eye(3)
    fdeint(lambda t, y: -y @ mix, start, grid(1.0, 40, torch.float32), 0.6, method=method).sum().backward()
    assert len(roots) == 40
    assert not any(root.grad is not None for root in roots.values())


def test_failure_of_the_implicit_iteration_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"the implicit step did not converge.*smaller time step"):
        fdeint(lambda t, y: 1e3 * torch.exp(y), torch.ones(1, dtype=F64), grid(1.0, 4), 0.8)


GOOD = {"rhs": lambda t, y: -y, "y0": torch.ones(2), "t": torch.linspace(0, 1, 5), "alpha": 0.5}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, r"`alpha` must lie in \(0, 1\], got 0"),
        ({"alpha": 1.3}, ValueError, r"got 1.3; for integer order pass alpha=1"),
        ({"alpha": math.nan}, ValueError, r"`alpha` must lie in \(0, 1\], got nan"),
        ({"alpha": "half"}, TypeError, "`alpha` must be a number or a tensor, got str"),
        ({"alpha": torch.tensor([0.5, 0.6, 0.7])}, ValueError, "`alpha` must broadcast to the state"),
        ({"y0": torch.tensor([1.0, math.nan])}, ValueError, r"`y0` must be finite, got nan at index \(1,\)"),
        ({"y0": torch.ones(2, dtype=torch.int64)}, TypeError, "floating-point tensor, got torch.int64"),
        ({"y0": [1.0]}, TypeError, "`y0` must be a tensor or a tuple of tensors, got list"),
        ({"t": torch.tensor([0.0, 0.5, 0.4])}, ValueError, r"`t` must increase, got t\[1\] = 0.5"),
        ({"t": torch.tensor([0.0, 1e-4, 1.0])}, ValueError, "`t` must be uniform or nearly so"),
        ({"t": torch.tensor([0.0])}, ValueError, r"`t` must have shape \(T,\) with T >= 2"),
        ({"t": 5}, TypeError, "`t` must be a tensor of times"),
        ({"method": "l2"}, ValueError, "`method` must be one of .*'l1_explicit'.*; got 'l2'"),
        ({"gradient": "none"}, ValueError, "`gradient` must be one of"),
        ({"memory": 5}, TypeError, r"`memory` must be a Memory such as Full\(\), got 5"),
        ({"rhs": 3}, TypeError, "`rhs` must be callable"),
        ({"rhs": lambda t, y: y.sum()}, ValueError, r"`rhs` must return the shape of the state, \(2,\)"),
        ({"rhs": lambda t, y: y / 0}, ValueError, r"`rhs\(t, y\)` must be finite"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[Exception], message: str) -> None:
    arguments = GOOD | change
    with pytest.raises(error, match=message):
        fdeint(**arguments)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999, 1000])
def test_as_many_steps_as_asked_for(steps: int) -> None:
    t = torch.linspace(0, 1, steps + 1)
    assert len(fdeint(lambda t, y: -y, torch.ones(1), t, 0.5, method="l1_explicit")) == steps + 1
