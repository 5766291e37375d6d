"""What a call gives to its user, who may write to it as to any tensor.

The adjoint needs some of what was made, and keeps its memory without a copy: by tensors of its own, on the
same memory, that an in-place operation does not find. A `Witness` says afterwards whether a user has written
to what was given; then it is made once more.
"""

from __future__ import annotations

from torch import Tensor


def alias(x: Tensor) -> Tensor:
    """Return a tensor on the memory of another that does not count its in-place operations."""
    other = x.new_empty(0)
    return other.set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


class Witness:
    """Whether tensors have been written to since it was made; it holds none of their memory.

    Args:
        tensors: on whose count of in-place operations to look.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._counters = [_counter(x) for x in tensors]
        self._seen = [counter._version for counter in self._counters]

    @property
    def written(self) -> bool:
        """Whether one of them was."""
        return self._seen != [counter._version for counter in self._counters]


def _counter(x: Tensor) -> Tensor:
    """Return a tensor without memory that counts the in-place operations on ``x``."""
    counter = x.detach()  # shares the count
    counter.data = counter.new_empty(0)
    return counter
