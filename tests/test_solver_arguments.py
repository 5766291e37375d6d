"""What fdeint does with orders, times and states: right, or refused in one line."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fracspike.solvers import (
    METHODS,
    Blocked,
    Exponentials,
    Full,
    LinearLeak,
    Memory,
    SolveState,
    Window,
    fdeint,
    mittag_leffler,
    odeint,
)

F64 = torch.float64
MEMORIES = [Full(), Window(4), Blocked(3), Exponentials(1e-9)]
INCREMENTS = ["l1", "l1_explicit", "gl", "gl_explicit"]
Y0 = torch.tensor([0.8, -0.5], dtype=F64)


def grid(end: float, steps: int) -> Tensor:
    return torch.linspace(0.0, end, steps + 1, dtype=F64)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


class TestGradientInTime:
    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_start_and_length_against_finite_differences(
        self, method: str, memory: Memory, gradient: str
    ) -> None:
        def end(start: Tensor, length: Tensor) -> Tensor:
            t = start + length * torch.linspace(0, 1, 9, dtype=F64)
            rhs = lambda t, y: torch.cos(2 * t) - t * y + 0.2 * y.flip(0)  # noqa: E731
            y = fdeint(rhs, Y0, t, 0.7, method=method, memory=memory, gradient=gradient)
            return (y[1:] * torch.tensor([1.0, -2.0], dtype=F64)).sum()

        x = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.3, 1.2)]
        found = torch.autograd.grad(end(*x), x)
        step = 1e-5
        for i in range(2):
            moved = [[v.detach() + s * step * (i == j) for j, v in enumerate(x)] for s in (1, -1)]
            expected = (end(*moved[0]) - end(*moved[1])) / (2 * step)
            torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-8)

    def test_the_exact_method_has_the_closed_form(self) -> None:
        length = torch.tensor(1.5, dtype=F64, requires_grad=True)
        y = fdeint(LinearLeak(2.0), torch.ones(1, dtype=F64), length * grid(1.0, 4), 0.6, method="exact")
        (slope,) = torch.autograd.grad(y[-1].sum(), length)
        z = -2 * length.detach() ** 0.6
        right = -2 * length.detach() ** (0.6 - 1) * mittag_leffler(z, 0.6, 0.6)
        torch.testing.assert_close(slope, right, rtol=1e-9, atol=0)

    @pytest.mark.parametrize("method", ["l1", "trapezoid"])
    def test_each_time_of_a_given_mesh(self, method: str) -> None:
        t = torch.tensor([0.0, 0.1, 0.25, 0.6, 1.0], dtype=F64, requires_grad=True)
        rhs = lambda t, y: torch.sin(3 * t) - y  # noqa: E731
        assert torch.autograd.gradcheck(
            lambda t: fdeint(rhs, Y0, t, 0.6, method=method, mesh="given"), t, rtol=1e-6, atol=1e-8
        )

    def test_a_given_step(self) -> None:
        def end(length: Tensor) -> Tensor:
            t = length * torch.tensor([0.0, 0.13, 0.5, 1.0], dtype=F64)
            return fdeint(lambda t, y: torch.cos(t) - y, Y0, t, 0.7, step=0.1).sum()

        length = torch.tensor(1.23, dtype=F64, requires_grad=True)
        (found,) = torch.autograd.grad(end(length), length)
        expected = (end(length.detach() + 1e-6) - end(length.detach() - 1e-6)) / 2e-6
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)

    def test_it_does_not_reach_through_a_state(self) -> None:
        _, state = fdeint(decay, Y0, grid(1.0, 4), 0.5, return_state=True)
        t = (1 + grid(1.0, 4)).requires_grad_()
        with pytest.raises(ValueError, match="`t` must not require grad where `y0` is a SolveState"):
            fdeint(decay, state, t, 0.5)


class TestOrders:
    def test_one_for_each_part_of_a_tuple(self) -> None:
        """Each part relaxes by its own order; together as alone, and as the closed form says."""
        parts = (torch.ones(2, 2, dtype=F64), torch.tensor([0.5], dtype=F64))
        rhs = lambda t, y: tuple(-x for x in y)  # noqa: E731
        inner = torch.tensor([0.3, 0.8], dtype=F64)
        for orders in ((0.9, 0.4), [inner, 0.4], (torch.tensor(0.9), 1.0)):
            u, v = fdeint(rhs, parts, grid(1.0, 400), orders, method="trapezoid")
            for y, alpha, start in zip((u, v), orders, parts, strict=True):
                exact = start * mittag_leffler(-1.0, torch.as_tensor(alpha, dtype=F64))
                torch.testing.assert_close(y[-1], exact, rtol=2e-4, atol=0)

    @pytest.mark.parametrize("method", INCREMENTS)
    @pytest.mark.parametrize("memory", MEMORIES, ids=repr)
    def test_a_left_side_that_differs_by_component(self, method: str, memory: Memory) -> None:
        """2 D^0.9 u = -u beside D^0.4 v + 3 D^0.8 v = -v: as each alone, in one tensor and in two parts."""
        t, start = grid(1.0, 20), torch.tensor([1.0, 0.5], dtype=F64)
        options = {"method": method, "memory": memory}
        u = fdeint(lambda t, y: -y / 2, start[:1], t, 0.9, **options)
        v = fdeint(decay, start[1:], t, [0.4, 0.8], coefficients=[1.0, 3.0], **options)
        together = fdeint(
            decay,
            start,
            t,
            [torch.tensor([0.9, 0.4], dtype=F64), 0.8],
            coefficients=[torch.tensor([2.0, 1.0], dtype=F64), torch.tensor([0.0, 3.0], dtype=F64)],
            **options,
        )
        tolerance = 1e-8 if isinstance(memory, Exponentials) else 1e-12
        torch.testing.assert_close(together, torch.cat([u, v], 1), rtol=tolerance, atol=tolerance)
        parts = fdeint(
            lambda t, y: (-y[0], -y[1]),
            (start[:1], start[1:]),
            t,
            [(0.9, 0.4), 0.8],
            coefficients=[(2, 1), (0.0, 3.0)],
            **options,
        )
        torch.testing.assert_close(torch.cat(parts, 1), together, rtol=tolerance, atol=tolerance)

    def test_the_order_of_convergence_with_a_term_that_only_one_component_has(self) -> None:
        """y = t^2 in both; D^0.4 y + 0.5 D^0.8 y = f in the first, D^0.4 y = f in the second."""

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            slow, fast = (2 / math.gamma(3 - a) * t ** (2 - a) for a in (0.4, 0.8))
            return torch.stack([slow + 0.5 * fast, slow]) + t**2 - y

        factors = [1.0, torch.tensor([0.5, 0.0], dtype=F64)]
        errors = []
        for steps in (64, 128):
            y = fdeint(rhs, torch.zeros(2, dtype=F64), grid(1.0, steps), [0.4, 0.8], coefficients=factors)
            errors.append((y[-1] - 1).abs())
        observed = torch.log2(errors[0] / errors[1])
        torch.testing.assert_close(observed, torch.tensor([1.2, 1.6], dtype=F64), rtol=0, atol=0.12)

    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    def test_gradients_in_coefficients_by_component(self, gradient: str) -> None:
        def end(c: Tensor) -> Tensor:
            y = fdeint(decay, Y0, grid(1.0, 9), [0.5, 0.9], coefficients=[c, 1.0], gradient=gradient)
            return y[-1] * torch.tensor([1.0, 3.0], dtype=F64)

        c = torch.tensor([0.7, 0.2], dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(end, c, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"alpha": [0.9, 0.8]}, "one order per component pass a tensor.*also pass `coefficients`"),
            ({"alpha": [0.9], "y0": (Y0, Y0)}, "as many entries as it has parts"),
            (
                {"alpha": torch.tensor([0.9, 0.8]), "y0": (Y0, Y0)},
                "one entry for each of the 2 parts of `y0`",
            ),
            (
                {"alpha": [(0.9, 0.8)], "coefficients": [1.0]},
                "a number or a tensor for each order, got tuple",
            ),
            ({"alpha": (0.9, 1.2), "y0": (Y0, Y0)}, r"`alpha\[1\]` must lie in"),
            ({"alpha": [0.9, 0.8], "coefficients": [0.0, 0.0]}, "got 0 for every order"),
            (
                {"alpha": [0.9, 0.8], "coefficients": [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])]},
                "got 0 for every order",
            ),
            ({"alpha": 0.9, "coefficients": [1.0]}, "must both be lists, one for each"),
        ],
    )
    def test_what_is_not_clear_is_refused_with_both_ways_to_say_it(self, options: dict, message: str) -> None:
        arguments = {"rhs": lambda t, y: y, "y0": Y0, "t": grid(1.0, 3)} | options
        with pytest.raises(ValueError, match=message):
            fdeint(**arguments)

    def test_torchdiffeq_takes_any_form_of_the_order_one(self) -> None:
        expected = odeint(decay, Y0, grid(1.0, 4), method="rk4")
        for one in (1, 1.0, torch.tensor(1.0), torch.ones(2)):
            assert torch.equal(fdeint(decay, Y0, grid(1.0, 4), one, method="rk4"), expected)
        pair = fdeint(lambda t, y: (-y[0], -y[1]), (Y0, Y0), grid(1.0, 4), (1, 1.0), method="rk4")
        assert torch.equal(pair[0], expected)
        with pytest.raises(ValueError, match=r"`alpha` must be 1 .* got 0\.5"):
            fdeint(decay, Y0, grid(1.0, 4), torch.tensor([1.0, 0.5]), method="rk4")
        with pytest.raises(ValueError, match="`alpha` must not require grad with torchdiffeq's"):
            fdeint(decay, Y0, grid(1.0, 4), torch.ones(1, requires_grad=True), method="rk4")
        with pytest.raises(ValueError, match="`progress` does not go with rk4"):
            fdeint(decay, Y0, grid(1.0, 4), 1, method="rk4", progress=print)


class TestPlainTensors:
    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    @pytest.mark.parametrize("method", METHODS)
    def test_nothing_that_requires_grad_gives_nothing_that_does(self, method: str, gradient: str) -> None:
        rhs = lambda t, y: torch.sin(t) - y**3  # noqa: E731
        y = fdeint(rhs, Y0, grid(1.0, 70), 0.6, method=method, gradient=gradient)
        assert not y.requires_grad

    @pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
    @pytest.mark.parametrize("method", METHODS)
    def test_a_parameter_that_acts_late_or_deep_is_found(self, method: str, gradient: str) -> None:
        weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
        inner = torch.exp(weight) - 1  # no leaf

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return -y + (inner * y.flip(0) if t > 0.7 else 0.0)

        y = fdeint(rhs, Y0, grid(1.0, 70), 0.6, method=method, gradient=gradient)
        (found,) = torch.autograd.grad(y[-1, 0], weight)

        def end(w: float) -> Tensor:
            nonlocal inner
            inner = torch.exp(torch.tensor(w, dtype=F64)) - 1
            return fdeint(rhs, Y0, grid(1.0, 70), 0.6, method=method)[-1, 0]

        expected = (end(0.5 + 1e-5) - end(0.5 - 1e-5)) / 2e-5
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


class TestStates:
    @pytest.mark.parametrize("method", METHODS)
    def test_results_states_and_arguments_share_nothing(self, method: str) -> None:
        first, second, whole = grid(1.0, 8), 1 + grid(1.0, 8), grid(2.0, 16)
        expected = fdeint(decay, Y0, whole, 0.6, method=method)
        start = Y0.clone()
        y, state = fdeint(decay, start, first, 0.6, method=method, return_state=True)
        y.mul_(1000)
        start.fill_(math.pi)
        z, later = fdeint(decay, state, second, 0.6, method=method, return_state=True)
        torch.testing.assert_close(z, expected[8:], rtol=1e-12, atol=1e-14)
        z.zero_()
        for part in (later.y, later.initial, later.past):
            part.zero_()
        again = fdeint(decay, state, second, 0.6, method=method)
        torch.testing.assert_close(again, expected[8:], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(start, torch.full_like(start, math.pi))
        y = fdeint(decay, start, first, 0.6, method=method)
        y[0] = 0
        assert start.min() == math.pi

    def test_a_state_that_is_changed_before_the_backward_pass(self) -> None:
        _, state = fdeint(decay, Y0, grid(1.0, 8), 0.6, return_state=True)
        grads = []
        for change in (False, True):
            alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
            y = fdeint(decay, state, 1 + grid(1.0, 8), alpha)
            if change:
                state.past.zero_()
                state.y.zero_()
            grads.append(torch.autograd.grad(y.sum(), alpha)[0])
        assert torch.equal(*grads)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"alpha": 0.61}, r"`alpha` must be that of the state, 0\.6, got 0\.61"),
            ({"alpha": torch.tensor([0.6, 0.9])}, r"`alpha` must be that of the state, 0\.6, got 0\.9"),
            ({"method": "gl"}, "`method` must be that of the state, 'l1', got 'gl'"),
            ({"memory": Window(5)}, r"`memory` must be that of the state, Full\(\), got Window\(length=5\)"),
            ({"t": 1 + grid(1.0, 9)}, "`t` must go on from the state, at 1 with step 0.125"),
            ({"t": grid(1.0, 8)}, "`t` must go on from the state, at 1 with step 0.125; got 0"),
            ({"alpha": [0.6, 0.8], "coefficients": [1, 1]}, "as many terms as that of the state, 1, got 2"),
            ({"alpha": [0.6], "coefficients": [2.0]}, "`coefficients` must be that of the state, 1, got 2"),
        ],
    )
    def test_what_made_a_state_must_go_on(self, change: dict, message: str) -> None:
        _, state = fdeint(decay, Y0, grid(1.0, 8), 0.6, return_state=True)
        arguments = {"alpha": 0.6, "t": 1 + grid(1.0, 8)} | change
        with pytest.raises(ValueError, match=message):
            fdeint(decay, state, **arguments)

    def test_a_learned_order_may_move_a_little(self) -> None:
        alpha = torch.nn.Parameter(torch.tensor(0.6))
        _, state = fdeint(decay, Y0, grid(1.0, 8), alpha, return_state=True)
        optimizer = torch.optim.Adam([alpha], lr=0.02)
        for chunk in range(1, 4):
            y, state = fdeint(decay, state, chunk + grid(1.0, 8), alpha, return_state=True)
            optimizer.zero_grad()
            y.square().mean().backward()
            optimizer.step()
        assert abs(alpha.item() - 0.6) > 0.03
        with torch.no_grad():
            alpha.fill_(0.9)
        with pytest.raises(ValueError, match=r"got 0\.9; what is learned may move by 0\.05"):
            fdeint(decay, state, 4 + grid(1.0, 8), alpha)

    def test_a_state_is_saved_and_loaded_without_trust(self) -> None:
        _, state = fdeint(decay, Y0, grid(1.0, 8), 0.6, memory=Window(3), return_state=True)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert isinstance(loaded, SolveState)
        t = 1 + grid(1.0, 8)
        pair = [fdeint(decay, s, t, 0.6, memory=Window(3)) for s in (loaded, state)]
        assert torch.equal(*pair)


def sparse() -> Tensor:
    return torch.eye(2).to_sparse()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y0": torch.empty(0)}, ValueError, r"`y0` must not be empty, got a tensor of shape \(0,\)"),
        ({"y0": (Y0, torch.empty(0, dtype=F64))}, ValueError, r"`y0\[1\]` must not be empty"),
        ({"y0": ()}, TypeError, "`y0` must be a tensor or a tuple of tensors, got an empty tuple"),
        ({"y0": sparse}, TypeError, r"`y0` must be a dense tensor, got torch.sparse_coo; call .to_dense\(\)"),
        ({"y0": Y0.to("meta")}, TypeError, "`y0` must hold values, got a tensor on the meta device"),
        ({"y0": Y0.to(torch.complex64)}, TypeError, "`y0` must be a real floating-point tensor"),
        ({"y0": Y0.long()}, TypeError, "`y0` must be a floating-point tensor, got torch.int64"),
        (
            {"y0": lambda: torch.nested.nested_tensor([Y0, Y0], layout=torch.jagged)},
            TypeError,
            "`y0` must be a plain tensor, got a nested one",
        ),
        (
            {"y0": (Y0, Y0.float())},
            ValueError,
            "one dtype and device, got torch.float64 on cpu, torch.float32",
        ),
        ({"t": torch.arange(4)}, TypeError, "`t` must be a floating-point tensor, got torch.int64"),
        ({"t": grid(1, 3).to("meta")}, TypeError, "`t` must hold values"),
        ({"t": torch.tensor(1.0)}, ValueError, r"`t` must have shape \(T,\) with T >= 2"),
        ({"t": torch.tensor([1.0])}, ValueError, r"`t` must have shape \(T,\) with T >= 2"),
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, ValueError, r"`t` must increase, .*t\[1\] = 1 and t\[2\] = 1"),
        ({"t": torch.tensor([0.0, math.nan])}, ValueError, r"`t` must be finite, got nan at index \(1,\)"),
        ({"alpha": lambda: sparse() * 0.5}, TypeError, "`alpha` must be a dense tensor"),
        ({"rhs": lambda t, y: None}, ValueError, "`rhs` must return the shape of the state.*got NoneType"),
        ({"rhs": lambda t, y: y.to("meta")}, ValueError, "`rhs` must return the shape .*on meta"),
    ],
)
def test_bad_arguments_are_named_in_one_line(change: dict, error: type[Exception], message: str) -> None:
    made = {k: v() if k != "rhs" and isinstance(v, Callable) else v for k, v in change.items()}
    arguments = {"rhs": decay, "y0": Y0, "t": grid(1.0, 3), "alpha": 0.5} | made
    with pytest.raises(error, match=message) as raised:
        fdeint(**arguments)
    assert "\n" not in str(raised.value)
    if "alpha" not in change and "rhs" not in change:
        del arguments["alpha"]
        with pytest.raises((TypeError, ValueError), match=r"`(y0|t)"):
            odeint(**arguments)
