"""What a solve does with a right-hand side that blows up, is not finite, or writes where it should not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fracspike.solvers import METHODS, Blocked, Exponentials, Full, LinearLeak, Window, fdeint, graded_mesh

F64 = torch.float64
IMPLICIT = [name for name, method in METHODS.items() if method.implicit]
GRADIENTS = ["adjoint", "autograd"]
MEMORIES = [Full(), Window(9), Blocked(8), Exponentials(1e-6)]
T = torch.linspace(0, 1, 41, dtype=F64)
ONE = torch.ones(2, dtype=F64)


class TestBlowUp:
    @pytest.mark.parametrize("gradient", GRADIENTS)
    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_a_solution_that_leaves_the_finite_numbers_is_an_error(
        self, method: str, memory: object, gradient: str
    ) -> None:
        start = ONE.clone().requires_grad_()
        with pytest.raises(RuntimeError, match=rf"t = 0\.\d+, step \d+ of 40, method '{method}'"):
            fdeint(lambda t, y: 100 * y**3, start, T, 0.7, method=method, memory=memory, gradient=gradient)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_first_step_that_went_wrong_is_named(self, method: str) -> None:
        """log(0.48 - t) is no number from t = 0.5, step 20, on; explicit schemes meet it one step later."""
        with pytest.raises(RuntimeError) as error:
            fdeint(lambda t, y: torch.log(0.48 - t) - y, ONE, T, 0.7, method=method)
        steps = 20 if METHODS[method].implicit or method == "abm" else 21
        assert f"t = {steps / 40:g}, step {steps} of 40" in str(error.value)

    def test_a_rate_that_overflows(self) -> None:
        with pytest.raises(RuntimeError, match=r"not finite at t = 0\.05, step 2 of 40, method 'predictor'"):
            fdeint(lambda t, y: 3e38 * y, torch.full((1,), 0.5), T.float(), 0.01, method="predictor")
        leak = LinearLeak(1.0, lambda t: torch.where(t < 0.5, 1.0, math.inf))
        with pytest.raises(RuntimeError, match="method 'exact'"):
            fdeint(leak, ONE, T, 0.5, method="exact")
        with pytest.raises(RuntimeError, match="method 'rk4'"):
            fdeint(lambda t, y: 1e300 * y, ONE, T, 1.0, method="rk4")

    def test_on_a_graded_mesh(self) -> None:
        with pytest.raises(RuntimeError, match="of 20, method 'trapezoid'"):
            fdeint(
                lambda t, y: torch.log(0.5 - t) - y,
                ONE,
                graded_mesh(0, 1, 20, 2.0),
                0.7,
                method="trapezoid",
                mesh="given",
            )


def fresh(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t) - y


def kept_buffer() -> Callable[[Tensor, Tensor], Tensor]:
    buffer = torch.empty(2, dtype=F64)
    return lambda t, y: buffer.copy_(torch.cos(t) - y)


def cut_buffer() -> Callable[[Tensor, Tensor], Tensor]:
    kept = [torch.empty(2, dtype=F64)]

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        kept[0] = kept[0].detach()
        return kept[0].copy_(torch.cos(t) - y)

    return rhs


def buffer_made_at_first() -> Callable[[Tensor, Tensor], Tensor]:
    kept: list[Tensor] = []

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        if not kept:
            kept.append(torch.cos(t) - y)
            return kept[0]
        kept[0] = kept[0].detach()
        return kept[0].copy_(torch.cos(t) - y)

    return rhs


def two_buffers() -> Callable[[Tensor, Tensor], Tensor]:
    buffers, calls = torch.empty(2, 2, dtype=F64), [0]

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return buffers.detach()[calls[0] % 2].copy_(torch.cos(t) - y)

    return rhs


def output_buffer() -> Callable[[Tensor, Tensor], Tensor]:
    buffer = torch.empty(2, dtype=F64)
    return lambda t, y: torch.sub(torch.cos(t), y, out=buffer)


def numpy_buffer() -> Callable[[Tensor, Tensor], Tensor]:
    array = np.empty(2)

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        array[:] = math.cos(t) - y.detach().numpy()
        return torch.from_numpy(array)

    return rhs


def hidden_buffer() -> Callable[[Tensor, Tensor], Tensor]:
    buffer = torch.empty(2, dtype=F64)

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        buffer.data.copy_(torch.cos(t) - y)
        return buffer

    return rhs


def into_the_state() -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, y: y.neg_().add_(torch.cos(t))


def beside_the_state() -> Callable[[Tensor, Tensor], Tensor]:
    def rhs(t: Tensor, y: Tensor) -> Tensor:
        value = torch.cos(t) - y
        with torch.no_grad():
            y.zero_()
        return value

    return rhs


class TestBuffers:
    """A right-hand side that writes where others read: right values and gradients, or an error."""

    @pytest.mark.parametrize("memory", [Full(), Exponentials(1e-9)], ids=repr)
    @pytest.mark.parametrize("gradient", GRADIENTS)
    @pytest.mark.parametrize("method", METHODS)
    def test_gradients(self, method: str, gradient: str, memory: object) -> None:
        def found(rhs: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
            alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
            start = ONE.clone().requires_grad_()
            y = fdeint(rhs, start, T[:12], alpha, method=method, memory=memory, gradient=gradient)
            return [y.detach(), *torch.autograd.grad((y**2).sum(), (alpha, start))]

        right = found(fresh)
        for make in (kept_buffer, cut_buffer, buffer_made_at_first, two_buffers):
            torch.testing.assert_close(found(make()), right, rtol=1e-9, atol=1e-12)
        for make in (into_the_state, beside_the_state, output_buffer):
            with pytest.raises((ValueError, RuntimeError), match=r"must not write into|in-place|out="):
                found(make())

    @pytest.mark.parametrize("gradient", GRADIENTS)
    @pytest.mark.parametrize("method", [*METHODS, "rk4", "explicit_adams"])
    def test_values(self, method: str, gradient: str) -> None:
        options = {"gradient": gradient} if method in METHODS else {}
        alpha = 0.6 if method in METHODS else 1.0
        right = fdeint(fresh, ONE, T[:12], alpha, method=method, **options)
        makers = [kept_buffer, cut_buffer, buffer_made_at_first, two_buffers, numpy_buffer, hidden_buffer]
        if method not in METHODS or not METHODS[method].implicit:
            makers += [output_buffer, into_the_state, beside_the_state]
        for make in makers:
            if method in METHODS and METHODS[method].implicit and make in (numpy_buffer, hidden_buffer):
                continue  # these hide their slope, so they reach another digit
            with torch.no_grad():
                y = fdeint(make(), ONE, T[:12], alpha, method=method, **options)
            torch.testing.assert_close(y, right, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ONE, torch.ones(2, dtype=F64))


def logistic(rate: Tensor, steps: int, alpha: float, method: str, *, graph: bool, start: Tensor) -> Tensor:
    t = torch.linspace(0, 1, steps + 1, dtype=F64)
    with torch.set_grad_enabled(graph):
        return fdeint(lambda t, y: rate * y * (1 - y), start, t, alpha, method=method).detach()


class TestBranch:
    """An implicit equation with several roots: the one that continues the last value, or an error."""

    def test_a_logistic_step_meets_the_positive_root(self) -> None:
        """y = 0.2 + 10 h^0.7 y (1 - y) has the roots 0.6524 and -0.154."""
        g = 10 * 0.1**0.7
        right = ((g - 1) + math.sqrt((g - 1) ** 2 + 4 * g * 0.2)) / (2 * g)
        y = fdeint(
            lambda t, y: 10 * y * (1 - y),
            torch.tensor([0.2], dtype=F64),
            torch.linspace(0, 1, 11, dtype=F64),
            0.7,
            method="gl",
        )
        assert y[1].item() == pytest.approx(right, rel=1e-12)

    @pytest.mark.parametrize("graph", [True, False])
    @pytest.mark.parametrize("method", IMPLICIT)
    def test_coarse_logistic_solves_stay_positive(self, method: str, graph: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        for steps, alpha in ((3, 0.3), (5, 0.5), (8, 0.9), (12, 0.7), (20, 1.0)):
            rate = 1 + 30 * torch.rand(20, generator=generator, dtype=F64)
            start = 0.01 + 0.95 * torch.rand(20, generator=generator, dtype=F64)
            y = logistic(rate, steps, alpha, method, graph=graph, start=start)
            assert y.min() > 0
            assert y.max() < 1.3

    @pytest.mark.parametrize("method", IMPLICIT)
    def test_coupled_states_stay_positive_too(self, method: str) -> None:
        rate = torch.tensor([25.0, 18.0, 9.0], dtype=F64)
        t, start = torch.linspace(0, 1, 9, dtype=F64), torch.tensor([0.2, 0.3, 0.1], dtype=F64)
        y = fdeint(lambda t, y: rate * y * (1 - y) + 0.3 * y.roll(1, -1), start, t, 0.7, method=method)
        assert y.min() > 0

    @pytest.mark.parametrize("field", [lambda t, y: 30 * y, lambda t, y: 100 * y**3, lambda t, y: 5 * y**2])
    @pytest.mark.parametrize("method", IMPLICIT)
    def test_growth_within_a_step_is_too_large(self, method: str, field: Callable) -> None:
        with pytest.raises(RuntimeError, match=r"continues the last value.*step \d of 8, method"):
            fdeint(field, ONE, torch.linspace(0, 1, 9, dtype=F64), 0.6, method=method)

    @pytest.mark.parametrize("method", ["l1", "gl"])
    def test_decays_of_any_stiffness_are_followed(self, method: str) -> None:
        start = torch.tensor([0.3, 1.2], dtype=F64)
        t = torch.linspace(0, 1, 9, dtype=F64)
        for field in (lambda t, y: -1e6 * y, lambda t, y: -50 * y**3):
            y = fdeint(field, start, t, 0.6, method=method)
            assert (y.diff(dim=0) < 0).all()
            assert y.min() > 0

    @pytest.mark.parametrize("method", IMPLICIT)
    def test_states_that_rest_at_an_unstable_point_do_not_hinder_the_others(self, method: str) -> None:
        start = torch.tensor([0.0, 0.2], dtype=F64)
        y = fdeint(
            lambda t, y: 10 * y * (1 - y), start, torch.linspace(0, 1, 9, dtype=F64), 0.7, method=method
        )
        assert (y[:, 0] == 0).all()
        assert (y[1:, 1] > 0.2).all()
