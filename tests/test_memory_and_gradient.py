"""Every method with every memory and gradient: against Full, autograd and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fracspike import surrogate
from fracspike.solvers import (
    METHODS,
    AdjointHistory,
    Blocked,
    Exponentials,
    Full,
    GraphHistory,
    Memory,
    Window,
    fdeint,
)
from fracspike.solvers.memory.correlate import correlation
from fracspike.solvers.weights import (
    gl_increment_weights,
    l1_weights,
    rectangle_weights,
    trapezoid_start_weights,
    trapezoid_weights,
)

F64 = torch.float64
MEMORIES = [Full(), Window(7), Blocked(4), Exponentials(1e-10)]
INCREMENTS = ["l1", "l1_explicit", "gl", "gl_explicit"]


def grid(end: float, steps: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.linspace(0.0, end, steps + 1, dtype=dtype)


def solve(
    memory: Memory, method: str, steps: int = 300, dtype: torch.dtype = F64, alpha: object = 0.6
) -> Tensor:
    start = torch.tensor([1.0, -0.5, 0.2], dtype=dtype)
    t = grid(4.0, steps, dtype)
    return fdeint(lambda t, y: torch.sin(3 * t) - y, start, t, alpha, method=method, memory=memory)


class TestMemory:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("size", [1, 5, 64, 1000])
    def test_blocked_is_full_to_rounding(self, method: str, size: int) -> None:
        torch.testing.assert_close(
            solve(Blocked(size), method), solve(Full(), method), rtol=1e-12, atol=1e-13
        )

    @pytest.mark.parametrize("method", ["l1_explicit", "predictor"])
    def test_blocked_is_full_where_fourier_transforms_take_over(self, method: str) -> None:
        pair = [solve(memory, method, steps=3000) for memory in (Blocked(64), Full())]
        torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("tol", [1e-4, 1e-7, 1e-10])
    def test_exponentials_stay_within_their_tolerance(self, method: str, tol: float) -> None:
        error = (solve(Exponentials(tol), method) - solve(Full(), method)).abs().max().item()
        assert error < 10 * tol

    @pytest.mark.parametrize("method", METHODS)
    def test_exponentials_in_float32_do_not_amplify_rounding(self, method: str) -> None:
        exact = solve(Full(), method, steps=2000)
        full = solve(Full(), method, 2000, torch.float32).double()
        modes = solve(Exponentials(1e-6), method, 2000, torch.float32).double()
        assert (modes - exact).abs().max() < 3 * (full - exact).abs().max() + 1e-5

    @pytest.mark.parametrize("method", METHODS)
    def test_a_window_as_long_as_the_solve_is_full(self, method: str) -> None:
        torch.testing.assert_close(solve(Window(301), method), solve(Full(), method), rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("memory", [*MEMORIES, Window(1)], ids=repr)
    def test_no_memory_forgets_a_constant(self, method: str, memory: Memory) -> None:
        t, start = grid(5.0, 2047), torch.tensor([1.0, -70.0], dtype=F64)
        y = fdeint(lambda t, y: torch.zeros_like(y), start, t, 0.5, method=method, memory=memory)
        torch.testing.assert_close(y, start.expand_as(y), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("method", ["predictor", "abm", "trapezoid"])
    @pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9, 1.0])
    def test_product_integration_of_a_constant_rate_is_exact(self, method: str, alpha: float) -> None:
        t = grid(3.0, 200)
        y = fdeint(lambda t, y: torch.ones_like(y), torch.zeros(1, dtype=F64), t, alpha, method=method)
        exact = t**alpha / math.gamma(1 + alpha)
        torch.testing.assert_close(y[:, 0], exact, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_alpha_per_element_equals_each_alone(self, method: str, memory: Memory) -> None:
        alphas = torch.tensor([0.3, 0.6, 1.0], dtype=F64)
        together = solve(memory, method, 90, alpha=alphas)
        for i, alpha in enumerate(alphas):
            tolerance = 1e-8 if isinstance(memory, Exponentials) else 1e-12
            alone = solve(memory, method, 90, alpha=alpha.item())[:, i]
            torch.testing.assert_close(together[:, i], alone, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("lags", [100, 1000, 10_000, 100_000])
    @pytest.mark.parametrize("alpha", [0.3, 0.6, 0.95])
    def test_certified_error_and_number_of_modes(self, alpha: float, lags: int) -> None:
        kernel = l1_weights(torch.tensor(alpha), lags + 1)
        fit = Exponentials(1e-6).fit(kernel, torch.float32)
        assert fit.modes <= 40
        lag = torch.randint(1, lags + 1, (500,), generator=torch.Generator().manual_seed(0))
        at_lag_one = (fit.decays * fit.weights).float().double()  # as a run rounds them
        modelled = (at_lag_one * fit.decays ** (lag.double().unsqueeze(1) - 1)).sum(1)
        modelled = modelled + torch.where(lag == 1, fit.head, 0.0)
        assert ((modelled - kernel[lag]) / kernel[lag]).abs().max() <= fit.error * (1 + 1e-9)
        assert fit.error <= 1e-6
        block = fit.decays**32  # acts again and again: no number of float32 would be exact for a whole run
        rounded = block.float().double()
        assert (((rounded - block) / block).abs() < 1e-14)[block > 1e-30].all()

    @pytest.mark.parametrize(
        ("width", "tol", "dtype", "most"),
        [
            (3e4, 1e-5, torch.float32, 12.0),
            (1e5, 1e-5, torch.float32, 12.0),
            (3e5, 1e-5, torch.float32, 12.0),
            (1e4, 1e-3, torch.float32, 1000.0),
            (1e3, 1e-4, F64, 1000.0),
            (1e4, 1e-4, F64, 1000.0),
        ],
    )
    def test_alternating_weights_are_refused(
        self, width: float, tol: float, dtype: torch.dtype, most: float
    ) -> None:
        """A hump is no mixture of decays: the narrower, the larger the weights, which multiply rounding."""
        lag = torch.arange(121, dtype=F64)
        kernel = torch.exp(-((lag - 60) ** 2) / width)
        try:
            fit = Exponentials(tol).fit(kernel, dtype)
        except ValueError:
            assert width <= 3e4
            return
        powers = fit.decays ** lag[2:].unsqueeze(1)
        multiplied = ((fit.weights.abs() * powers).sum(1) / kernel[2:]).max().item()
        assert multiplied <= most
        assert fit.amplification == pytest.approx(multiplied, rel=1e-9)
        error = (((fit.weights * powers).sum(1) - kernel[2:]) / kernel[2:]).abs().max().item()
        assert error <= fit.error <= tol

    def test_a_fit_in_inference_mode_serves_a_later_training(self) -> None:
        """What a fit keeps for the next must not be bound to the mode in which it was made."""
        alpha = torch.tensor(0.63, dtype=F64, requires_grad=True)

        def fitted() -> torch.Tensor:
            return Exponentials(1e-5).fit(l1_weights(alpha, 77)).weights.sum()

        with torch.inference_mode():
            fitted()
        fitted().backward()
        assert alpha.grad is not None

    def test_a_tolerance_out_of_reach_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"`tol` must be within reach of torch.float32, got 1e-12"):
            solve(Exponentials(1e-12), "l1", dtype=torch.float32)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: Window(0), ValueError, "`length` must be >= 1, got 0"),
            (lambda: Window(2.5), TypeError, "`length` must be a whole number"),
            (lambda: Blocked(0), ValueError, "`size` must be >= 1"),
            (lambda: Exponentials(0.0), ValueError, "`tol` must lie in"),
            (lambda: Exponentials(math.nan), ValueError, "`tol` must lie in"),
        ],
    )
    def test_bad_settings_are_named(self, make: object, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            make()


class TestWeights:
    """Against mpmath, from the textbook formulas at 50 digits."""

    @pytest.mark.parametrize("alpha", [0.05, 0.5, 0.99])
    @pytest.mark.parametrize("m", [1, 2, 31, 32, 33, 1000, 100_000])
    def test_weights_keep_all_digits_at_any_lag(self, alpha: float, m: int) -> None:
        import mpmath as mp

        with mp.workdps(50):
            a, n = mp.mpf(alpha), mp.mpf(m)
            p = a + 1
            expected = {
                l1_weights: (n + 1) ** (1 - a) - n ** (1 - a),
                gl_increment_weights: mp.gamma(n + 1 - a) / (mp.gamma(1 - a) * mp.gamma(n + 1)),
                rectangle_weights: n**a - (n - 1) ** a,
                trapezoid_weights: (n + 1) ** p - 2 * n**p + (n - 1) ** p,
                trapezoid_start_weights: (n - 1) ** p - (n - 1 - a) * n**a,
            }
            for weights, value in expected.items():
                found = weights(torch.tensor(alpha, dtype=F64), m + 1)[m].item()
                assert found == pytest.approx(float(value), rel=2e-12, abs=0.0), weights.__name__


def gradients(method: str, memory: Memory, gradient: str, alpha: object, rhs_kind: str) -> list[Tensor]:
    """Gradients of a loss over the whole solution in y0, alpha, a weight matrix and a captured input."""
    generator = torch.Generator().manual_seed(0)
    weight = (0.4 * torch.randn(3, 3, dtype=F64, generator=generator)).requires_grad_()
    current = torch.randn(41, 3, dtype=F64, generator=generator).requires_grad_()
    start = torch.randn(2, 3, dtype=F64, generator=generator).requires_grad_()
    orders = torch.tensor(alpha, dtype=F64, requires_grad=True)
    spike = surrogate.get("atan")

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        drive = current[round(t.item() / 0.05)]
        if rhs_kind == "spiking":
            return drive - y - 0.1 * spike(y - 0.3) @ weight
        return torch.tanh(y @ weight) - y + drive

    t = grid(2.0, 40)
    y = fdeint(rhs, start, t, orders, method=method, memory=memory, gradient=gradient)
    loss = (y**2 * torch.linspace(1, 2, 41, dtype=F64).reshape(-1, 1, 1)).sum()
    return list(torch.autograd.grad(loss, [start, orders, weight, current]))


class TestGradients:
    @pytest.mark.parametrize("alpha", [0.6, [0.3, 0.7, 1.0]], ids=["scalar", "per-element"])
    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_adjoint_agrees_with_autograd(self, method: str, memory: Memory, alpha: object) -> None:
        kind = "smooth" if METHODS[method].implicit else "spiking"
        pair = [gradients(method, memory, name, alpha, kind) for name in ("adjoint", "autograd")]
        for adjoint, autograd in zip(*pair, strict=True):
            assert autograd.abs().max() > 0
            torch.testing.assert_close(
                adjoint, autograd, rtol=1e-10, atol=1e-10 * autograd.abs().max().item()
            )

    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_adjoint_agrees_with_finite_differences(self, method: str, memory: Memory) -> None:
        torch.manual_seed(0)
        weight = (0.5 * torch.randn(2, 2, dtype=F64)).requires_grad_()
        start = torch.randn(2, dtype=F64, requires_grad=True)
        alpha = torch.tensor([0.45, 0.8], dtype=F64, requires_grad=True)

        def end(alpha: Tensor, weight: Tensor, start: Tensor) -> Tensor:
            def rhs(t: Tensor, y: Tensor) -> Tensor:
                return torch.tanh(y @ weight) - y + t

            return fdeint(rhs, start, grid(1.0, 12), alpha, method=method, memory=memory)[[5, 12]]

        assert torch.autograd.gradcheck(end, (alpha, weight, start), atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", INCREMENTS)
    def test_orders_and_coefficients_of_a_multi_term_equation(self, method: str, memory: Memory) -> None:
        values = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.4, 0.8, 0.5, 1.2)]

        def end(a1: Tensor, a2: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
            start = torch.ones(2, dtype=F64)
            return fdeint(
                lambda t, y: t - y,
                start,
                grid(1.0, 12),
                [a1, a2],
                coefficients=[c1, c2],
                method=method,
                memory=memory,
            )[-1]

        assert torch.autograd.gradcheck(end, values, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("method", ["l1_explicit", "gl_explicit", "predictor", "abm"])
    def test_second_derivatives_by_autograd(self, method: str) -> None:
        alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
        start = torch.tensor([0.3, -0.8], dtype=F64, requires_grad=True)

        def end(alpha: Tensor, start: Tensor) -> Tensor:
            return fdeint(
                lambda t, y: t - y**3, start, grid(1.0, 6), alpha, method=method, gradient="autograd"
            )[-1]

        assert torch.autograd.gradgradcheck(end, (alpha, start), atol=1e-6)

    @pytest.mark.parametrize(
        ("method", "message"), [("l1_explicit", "gradient='autograd'"), ("l1", "explicit method")]
    )
    def test_second_derivatives_by_the_adjoint_say_what_to_use(self, method: str, message: str) -> None:
        start = torch.ones(2, dtype=F64, requires_grad=True)
        y = fdeint(lambda t, y: -(y**2), start, grid(1.0, 6), 0.6, method=method)
        with pytest.raises(RuntimeError, match=message):
            torch.autograd.grad(y[-1].sum(), start, create_graph=True)

    def test_two_backward_passes_do_not_mix(self) -> None:
        start = torch.ones(2, dtype=F64, requires_grad=True)
        alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
        y = fdeint(lambda t, y: t - y, start, grid(1.0, 9), alpha, method="l1_explicit")
        alone = [torch.autograd.grad(y[n].sum(), (start, alpha), retain_graph=True) for n in (4, 9)]
        again = [torch.autograd.grad(y[n].sum(), (start, alpha), retain_graph=True) for n in (9, 4)][::-1]
        for first, second in zip(alone, again, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    @pytest.mark.parametrize("method", METHODS)
    def test_gradient_in_alpha_at_order_one_is_the_slope_from_below(self, method: str) -> None:
        def end(alpha: object) -> Tensor:
            return fdeint(lambda t, y: t - y, torch.ones(1, dtype=F64), grid(1.0, 20), alpha, method=method)[
                -1
            ]

        alpha = torch.tensor(1.0, dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(end(alpha).sum(), alpha)
        below = (3 * end(1.0) - 4 * end(1 - 1e-4) + end(1 - 2e-4)) / 2e-4
        assert slope.item() == pytest.approx(below.item(), rel=1e-5)

    @pytest.mark.parametrize("count", [80, 300])
    @pytest.mark.parametrize("memory", [*MEMORIES, Window(200)], ids=repr)
    def test_forgetting_is_differentiated(self, memory: Memory, count: int) -> None:
        """A memory that is erased for some states midway: adjoint against autograd."""
        where = torch.tensor([True, False, True])

        def run(history_type: type) -> list[Tensor]:
            alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
            items = torch.randn(
                count, 3, dtype=F64, generator=torch.Generator().manual_seed(0)
            ).requires_grad_()
            history = history_type(memory, l1_weights(alpha, count + 2), F64)
            total = torch.zeros(3, dtype=F64)
            for n, item in enumerate(items):
                history.append(item)
                total = total + (n + 1) * history.weighted_sum() ** 2
                if n in (8, 39, 63, 200):  # in the first block, inside later ones, at the end of one
                    history.forget(where.roll(n))
            return list(torch.autograd.grad(total.sum(), (items, alpha)))

        for adjoint, autograd in zip(run(AdjointHistory), run(GraphHistory), strict=True):
            torch.testing.assert_close(adjoint, autograd, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("memory", [*MEMORIES, Window(40), Blocked(32)], ids=repr)
    @pytest.mark.parametrize("method", ["l1", "l1_explicit", "abm", "trapezoid"])
    def test_blocks_may_end_anywhere_and_a_state_may_have_no_dimensions(
        self, method: str, memory: Memory
    ) -> None:
        for steps in (1, 2, 31, 32, 33, 64, 65):
            found = []
            for gradient in ("adjoint", "autograd"):
                alpha = torch.tensor(0.37, dtype=F64, requires_grad=True)
                start = torch.tensor(1.0, dtype=F64, requires_grad=True)
                t = grid(1.0, steps)
                y = fdeint(
                    lambda t, y: t - y, start, t, alpha, method=method, memory=memory, gradient=gradient
                )
                found.append((y, *torch.autograd.grad((y**2).sum(), (start, alpha))))
            for adjoint, autograd in zip(*found, strict=True):
                torch.testing.assert_close(adjoint, autograd, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("alpha", [0.15, [0.37, 0.95, 0.999]], ids=["scalar", "per-element"])
    @pytest.mark.parametrize("memory", [Full(), Window(45), Blocked(8), Exponentials(1e-8)], ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_finite_differences_over_several_blocks(self, method: str, memory: Memory, alpha: object) -> None:
        generator = torch.Generator().manual_seed(0)
        values = [
            torch.tensor(alpha, dtype=F64),
            0.5 * torch.randn(3, 3, dtype=F64, generator=generator),
            torch.randn(2, 3, dtype=F64, generator=generator),
        ]

        def loss(values: list[Tensor]) -> Tensor:
            order, weight, start = values
            rhs = lambda t, y: torch.tanh(y @ weight) - y + torch.sin(5 * t)  # noqa: E731
            y = fdeint(rhs, start, grid(2.0, 80), order, method=method, memory=memory)
            return (y[[40, 80]] ** 2).sum()

        leaves = [value.clone().requires_grad_() for value in values]
        for i, slope in enumerate(torch.autograd.grad(loss(leaves), leaves)):
            direction = torch.randn(values[i].shape, dtype=F64, generator=generator) * 1e-5
            # below order 1 on both sides: the step of 0.999 stays there
            ends = [[v + s * direction if j == i else v for j, v in enumerate(values)] for s in (1, -1)]
            with torch.no_grad():
                difference = (loss(ends[0]) - loss(ends[1])) / 2
            assert (slope * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-11)


class TestResume:
    @pytest.mark.parametrize("memory", [Full(), Window(9), Blocked(8)], ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_in_parts_is_as_in_one(self, method: str, memory: Memory) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.sin(t) - y

        t, start = grid(2.0, 60), torch.tensor([1.0, -2.0], dtype=F64)
        whole = fdeint(rhs, start, t, 0.7, method=method, memory=memory)
        first, state = fdeint(rhs, start, t[:23], 0.7, method=method, memory=memory, return_state=True)
        second, state = fdeint(rhs, state, t[22:41], 0.7, method=method, memory=memory, return_state=True)
        third = fdeint(rhs, state, t[40:], 0.7, method=method, memory=memory)
        torch.testing.assert_close(torch.cat([first, second[1:], third[1:]]), whole, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("memory", [Full(), Window(45), Blocked(8), Exponentials(1e-8)], ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_what_was_remembered_before_has_its_part_in_the_gradient(
        self, method: str, memory: Memory
    ) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.sin(3 * t) - y

        t, start = grid(2.0, 120), torch.ones(2, dtype=F64)
        _, state = fdeint(rhs, start, t[:71], 0.62, method=method, memory=memory, return_state=True)

        def total(alpha: float) -> tuple[Tensor, Tensor]:
            order = torch.tensor(alpha, dtype=F64, requires_grad=True)  # a learned order may move a little
            return fdeint(rhs, state, t[70:], order, method=method, memory=memory).sum(), order

        (slope,) = torch.autograd.grad(*total(0.62))
        difference = (total(0.62 + 1e-5)[0] - total(0.62 - 1e-5)[0]) / 2e-5
        assert slope.item() == pytest.approx(difference.item(), rel=1e-6)

    def test_a_state_that_does_not_fit_is_named(self) -> None:
        t, start = grid(1.0, 10), torch.ones(1, dtype=F64)
        _, state = fdeint(lambda t, y: -y, start, t, 0.7, return_state=True)
        with pytest.raises(ValueError, match=r"`t` must go on from the state, at 1 with step 0\.1; got 0"):
            fdeint(lambda t, y: -y, state, t, 0.7)
        with pytest.raises(ValueError, match="`method` must be that of the state, 'l1', got 'gl'"):
            fdeint(lambda t, y: -y, state, t + 1, 0.7, method="gl")


class TestStorage:
    @pytest.mark.parametrize("method", ["l1", "l1_explicit", "trapezoid"])
    def test_overwriting_the_solution_is_refused(self, method: str) -> None:
        """Steps save the solution itself, not a copy: an overwritten one must not give wrong gradients."""
        start = torch.ones(2, dtype=F64, requires_grad=True)
        y = fdeint(lambda t, y: -(y**2), start, grid(1.0, 9), 0.6, method=method)
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    @pytest.mark.parametrize("method", ["l1", "trapezoid"])
    def test_coupled_implicit_gradients_are_the_same_at_each_call(self, method: str) -> None:
        weight = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        start = torch.ones(3, dtype=F64)
        y = fdeint(lambda t, y: torch.tanh(y @ weight) - y, start, grid(1.0, 20), 0.6, method=method)
        first, *others = [torch.autograd.grad(y.sum(), weight, retain_graph=True)[0] for _ in range(5)]
        assert all(torch.equal(first, other) for other in others)

    @pytest.mark.parametrize("lags", [40, 300, 600])
    def test_correlation_over_several_squares(self, lags: int) -> None:
        g, q = torch.randn(2, 600, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
        expected = torch.stack([(g[m - 1 :] * q[: 600 - m + 1]).sum() for m in range(1, lags + 1)])
        found = correlation(list(g.flip(0)), q.flip(0), torch.Size((lags + 1,)))
        torch.testing.assert_close(found, torch.cat([torch.zeros(1, dtype=F64), expected]))
