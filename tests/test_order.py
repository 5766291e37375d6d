"""Observed orders of convergence, two-sided, on problems with closed-form solutions.

Theory: each method's ``order`` for smooth solutions, its ``singular_order`` at a fixed time for solutions
that start like t^alpha on a uniform grid (sources in the methods' docstrings).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.special import erfcx
from torch import Tensor

from fracspike.solvers import METHODS, fdeint, graded_mesh, mittag_leffler

F64 = torch.float64
ALPHAS = (0.3, 0.5, 0.7, 0.9, 1.0)
Problem = Callable[[float], tuple[Callable[[Tensor, Tensor], Tensor], float, float]]


def power(p: float, alpha: float, t: Tensor) -> Tensor:
    """D^alpha t^p = Gamma(p + 1) / Gamma(p + 1 - alpha) t^(p - alpha)."""
    return math.gamma(p + 1) / math.gamma(p + 1 - alpha) * t ** (p - alpha)


def nonlinear(alpha: float) -> tuple[Callable[[Tensor, Tensor], Tensor], float, float]:
    """y = 1 + t^2 + t^3 with a nonlinear, time-dependent right-hand side."""

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        forcing = power(2, alpha, t) + power(3, alpha, t)
        return forcing - torch.sin(1 + t**2 + t**3) + torch.sin(y)

    return rhs, 1.0, 3.0


def linear(alpha: float) -> tuple[Callable[[Tensor, Tensor], Tensor], float, float]:
    """y = t^3, with D^alpha y = 6 / Gamma(4 - alpha) t^(3 - alpha) + t^3 - y: smooth and time-dependent."""
    return lambda t, y: power(3, alpha, t) + t**3 - y, 0.0, 1.0


def diethelm(alpha: float) -> tuple[Callable[[Tensor, Tensor], Tensor], float, float]:
    """y = t^8 - 3 t^(4 + alpha/2) + 9/4 t^alpha (Diethelm, Ford and Freed 2004, example 1)."""

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        return (
            power(8, alpha, t)
            - 3 * power(4 + alpha / 2, alpha, t)
            + 9 / 4 * math.gamma(alpha + 1)
            + (1.5 * t ** (alpha / 2) - t**4) ** 3
            - y.abs() ** 1.5
        )

    return rhs, 0.0, 0.25


def error(problem: Problem, alpha: float, method: str, t: Tensor, **options: object) -> float:
    rhs, start, end = problem(alpha)
    y = fdeint(rhs, torch.tensor([start], dtype=F64), t, alpha, method=method, **options)
    return abs(y[-1].item() - end)


def observed(problem: Problem, alpha: float, method: str, steps: int = 512, **options: object) -> float:
    coarse, fine = (
        error(problem, alpha, method, torch.linspace(0, 1, n + 1, dtype=F64), **options)
        for n in (steps // 2, steps)
    )
    return math.log2(coarse / fine)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("problem", [nonlinear, linear])
def test_order_on_smooth_time_dependent_problems(problem: Problem, method: str, alpha: float) -> None:
    assert observed(problem, alpha, method) == pytest.approx(METHODS[method].order(alpha), abs=0.15)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "abm"])
def test_order_on_diethelms_problem(method: str, alpha: float) -> None:
    """Along the solution the right-hand side is smooth enough for trapezoid's 2; y ~ t^alpha costs L1."""
    theory = {"trapezoid": 2.0}.get(method, 1.0)
    assert observed(diethelm, alpha, method) == pytest.approx(theory, abs=0.15)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_abm_on_diethelms_problem_is_at_least_of_its_order_over_a_long_refinement(alpha: float) -> None:
    """At a single time the error changes sign between grids, so the largest one counts."""
    rhs, start, _ = diethelm(alpha)
    errors = []
    for steps in (128, 2048):
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        exact = t**8 - 3 * t ** (4 + alpha / 2) + 9 / 4 * t**alpha
        y = fdeint(rhs, torch.tensor([start], dtype=F64), t, alpha, method="abm")
        errors.append((y[:, 0] - exact).abs()[steps // 2 :].max().item())
    assert math.log(errors[0] / errors[1], 16) == pytest.approx(1 + alpha, abs=0.15)


def relaxed(alpha: float, z: float) -> float:
    """E_alpha(z): the closed form at 1/2 and 1, else the library's own, which is tested elsewhere."""
    if alpha in (0.5, 1.0):
        return float(erfcx(-z)) if alpha == 0.5 else math.exp(z)
    return mittag_leffler(torch.tensor(z, dtype=F64), alpha).item()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_order_on_relaxation_which_starts_like_t_to_the_alpha(method: str, alpha: float) -> None:
    exact = relaxed(alpha, -1.0)
    order = observed(lambda a: (lambda t, y: -y, 1.0, exact), alpha, method, steps=1024)
    assert order == pytest.approx(METHODS[method].singular_order(alpha), abs=0.15)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_order_on_a_leaky_membrane_under_a_step_of_current(method: str, alpha: float) -> None:
    """tau D^alpha v = -v + I(t): the response to a step at t = 1/2 is a delayed copy of that at 0."""
    tau = 0.5
    late = 0.4 * (1 - relaxed(alpha, -(0.5**alpha) / tau))
    exact = 0.3 * relaxed(alpha, -1 / tau) + 0.8 * (1 - relaxed(alpha, -1 / tau)) + late

    def rhs(t: Tensor, v: Tensor) -> Tensor:
        at_jump = 0.5 if METHODS[method].implicit or method == "abm" else 1.0
        current = 0.8 + 0.4 * torch.where((t - 0.5).abs() < 1e-9, at_jump, (t > 0.5).to(v.dtype))
        return (current - v) / tau

    def solve(steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        return abs(fdeint(rhs, torch.tensor([0.3], dtype=F64), t, alpha, method=method)[-1].item() - exact)

    order, theory = math.log2(solve(512) / solve(1024)), METHODS[method].singular_order(alpha)
    if theory > 1:  # two singular terms, from 0 and from the step, may cancel for a while: at least the order
        assert order > theory - 0.15
    else:
        assert order == pytest.approx(theory, abs=0.15)


@pytest.mark.parametrize("alpha", [0.5, 0.7])
@pytest.mark.parametrize("method", ["l1", "trapezoid"])
def test_graded_mesh_restores_the_smooth_order(method: str, alpha: float) -> None:
    """y = 1 + t^alpha + t^(2 alpha), singular at 0; the largest error at any time counts."""

    def exact(t: Tensor) -> Tensor:
        return 1 + t**alpha + t ** (2 * alpha)

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        forcing = math.gamma(alpha + 1) + power(2 * alpha, alpha, t)
        return forcing - torch.sin(exact(t)) + torch.sin(y)

    def largest(t: Tensor, mesh: str) -> float:
        y = fdeint(rhs, torch.ones(1, dtype=F64), t, alpha, method=method, mesh=mesh)
        return (y[:, 0] - exact(t)).abs().max().item()

    order = METHODS[method].order(alpha)
    meshes = [graded_mesh(0, 1, n, order / alpha) for n in (128, 256)]
    graded = [largest(t, "given") for t in meshes]
    uniform = largest(torch.linspace(0, 1, 257, dtype=F64), "uniform")
    assert math.log2(graded[0] / graded[1]) == pytest.approx(order, abs=0.15)
    assert graded[1] < uniform


def test_given_mesh_on_a_uniform_grid_is_the_uniform_method() -> None:
    t = torch.linspace(0, 1, 41, dtype=F64)
    for method in ("l1", "trapezoid"):
        pair = [
            fdeint(lambda t, y: t - y**2, torch.ones(2, dtype=F64), t, 0.6, method=method, mesh=mesh)
            for mesh in ("given", "uniform")
        ]
        torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", ["l1", "l1_explicit", "gl", "gl_explicit"])
def test_order_of_a_multi_term_equation(method: str) -> None:
    """D^0.8 y + 0.5 D^0.4 y = f with y = t^2."""

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        return power(2, 0.8, t) + 0.5 * power(2, 0.4, t) + t**2 - y

    def solve(steps: int) -> float:
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        y = fdeint(rhs, torch.zeros(1, dtype=F64), t, [0.4, 0.8], coefficients=[0.5, 1.0], method=method)
        return abs(y[-1].item() - 1.0)

    theory = 2 - 0.8 if method == "l1" else 1.0
    assert math.log2(solve(512) / solve(1024)) == pytest.approx(theory, abs=0.15)
