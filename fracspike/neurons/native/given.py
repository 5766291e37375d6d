"""What a call gives to its user, who may write to it as to any tensor.

A result is a tensor of its own, not a view, so that an in-place operation finds nothing to refuse. The
adjoint needs some results, and keeps the memory of the kernels without a copy. A `Witness` says afterwards
whether a user has written to it; then the kernel makes the results once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def own(made: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of a shape on the memory of a plain tensor, but no view of it, and without a graph."""
    return torch.from_numpy(made.numpy().reshape(tuple(shape)))


def shaped(made: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what a kernel or a Function made in a shape that may begin with -1, as `own` where it can be."""
    if shape and made.shape[1:] == shape[1:] and shape[0] in (-1, len(made)):
        return made
    if type(made) is not Tensor or torch.compiler.is_compiling() or made.requires_grad:
        return made.reshape(shape)
    return own(made, shape)


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
