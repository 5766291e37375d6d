"""What a user of the solvers meets: exact leaks, ordinary methods, grids, progress, acceptance figures."""

from __future__ import annotations

import math

import pytest
import torch
import torchdiffeq
from scipy.special import erfcx
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

from fracspike.solvers import (
    METHODS,
    Exponentials,
    LinearLeak,
    Window,
    fdeint,
    graded_mesh,
    mittag_leffler,
    odeint,
)
from fracspike.solvers.ordinary import ORDINARY

F64 = torch.float64


def grid(end: float, steps: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.linspace(0.0, end, steps + 1, dtype=dtype)


def membrane(alpha: float, tau: float = 0.5, drive: float = 0.8) -> LinearLeak:
    """tau^alpha D^alpha v = -v + drive."""
    return LinearLeak(tau**-alpha, drive * tau**-alpha)


def charged(alpha: float, t: float, tau: float = 0.5, drive: float = 0.8) -> float:
    """The closed form, drive (1 - E_alpha(-(t / tau)^alpha)); its E_alpha is tested elsewhere."""
    return drive * (1 - mittag_leffler(-((t / tau) ** alpha), alpha).item())


class TestExact:
    @pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7, 0.9, 1.0])
    @pytest.mark.parametrize("steps", [1, 7, 256])
    def test_sub_threshold_membrane_is_exact_at_any_step(self, alpha: float, steps: int) -> None:
        v = fdeint(membrane(alpha), torch.zeros(1, dtype=F64), grid(1.0, steps), alpha, method="exact")
        assert v[-1].item() == pytest.approx(charged(alpha, 1.0), rel=1e-10, abs=0.0)

    def test_float32(self) -> None:
        v = fdeint(membrane(0.5), torch.zeros(1), grid(1.0, 256, torch.float32), 0.5, method="exact")
        assert v.dtype == torch.float32
        assert v[-1].item() == pytest.approx(0.8 * (1 - erfcx(math.sqrt(2.0))), rel=5e-6)

    def test_time_dependent_drive_is_held_and_initial_value_relaxes(self) -> None:
        leak = LinearLeak(1.0, lambda t: torch.where(t < 0.5, 0.25, 1.0))
        v = fdeint(leak, torch.full((2,), 0.4, dtype=F64), grid(1.0, 8), 0.5, method="exact")
        e1, e2 = erfcx(1.0), erfcx(math.sqrt(0.5))
        assert v[-1, 0].item() == pytest.approx(0.4 * e1 + 0.25 * (1 - e1) + 0.75 * (1 - e2), rel=1e-12)

    def test_agrees_with_the_trapezoid_rule_and_has_gradients(self) -> None:
        rate = torch.tensor([0.5, 2.0], dtype=F64, requires_grad=True)
        alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
        start = torch.tensor([1.0, -1.0], dtype=F64, requires_grad=True)

        def end(method: str, steps: int) -> Tensor:
            return fdeint(LinearLeak(rate, 0.7), start, grid(1.0, steps), alpha, method=method)[-1]

        exact, refined = (
            torch.autograd.grad(end(*case).sum(), (rate, alpha, start))
            for case in (("exact", 5), ("trapezoid", 800))
        )
        for a, b in zip(exact, refined, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_needs_a_linear_leak(self) -> None:
        with pytest.raises(TypeError, match=r"`rhs` must be a LinearLeak.*got function; use 'trapezoid'"):
            fdeint(lambda t, y: -y, torch.ones(1), grid(1.0, 4), 0.5, method="exact")
        with pytest.raises(ValueError, match="`rate` must be > 0"):
            LinearLeak(-1.0)
        with pytest.raises(ValueError, match="`memory` does not go with exact"):
            fdeint(LinearLeak(1.0), torch.ones(1), grid(1.0, 4), 0.5, method="exact", memory=Window(3))


class TestOrdinary:
    def test_every_name_that_torchdiffeq_knows_is_known(self) -> None:
        assert set(SOLVERS) <= set(ORDINARY)

    @pytest.mark.parametrize("method", [m for m in ORDINARY if m not in ("implicit_adams", "scipy_solver")])
    def test_agrees_with_torchdiffeq_through_the_same_call(self, method: str) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.sin(t) - y

        start, t = torch.ones(3, dtype=F64), grid(1.0, 10)
        expected = torchdiffeq.odeint(rhs, start, t, method=method)
        assert torch.equal(fdeint(rhs, start, t, 1.0, method=method), expected)
        assert torch.equal(odeint(rhs, start, t, method=method), expected)

    def test_options_reach_torchdiffeq(self) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return -y

        start, t = torch.ones(1, dtype=F64), grid(1.0, 2)
        loose = fdeint(rhs, start, t, 1, method="dopri5", rtol=1e-2, atol=1e-2)
        assert torch.equal(loose, torchdiffeq.odeint(rhs, start, t, method="dopri5", rtol=1e-2, atol=1e-2))

    def test_fractional_order_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"`alpha` must be 1 with torchdiffeq's method 'rk4', got 0\.5"):
            fdeint(lambda t, y: -y, torch.ones(1), grid(1.0, 4), 0.5, method="rk4")

    def test_unknown_arguments_are_refused(self) -> None:
        with pytest.raises(TypeError, match="unknown argument 'rtol'"):
            fdeint(lambda t, y: -y, torch.ones(1), grid(1.0, 4), 0.5, rtol=1e-3)


