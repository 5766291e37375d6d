"""The solution between the grid points of a solve, against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fracspike.solvers import METHODS, Exponentials, Full, Window, fdeint, graded_mesh, mittag_leffler

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)
INCREMENTS = [name for name in METHODS if name.startswith(("l1", "gl"))]


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


@pytest.mark.parametrize("memory", [Full(), Exponentials(1e-8)], ids=repr)
@pytest.mark.parametrize("method", METHODS)
def test_times_between_are_as_right_as_the_grid(method: str, memory: object) -> None:
    """With step h the largest error over all times falls like h; on a straight line it would be 0.03."""
    t = torch.tensor([0, 0.001, 0.002, 0.05, 0.1, 0.15, 0.33, 1], dtype=F64)
    exact = mittag_leffler(-(t**0.5), 0.5)
    errors = []
    for step in (0.1, 0.025):
        y = fdeint(decay, ONE, t, 0.5, method=method, memory=memory, step=step)[:, 0]
        errors.append((y - exact).abs())
    assert errors[0][1] < 2e-3  # where a straight line gives 0.9971 for 0.9653
    assert errors[0][5:].max() < 0.05
    assert errors[1][5:].max() < 0.4 * errors[0][5:].max()


def test_second_order_between_the_points() -> None:
    """D^0.6 y = 2 t^1.4 / Gamma(2.4) has the solution t^2."""
    factor = 2 / torch.exp(torch.lgamma(torch.tensor(2.4, dtype=F64)))
    t = torch.tensor([0, 0.013, 0.137, 0.61, 0.99, 1], dtype=F64)
    errors = [
        (
            fdeint(lambda t, y: factor * t**1.4 + 0 * y, 0 * ONE, t, 0.6, method="trapezoid", step=h)[:, 0]
            - t**2
        )
        .abs()
        .max()
        for h in (0.1, 0.05, 0.025)
    ]
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


def test_a_graded_t_is_met_from_a_uniform_grid() -> None:
    t = graded_mesh(0.0, 1.0, 12, 3.0)
    y = fdeint(decay, ONE, t, 0.6, method="trapezoid", step=0.01)[:, 0]
    assert (y - mittag_leffler(-(t**0.6), 0.6)).abs().max() < 1e-3


@pytest.mark.parametrize("method", INCREMENTS)
def test_several_orders(method: str) -> None:
    t = torch.tensor([0, 0.003, 0.02, 0.13, 0.38, 1], dtype=F64)

    def solve(step: float) -> Tensor:
        return fdeint(
            lambda t, y: torch.cos(t) - y,
            2 * ONE,
            t,
            [0.4, 0.8],
            coefficients=[0.5, 1.0],
            method=method,
            step=step,
        )[:, 0]

    assert (solve(0.1) - solve(0.0025)).abs().max() < 0.03
    assert (solve(0.1) - solve(0.0025))[1].abs() < 2e-3  # on a straight line about 0.006


@pytest.mark.parametrize("memory", [Full(), Window(30)], ids=repr)
@pytest.mark.parametrize("method", METHODS)
def test_resumed_solves_agree(method: str, memory: object) -> None:
    def rhs(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) - y

    options = {"method": method, "memory": memory}
    whole = fdeint(rhs, ONE, torch.tensor([0, 1.03, 1.27, 2.0], dtype=F64), 0.5, step=0.05, **options)
    _, state = fdeint(rhs, ONE, torch.linspace(0, 1, 21, dtype=F64), 0.5, return_state=True, **options)
    t = torch.tensor([1.0, 1.03, 1.27, 2.0], dtype=F64)
    torch.testing.assert_close(
        fdeint(rhs, state, t, 0.5, step=0.05, **options)[1:], whole[1:], rtol=0, atol=5e-4
    )


@pytest.mark.parametrize("order", [0.6, [0.6, 0.3]], ids=["scalar", "per-element"])
@pytest.mark.parametrize("method", ["l1", "abm", "trapezoid"])
def test_gradients(method: str, order: object) -> None:
    alpha = torch.tensor(order, dtype=F64, requires_grad=True)
    start = torch.ones(2, dtype=F64, requires_grad=True)
    t = torch.tensor([0, 0.01, 0.25, 0.5], dtype=F64)

    def solve(alpha: Tensor, start: Tensor) -> Tensor:
        return fdeint(lambda t, y: torch.cos(t) - y**2, start, t, alpha, method=method, step=0.1)

    assert torch.autograd.gradcheck(solve, (alpha, start), atol=1e-6)


def test_a_stiff_start_that_is_not_resolved_does_not_overshoot() -> None:
    t = torch.tensor([0, 0.001, 0.05, 0.1, 0.13, 1.0], dtype=F64)
    y = fdeint(lambda t, y: -1e6 * y, ONE, t, 0.5, method="l1", step=0.1)
    assert y.min() > 0
    assert y.max() == 1
