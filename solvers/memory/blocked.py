"""Full memory by blocks: finished stretches of the past act on the future all at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from .base import Memory, Past, per_element, weigh
from .full import BufferPast

FOURIER = 512  # from this stretch on a Fourier transform beats a matrix product (measured)


@dataclass(frozen=True)
class Blocked(Memory):
    """Keep everything, but let whole blocks act at once: the same sums as ``Full``, to rounding.

    When a stretch of the past of 2**k blocks is finished, its effect on the stretch of the same
    length that follows is one matrix product, or one Fourier transform if it is long. N steps
    cost O(N log(N)**2) per state.

    Args:
        size: steps in the smallest block.

    Source: Hairer, Lubich and Schlichte (1985), SIAM J. Sci. Stat. Comput. 6(3), 532-541.

    >>> Blocked(32)
    Blocked(size=32)
    """

    size: int = 64

    def __post_init__(self) -> None:
        checks.positive_int("size", self.size)

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the kernel itself."""
        return kernel.to(dtype)

    def begin(self, weights: Tensor, count: int) -> Past:
        """Start a run; see :class:`Memory`."""
        return _BlockedPast(weights, count, self.size)


class _BlockedPast(BufferPast):
    def __init__(self, weights: Tensor, count: int, size: int) -> None:
        super().__init__(weights, count)
        self._weights = weights
        self._size = size
        self._ahead: Tensor | None = None  # what finished stretches add to the sums still to come

    def append(self, item: Tensor) -> None:
        super().append(item)
        if self._ahead is None:
            self._ahead = item.new_zeros((self._room + 1, *item.shape))
        blocks, rest = divmod(self._count, self._size)
        if rest == 0:  # the longest stretch that ends here: the lowest bit of the number of blocks
            self._push((blocks & -blocks) * self._size)

    def _push(self, length: int) -> None:
        assert self._ahead is not None
        items = self.items[self._count - length :]
        targets = self._ahead[self._count : self._count + length]
        if len(targets):
            targets += _act(self._weights[1 : 2 * length], items, len(targets))

    def weighted_sum(self) -> Tensor:
        assert self._ahead is not None
        finished = self._count - self._count % self._size
        total = self._ahead[self._count]
        if finished == self._count:
            return total.clone()
        recent = self._count - finished
        return total + weigh(self._weights[1 : recent + 1].flip(0), self.items[finished:])

    def forget(self, where: Tensor) -> None:
        super().forget(where)
        if self._ahead is not None:
            self._ahead[self._count :].masked_fill_(where, 0.0)


def _act(weights: Tensor, items: Tensor, count: int) -> Tensor:
    """Return the sums at the ``count`` steps that follow ``items``; ``weights[0]`` is that of lag 1."""
    length = len(items)
    if weights.dim() == 1 and length < FOURIER:
        lag = torch.arange(count).unsqueeze(1) - torch.arange(length).unsqueeze(0) + length - 1
        lag = lag.to(weights.device)
        matrix = torch.where(lag < len(weights), weights[lag.clamp(max=len(weights) - 1)], 0.0)
        return (matrix @ items.reshape(length, -1)).reshape(count, *items.shape[1:])
    spectrum = torch.fft.rfft(per_element(weights, items.dim()), 2 * length, dim=0)
    spectrum = spectrum * torch.fft.rfft(items, 2 * length, dim=0)
    sums: Tensor = torch.fft.irfft(spectrum, 2 * length, dim=0)
    return sums[length - 1 : length - 1 + count]
