"""Full memory: every item is kept and weighed at each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Memory, Past, weigh
from .blocks import BLOCK, BlockPast
from .correlate import Pairs

STRETCH = 128  # items in one matrix product: with more, the library that forms it copies them first


@dataclass(frozen=True)
class Full(Memory):
    """Keep everything: the reference. Exact; N steps cost N**2 / 2 multiply-adds per state.

    >>> past = Full().begin(torch.tensor([1.0, 0.5, 0.25]), count=2, dtype=torch.float32)
    >>> past.append(torch.tensor(4.0)); past.append(torch.tensor(8.0))
    >>> past.weighted_sum()  # 0.5 * 8 + 0.25 * 4
    tensor(5.)
    """

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the kernel itself."""
        return kernel

    def begin(self, weights: Tensor, count: int, dtype: torch.dtype) -> Past:
        """Start a run; see :class:`Memory`."""
        return KeptPast(weights.to(dtype), count)


class KeptPast(BlockPast):
    """All items in one buffer; those of older blocks are weighed by one matrix product a block."""

    def __init__(self, weights: Tensor, count: int, size: int = BLOCK) -> None:
        self._reach = max(len(weights) - 1, 1)  # an item that is older has no weight
        size = min(size, self._reach)
        super().__init__(weights[1:], size)
        # lag 1 last; zeros where a whole block reaches beyond the kernel
        self._kernel = torch.cat([weights.new_zeros(size, *weights.shape[1:]), weights[1:].flip(0)])
        self._capacity = -(-count // size) * size
        self._buffer: Tensor | None = None
        self._finished = 0  # items in older blocks
        self._pairs = Pairs(weights.shape)

    @property
    def items(self) -> Tensor:
        """The remembered items, oldest first, ``(n, states)``."""
        return self._gather(self._first[self._filled])

    def _gather(self, newest: Tensor) -> Tensor:
        """Put ``newest``, of the block, behind all older items; return them together."""
        if self._buffer is None:
            self._buffer = newest.new_empty((self._capacity, newest.shape[1]))
        end = self._finished + len(newest)
        self._buffer[self._finished : end] = newest
        return self._buffer[:end]

    def _finish(self, block: Tensor) -> Tensor:
        items = self._gather(block)
        self._finished = len(items)
        return self._weighed(items[max(len(items) - self._reach, 0) :])

    def _weighed(self, items: Tensor) -> Tensor:
        """Return what ``items``, which end where a block begins, add to the sums of that block."""
        end, n = len(self._kernel) - 1, len(items)
        if self._kernel.dim() == 1:
            rows = self._kernel[end + 1 - self._size - n : end].unfold(0, n, 1).flip(0)  # first sum first
            total = rows[:, :STRETCH] @ items[:STRETCH]
            for start in range(STRETCH, n, STRETCH):
                total.addmm_(rows[:, start : start + STRETCH], items[start : start + STRETCH])
            return total
        items = items.reshape(n, *self._state)
        starts = range(end - n, end - n - self._size, -1)
        return torch.stack([weigh(self._kernel[i : i + n], items) for i in starts]).flatten(1)

    def _erase(self, where: Tensor) -> None:
        self._pairs.flush(self.items)
        self.items.masked_fill_(where, 0.0)

    def pair(self, item: Tensor, less: Tensor | None = None) -> None:
        """See :class:`Past`."""
        self._pairs.add(item, less)

    def paired(self) -> Tensor:
        """See :class:`Past`."""
        return self._pairs.total(self.items)
