r"""The equation of an implicit step, :math:`y = \text{base} + g\, f(y)`, and its derivative.

The root is found by Newton's method with the diagonal of the Jacobian (exact for a right-hand side
that acts on each element alone, as neurons do), accelerated by Anderson mixing; if that fails, by
Newton's method with the whole Jacobian. It is differentiated by the implicit function theorem,
never through the iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Field = Callable[[Tensor], Tensor]

ITERATIONS = 30  # with the diagonal, before the whole Jacobian is formed
MIXING = 6  # how many earlier residuals Anderson mixing combines
NEWTON_STEPS = 30
LARGEST_JACOBIAN = 2048  # states for which the whole Jacobian is still formed
ROUNDING = 16  # a root is met when its residual is this many units of rounding


class ImplicitStep:
    """Solves the steps of one march, keeping the slope from one to the next.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49(4) (Anderson mixing); Bai, Kolter and
    Koltun (2019), NeurIPS, theorem 1 (the backward pass).
    """

    def __init__(self) -> None:
        self._slope: Tensor | None = None

    def solve(self, field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ``y`` with ``y = base + gain * field(y)``, and the rate ``field(y)``.

        Both are differentiable in all that enters.

        Args:
            field: the right-hand side at the new time, ``(*) -> (*)``.
            base: known part, ``(*)``.
            gain: broadcastable to ``base``.
            guess: where to start, ``(*)``.

        Raises:
            RuntimeError: if the iteration does not meet the root to rounding.
        """
        at, rate = self._root(field, base.detach(), gain.detach(), guess.detach())
        if not torch.is_grad_enabled():
            return at, rate
        y: Tensor = _Root.apply(base, gain, rate, at, self._slope)  # type: ignore[no-untyped-call]
        # as a function of what entered, the rate is (y - base) / gain; its value is known better than that
        implied = (y - base) / gain
        return y, implied + (rate - implied).detach()

    def _root(self, field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Return the root as a leaf, and the field there with its graph."""
        if self._slope is None:
            self._slope = _diagonal(field, guess, gain)
        mixing = _Mixing(self._slope)
        y = guess
        for iteration in range(ITERATIONS):
            at, rate = _evaluate(field, y)
            residual, met = _residual(base, gain, rate, y)
            if met:
                if iteration > 2:  # the slope has grown stale
                    self._slope = _diagonal(field, y, gain)
                return at, rate
            if not bool(torch.isfinite(residual).all()):
                break
            y = mixing.next(y, residual)
        return _newton(field, base, gain, guess)


class _Root(torch.autograd.Function):
    """The root as a function of base, gain and the field's own parameters."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, gain: Tensor, rate: Tensor, at: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(gain, slope)
        ctx.rate, ctx.at = rate, at  # with the graph between them, which is the Jacobian
        ctx.base_shape = base.shape
        return at.detach().clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "implicit steps give first derivatives only; use an explicit method with gradient='autograd' "
                "to differentiate twice"
            )
        gain, slope = ctx.saved_tensors
        # (I - gJ)^T mu = upstream: itself an equation of the form y = base + g f(y)
        mu = _solve_transposed(_transposed(ctx.rate, ctx.at, gain), upstream, slope)
        in_gain = (mu * ctx.rate.detach()).sum_to_size(gain.shape) if ctx.needs_input_grad[1] else None
        return mu, in_gain, gain * mu, None, None


