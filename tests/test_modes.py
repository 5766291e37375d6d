"""The relaxation function as a sum of exponentials, against the Mittag-Leffler function itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fracspike.solvers import mittag_leffler
from fracspike.solvers.modes import choose

F64 = torch.float64
HORIZON = 1 << 14


def lags() -> Tensor:
    late = torch.logspace(2, math.log10(HORIZON), 150, dtype=F64).round()
    return torch.unique(torch.cat([torch.arange(1, 100, dtype=F64), late]))


def distance(found: Tensor, exact: Tensor, tol: float) -> Tensor:
    """Return the error relative to E and to 1 - E at once, as the documentation promises it.

    To E down to 1e-6, or down to what float64 holds to the tolerance, which is 1e-13 absolutely; to 1 - E
    down to 3e-15 absolutely. The numbers stand here, not imported: they are the promise.
    """
    fallen, risen = exact.clamp(min=max(1e-6, 1e-13 / tol)), (1 - exact).clamp(min=3e-15 / tol)
    return (found - exact).abs() / torch.minimum(fallen, risen)


def scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=F64)


@pytest.mark.parametrize("step", [1e-4, 0.3, 100.0])
@pytest.mark.parametrize("alpha", [0.04, 0.55, 0.93, 1.0])
@pytest.mark.parametrize("tol", [7e-7, 1e-11])
def test_the_sum_meets_the_function_at_every_lag(tol: float, alpha: float, step: float) -> None:
    grid = choose(scalar(alpha), scalar(step), HORIZON, tol)
    m = lags()
    exact = mittag_leffler(-((m * step) ** alpha), alpha)
    decays = 1 - grid.losses(scalar(step))
    found = (grid.weights(scalar(alpha)) * decays ** m.unsqueeze(1)).sum(1)
    # the powers of the decays themselves are rounded
    assert distance(found, exact, tol).max() < max(1.1 * tol, 2e-10)
    assert grid.error(scalar(alpha)) <= tol


@pytest.mark.parametrize("tol", [7e-7, 1e-7])
@pytest.mark.parametrize(("alpha", "step"), [(0.93, 100.0), (0.99, 0.3), (0.75, 100.0), (0.95, 0.01)])
def test_what_is_left_of_a_fast_decay_is_met_relatively(tol: float, alpha: float, step: float) -> None:
    """E falls to 1e-3 ... 1e-8 here. A fit relative to 1e-2 at least is off by 2 to 100 times tol."""
    grid = choose(scalar(alpha), scalar(step), HORIZON, tol)
    m = lags()
    exact = mittag_leffler(-((m * step) ** alpha), alpha)
    assert exact.min() < 1e-3
    decays = (1 - grid.losses(scalar(step))) ** m.unsqueeze(1)
    found = (grid.weights(scalar(alpha)) * decays).sum(1)
    assert distance(found, exact, tol).max() < 1.1 * tol


@pytest.mark.parametrize(("alpha", "step"), [(0.55, 1e-4), (0.93, 1e-4), (0.97, 1e-3), (1.0, 1e-4)])
def test_rounding_of_the_modes_is_multiplied_by_at_most_1e5(alpha: float, step: float) -> None:
    """Fewer modes would meet the tolerance, with alternating weights that sum to 5e5 times E."""
    tol = 7e-7
    grid = choose(scalar(alpha), scalar(step), HORIZON, tol)
    m = lags()
    exact = mittag_leffler(-((m * step) ** alpha), alpha)
    decays = (1 - grid.losses(scalar(step))) ** m.unsqueeze(1)
    sizes = (grid.weights(scalar(alpha)).abs() * decays).sum(1)
    multiplied = (sizes / torch.minimum(exact.clamp(min=1e-6), 1 - exact)).max().item()
    assert multiplied < 1e5
    assert grid.amplification(scalar(alpha)) >= multiplied * 0.999  # a certificate never says less


@pytest.mark.parametrize(
    ("horizon", "tol", "most"),
    [(1 << 17, 7e-7, 30), (1 << 17, 1e-11, 50), (1 << 27, 7e-7, 42), (1 << 27, 1e-11, 70)],
)
def test_as_many_modes_as_the_documentation_says(horizon: int, tol: float, most: int) -> None:
    assert max(choose(scalar(0.6), scalar(step), horizon, tol).modes for step in (0.05, 0.5)) == most


@pytest.mark.parametrize("alpha", [0.017, 0.2, 0.2001, 0.4499, 0.7, 0.7001, 0.998])
def test_the_certificate_holds_between_the_orders_and_times_that_were_fitted(alpha: float) -> None:
    """At the ends of a patch of orders and inside, at the first lag, at the horizon, and between."""
    tol, step = 1e-6, 0.05
    grid = choose(scalar(alpha), scalar(step), HORIZON, tol)
    drawn = torch.randint(2, HORIZON, (400,), generator=torch.Generator().manual_seed(0)).double()
    m = torch.cat([torch.tensor([1.0, HORIZON], dtype=F64), drawn])
    exact = mittag_leffler(-((m * step) ** alpha), alpha)
    found = (grid.weights(scalar(alpha)) * (1 - grid.losses(scalar(step))) ** m.unsqueeze(1)).sum(1)
    assert distance(found, exact, tol).max() <= 1.05 * grid.error(scalar(alpha)) <= 1.05 * tol


@pytest.mark.parametrize(
    ("alpha", "narrow"), [(0.65, False), (0.7, False), (0.71, True), (0.85, True), (1.0, True)]
)
def test_rates_crowd_around_1_for_orders_above_0_7(alpha: float, narrow: bool) -> None:
    rates = choose(scalar(alpha), scalar(0.1), HORIZON, 1e-4).rates
    assert int(((rates > math.exp(-0.11)) & (rates < math.exp(0.11))).sum()) >= 3 * narrow
    assert (rates.log().diff() < 0.2).any().item() is narrow


def test_the_first_and_the_last_time_of_a_grid_enclose_all_lags_of_all_steps() -> None:
    step = torch.tensor([0.013, 0.9], dtype=F64)
    grid = choose(scalar(0.5), step, HORIZON, 1e-6)
    assert 0.013 / 1.6 < grid.first <= 0.013
    assert 0.9 * HORIZON <= grid.last < 0.9 * HORIZON * 1.6


def test_weights_sum_to_one_and_slopes_to_zero() -> None:
    alpha = torch.linspace(0.05, 1.0, 23, dtype=F64)
    grid = choose(alpha, scalar(0.1), HORIZON, 7e-7)
    torch.testing.assert_close(grid.weights(alpha).sum(0), torch.ones(23, dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(grid.slopes(alpha).sum(0), torch.zeros(23, dtype=F64), rtol=0, atol=1e-9)


def test_many_orders_at_once_are_each_alone() -> None:
    alpha = torch.tensor([[0.05, 0.62], [0.995, 0.3]], dtype=F64)
    grid = choose(alpha, scalar(0.1), HORIZON, 7e-7)
    together = grid.weights(alpha)
    assert together.shape == (grid.modes, 2, 2)
    torch.testing.assert_close(grid.weights(alpha[0]), together[:, 0])
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(together[:, i, j], grid.weights(alpha[i, j]))


@pytest.mark.parametrize("alpha", [0.35, 0.68, 0.97, 1.0])
def test_derivatives_in_alpha_and_tau(alpha: float) -> None:
    """In alpha by the weights' own graph and by tangents; in tau by slopes at fixed decays."""
    step, order = 0.2, scalar(alpha).requires_grad_()
    grid = choose(order, scalar(step), HORIZON, 1e-11)
    m = torch.tensor([1.0, 3.0, 20.0, 300.0], dtype=F64)
    decays = (1 - grid.losses(scalar(step))) ** m.unsqueeze(1)
    log_tau = scalar(0.0).requires_grad_()
    exact = mittag_leffler(-((m * step * torch.exp(-log_tau)) ** order), order)
    for i in range(len(m)):
        in_alpha, in_tau = torch.autograd.grad(exact[i], (order, log_tau), retain_graph=True)
        (own,) = torch.autograd.grad((grid.weights(order) * decays[i]).sum(), order)
        scale = exact[i].item()
        assert own.item() == pytest.approx(in_alpha.item(), rel=1e-7, abs=1e-8 * scale + 1e-12)
        tangent = (grid.tangents(order.detach()) * decays[i]).sum().item()
        assert tangent == pytest.approx(own.item(), rel=1e-9, abs=1e-12)
        slope = (grid.slopes(order.detach()) * decays[i]).sum().item()
        assert slope == pytest.approx(in_tau.item(), rel=1e-7, abs=1e-8 * scale + 1e-12)


def test_neighbouring_steps_share_a_grid_and_distant_ones_do_not() -> None:
    alpha = scalar(0.5)
    grids = [choose(alpha, scalar(s), HORIZON, 7e-7) for s in (0.11, 0.12, 5.0)]
    assert grids[0] == grids[1] != grids[2]


def test_a_tolerance_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="`tol` must be within reach of float64, got 1e-16"):
        choose(scalar(0.5), scalar(0.1), HORIZON, 1e-16)
