r"""The equation of an implicit step, :math:`y = \text{base} + g\, f(y)`, and its derivative.

The root is found by Newton's method with the row sums of the Jacobian as its diagonal
(exact for a right-hand side that acts on each element alone, as neurons do), accelerated by
Anderson mixing (exact in a few steps for a coupled linear one).  It is differentiated by the
implicit function theorem, never through the iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Field = Callable[[Tensor], Tensor]

MAX_ITERATIONS = 100
MIXING = 6  # how many earlier residuals Anderson mixing combines
ROUNDING = 16  # a root is met when its residual is this many units of rounding


def solve_step(field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> Tensor:
    """Return the ``y`` with ``y = base + gain * field(y)``, differentiable in all that enters.

    Args:
        field: the right-hand side at the new time, ``(*) -> (*)``.
        base: known part, ``(*)``.
        gain: broadcastable to ``base``.
        guess: where to start, ``(*)``.

    Returns:
        ``(*)``.

    Raises:
        RuntimeError: if the iteration does not meet the root to rounding.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49(4) (Anderson mixing); Bai, Kolter and
    Koltun (2019), NeurIPS, theorem 1 (the backward pass).
    """
    root = _find_root(field, base.detach(), gain.detach(), guess.detach())
    value = base + gain * field(root)  # carries every dependence but that through y itself
    if not value.requires_grad:
        return root
    transposed = _transposed_jacobian(field, root, gain.detach())
    if transposed is None:
        return value
    through: Tensor = _ThroughRoot.apply(value, transposed)  # type: ignore[no-untyped-call]
    return through


class _ThroughRoot(torch.autograd.Function):
    """The identity, whose backward pass adds the dependence of the root on itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, transposed: Field) -> Tensor:
        ctx.transposed = transposed
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        # (I - gJ)^T mu = upstream: itself an equation of the form y = base + g f(y)
        return _fixed_point(ctx.transposed, upstream, upstream), None


def _find_root(field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> Tensor:
    slope = _row_sums(field, guess, gain)
    with torch.no_grad():
        return _fixed_point(lambda y: gain * field(y), base, guess, slope)


def _row_sums(field: Field, at: Tensor, gain: Tensor) -> Tensor:
    """Return ``gain`` times the column sums of the Jacobian: its diagonal, if it is diagonal."""
    product = _transposed_jacobian(field, at, gain)
    return torch.zeros_like(at) if product is None else product(torch.ones_like(at))


def _transposed_jacobian(field: Field, at: Tensor, gain: Tensor) -> Field | None:
    """Return ``mu -> (gain J)^T mu`` at the point ``at``; None if the field does not depend on it."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        value = gain * field(point)
    if not value.requires_grad:
        return None

    def product(mu: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(value, point, mu, retain_graph=True, allow_unused=True)
        return torch.zeros_like(mu) if result is None else result

    return product


def _fixed_point(step: Field, base: Tensor, guess: Tensor, slope: Tensor | None = None) -> Tensor:
    """Solve ``y = base + step(y)``; ``slope`` is an estimate of the diagonal of the Jacobian of step."""
    if slope is None:
        slope = step(torch.ones_like(base))  # a linear step: its row sums
    damping = 1 / torch.where((1 - slope).abs() < 1e-3, torch.ones_like(slope), 1 - slope)
    rounding = ROUNDING * torch.finfo(base.dtype).eps
    points: list[Tensor] = []
    moves: list[Tensor] = []
    y = guess
    for _ in range(MAX_ITERATIONS):
        change = step(y)
        residual = base + change - y
        scale = torch.maximum(base.abs(), change.abs()).max() + torch.finfo(base.dtype).tiny
        if bool(residual.abs().max() <= rounding * scale):
            return y + residual
        points.append(y)
        moves.append(damping * residual)
        del points[:-MIXING], moves[:-MIXING]
        y = _mix(points, moves)
    raise RuntimeError(
        f"the implicit step did not converge: residual {residual.abs().max().item():.2g} after "
        f"{MAX_ITERATIONS} iterations; use a smaller time step, an explicit method, or check that the "
        "right-hand side is finite and continuous"
    )


def _mix(points: list[Tensor], moves: list[Tensor]) -> Tensor:
    """Combine the last points so that the linearised move is smallest (Anderson mixing)."""
    newest = points[-1] + moves[-1]
    if len(points) == 1:
        return newest
    move_changes = torch.stack([moves[-1] - m for m in moves[:-1]]).flatten(1).T
    next_changes = torch.stack([newest - (p + m) for p, m in zip(points[:-1], moves[:-1], strict=True)])
    target = moves[-1].flatten().unsqueeze(1)
    shares = torch.linalg.lstsq(move_changes.double(), target.double()).solution.to(newest.dtype)
    mixed = newest - torch.tensordot(shares.squeeze(1), next_changes, dims=1)
    return mixed if bool(torch.isfinite(mixed).all()) else newest
