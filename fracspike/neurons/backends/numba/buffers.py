"""Memory for sequences that is used again: finding fresh pages costs as much as a third of the loops.

The system gives memory page by page, each cleared when it is first written, and takes it back when a large
tensor dies. A layer in training asks for the same sizes again and again, so what has died is kept for the
next that asks for about as much, as torch does on a GPU.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PAGE = 1 << 21  # bytes of a large page
LINE = 1 << 6  # bytes that a cache moves at once
SMALL = 1 << 18  # bytes up to which the allocator of the C library does as much
KEPT = 1 << 27  # bytes that are kept at most
LOOSE = 2  # how many times what is asked for a room may be


class Spare:
    """Memory that nobody uses at the moment.

    What is in use and what is kept together are never more than was once in use alone: where none that is
    kept will do, the oldest is given back to the system first. Any thread may take and give, and so may the
    garbage collector in the middle of either: each change is one operation of a dictionary.

    Args:
        limit: bytes that are kept at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self._most = limit, 0
        self._rooms: dict[int, NDArray[Any]] = {}  # kept, by identity, oldest first
        self._taken: dict[int, int] = {}  # sizes of those in use

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(room.size for room in list(self._rooms.values()))

    def take(self, size: int) -> NDArray[Any]:
        """Return memory of so many bytes or somewhat more."""
        room = self._kept(size)
        if room is None:
            self._make_space(size)
            room = np.empty(size, np.uint8)  # NumPy asks the system for large pages
        self._taken[id(room)] = room.size
        self._most = max(self._most, sum(list(self._taken.values())))
        return room

    def give(self, room: NDArray[Any]) -> None:
        """Keep memory for the next that asks for about as much, unless there is too much already."""
        self._taken.pop(id(room), None)
        self._rooms[id(room)] = room
        self._drop(self.limit)

    def clear(self) -> None:
        """Give all back to the system."""
        self._rooms.clear()

    def _kept(self, size: int) -> NDArray[Any] | None:
        """Take out the smallest that is kept and will do."""
        fits = [room for room in list(self._rooms.values()) if size <= room.size <= LOOSE * size]
        for room in sorted(fits, key=len):
            if self._rooms.pop(id(room), None) is not None:  # else another thread was faster
                return room
        return None

    def _make_space(self, size: int) -> None:
        """Give back so much that ``size`` more will not be more than was ever in use."""
        used = size + sum(list(self._taken.values()))
        self._drop(max(0, self._most - used))

    def _drop(self, limit: int) -> None:
        """Give the oldest back until no more than ``limit`` are kept."""
        excess = self.size - limit
        for name, room in list(self._rooms.items()):
            if excess <= 0:
                return
            if self._rooms.pop(name, None) is not None:
                excess -= room.size


spare = Spare(KEPT)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an empty tensor in the dtype of a CPU tensor."""
    size = math.prod(shape) * like.element_size()
    if size < SMALL:
        return like.new_empty(tuple(shape))
    whole = PAGE if size >= PAGE else LINE
    room = spare.take(size + whole)
    start = -room.ctypes.data % whole
    kind = torch.empty(0, dtype=like.dtype).numpy().dtype
    array = room[start : start + size].view(kind).reshape(tuple(shape))
    weakref.finalize(array, spare.give, room).atexit = False  # the tensor's memory holds the array
    return torch.from_numpy(array)
