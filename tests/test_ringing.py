"""The trapezoid rule on a decay that its step does not resolve: it raises, and only there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fracspike.solvers import Blocked, Exponentials, Full, Window, fdeint, graded_mesh, mittag_leffler

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)
MESSAGE = r"oscillates about its equilibrium.*use method 'l1'.*t = .*, step {} of .*, method 'trapezoid'"

Rhs = Callable[[Tensor, Tensor], Tensor]


def grid(end: float, steps: int) -> Tensor:
    return torch.linspace(0, end, steps + 1, dtype=F64)


def solve(rhs: Rhs, y0: Tensor, t: Tensor, alpha: Any, **options: Any) -> Tensor:
    solution: Tensor = fdeint(rhs, y0, t, alpha, method="trapezoid", **options)
    return solution


def stiff(t: Tensor, y: Tensor) -> Tensor:
    return -1e6 * y


class TestItRaises:
    @pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8, 1.0])
    @pytest.mark.parametrize("rate", [200.0, 1e6])
    def test_on_a_stiff_decay_at_its_first_step(self, alpha: float, rate: float) -> None:
        with pytest.raises(RuntimeError, match=MESSAGE.format(1)):
            solve(lambda t, y: -rate * y, ONE, grid(1.0, 8), alpha)

    @pytest.mark.parametrize("memory", [Full(), Blocked(), Exponentials(1e-6), Window(4)])
    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    def test_with_every_memory_and_gradient(self, memory: Any, gradient: str) -> None:
        for wanted in (False, True):
            y0 = ONE.clone().requires_grad_(wanted)
            with pytest.raises(RuntimeError, match=MESSAGE.format(1)):
                solve(stiff, y0, grid(1.0, 8), 0.7, memory=memory, gradient=gradient)

    def test_where_the_decay_becomes_stiff(self) -> None:
        """The first stiff step goes from the old rate to 1/(1 + G) of the way; then it rings."""

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.where(t > 0.5, -150.0, -0.1) * (y + 1)

        with pytest.raises(RuntimeError, match=MESSAGE.format(12)):
            solve(rhs, ONE, grid(1.0, 20), 0.9)

    @pytest.mark.parametrize(
        "rhs",
        [
            lambda t, y: -1e6 * y**3,
            lambda t, y: -1e4 * (y - torch.cos(t) + 1),
            lambda t, y: -1e4 * torch.sinh(y),
            lambda t, y: y @ torch.tensor([[-1e5, 1.0, 0], [1.0, -1, 1], [0, 1, -1]], dtype=F64),
            lambda t, y: torch.tensor([-1.0, -2.0, -1e5], dtype=F64) * y,
        ],
    )
    def test_on_other_right_hand_sides(self, rhs: Rhs) -> None:
        for start in (1.0, -1.0):
            with pytest.raises(RuntimeError, match=MESSAGE.format(1)):
                solve(rhs, start * torch.ones(3, dtype=F64), grid(1.0, 8), 0.8)

    def test_with_an_order_per_component_graded_meshes_coarse_steps_and_transforms(self) -> None:
        orders = torch.tensor([0.5, 0.9, 1.0], dtype=F64)
        three = torch.ones(3, dtype=F64)
        with pytest.raises(RuntimeError, match=MESSAGE.format(1)):
            solve(stiff, three, grid(1.0, 8), orders)
        with pytest.raises(RuntimeError, match="oscillates about its equilibrium"):
            solve(stiff, ONE, graded_mesh(0.0, 1.0, 8, 2.0), 0.7, mesh="given")
        with pytest.raises(RuntimeError, match="oscillates about its equilibrium"):
            solve(stiff, ONE, grid(1.0, 80), 0.7, step=0.125)
        with pytest.raises(RuntimeError, match="oscillates about its equilibrium"):
            torch.func.vmap(lambda y0: solve(stiff, y0, grid(1.0, 8), 0.7))(three)

    def test_where_it_goes_on(self) -> None:
        """What was solved before does not hide what rings later."""
        t = grid(2.0, 16)
        _, state = fdeint(lambda t, y: -0.1 * y, ONE, t[:9], 1.0, method="trapezoid", return_state=True)
        with pytest.raises(RuntimeError, match=MESSAGE.format(2)):
            fdeint(lambda t, y: -80 * y, state, t[8:], 1.0, method="trapezoid")


class TestItDoesNotRaise:
    @pytest.mark.parametrize("alpha", [0.3, 0.6, 0.9, 1.0])
    @pytest.mark.parametrize("rate", [1.0, 8.0])
    def test_on_a_decay_that_is_resolved(self, alpha: float, rate: float) -> None:
        t = grid(1.0, 64)
        order = torch.tensor(alpha, dtype=F64)
        want = mittag_leffler(-rate * t**alpha, order)
        assert torch.allclose(solve(lambda t, y: -rate * y, ONE, t, alpha)[8:, 0], want[8:], atol=0.02)

    @pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0])
    @pytest.mark.parametrize("offset", [0.0, 1e-9, 0.02])
    def test_on_stiff_components_near_their_equilibrium(self, alpha: float, offset: float) -> None:
        y0 = torch.tensor([1.0 + offset, 0.0, offset], dtype=F64)
        equilibrium = torch.tensor([1.0, 0.0, 0.0], dtype=F64)

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            rates = torch.tensor([1e6, 1e4, 1.0], dtype=F64)
            return -rates * (y - equilibrium)

        solution = solve(rhs, y0, grid(1.0, 16), alpha)
        assert torch.allclose(solution, equilibrium.expand_as(solution), atol=1.1 * offset + 1e-12)

    @pytest.mark.parametrize("frequency", [1.0, 6.0])
    @pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0])
    def test_on_a_stiff_component_that_follows_a_drive(self, alpha: float, frequency: float) -> None:
        """The rate changes its sign with the drive, in one step, while G is 100 and more."""
        for phase in (0.0, 0.3):

            def drive(t: Tensor, phase: float = phase) -> Tensor:
                return torch.sin(frequency * t + phase)

            t = grid(3.0, 60)
            start = drive(t[:1])
            solution = solve(lambda t, y: -1e4 * (y - drive(t)), start, t, alpha)
            assert torch.allclose(solution[:, 0], drive(t), atol=2e-3)

    @pytest.mark.parametrize("alpha", [0.6, 1.0])
    def test_on_a_drive_that_jumps(self, alpha: float) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return -3 * y + 20 * torch.sign(torch.sin(5 * t + 0.01))

        got = solve(rhs, 0 * ONE, grid(2.0, 40), alpha)
        want = fdeint(rhs, 0 * ONE, grid(2.0, 320), alpha, method="l1")[::8]
        assert (got - want).abs().mean() < 0.5  # of values up to 6

    @pytest.mark.parametrize("alpha", [0.7, 0.9, 1.0])
    @pytest.mark.parametrize("per_period", [7, 20, 60])
    def test_on_an_oscillator(self, alpha: float, per_period: int) -> None:
        t = grid(2 * math.pi, per_period)
        y0 = torch.tensor([1.0, 0.0], dtype=F64)
        got = solve(lambda t, y: torch.stack([y[1], -y[0]]), y0, t, alpha)[:, 0]
        orders = range(60)
        want = sum((-1) ** k * t ** (2 * alpha * k) / math.gamma(2 * alpha * k + 1) for k in orders)
        assert torch.allclose(got, want, atol=15 / per_period**1.5)

    @pytest.mark.parametrize("h", [0.25, 0.5])
    def test_on_fitzhugh_nagumo(self, h: float) -> None:
        def rhs(t: Any, y: Any) -> list[Any]:
            return [y[0] - y[0] ** 3 / 3 - y[1] + 0.5, 0.08 * (y[0] + 0.7 - 0.8 * y[1])]

        t = h * torch.arange(int(40 / h) + 1, dtype=F64)
        y0 = torch.tensor([-1.0, 1.0], dtype=F64)
        got = solve(lambda t, y: torch.stack(rhs(t, y)), y0, t, 1.0)
        want = solve_ivp(rhs, (0, 40), y0.numpy(), t_eval=t.numpy().clip(max=40), rtol=1e-9, atol=1e-9).y.T
        assert np.abs(got.numpy() - want).mean() < 0.05
        for alpha in (0.6, 0.8):
            swing = solve(lambda t, y: torch.stack(rhs(t, y)), y0, t, alpha)
            assert bool(torch.isfinite(swing).all())

    def test_on_van_der_pols_oscillator(self) -> None:
        def rhs(t: Any, y: Any) -> list[Any]:
            return [y[1], 8 * (1 - y[0] ** 2) * y[1] - y[0]]

        t, y0 = grid(20.0, 1000), torch.tensor([2.0, 0.0], dtype=F64)
        got = solve(lambda t, y: torch.stack(rhs(t, y)), y0, t, 1.0)
        want = solve_ivp(rhs, (0, 20), y0.numpy(), t_eval=t.numpy(), rtol=1e-9, atol=1e-9).y.T
        assert np.abs(got.numpy() - want)[:, 0].mean() < 0.05

    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    def test_on_rates_that_flip_by_themselves(self, gradient: str) -> None:
        """A rate that depends on time alone, and one that hardly depends on the state."""
        sign = torch.tensor([1.0, -1.0], dtype=F64)

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return sign[torch.round(t / 0.1).long() % 2] * 5 - 0.1 * y

        got = solve(rhs, 0 * ONE, grid(2.0, 20), 0.8, gradient=gradient)
        fine = fdeint(lambda t, y: -0.1 * y, 0 * ONE, grid(2.0, 20), 0.8, method="l1")
        assert torch.allclose(got, fine, atol=1.0)
