"""The modes of a layer as the kernels want them: flat, padded, with the directions in which they can move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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


# -- for the quick kernels: modes in two groups -------------------------------------------------------------

LANES = 32  # neurons of a vector
QUAD = 4  # steps over which fast modes are taken at once
STRETCH = 16  # steps over which slow modes are taken at once ...
MOMENTS = 4  # ... with so many terms of (1 - loss)^steps


Array = NDArray[Any]


@dataclass(frozen=True)
class Split:
    r"""Coefficients of the two groups; ``*`` is nothing, or one column per neuron, filled up to LANES.

    Attributes:
        fast: ``(F, 12, *)``: :math:`1 - d^j`, :math:`w d^j` and :math:`d^j` for j = 1, ..., 4.
        slow: ``(S, 5, *)``: the loss :math:`\lambda`, then :math:`w (-\lambda)^p` for p = 1, ..., 4.
        losses: ``(S, 3, *)`` float64: the loss of one step, and of a stretch, and the weight.
        sums: ``(1, 14, *)``: kernel of the fast modes at lags 1 to 4, how it falls from 0 to 1, 1 to 2, ...,
            moments 0 to 4 of the weights of the slow ones, and the weight of all others.
        binomials: ``(STRETCH + 1, MOMENTS)``.
        lost: loss of each mode ``(K, 1)``, or ``(K, M)``, float64.
        weights: with their directions ``(3, K, 1)``, or ``(3, K, M)``, float64; the first are the weights.
    """

    fast: Array
    slow: Array
    losses: Array
    sums: Array
    binomials: Array
    lost: Array
    weights: Array

    @property
    def loop(self) -> tuple[Array, ...]:
        """What both kernels take."""
        return self.fast, self.slow, self.losses, self.sums, self.binomials


def split(
    grid: Grid, alpha: Tensor, step: Tensor, shape: Sequence[int], dtype: torch.dtype, *, tangents: bool
) -> Split:
    """Return modes in two groups; those are slow that MOMENTS terms describe to a tenth of the tolerance.

    What neurons share is kept from forward to backward.
    """
    if alpha.numel() == 1 and step.numel() == 1:
        return _shared(grid, float(alpha), float(step), dtype)
    size = math.prod(shape)

    def flat(value: Tensor) -> Array:
        missing = len(shape) - (value.dim() - 1)
        value = value.reshape(len(value), *([1] * missing), *value.shape[1:])
        value = value.expand(len(value), *shape).reshape(len(value), -1)
        return functional.pad(value, (0, -size % LANES)).numpy()

    with torch.no_grad():
        rows = [grid.weights(alpha)]
        if tangents:
            rows += [grid.tangents(alpha), grid.slopes(alpha)]
        return _group(flat(grid.losses(step)), np.stack([flat(row) for row in rows]), grid.tol, dtype)


@lru_cache(maxsize=64)
def _shared(grid: Grid, alpha: float, step: float, dtype: torch.dtype) -> Split:
    with torch.no_grad():
        order = torch.tensor(alpha, dtype=torch.float64)
        rows = [grid.weights(order), grid.tangents(order), grid.slopes(order)]
        loss = grid.losses(torch.tensor(step, dtype=torch.float64))
    return _group(loss.numpy(), np.stack([row.numpy() for row in rows]), grid.tol, dtype)


def _group(loss: Array, weights: Array, tol: float, dtype: torch.dtype) -> Split:
    loss, weights = loss[:-1], weights[:, :-1]  # what decays at once is no mode to the kernels
    most = (0.1 * tol / math.comb(STRETCH, MOMENTS)) ** (1 / MOMENTS)
    slow = int((loss.reshape(len(loss), -1).max(1) <= most).sum())
    lost, w = loss[slow:], weights[0, slow:]
    kept, gone = [1 - lost], [lost]
    for _ in range(QUAD - 1):
        gone.append(gone[-1] + lost * kept[-1])
        kept.append(kept[-1] * kept[0])
    fast = np.stack([*gone, *(w * d for d in kept), *kept], 1)
    kernel = [(w * d).sum(0) for d in kept]
    rise = [(w * lost * d).sum(0) for d in (1.0, *kept[:-1])]
    rise[0] += 1 - weights[0].sum(0)  # the mode that decays at once
    lost, w = loss[:slow], weights[0, :slow]
    powers = [np.ones_like(lost)]
    for _ in range(MOMENTS):
        powers.append(-lost * powers[-1])
    moments = [(w * power).sum(0) for power in powers]
    number = np.float32 if dtype == torch.float32 else np.float64

    def ready(value: Array) -> Array:
        return np.ascontiguousarray(value, number)

    return Split(
        fast=ready(fast),
        slow=ready(np.stack([lost, *(w * power for power in powers[1:])], 1)),
        losses=np.stack([lost, -np.expm1(STRETCH * np.log1p(-lost)), w], 1),
        sums=ready(np.stack([*kernel, *rise, *moments, 1 - moments[0]])[None]),
        binomials=ready(np.array([[math.comb(i, p) for p in range(MOMENTS)] for i in range(STRETCH + 1)])),
        lost=loss.reshape(len(loss), -1),
        weights=weights.reshape(*weights.shape[:2], -1),
    )
