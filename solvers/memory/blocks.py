"""What all memories share: the newest block is weighed item by item, what is older once a block.

A weighted sum at each step reads the whole past at each step. Split in two, the few items of the newest
block are weighed directly, and what all older items will add to the sums of one block is formed at once,
as one matrix product, when the block begins: the same sum, with far less traffic of memory.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from .base import Past, per_element

BLOCK = 32  # items in a block, unless a memory has its own size


class BlockPast(Past):
    """A past in blocks; what is kept of the older ones is up to the memory.

    Args:
        near: ``(>= size, *)``, the kernel from lag 1 on.
        size: items in a block.
    """

    def __init__(self, near: Tensor, size: int = BLOCK) -> None:
        self._size = size
        self._backwards = near[:size].flip(0)  # newest item last, as in a block
        self._filled = 0  # items in the newest block
        self._block: Tensor | None = None  # (size, states)
        self._older: Tensor | None = (
            None  # (size, states): what older blocks add to its sums; None if nothing
        )
        self._state = torch.Size()

    def append(self, item: Tensor, less: Tensor | None = None) -> None:
        """See :class:`Past`."""
        if self._block is None:
            self._state = item.shape
            self._block = self._room(item, self._size)
        elif self._filled == self._size:
            self._older = self._finish(self._block)
            self._block = self._room(item, self._size)
            self._filled = 0
        put(item, less, self._block[self._filled])
        self._filled += 1

    def weighted_sum(self) -> Tensor:
        """See :class:`Past`."""
        assert self._block is not None
        items, weights = self._block[: self._filled], self._backwards[self._size - self._filled :]
        older = None if self._older is None else self._older[self._filled - 1]
        if weights.dim() == 1:
            total = torch.mv(items.T, weights) if older is None else torch.addmv(older, items.T, weights)
            return total.reshape(self._state)
        items = items.reshape(len(items), *self._state)
        total = (per_element(weights, items.dim()) * items).sum(0)
        return total if older is None else total + older.reshape(self._state)

    def forget(self, where: Tensor) -> None:
        """See :class:`Past`."""
        if self._block is not None:
            erased = where.expand(self._state).reshape(-1)
            self._erase(erased)
            self._block[: self._filled].masked_fill_(erased, 0.0)
            if self._older is not None:
                self._older.masked_fill_(erased, 0.0)

    @abstractmethod
    def _room(self, like: Tensor, size: int) -> Tensor:
        """Return where the items of the next block go, ``(size, states)``."""

    @abstractmethod
    def _finish(self, block: Tensor) -> Tensor:
        """Take ``block`` as older; return what all that is older adds to the sums of the next block."""

    @abstractmethod
    def _erase(self, where: Tensor) -> None:
        """Erase what is kept of older blocks for the states for which ``where``, flat, is true."""


def put(item: Tensor, less: Tensor | None, room: Tensor) -> None:
    """Write ``item``, or ``item - less``, into the flat ``room``."""
    if less is None:
        room.copy_(item.reshape(-1))
    else:
        torch.sub(item.reshape(-1), less.reshape(-1), out=room)