def _evaluate(field: Field, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``y`` as the start of a graph, and the field there; no graph where none is wanted."""
    if not torch.is_grad_enabled():
        return y, field(y)
    at = _Barrier.apply(y.detach().requires_grad_())  # type: ignore[no-untyped-call]
    return at, field(at)


class _Barrier(torch.autograd.Function):
    """The identity, at which the engine's own backward pass stops: the root's part is done by _Root."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> None:
        return None


def _residual(base: Tensor, gain: Tensor, rate: Tensor, y: Tensor) -> tuple[Tensor, bool]:
    with torch.no_grad():
        change = gain * rate
        residual = base + change - y
        scale = torch.maximum(base.abs(), change.abs()).max() + torch.finfo(base.dtype).tiny
        met = residual.abs().max() <= ROUNDING * torch.finfo(base.dtype).eps * scale
    return residual, bool(met)


def _transposed(rate: Tensor, at: Tensor, gain: Tensor) -> Field:
    """Return ``mu -> (gain J)^T mu``."""

    def product(mu: Tensor) -> Tensor:
        if not rate.requires_grad:
            return torch.zeros_like(mu)
        (found,) = torch.autograd.grad(rate, at, gain * mu, retain_graph=True, allow_unused=True)
        result: Tensor = torch.zeros_like(mu) if found is None else found  # the field may not depend on y
        return result

    return product


def _diagonal(field: Field, y: Tensor, gain: Tensor) -> Tensor:
    """Return the column sums of ``gain J``, which are its diagonal if it is diagonal; else zero."""
    with torch.enable_grad():
        at, rate = _evaluate(field, y)
    product = _transposed(rate, at, gain)
    sums = product(torch.ones_like(y))
    signs = torch.where(torch.arange(y.numel(), device=y.device) % 2 == 0, 1.0, -1.0).to(y).reshape(y.shape)
    diagonal = torch.allclose(product(signs), signs * sums, rtol=1e-3, atol=1e-6)
    return sums if diagonal else torch.zeros_like(sums)


def _solve_transposed(product: Field, upstream: Tensor, slope: Tensor) -> Tensor:
    mixing = _Mixing(slope)
    mu = mixing.next(torch.zeros_like(upstream), upstream)
    for _ in range(ITERATIONS):
        residual, met = _residual(upstream, torch.ones_like(upstream), product(mu), mu)
        if met:
            return mu
        mu = mixing.next(mu, residual)
    size = upstream.numel()
    matrix = _rows(product, upstream)
    solution: Tensor = torch.linalg.solve(torch.eye(size).to(matrix) - matrix.T, upstream.reshape(size))
    return solution.reshape(upstream.shape)


def _newton(field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    y, best = guess, float("inf")
    for _ in range(NEWTON_STEPS):
        with torch.enable_grad():
            at, rate = _evaluate(field, y)
        residual, met = _residual(base, gain, rate, y)
        if met:
            return _evaluate(field, y)
        best = float(residual.abs().max())
        if not best < float("inf") or y.numel() > LARGEST_JACOBIAN:
            break
        matrix = torch.eye(y.numel()).to(y) - _rows(_transposed(rate, at, gain), y)
        move = torch.linalg.solve(matrix, residual.reshape(-1)).reshape(y.shape)
        if bool(move.abs().max() <= ROUNDING * torch.finfo(y.dtype).eps * y.abs().max()):
            return _evaluate(field, y)  # in a stiff system the residual is rounding long before it is small
        y = y + move
    raise RuntimeError(
        f"the implicit step did not converge: residual {best:.2g}; use a smaller time step, an explicit "
        "method, or check that the right-hand side is finite and continuous"
    )


def _rows(product: Field, like: Tensor) -> Tensor:
    """Return the matrix whose rows are the products with the unit vectors: ``gain J``."""
    size = like.numel()
    if size > LARGEST_JACOBIAN:
        raise RuntimeError(
            f"the implicit step did not converge, and {size} states are too many for the whole Jacobian; "
            "use a smaller time step or an explicit method"
        )
    units = torch.eye(size, dtype=like.dtype, device=like.device)
    return torch.stack([product(unit.reshape(like.shape)).reshape(-1) for unit in units])


class _Mixing:
    """Newton's method with a given diagonal, and Anderson mixing over the last moves."""

    def __init__(self, slope: Tensor) -> None:
        self._damping = 1 / torch.where((1 - slope).abs() < 1e-3, torch.ones_like(slope), 1 - slope)
        self._points: list[Tensor] = []
        self._moves: list[Tensor] = []

    def next(self, y: Tensor, residual: Tensor) -> Tensor:
        with torch.no_grad():
            self._points.append(y)
            self._moves.append(self._damping * residual)
            del self._points[:-MIXING], self._moves[:-MIXING]
            return self._mix()

    def _mix(self) -> Tensor:
        """Combine the last points so that the linearised move is smallest."""
        newest = self._points[-1] + self._moves[-1]
        if len(self._points) < 3:
            return newest
        changes = torch.stack([self._moves[-1] - move for move in self._moves[:-1]]).flatten(1).T
        earlier = zip(self._points[:-1], self._moves[:-1], strict=True)
        steps = torch.stack([newest - (point + move) for point, move in earlier])
        target = self._moves[-1].reshape(-1, 1)
        shares = torch.linalg.lstsq(changes.double(), target.double()).solution.to(newest.dtype)
        mixed = newest - torch.tensordot(shares.squeeze(1), steps, dims=1)
        return mixed if bool(torch.isfinite(mixed).all()) else newest