class TestGrid:
    def test_given_step_solves_on_a_uniform_grid_and_interpolates(self) -> None:
        fine = grid(2.0, 400)
        uniform = fdeint(lambda t, y: torch.cos(t) - y, torch.ones(2, dtype=F64), fine, 0.7)
        wanted = torch.tensor([0.0, 0.0125, 0.5, 1.3, 2.0], dtype=F64)
        y = fdeint(lambda t, y: torch.cos(t) - y, torch.ones(2, dtype=F64), wanted, 0.7, step=0.005)
        torch.testing.assert_close(y[[0, 2, 3, 4]], uniform[[0, 100, 260, 400]], rtol=1e-12, atol=1e-13)
        finer = fdeint(lambda t, y: torch.cos(t) - y, torch.ones(2, dtype=F64), grid(2.0, 1600), 0.7)
        torch.testing.assert_close(y[1], finer[10], rtol=0, atol=6e-3)

    def test_a_grid_that_is_not_uniform_is_interpolated_with_a_warning(self) -> None:
        wanted = torch.tensor([0.0, 0.1, 0.25, 0.4, 1.0], dtype=F64)
        with pytest.warns(UserWarning, match=r"t is not uniform: solved on a uniform grid of step 0\.1"):
            y = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), wanted, 0.7)
        uniform = fdeint(lambda t, y: -y, torch.ones(1, dtype=F64), grid(1.0, 10), 0.7)
        torch.testing.assert_close(y[[0, 1, 3, 4]], uniform[[0, 1, 4, 10]], rtol=1e-12, atol=0)
        between = (uniform[2] + uniform[3]).item() / 2
        assert 0.97 * between < y[2].item() < between  # the solution is convex

    def test_progress_is_told_of_every_step(self) -> None:
        told: list[tuple[int, int]] = []
        fdeint(
            lambda t, y: -y,
            torch.ones(1),
            grid(1.0, 5),
            0.5,
            progress=lambda done, steps: told.append((done, steps)),
        )
        assert told == [(n, 5) for n in range(1, 6)]

    def test_every_number_of_steps_gives_so_many(self) -> None:
        from fracspike.solvers.integrate import _implied_step, _times

        for dtype in (torch.float32, F64):
            for steps in range(1, 4097):
                for end in (1.0, 7.3):
                    t = torch.linspace(0, end, steps + 1, dtype=dtype)
                    times, h = _times(t, _implied_step(t, None, "uniform"), "uniform")
                    assert len(times) == steps + 1
                    assert h == pytest.approx(end / steps, rel=1e-6)

    def test_times_reach_the_right_hand_side_in_the_dtype_of_the_state(self) -> None:
        seen = set()

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            seen.add(t.dtype)
            return -y

        fdeint(rhs, torch.ones(1), grid(1.0, 3, F64), 0.5)
        assert seen == {torch.float32}

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"step": 0.0}, ValueError, "`step` must be > 0"),
            ({"mesh": "random"}, ValueError, "`mesh` must be one of 'given', 'uniform'"),
            ({"mesh": "given", "method": "gl"}, ValueError, "`mesh` must be 'uniform' with method 'gl'"),
            ({"mesh": "given", "memory": Window(3)}, ValueError, "`memory` does not go with mesh='given'"),
            (
                {"alpha": [0.5, 0.9]},
                ValueError,
                "`alpha` must not be a list of 2 orders where `y0` is a tensor",
            ),
            ({"alpha": [0.5, 0.9], "coefficients": [1.0]}, ValueError, "one for each of a list of orders"),
            ({"alpha": [0.5, 0.9], "coefficients": [1.0, -1.0]}, ValueError, "`coefficients` must be >= 0"),
            ({"coefficients": [1.0]}, ValueError, "one for each of a list of orders"),
            (
                {"alpha": [0.5, 0.9], "coefficients": [1.0, 1.0], "method": "abm"},
                ValueError,
                "`method` must be one of l1, .* for several orders, got 'abm'",
            ),
        ],
    )
    def test_what_does_not_go_together_is_named(
        self, options: dict, error: type[Exception], message: str
    ) -> None:
        arguments = {"alpha": 0.5} | options
        with pytest.raises(error, match=message):
            fdeint(lambda t, y: -y, torch.ones(1), grid(1.0, 4), **arguments)

    def test_bad_meshes_are_named(self) -> None:
        with pytest.raises(ValueError, match="`exponent` must be >= 1"):
            graded_mesh(0, 1, 10, 0.5)
        with pytest.raises(ValueError, match="`end` must be > 1"):
            graded_mesh(1, 0, 10, 2)


