"""The transforms of torch.func through fdeint, judged by loops and by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from fracspike.solvers import METHODS, Blocked, Exponentials, Full, LinearLeak, Memory, Window, fdeint

# torch compiles some of its own rules of forward differentiation by a tool that it calls outdated
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

F64 = torch.float64
MEMORIES = [Full(), Window(3), Blocked(2), Exponentials(1e-8)]
EVERY = [(method, memory) for method in METHODS for memory in MEMORIES]
MATRIX = torch.tensor([[-1.0, 0.6], [-0.4, -0.7]], dtype=F64)  # not diagonal
T = torch.linspace(0.0, 0.8, 7, dtype=F64)
Y0 = torch.tensor([0.8, -0.5], dtype=F64)
#: order, rate, initial state: what derivatives are taken in
POINT = torch.tensor([0.6, 1.1, 0.8, -0.5], dtype=F64)


def solve(x: Tensor, method: str, memory: Memory | None = None, **options: object) -> Tensor:
    """The end of a coupled nonlinear solve, as a function of order, rate and initial state in one."""

    def rhs(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(2 * t) + x[1] * (y @ MATRIX.T) - 0.1 * y**3

    return fdeint(rhs, x[2:], T, x[0], method=method, memory=memory, **options)[-1]


def differences(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """The Jacobian by central differences, ``(*out, n)``."""
    moves = step * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(f(x + d) - f(x - d)) / (2 * step) for d in moves], -1)


@pytest.mark.parametrize(("method", "memory"), EVERY, ids=repr)
def test_first_derivatives_of_every_kind(method: str, memory: Memory) -> None:
    def f(x: Tensor) -> Tensor:
        return solve(x, method, memory)

    expected = differences(f, POINT)
    direction, weight = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=F64), torch.tensor([1.0, -2.0], dtype=F64)
    found = {
        "jacrev": (jacrev(f)(POINT), expected),
        "jacfwd": (jacfwd(f)(POINT), expected),
        "jvp": (jvp(f, (POINT,), (direction,))[1], expected @ direction),
        "vjp": (vjp(f, POINT)[1](weight)[0], weight @ expected),
        "grad": (grad(lambda x: (weight * f(x)).sum())(POINT), weight @ expected),
    }
    for name, (value, right) in found.items():
        torch.testing.assert_close(value, right, rtol=2e-6, atol=2e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("method", "memory"), EVERY, ids=repr)
def test_batches_are_loops(method: str, memory: Memory) -> None:
    """Over order, right-hand side and initial state, each alone and together."""
    generator = torch.Generator().manual_seed(0)
    batch = POINT + 0.2 * torch.rand(3, 4, dtype=F64, generator=generator)
    tolerance = 1e-7 if isinstance(memory, Exponentials) else 1e-12
    for columns in ([0], [1], [2, 3]):
        points = POINT.expand(3, 4).clone()
        points[:, columns] = batch[:, columns]

        def f(part: Tensor, columns: list[int] = columns) -> Tensor:
            x = [POINT[i] for i in range(4)]
            for i, place in enumerate(columns):
                x[place] = part[i]
            return solve(torch.stack(x), method, memory)

        found = vmap(f)(points[:, columns])
        expected = torch.stack([solve(x, method, memory) for x in points])
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_second_derivatives(method: str) -> None:
    def f(x: Tensor) -> Tensor:
        return solve(x, method).square().sum()

    expected = differences(grad(f), POINT)
    torch.testing.assert_close(hessian(f)(POINT), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(jacrev(jacrev(f))(POINT), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["l1", "trapezoid", "abm"])
def test_a_batch_of_derivatives(method: str) -> None:
    points = torch.stack([POINT, POINT * 0.9, POINT * 0.5])
    found = vmap(jacrev(lambda x: solve(x, method)))(points)
    expected = torch.stack([differences(lambda x: solve(x, method), x) for x in points])
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("method", METHODS)
def test_in_the_times(method: str) -> None:
    """Of the end, as a function of initial time and length; and a batch of lengths."""

    def f(x: Tensor) -> Tensor:
        times = x[0] + x[1] * torch.linspace(0.0, 1.0, 6, dtype=F64)
        return fdeint(lambda t, y: torch.cos(t) - y * t, Y0, times, 0.7, method=method)[-1]

    x = torch.tensor([0.2, 1.1], dtype=F64)
    expected = differences(f, x)
    torch.testing.assert_close(jacrev(f)(x), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(jacfwd(f)(x), expected, rtol=1e-6, atol=1e-8)
    batch = torch.stack([x, x * 1.5, x * 0.2])
    torch.testing.assert_close(vmap(f)(batch), torch.stack([f(b) for b in batch]), rtol=1e-12, atol=1e-12)


def test_orders_per_component_and_tuples_and_several_terms() -> None:
    def f(x: Tensor) -> Tensor:
        u, v = fdeint(
            lambda t, y: (-y[1] * y[0], y[0].sum() - y[1]),
            (x[2:], x[:1]),
            T,
            [(x[0], 0.9), (0.5, x[1] / 2)],
            coefficients=[(1.0, x[2]), (0.0, 1.0)],
            method="l1",
        )
        return torch.cat([u[-1], v[-1]])

    x = torch.tensor([0.6, 1.1, 0.8, 0.5], dtype=F64)
    torch.testing.assert_close(jacrev(f)(x), differences(f, x), rtol=1e-6, atol=1e-8)
    batch = torch.stack([x, 0.8 * x])
    torch.testing.assert_close(vmap(f)(batch), torch.stack([f(b) for b in batch]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", [Full(), Exponentials(1e-8)], ids=repr)
def test_a_batch_within_a_batch(memory: Memory) -> None:
    orders, starts = torch.tensor([0.4, 0.8], dtype=F64), torch.tensor([0.2, 1.0, -1.0], dtype=F64)

    def f(a: Tensor, y: Tensor) -> Tensor:
        return fdeint(lambda t, y: torch.sin(t) - y**3, y, T, a, method="gl", memory=memory)[-1]

    found = vmap(vmap(f, in_dims=(None, 0)), in_dims=(0, None), out_dims=1)(orders, starts)
    expected = torch.stack([torch.stack([f(a, y) for a in orders]) for y in starts])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_members_of_a_batch_meet_their_own_roots() -> None:
    """A large member must not hide that a small one is not solved yet."""
    starts = torch.tensor([1e9, 1.0], dtype=F64)

    def f(y: Tensor) -> Tensor:
        return fdeint(lambda t, y: -y - y**3 / (1 + y**2), y, T, 0.6)[-1]

    torch.testing.assert_close(vmap(f)(starts), torch.stack([f(y) for y in starts]), rtol=1e-12, atol=0)


def test_the_exact_method() -> None:
    def f(x: Tensor) -> Tensor:
        return fdeint(LinearLeak(x[1], 0.3), x[2:], T, x[0], method="exact")[-1]

    torch.testing.assert_close(jacrev(f)(POINT), differences(f, POINT), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(jacfwd(f)(POINT), differences(f, POINT), rtol=1e-7, atol=1e-9)
    batch = torch.stack([POINT, 0.7 * POINT])
    torch.testing.assert_close(vmap(f)(batch), torch.stack([f(b) for b in batch]), rtol=1e-12, atol=0)


def test_forward_mode_by_itself() -> None:
    direction = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=F64)
    for method in ("l1", "predictor", "trapezoid"):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(POINT, direction)
            found = torch.autograd.forward_ad.unpack_dual(solve(dual, method)).tangent
        expected = differences(lambda x, m=method: solve(x, m), POINT) @ direction
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-8)


def test_bad_values_inside_a_transform_are_named() -> None:
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(0, 1\], got 1.5"):
        vmap(lambda a: fdeint(lambda t, y: -y, Y0, T, a))(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"`y0` must be finite, got nan at index \(1, 0\)"):
        vmap(lambda y: fdeint(lambda t, y: -y, y, T, 0.5))(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match="`return_state` does not go with a transform"):
        grad(lambda y: fdeint(lambda t, y: -y, y, T, 0.5, return_state=True)[0].sum())(Y0)
    with pytest.raises(RuntimeError, match="the implicit step did not converge"):
        vmap(lambda y: fdeint(lambda t, y: torch.where(y > 0.3, -100.0, 5.0).double(), y, T, 0.5))(Y0)
