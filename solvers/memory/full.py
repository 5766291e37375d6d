"""Full memory: every item is kept and weighed at each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Memory, Past, weigh
from .correlate import Pairs


@dataclass(frozen=True)
class Full(Memory):
    """Keep everything: the reference. Exact; N steps cost N**2 / 2 multiply-adds per state.

    >>> past = Full().begin(torch.tensor([1.0, 0.5, 0.25]), count=2)
    >>> past.append(torch.tensor(4.0)); past.append(torch.tensor(8.0))
    >>> past.weighted_sum()  # 0.5 * 8 + 0.25 * 4
    tensor(5.)
    """

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the kernel itself."""
        return kernel.to(dtype)

    def begin(self, weights: Tensor, count: int) -> Past:
        """Start a run; see :class:`Memory`."""
        return BufferPast(weights, count)


class BufferPast(Past):
    """All items in one buffer, written in place."""

    def __init__(self, weights: Tensor, count: int) -> None:
        self._last = len(weights) - 1
        self._backwards = weights.flip(0)  # newest item last, as in the buffer
        self._room = count
        self._buffer: Tensor | None = None
        self._count = 0
        self._pairs = Pairs(weights.shape)

    @property
    def items(self) -> Tensor:
        """The remembered items, oldest first."""
        assert self._buffer is not None
        return self._buffer[: self._count]

    def append(self, item: Tensor) -> None:
        """See :class:`Past`."""
        if self._buffer is None:
            self._buffer = item.new_empty((self._room, *item.shape))
        self._buffer[self._count] = item
        self._count += 1

    def weighted_sum(self) -> Tensor:
        """See :class:`Past`."""
        end = self._last  # leave out the weight of lag 0
        return weigh(self._backwards[end - self._count : end], self.items)

    def forget(self, where: Tensor) -> None:
        """See :class:`Past`."""
        self._pairs.flush(self.items)
        self.items.masked_fill_(where, 0.0)

    def pair(self, item: Tensor) -> None:
        """See :class:`Past`."""
        self._pairs.add(item)

    def paired(self) -> Tensor:
        """See :class:`Past`."""
        return self._pairs.total(self.items)