class TestImplicit:
    def test_coupled_stiff_system_falls_back_on_the_whole_jacobian(self) -> None:
        generator = torch.Generator().manual_seed(0)
        matrix = 5 * torch.randn(30, 30, dtype=F64, generator=generator)
        matrix = (-matrix @ matrix.T).requires_grad_()  # eigenvalues down to about -2000
        start = torch.ones(30, dtype=F64, requires_grad=True)
        y = fdeint(lambda t, y: y @ matrix, start, grid(1.0, 5), 0.6)
        h = 0.2**0.6 * math.gamma(1.4)
        first = torch.linalg.solve(torch.eye(30, dtype=F64) - h * matrix.T, start)
        torch.testing.assert_close(y[1], first, rtol=1e-9, atol=1e-11)
        found = torch.autograd.grad(y[1].sum(), start, retain_graph=True)[0]
        expected = torch.autograd.grad(first.sum(), start)[0]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)

    def test_right_hand_side_that_does_not_depend_on_the_state(self) -> None:
        scale = torch.tensor(2.0, dtype=F64, requires_grad=True)
        y = fdeint(
            lambda t, y: scale * torch.ones_like(y),
            torch.zeros(2, dtype=F64),
            grid(1.0, 10),
            0.5,
            method="gl",
        )
        (slope,) = torch.autograd.grad(y[-1].sum(), scale)
        assert slope.item() == pytest.approx(y[-1].sum().item() / 2, rel=1e-12)


class TestAcceptance:
    """Figures attained by earlier work on the same problems, to the two digits they are stated with."""

    @pytest.mark.parametrize(
        ("method", "bounds"),
        [
            ("trapezoid", {0.3: 2.6e-5, 0.5: 1.1e-5, 0.7: 3.6e-6, 0.9: 1.6e-6}),
            ("l1", {0.3: 1.1e-4, 0.5: 1.8e-4, 0.7: 2.8e-4, 0.9: 5.5e-4}),
        ],
    )
    def test_sub_threshold_membrane_at_256_steps(self, method: str, bounds: dict[float, float]) -> None:
        leak = LinearLeak(2.0, 1.6)  # 0.5 D^alpha v = -v + 0.8
        for alpha, bound in bounds.items():
            v = fdeint(leak, torch.zeros(1, dtype=F64), grid(1.0, 256), alpha, method=method)
            exact = 0.8 * (1 - mittag_leffler(-2.0, alpha).item())
            assert abs(v[-1].item() - exact) < bound

    def test_diethelms_problem_and_a_square_by_the_trapezoid_rule_at_256_steps(self) -> None:
        from test_order import diethelm

        for alpha in (0.3, 0.5, 0.7, 0.9):
            rhs, start, end = diethelm(alpha)
            y = fdeint(rhs, torch.tensor([start], dtype=F64), grid(1.0, 256), alpha, method="trapezoid")
            assert abs(y[-1].item() - end) < 2.1e-5
            square = lambda t, y, a=alpha: 2 / math.gamma(3 - a) * t ** (2 - a) + t**2 - y  # noqa: E731
            y = fdeint(square, torch.zeros(1, dtype=F64), grid(1.0, 256), alpha, method="trapezoid")
            assert abs(y[-1].item() - 1.0) < 2e-6

    def test_two_term_equation_at_256_steps(self) -> None:
        def rhs(t: Tensor, y: Tensor) -> Tensor:
            power = [2 / math.gamma(3 - a) * t ** (2 - a) for a in (0.8, 0.4)]
            return power[0] + 0.5 * power[1] + t**2 - y

        for method, bound in (("gl", 3.8e-3), ("l1", 3.8e-3)):
            y = fdeint(
                rhs,
                torch.zeros(1, dtype=F64),
                grid(1.0, 256),
                [0.4, 0.8],
                coefficients=[0.5, 1.0],
                method=method,
            )
            assert abs(y[-1].item() - 1.0) < bound

    @pytest.mark.parametrize("method", METHODS)
    def test_solutions_are_continuous_as_alpha_tends_to_one(self, method: str) -> None:
        y = [
            fdeint(lambda t, y: t - y, torch.ones(1, dtype=F64), grid(1.0, 50), a, method=method)[-1].item()
            for a in (1 - 1e-9, 1.0)
        ]
        assert y[0] == pytest.approx(y[1], abs=1e-8)

    def test_float32_gradients(self) -> None:
        """That in the input within 2e-5 of float64, that in alpha within 1e-4, also with exponentials."""
        results = []
        for dtype, memory in ((F64, None), (torch.float32, None), (torch.float32, Exponentials(1e-6))):
            alpha = torch.tensor(0.6, dtype=F64, requires_grad=True)
            start = torch.linspace(-1, 1, 5, dtype=dtype).requires_grad_()
            y = fdeint(lambda t, y: torch.sin(3 * t) - y, start, grid(4.0, 512, dtype), alpha, memory=memory)
            results.append(torch.autograd.grad((y**2).mean(), (start, alpha)))
        for single in results[1:]:
            assert (single[0].double() - results[0][0]).abs().max() < 2e-5 * results[0][0].abs().max()
            assert abs(single[1] - results[0][1]) < 1e-4 * abs(results[0][1])
