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
        """Start the solve; see :class:`Memory`."""
        return _FullPast(kernel, list(items))


class _FullPast(Past):
    def __init__(self, kernel: Tensor, items: list[Tensor]) -> None:
        self._kernel = kernel
        self._items = items

    def append(self, item: Tensor) -> None:
        self._items.append(item)

    def items(self) -> list[Tensor]:
        return list(self._items)

    def weighted_sum(self) -> Tensor | float:
        if not self._items:
            return 0.0
        past = torch.stack(self._items)
        weights = self._kernel[1 : len(self._items) + 1].flip(0)
        if weights.dim() == 1:  # one order for all states: a matrix-vector product
            return torch.tensordot(weights, past, dims=1)  # type: ignore[no-any-return]
        return (weights.reshape(len(past), *_pad(weights, past)) * past).sum(0)


def _pad(weights: Tensor, past: Tensor) -> list[int]:
    """Give a per-element kernel the leading ones that broadcasting to the state needs."""
    return [1] * (past.dim() - weights.dim()) + list(weights.shape[1:])
