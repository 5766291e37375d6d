"""Full memory by blocks: finished stretches of the past act on the future all at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from .base import Memory, Past, per_element
from .blocks import BLOCK
from .full import KeptPast

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

    size: int = BLOCK

    def __post_init__(self) -> None:
        checks.positive_int("size", self.size)

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the kernel itself."""
        return kernel

    def begin(self, weights: Tensor, count: int, dtype: torch.dtype) -> Past:
        """Start a run; see :class:`Memory`."""
        return _BlockedPast(weights.to(dtype), count, self.size)


class _BlockedPast(KeptPast):
    def __init__(self, weights: Tensor, count: int, size: int) -> None:
        super().__init__(weights, count, size)
        self._weights = weights
        self._ahead: Tensor | None = None  # what older blocks add to the sums still to come

    def _finish(self, block: Tensor) -> Tensor:
        items = self._gather(block)
        self._finished = len(items)
        if self._ahead is None:
            self._ahead = block.new_zeros((self._capacity, block.shape[1]))
        blocks = self._finished // self._size
        length = (blocks & -blocks) * self._size  # the longest stretch that ends here
        items = items[-length:]
        targets = self._ahead[self._finished : self._finished + length]
        targets += _act(self._weights[2 : 2 * length + 1], items.reshape(-1, *self._state), len(targets))
        return self._ahead[self._finished : self._finished + self._size]

    def _erase(self, where: Tensor) -> None:
        super()._erase(where)
        if self._ahead is not None:
            self._ahead[self._finished :].masked_fill_(where, 0.0)


def _act(weights: Tensor, items: Tensor, count: int) -> Tensor:
    """Return the sums at the ``count`` steps after ``items``, ``(count, states)``.

    The smallest lag, of the newest item in the first of the sums, has the weight ``weights[0]``.
    """
    length = len(items)
    if weights.dim() == 1 and length < FOURIER:
        lag = torch.arange(count).unsqueeze(1) - torch.arange(length).unsqueeze(0) + length - 1
        lag = lag.to(weights.device)
        matrix = torch.where(lag < len(weights), weights[lag.clamp(max=len(weights) - 1)], 0.0)
        return matrix @ items.reshape(length, -1)
    spectrum = torch.fft.rfft(per_element(weights, items.dim()), 2 * length, dim=0)
    spectrum = spectrum * torch.fft.rfft(items, 2 * length, dim=0)
    sums: Tensor = torch.fft.irfft(spectrum, 2 * length, dim=0)
    return sums[length - 1 : length - 1 + count].reshape(count, -1)
