"""Memory for sequences that is used again: finding fresh pages costs as much as a third of the loops.

The system gives memory page by page, each cleared when it is first written, and takes it back when a large
tensor dies. A layer in training asks for the same sizes again and again, so what has died is kept for the
next that asks for as much, as torch does on a GPU.
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
SMALL = 1 << 18  # bytes up to which the allocator of the C library does as much
KEPT = 1 << 29  # bytes that are kept at most


class Spare:
    """Memory that nobody uses at the moment, by size.

    Any thread may take and give: each step is one operation of a list.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._rooms: dict[int, list[NDArray[Any]]] = {}

    def take(self, size: int) -> NDArray[Any]:
        """Return memory of so many bytes."""
        try:
            room = self._rooms[size].pop()
        except (KeyError, IndexError):
            return np.empty(size, np.uint8)  # NumPy asks the system for large pages
        self.size -= size
        return room

    def give(self, room: NDArray[Any]) -> None:
        """Keep memory for the next that asks for as much, unless there is too much already."""
        if self.size + room.size <= self.limit:
            self.size += room.size
            self._rooms.setdefault(room.size, []).append(room)

    def clear(self) -> None:
        """Give all back to the system."""
        self._rooms.clear()
        self.size = 0


spare = Spare(KEPT)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an empty tensor in the dtype of a CPU tensor."""
    size = math.prod(shape) * like.element_size()
    if size < SMALL:
        return like.new_empty(tuple(shape))
    room = spare.take(size + PAGE)
    start = -room.ctypes.data % PAGE
    kind = torch.empty(0, dtype=like.dtype).numpy().dtype
    array = room[start : start + size].view(kind).reshape(tuple(shape))
    weakref.finalize(array, spare.give, room).atexit = False  # the tensor's memory holds the array
    return torch.from_numpy(array)
