"""What is kept of the past, and how its weighted sum is formed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


class Past(ABC):
    """The remembered past of one solve."""

    @abstractmethod
    def append(self, item: Tensor) -> None:
        """Remember ``item``, of the state's shape, as the newest."""

    @abstractmethod
    def amend(self, change: Tensor) -> None:
        """Add ``change`` to the newest item."""

    @abstractmethod
    def forget(self, where: Tensor) -> None:
        """Erase the past of the states for which ``where`` is true."""

    @abstractmethod
    def weighted_sum(self) -> Tensor | float:
        r"""Return :math:`\\sum_{m \\ge 1} k_m q_{n-m}`, the newest item having ``m = 1``."""

    @abstractmethod
    def items(self) -> list[Tensor]:
        """Return what must be kept to go on from here later."""


class Memory(ABC):
    """A memory strategy: makes one :class:`Past` for each solve."""

    @abstractmethod
    def begin(self, kernel: Tensor, items: Iterable[Tensor] = ()) -> Past:
        """Start with ``items`` already remembered; ``kernel[m]`` weighs the item of ``m`` steps ago."""


@dataclass(frozen=True)
class Full(Memory):
    """Keep everything: the reference, exact, of quadratic cost.

    >>> past = Full().begin(torch.tensor([1.0, 0.5, 0.25]))
    >>> past.append(torch.tensor(4.0)); past.append(torch.tensor(8.0))
    >>> past.weighted_sum()  # 0.5 * 8 + 0.25 * 4
    tensor(5.)
    """

    def begin(self, kernel: Tensor, items: Iterable[Tensor] = ()) -> Past:
        """Start a solve; see :class:`Memory`."""
        past = _GraphPast(kernel) if torch.is_grad_enabled() else _BufferPast(kernel)
        for item in items:
            past.append(item)
        return past


class _BufferPast(Past):
    """One buffer, written in place: for when no graph is recorded."""

    def __init__(self, kernel: Tensor) -> None:
        self._backwards = kernel.flip(0)  # newest item last, as in the buffer
        self._buffer: Tensor | None = None
        self._count = 0

    def append(self, item: Tensor) -> None:
        if self._buffer is None:
            self._buffer = item.new_empty((len(self._backwards), *item.shape))
        self._buffer[self._count] = item
        self._count += 1

    def amend(self, change: Tensor) -> None:
        if self._buffer is not None:
            self._buffer[self._count - 1] += change

    def forget(self, where: Tensor) -> None:
        if self._buffer is not None:
            self._buffer[: self._count].masked_fill_(where, 0.0)

    def items(self) -> list[Tensor]:
        return [] if self._buffer is None else list(self._buffer[: self._count])

    def weighted_sum(self) -> Tensor | float:
        if self._buffer is None:
            return 0.0
        end = len(self._backwards) - 1  # leave out the weight of lag 0
        return _weigh(self._backwards[end - self._count : end], self._buffer[: self._count])


class _GraphPast(Past):
    """A list, never written in place: for plain autograd."""

    BLOCK = 64  # items are stacked once for all in blocks, so that a long past is not copied at each step

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel
        self._blocks: list[Tensor] = []
        self._recent: list[Tensor] = []

    def append(self, item: Tensor) -> None:
        if len(self._recent) == self.BLOCK:
            self._blocks.append(torch.stack(self._recent))
            self._recent = []
        self._recent.append(item)

    def amend(self, change: Tensor) -> None:
        self._recent[-1] = self._recent[-1] + change

    def forget(self, where: Tensor) -> None:
        self._blocks = [block.masked_fill(where, 0.0) for block in self._blocks]
        self._recent = [item.masked_fill(where, 0.0) for item in self._recent]

    def items(self) -> list[Tensor]:
        return [item for block in self._blocks for item in block] + self._recent

    def weighted_sum(self) -> Tensor | float:
        if not self._recent:
            return 0.0
        total: Tensor | float = 0.0
        lag = len(self._blocks) * self.BLOCK + len(self._recent)
        for block in (*self._blocks, torch.stack(self._recent)):
            total = total + _weigh(self._kernel[lag - len(block) + 1 : lag + 1].flip(0), block)
            lag -= len(block)
        return total


def _weigh(weights: Tensor, block: Tensor) -> Tensor:
    if weights.dim() == 1:  # one order for all states: a matrix-vector product
        product: Tensor = torch.tensordot(weights, block, dims=1)
        return product
    return (weights.reshape(len(block), *_pad(weights, block)) * block).sum(0)


def _pad(weights: Tensor, past: Tensor) -> list[int]:
    """Give a per-element kernel the leading ones that broadcasting to the state needs."""
    return [1] * (past.dim() - weights.dim()) + list(weights.shape[1:])
