"""What all memories share: the newest block is weighed item by item, what is older once a block.

A weighted sum at each step reads the whole past at each step. Split in two, the few items of the newest
block are weighed directly, and what all older items will add to the sums of one block is formed at once,
as one matrix product, when the block begins: the same sum, with far less traffic of memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Past, per_element, put

BLOCK = 32  # items in a block, unless a memory has its own size


class BlockPast(Past):
    """A past in blocks; what is kept of the older ones is up to the memory.

    Args:
        near: ``(>= size, *)``, the kernel from lag 1 on.
        size: items in a block.
    """

    def __init__(self, near: Tensor, size: int = BLOCK) -> None:
        self._size = size
        backwards = near[:size].flip(0)  # newest item last, as in a block
        self._near = [backwards[size - n :] for n in range(size + 1)]
        self._filled = 0  # items in the newest block
        self._block: Tensor | None = None  # (size, states), and views of it, made once for all blocks:
        self._rows: Sequence[Tensor] = ()  # its items, each (*), and
        self._first: list[Tensor] = []  # its first n items, (n, states), and
        self._columns: list[Tensor] = []  # the same, (states, n)
        self._older: Sequence[Tensor] = ()  # (states,) each: what older blocks add to its sums
        self._state = torch.Size()

    def room(self, like: Tensor) -> Tensor:
        """See :class:`Past`."""
        if self._block is None:
            self._state = like.shape
            self._block = like.new_empty((self._size, like.numel()))
            self._rows = self._block.reshape(-1, *self._state).unbind(0)
            self._first = [self._block[:n] for n in range(self._size + 1)]
            self._columns = [items.T for items in self._first]
        elif self._filled == self._size:
            self._older = self._finish(self._block).unbind(0)
            self._filled = 0
        return self._rows[self._filled]

    def append(self, item: Tensor, less: Tensor | None = None) -> None:
        """See :class:`Past`."""
        put(item, less, self.room(item))
        self._filled += 1

    def weighted_sum(self) -> Tensor:
        """See :class:`Past`."""
        n = self._filled
        weights, older = self._near[n], self._older[n - 1] if self._older else None
        if weights.dim() == 1:
            columns = self._columns[n]
            total = torch.mv(columns, weights) if older is None else torch.addmv(older, columns, weights)
            return total if len(self._state) == 1 else total.reshape(self._state)
        items = self._first[n].reshape(n, *self._state)
        total = (per_element(weights, items.dim()) * items).sum(0)
        return total if older is None else total + older.reshape(self._state)

    def forget(self, where: Tensor) -> None:
        """See :class:`Past`."""
        if self._block is not None:
            erased = where.expand(self._state).reshape(-1)
            self._erase(erased)
            self._block[: self._filled].masked_fill_(erased, 0.0)
            for older in self._older:
                older.masked_fill_(erased, 0.0)

    @abstractmethod
    def _finish(self, block: Tensor) -> Tensor:
        """Take ``block`` as older; return what all that is older adds to the sums of the next block.

        Both are ``(size, states)``; the block will be written anew.
        """

    @abstractmethod
    def _erase(self, where: Tensor) -> None:
        """Erase what is kept of older blocks for the states for which ``where``, flat, is true."""
