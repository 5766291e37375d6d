r"""The gradient of a convolution in its kernel: one correlation over time, summed over states."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import sum_to

ROWS = 256  # of the matrix of all pairs of times that is formed at once
STATES = 1 << 20  # numbers that are transformed at once


class Pairs:
    """Collects what each sum was multiplied by, for memories that keep the items themselves.

    Args:
        shape: of the weights.
    """

    def __init__(self, shape: torch.Size) -> None:
        self._shape = shape
        self._partners: list[Tensor] = []
        self._flushed: Tensor | None = None

    def add(self, partner: Tensor) -> None:
        """Take note that the newest sum was multiplied by ``partner``."""
        self._partners.append(partner)

    def flush(self, items: Tensor) -> None:
        """Settle the pairs so far with ``items`` as they are, before some of these are erased."""
        if self._partners:
            self._flushed = self.total(items)
            self._partners = [torch.zeros_like(partner) for partner in self._partners]

    def total(self, items: Tensor) -> Tensor:
        """Return the gradient in the weights.

        A memory that collects pairs runs backward: its items are the gradients of the sums, latest
        first, and the partners are the items that the sums once weighed.
        """
        fresh = correlation(items.flip(0), torch.stack(self._partners[::-1]), self._shape)
        return fresh if self._flushed is None else self._flushed + fresh


def correlation(sums: Tensor, items: Tensor, shape: torch.Size) -> Tensor:
    r"""Return :math:`c_m = \sum_n \langle g_{n}, q_{n-m} \rangle` for lags ``m`` below ``shape[0]``.

    Args:
        sums: gradients ``g`` of the weighted sums, ``(n, *)``; sum ``i`` saw items ``0..i``.
        items: ``q``, ``(n, *)``; item ``i`` had lag 1 in sum ``i``.
        shape: of the weights, ``(count,)`` or ``(count, *)`` per element.

    Returns:
        Of that shape; entry 0 (lag 0) is zero.
    """
    n = len(items)
    result = sums.new_zeros(shape)
    lags = min(n, shape[0] - 1)
    if len(shape) == 1:
        g, q = sums.reshape(n, -1), items.reshape(n, -1)
        for start in range(0, n, ROWS):
            rows = g[start : start + ROWS] @ q[: start + ROWS].T
            for lag_pairs in _diagonals(rows, start, lags):
                result.index_add_(0, *lag_pairs)
        return result
    result[1 : lags + 1] = _per_element(sums, items, torch.Size((lags, *shape[1:])))
    return result


def _diagonals(rows: Tensor, start: int, lags: int) -> list[tuple[Tensor, Tensor]]:
    """Return index and value of the sums along the diagonals of ``rows[i, j]``, lag ``start + i - j + 1``."""
    height, width = rows.shape
    lag = torch.arange(start, start + height).unsqueeze(1) - torch.arange(width).unsqueeze(0) + 1
    inside = (lag >= 1) & (lag <= lags)
    inside = inside.to(rows.device)
    return [(lag.to(rows.device)[inside], rows[inside])]


def _per_element(sums: Tensor, items: Tensor, shape: torch.Size) -> Tensor:
    """The same for weights per element, by Fourier transform over time."""
    n = len(items)
    g, q = sums.reshape(n, -1), items.reshape(n, -1)
    parts = []
    for columns in range(0, g.shape[1], max(1, STATES // n)):
        piece = slice(columns, columns + max(1, STATES // n))
        spectrum = torch.fft.rfft(g[:, piece].double(), 2 * n, dim=0)
        spectrum = spectrum * torch.fft.rfft(q[:, piece].double(), 2 * n, dim=0).conj()
        parts.append(torch.fft.irfft(spectrum, 2 * n, dim=0)[: shape[0]].to(sums.dtype))
    return sum_to(torch.cat(parts, 1).reshape(shape[0], *items.shape[1:]), shape)
