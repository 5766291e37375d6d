"""The modes of a layer as the kernels want them: flat, with the directions in which they can move."""

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

from .threads import sources


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
    """Return decays and weights ``(K, 1)``, or ``(K, M)`` for neurons of their own.

    Third, the derivatives of the weights in alpha and in log tau at fixed decays, ``(2, K, *)``; or none.
    """
    shared = alpha.numel() == 1 and step.numel() == 1

    def flat(value: Tensor) -> Tensor:
        if shared:
            return value.reshape(-1, 1).contiguous()
        return _columns(value, shape).contiguous()

    with torch.no_grad():
        decay, weight = flat(1 - grid.losses(step)), flat(grid.weights(alpha))
        if not tangents:
            return decay, weight, weight.new_empty((0, *weight.shape))
        return decay, weight, torch.stack([flat(row) for row in grid.directions(alpha)[1:]])


def _columns(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``(K, *)`` that broadcasts to ``shape`` as ``(K, M)``."""
    missing = len(shape) - (value.dim() - 1)
    value = value.reshape(len(value), *([1] * missing), *value.shape[1:])
    return value.expand(len(value), *shape).reshape(len(value), -1)


# -- for the quick kernels: modes in two groups -------------------------------------------------------------

BLOCK = 64  # neurons of a block of the general kernels: its modes stay in the cache
LANES = 16  # neurons of a vector
STRETCH = 16  # steps that are taken at once ...
MOMENTS = 4  # ... by slow modes with so many terms of (1 - loss)^steps
HEADROOM = 2.0**20  # how far below the largest number a drive must stay: modes add up to more than it
FEW = 1024  # neurons with coefficients of their own that are worth keeping in memory


Array = NDArray[Any]


@dataclass(frozen=True)
class Split:
    r"""Coefficients of the two groups, of all neurons or of each.

    Those of each come first by vectors of neurons, and last by the LANES of a vector: instead of
    ``(rows, items)`` they are ``(groups, rows, items, LANES)``. Where all samples of a batch share them, and
    a sample fills whole vectors, the groups are those of one sample.

    Attributes:
        weights: ``(F, STRETCH + 1)``: :math:`w d^j` for j from 1, of the fast modes.
        gone: ``(F, STRETCH)``: :math:`1 - d^j` for j from 1.
        slow: ``(S, 1 + MOMENTS)``: the loss :math:`\lambda`, then :math:`w (-\lambda)^p` for p from 1.
        losses: ``(S, 3)`` float64: the loss of one step, and of a stretch, and the weight.
        kernel: ``(2, STRETCH + 1)``: kernel of all modes at lags from 0, and its fall to the next lag.
        lost: loss of each mode ``(K, 1)``, or ``(K, N)`` for the neurons of all groups, float64.
        directions: weights and their tangents ``(3, K, 1)``, or ``(3, K, N)``, float64.
    """

    weights: Array
    gone: Array
    slow: Array
    losses: Array
    kernel: Array
    lost: Array
    directions: Array

    @property
    def loop(self) -> tuple[Array, ...]:
        """What both kernels take."""
        return self.weights, self.gone, self.slow, self.losses, self.kernel


def split(
    grid: Grid, alpha: Tensor, step: Tensor, shape: Sequence[int], dtype: torch.dtype, *, tangents: bool
) -> Split:
    """Return modes in two groups; those are slow that MOMENTS terms describe to a tenth of the tolerance.

    Those of FEW neurons, or that all share, are kept from forward to backward.
    """
    shape = _distinct(shape, alpha, step)
    if math.prod(shape) <= FEW:
        return _kept(grid, *_frozen(alpha), *_frozen(step), shape, dtype)
    return _split(grid, alpha, step, shape, dtype, tangents)


def _frozen(value: Tensor) -> tuple[bytes, torch.Size]:
    return value.detach().double().numpy().tobytes(), value.shape


@lru_cache(maxsize=32)
def _kept(
    grid: Grid,
    alpha: bytes,
    alpha_shape: torch.Size,
    step: bytes,
    step_shape: torch.Size,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Split:
    orders, steps = (
        torch.frombuffer(bytearray(values), dtype=torch.float64).reshape(sizes)
        for values, sizes in ((alpha, alpha_shape), (step, step_shape))
    )
    return _split(grid, orders, steps, shape, dtype, True)


def _split(
    grid: Grid, alpha: Tensor, step: Tensor, shape: tuple[int, ...], dtype: torch.dtype, tangents: bool
) -> Split:
    def flat(value: Tensor) -> Array:
        if not shape:
            return value.reshape(-1).numpy()
        while value.dim() > 1 + len(shape):  # a batch that shares them
            value = value.squeeze(1)
        value = _columns(value, shape)
        return functional.pad(value, (0, -value.shape[1] % LANES)).numpy()

    with torch.no_grad():
        rows = grid.directions(alpha) if tangents else grid.weights(alpha).unsqueeze(0)
        directions = flat(rows.flatten(0, 1))
        directions = directions.reshape(len(rows), -1, *directions.shape[1:])
        return _group(flat(grid.losses(step)), directions, grid.tol, dtype)


def _distinct(shape: Sequence[int], *values: Tensor) -> tuple[int, ...]:
    """Return ``shape`` without the dimensions at its front along which no value differs, in whole vectors.

    Empty if all neurons share them.
    """
    shape = tuple(shape)
    if all(value.numel() == 1 for value in values):
        return ()
    for start in range(len(shape), -1, -1):
        whole = start == 0 or math.prod(shape[start:]) % LANES == 0
        front = (value.shape[: max(0, value.dim() - len(shape) + start)] for value in values)
        if whole and all(math.prod(sizes) == 1 for sizes in front):
            return shape[start:]
    return shape


def _group(loss: Array, directions: Array, tol: float, dtype: torch.dtype) -> Split:
    from .tables import tabulate  # as kernels are, only where one is to run

    lost, directions, at_once = loss[:-1], directions[:, :-1], directions[0, -1]  # no mode to the kernels
    lost, directions = lost.reshape(len(lost), -1), directions.reshape(*directions.shape[:2], -1)
    most = (0.1 * tol / math.comb(STRETCH, MOMENTS)) ** (1 / MOMENTS)
    slow = int(np.count_nonzero(lost.max(1) <= most))
    lanes = 1 if loss.ndim == 1 else LANES
    number = np.float32 if dtype == torch.float32 else np.float64

    def table(rows: int, items: int, kind: Any = number) -> Array:
        return np.empty((lost.shape[1] // lanes, rows, items, lanes), kind)

    few = len(lost) - slow, slow
    tables = (
        table(few[0], STRETCH + 1),
        table(few[0], STRETCH),
        table(few[1], 1 + MOMENTS),
        table(few[1], 3, np.float64),
        table(2, STRETCH + 1),
    )
    tabulate(sources(), lost, directions[0], at_once.reshape(-1), slow, *tables)
    weights, gone, rates, losses, kernel = (t.reshape(t.shape[1:3]) if loss.ndim == 1 else t for t in tables)
    return Split(weights, gone, rates, losses, kernel, lost, np.ascontiguousarray(directions))
