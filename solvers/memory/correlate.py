r"""The gradient of a convolution in its kernel: one correlation over time, summed over states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import put, sum_to

ROWS = 128  # side of the squares of pairs of times that are formed at once
STATES = 1 << 20  # numbers that are transformed at once


class Pairs:
    """Collects what each sum was multiplied by, for memories that keep the items themselves.

    Args:
        shape: of the weights.
    """

    def __init__(self, shape: torch.Size) -> None:
        self._shape = shape
        self._partners = Differences()
        self._flushed: Tensor | None = None

    def add(self, item: Tensor, less: Tensor | None) -> None:
        """Take note that the newest sum was multiplied by ``item``, or ``item - less``."""
        self._partners.append(item, less)

    def flush(self, items: Tensor | Sequence[Tensor]) -> None:
        """Settle the pairs so far with ``items`` as they are, before some of these are erased."""
        if len(self._partners):
            self._flushed = self.total(items)
            self._partners.clear()

    def total(self, items: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the gradient in the weights.

        A memory that collects pairs runs backward: its items are the gradients of the sums, latest
        first, and the partners are the items that the sums once weighed.
        """
        fresh = correlation(items, self._partners, self._shape)
        return fresh if self._flushed is None else self._flushed + fresh


class Differences:
    """A list of ``item - less`` that holds what they are formed from, and forms those that are asked for."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor | None]] = []
        self._room: Tensor | None = None

    def append(self, item: Tensor, less: Tensor | None) -> None:
        """Append ``item``, or ``item - less``."""
        self._pairs.append((item, less))

    def clear(self) -> None:
        """Make all zero."""
        self._pairs = [(torch.zeros_like(self._pairs[0][0]), None)] * len(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, which: slice) -> Tensor:
        """Return those asked for, ``(n, *)``, till others are asked for."""
        pairs = self._pairs[which]
        if self._room is None or len(self._room) < len(pairs):
            self._room = pairs[0][0].new_empty((len(pairs), *pairs[0][0].shape))
        result = self._room[: len(pairs)]
        for row, (item, less) in zip(result.unbind(0), pairs, strict=True):
            put(item, less, row)
        return result


def correlation(sums: Tensor | Sequence[Tensor], items: Tensor | Differences, shape: torch.Size) -> Tensor:
    r"""Return :math:`c_m = \sum_n \langle g_{n}, q_{n-m} \rangle` for lags ``m`` below ``shape[0]``.

    Both are given latest first, as a backward pass meets them.

    Args:
        sums: gradients ``g`` of the weighted sums, ``(n, *)``; a sum saw its own item and all earlier ones.
        items: ``q``, ``(n, *)``; an item had lag 1 in its own sum.
        shape: of the weights, ``(count,)`` or ``(count, *)`` per element.

    Returns:
        Of that shape; entry 0 (lag 0) is zero.
    """
    n = len(items)
    result = sums[0].new_zeros(shape)
    lags = min(n, shape[0] - 1)
    if len(shape) == 1:
        for later in range(0, n, ROWS):
            q = _stacked(items, later)
            for start in range(0, later + 1, ROWS):
                if later - start - ROWS < lags:
                    _add_diagonals(result[1 : lags + 1], _stacked(sums, start) @ q.T, later - start)
        return result
    g, q = (_stacked(x, 0, n).flip(0) for x in (sums, items))
    result[1 : lags + 1] = _per_element(g, q, items[:1].shape[1:], torch.Size((lags, *shape[1:])))
    return result


def short_correlation(items: Tensor, partners: Tensor, shape: torch.Size) -> Tensor:
    r"""Return :math:`c_m = \sum_r \langle p_r, q_{r-m} \rangle`, ``shape``, of few steps; entry 0 is lag 1.

    Args:
        items: ``q``, ``(n, *)``, oldest first.
        partners: ``p``, ``(n, *)``, what the sum after each item was multiplied by.
        shape: ``(n,)`` or ``(n, *)`` per element.
    """
    if len(shape) == 1:
        result = items.new_zeros(shape)
        _add_diagonals(result, items.reshape(len(items), -1) @ partners.reshape(len(items), -1).T, 0)
        return result
    n = len(items)
    return torch.cat(
        [
            sum_to((items[: n - m] * partners[m:]).sum(0, keepdim=True), torch.Size((1, *shape[1:])))
            for m in range(n)
        ]
    )


def _stacked(tensors: Tensor | Sequence[Tensor] | Differences, start: int, count: int = ROWS) -> Tensor:
    part = tensors[start : start + count]
    part = part if isinstance(part, Tensor) else torch.stack(list(part))
    return part.reshape(len(part), -1)


def _add_diagonals(result: Tensor, square: Tensor, shift: int) -> None:
    """Add the sums along the diagonals: entry ``[i, j]`` belongs to ``result[shift + j - i]``, if there."""
    height, width = square.shape
    skew = square.new_zeros(height, height + width)
    skew.as_strided((height, width), (height + width - 1, 1), height - 1).copy_(square)
    sums = skew.sum(0)  # of j - i = 1 - height, ..., width
    first = shift + 1 - height
    start, stop = max(first, 0), min(first + len(sums), len(result))
    if start < stop:
        result[start:stop] += sums[start - first : stop - first]


def _per_element(g: Tensor, q: Tensor, state: torch.Size, shape: torch.Size) -> Tensor:
    """The same for weights per element, oldest first, by Fourier transform over time."""
    n = len(q)
    parts = []
    for columns in range(0, g.shape[1], max(1, STATES // n)):
        piece = slice(columns, columns + max(1, STATES // n))
        spectrum = torch.fft.rfft(g[:, piece].double(), 2 * n, dim=0)
        spectrum = spectrum * torch.fft.rfft(q[:, piece].double(), 2 * n, dim=0).conj()
        parts.append(torch.fft.irfft(spectrum, 2 * n, dim=0)[: shape[0]].to(g.dtype))
    return sum_to(torch.cat(parts, 1).reshape(shape[0], *state), shape)
