"""Full memory: every item is kept and weighed at each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Memory, Past, weigh
from .blocks import BLOCK, BlockPast
from .correlate import Pairs

AHEAD = 4  # blocks whose sums are formed at once: a wider product is faster
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
        self._wide = size * (AHEAD if weights.dim() == 1 and min(self._reach, count) > AHEAD * size else 1)
        # lag 1 last; zeros where the sums that are formed at once reach beyond the kernel
        self._kernel = torch.cat([weights.new_zeros(self._wide, *weights.shape[1:]), weights[1:].flip(0)])
        self._capacity = -(-count // size) * size
        self._buffer: Tensor | None = None
        self._finished = 0  # items in older blocks,
        self._fresh = 0  # of which so many are not yet in
        self._sums: Tensor | None = None  # (wide, states), what older ones add to the sums ahead
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
        self._fresh += len(block)
        if self._sums is None:
            self._sums = items.new_zeros((self._wide, items.shape[1]))
        if self._fresh == self._wide:
            self._fresh = 0
            self._weigh(items[max(len(items) - self._reach, 0) :], self._sums, afresh=True)
            return self._sums[: self._size]
        sums = self._sums[self._fresh : self._fresh + self._size]
        self._weigh(items[len(items) - self._fresh :], sums)
        return sums

    def _weigh(self, items: Tensor, sums: Tensor, *, afresh: bool = False) -> None:
        """Add to ``sums``, which follow, what ``items``, the newest, give; or put it there."""
        end, n, count = len(self._kernel) - 1, len(items), len(sums)
        if self._kernel.dim() == 1:
            rows = self._kernel[end + 1 - count - n : end].unfold(0, n, 1).flip(0)  # first sum first
            for start in range(0, n, STRETCH):
                part, stretch = rows[:, start : start + STRETCH], items[start : start + STRETCH]
                sums.addmm_(part, stretch, beta=0 if afresh and start == 0 else 1)
            return
        items = items.reshape(n, *self._state)
        starts = range(end - n, end - n - count, -1)
        found = torch.stack([weigh(self._kernel[i : i + n], items) for i in starts]).flatten(1)
        sums.copy_(found) if afresh else sums.add_(found)

    def _erase(self, where: Tensor) -> None:
        self._pairs.flush(self.items)
        self._forget(where)

    def _forget(self, where: Tensor) -> None:
        self.items.masked_fill_(where, 0.0)
        if self._sums is not None:
            self._sums.masked_fill_(where, 0.0)

    def pair(self, item: Tensor, less: Tensor | None = None) -> None:
        """See :class:`Past`."""
        self._pairs.add(item, less)

    def paired(self) -> Tensor:
        """See :class:`Past`."""
        return self._pairs.total(self.items)
