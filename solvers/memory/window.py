"""Short memory: only the last items count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from .base import Memory, Past, weigh
from .correlate import Pairs


@dataclass(frozen=True)
class Window(Memory):
    r"""Keep the last ``length`` items: constant memory, but the power-law tail is cut off.

    What is dropped are old increments of the solution (or old right-hand sides, for methods that
    remember these), so a constant is never forgotten. The error is that of the short-memory
    principle, of the size of the kernel beyond the window: :math:`O(n^{-\alpha})`.

    Args:
        length: how many items, at least 1.

    Source: Podlubny (1999), Fractional Differential Equations, section 7.3.

    >>> past = Window(1).begin(torch.tensor([1.0, 0.5]), count=2)
    >>> past.append(torch.tensor(4.0)); past.append(torch.tensor(8.0))
    >>> past.weighted_sum()  # 0.5 * 8
    tensor(4.)
    """

    length: int

    def __post_init__(self) -> None:
        checks.positive_int("length", self.length)

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of the kernel that is inside the window."""
        return kernel[: self.length + 1].to(dtype)

    def begin(self, weights: Tensor, count: int) -> Past:
        """Start a run; see :class:`Memory`."""
        return _WindowPast(weights)


class _WindowPast(Past):
    """The last items at the end of a buffer of twice their number, moved to its front when it is full."""

    def __init__(self, weights: Tensor) -> None:
        self._length = len(weights) - 1
        self._backwards = weights[1:].flip(0)
        self._buffer: Tensor | None = None
        self._end = 0
        self._kept: list[Tensor] = []
        self._pairs = Pairs(weights.shape)

    def append(self, item: Tensor) -> None:
        if self._buffer is None:
            self._buffer = item.new_zeros((2 * self._length, *item.shape))
            self._end = self._length
        if self._end == 2 * self._length:
            self._buffer[: self._length] = self._buffer[self._length :].clone()
            self._end = self._length
        self._buffer[self._end] = item
        self._end += 1

    def weighted_sum(self) -> Tensor:
        assert self._buffer is not None
        return weigh(self._backwards, self._buffer[self._end - self._length : self._end])

    def forget(self, where: Tensor) -> None:
        assert self._buffer is not None
        if self._kept:
            self._pairs.flush(self._kept)
        self._kept = [item.masked_fill(where, 0.0) for item in self._kept]
        self._buffer.masked_fill_(where, 0.0)

    def pair(self, item: Tensor) -> None:
        assert self._buffer is not None
        self._kept.append(self._buffer[self._end - 1].clone())
        self._pairs.add(item)

    def paired(self) -> Tensor:
        return self._pairs.total(self._kept)
