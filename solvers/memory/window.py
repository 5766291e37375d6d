"""Short memory: only the last items count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from .base import Memory, Past
from .full import KeptPast


@dataclass(frozen=True)
class Window(Memory):
    r"""Keep the last ``length`` items: constant memory, but the power-law tail is cut off.

    What is dropped are old increments of the solution (or old right-hand sides, for methods that
    remember these), so a constant is never forgotten. The error is that of the short-memory
    principle, of the size of the kernel beyond the window: :math:`O(n^{-\alpha})`.

    Args:
        length: how many items, at least 1.

    Source: Podlubny (1999), Fractional Differential Equations, section 7.3.

    >>> past = Window(1).begin(torch.tensor([1.0, 0.5]), count=2, dtype=torch.float32)
    >>> past.append(torch.tensor(4.0)); past.append(torch.tensor(8.0))
    >>> past.weighted_sum()  # 0.5 * 8
    tensor(4.)
    """

    length: int

    def __post_init__(self) -> None:
        checks.positive_int("length", self.length)

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of the kernel that is inside the window."""
        return kernel[: self.length + 1]

    def begin(self, weights: Tensor, count: int, dtype: torch.dtype) -> Past:
        """Start a run; see :class:`Memory`."""
        return _WindowPast(weights.to(dtype), count)


class _WindowPast(KeptPast):
    """The last items; when their buffer is full, those that still count are moved to its front."""

    def __init__(self, weights: Tensor, count: int) -> None:
        super().__init__(weights, count)
        self._capacity = min(self._capacity, 4 * -(-self._reach // self._size) * self._size)
        self._gone: list[Tensor] = []  # all items, if they are paired

    def _gather(self, newest: Tensor) -> Tensor:
        if self._finished + len(newest) > self._capacity:
            assert self._buffer is not None
            kept = -(-self._reach // self._size) * self._size
            self._buffer[:kept] = self._buffer[self._finished - kept : self._finished].clone()
            self._finished = kept
        return super()._gather(newest)

    def _erase(self, where: Tensor) -> None:
        self._pairs.flush(self._gone)
        self._gone = [item.masked_fill(where, 0.0) for item in self._gone]
        self._forget(where)

    def pair(self, item: Tensor, less: Tensor | None = None) -> None:
        super().pair(item, less)
        self._gone.append(self._first[self._filled][-1].clone())

    def paired(self) -> Tensor:
        return self._pairs.total(self._gone)
