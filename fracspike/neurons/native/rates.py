"""The modes of a layer as the kernels want them: flat, padded, with the directions in which they can move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fracspike.solvers.modes import Grid, choose


def pack(grid: Grid | None) -> list[float]:
    """Return a grid as numbers, which an operator can take; none as no numbers."""
    if grid is None:
        return []
    return [grid.tol, grid.first, grid.last, grid.density, grid.slowest, grid.fastest, float(grid.narrow)]


def unpack(numbers: Sequence[float], alpha: Tensor, step: Tensor, horizon: int, tol: float) -> Grid:
    """Return the grid of :func:`pack`; without numbers, the one that serves these orders and steps."""
    if not numbers:
        return choose(alpha, step, horizon, tol)
    tol, first, last, density, slowest, fastest, narrow = numbers
    return Grid(tol, first, last, density, slowest, fastest, bool(narrow))


def modes(
    grid: Grid, alpha: Tensor, step: Tensor, shape: Sequence[int], *, tangents: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return decays and weights ``(K, 1)``, or ``(K, M)`` for neurons of their own, K a multiple of 4.

    Third, the derivatives of the weights in alpha and in log tau at fixed decays, ``(2, K, *)``; or none.
    """
    shared = alpha.numel() == 1 and step.numel() == 1

    def flat(value: Tensor) -> Tensor:
        count = len(value)
        if shared:
            return padded(value.reshape(count, 1))
        missing = len(shape) - (value.dim() - 1)
        value = value.reshape(count, *([1] * missing), *value.shape[1:])
        return padded(value.expand(count, *shape).reshape(count, -1))

    with torch.no_grad():
        decay, weight = flat(1 - grid.losses(step)), flat(grid.weights(alpha))
        if not tangents:
            return decay, weight, weight.new_empty((0, *weight.shape))
        return decay, weight, torch.stack([flat(grid.tangents(alpha)), flat(grid.slopes(alpha))])


def padded(value: Tensor) -> Tensor:
    """Return rows with zeros added up to a multiple of 4: the kernels take modes four at once."""
    return functional.pad(value, (0, 0, 0, -len(value) % 4)).contiguous()
