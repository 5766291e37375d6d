"""The modes of a problem as the kernels want them: flat, in two groups, with their powers.

Made here and nowhere else, and kept from forward to backward.
"""

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

from .sizes import FEW, LANES, MOMENTS, STRETCH
from .tables import tabulate
from .threads import sources

Array = NDArray[Any]


def columns(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``(K, *constant)`` as ``(K, 1)``, or as ``(K, M)`` for neurons of their own."""
    if value.numel() == len(value):
        return value.reshape(-1, 1)
    missing = len(shape) - (value.dim() - 1)
    value = value.reshape(len(value), *([1] * missing), *value.shape[1:])
    return value.expand(len(value), *shape).reshape(len(value), -1).contiguous()


def sum_to(found: Tensor, like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a gradient ``(K, 1)`` or ``(K, M)`` as one in ``like``, ``(K, *constant)``: undoes `columns`."""
    if found.shape[1] == 1 and like.numel() == len(like):
        return found.reshape(like.shape)
    missing = len(shape) - (like.dim() - 1)
    one = like.shape[0], *([1] * missing), *like.shape[1:]
    return found.reshape(-1, *shape).sum_to_size(one).reshape(like.shape)


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
        lost: loss of each mode ``(K, 1)``, or ``(K, N)`` for the neurons of all groups, float64; without the
            mode that decays at once.
        weight: of each mode, likewise.
    """

    weights: Array
    gone: Array
    slow: Array
    losses: Array
    kernel: Array
    lost: Array
    weight: Array

    @property
    def loop(self) -> tuple[Array, ...]:
        """What both kernels take."""
        return self.weights, self.gone, self.slow, self.losses, self.kernel


def split(loss: Tensor, weight: Tensor, tol: float, shape: Sequence[int], dtype: torch.dtype) -> Split:
    """Return modes in two groups; those are slow that MOMENTS terms describe to a tenth of the tolerance.

    Those of FEW neurons, or that all share, are kept from forward to backward.
    """
    shape = _distinct(shape, loss, weight)
    if math.prod(shape) <= FEW:
        return _kept(*_frozen(loss), *_frozen(weight), tol, shape, dtype)
    return _split(loss, weight, tol, shape, dtype)


def _frozen(value: Tensor) -> tuple[bytes, torch.Size]:
    return value.numpy().tobytes(), value.shape


@lru_cache(maxsize=32)
def _kept(
    loss: bytes,
    loss_shape: torch.Size,
    weight: bytes,
    weight_shape: torch.Size,
    tol: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Split:
    losses, weights = (
        torch.frombuffer(bytearray(values), dtype=torch.float64).reshape(sizes)
        for values, sizes in ((loss, loss_shape), (weight, weight_shape))
    )
    return _split(losses, weights, tol, shape, dtype)


def _split(loss: Tensor, weight: Tensor, tol: float, shape: tuple[int, ...], dtype: torch.dtype) -> Split:
    def flat(value: Tensor) -> Array:
        if not shape:
            return value.reshape(-1).numpy()
        while value.dim() > 1 + len(shape):  # a batch that shares them
            value = value.squeeze(1)
        value = columns(value, shape).expand(len(value), math.prod(shape))
        return functional.pad(value, (0, -value.shape[1] % LANES)).numpy()

    return _group(flat(loss), flat(weight), tol, dtype)


def _distinct(shape: Sequence[int], *values: Tensor) -> tuple[int, ...]:
    """Return ``shape`` without the dimensions at its front along which no value differs, in whole vectors.

    Values are ``(K, *constant)``. Empty if all neurons share them.
    """
    shape = tuple(shape)
    if all(value.numel() == len(value) for value in values):
        return ()
    for start in range(len(shape), -1, -1):
        whole = start == 0 or math.prod(shape[start:]) % LANES == 0
        front = (value.shape[1 : 1 + max(0, value.dim() - 1 - len(shape) + start)] for value in values)
        if whole and all(math.prod(sizes) == 1 for sizes in front):
            return shape[start:]
    return shape


def _group(loss: Array, weight: Array, tol: float, dtype: torch.dtype) -> Split:
    lost, kept, at_once = loss[:-1], weight[:-1], weight[-1]  # which is no mode to the kernels
    lost, kept = lost.reshape(len(lost), -1), kept.reshape(len(kept), -1)
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
    tabulate(sources(), lost, kept, at_once.reshape(-1), slow, *tables)
    weights, gone, rates, losses, kernel = (t.reshape(t.shape[1:3]) if loss.ndim == 1 else t for t in tables)
    return Split(weights, gone, rates, losses, kernel, lost, np.ascontiguousarray(kept))
