"""What every memory offers: it weighs the remembered past, and knows nothing of gradients.

A memory is run twice: forward over what a solve remembers, and backward over the gradients of the
weighted sums, with the same weights. That is the whole adjoint of a convolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Past(ABC):
    """The remembered past of one run; items have the shape of the state."""

    @abstractmethod
    def room(self, like: Tensor) -> Tensor:
        """Return where the next item goes, of the shape of ``like``; one that is made there is not copied."""

    @abstractmethod
    def append(self, item: Tensor, less: Tensor | None = None) -> None:
        """Remember ``item``, or ``item - less``, as the newest."""

    @abstractmethod
    def weighted_sum(self) -> Tensor:
        r"""Return :math:`\sum_{m \ge 1} k_m q_{n-m}`, the newest item having ``m = 1``."""

    @abstractmethod
    def forget(self, where: Tensor) -> None:
        """Erase the past of the states for which ``where`` is true."""

    @abstractmethod
    def pair(self, item: Tensor, less: Tensor | None = None) -> None:
        """Take note that the current sum was multiplied by ``item``, or ``item - less``.

        For the gradient in the weights.
        """

    @abstractmethod
    def paired(self) -> Tensor:
        """Return the gradient in the weights: the sum over all pairs so far, in the weights' shape."""


class Memory(ABC):
    """A memory strategy: what is kept of the past, and how its weighted sum is formed."""

    @abstractmethod
    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what a run needs of the kernel, float64 and differentiable in it.

        Args:
            kernel: ``(count, *)`` float64; ``kernel[m]`` weighs the item of ``m`` steps ago.
            dtype: in which the run computes.
        """

    def effective_kernel(self, weights: Tensor, count: int) -> Tensor:
        """Return the kernel that the weights stand for, ``(count, *)`` or shorter where it is cut off."""
        return weights

    @abstractmethod
    def begin(self, weights: Tensor, count: int, dtype: torch.dtype) -> Past:
        """Start a run of at most ``count`` items of ``dtype`` with ``weights`` from :meth:`weights`."""


def put(item: Tensor, less: Tensor | None, room: Tensor) -> None:
    """Write ``item``, or ``item - less``, into ``room``, if it is not there already."""
    if less is not None:
        torch.sub(item, less, out=room)
    elif item is not room:
        room.copy_(item)


def weigh(weights: Tensor, items: Tensor) -> Tensor:
    """Return the sum over the first dimension of ``weights`` times ``items``.

    One order for all states is a matrix-vector product; weights per element broadcast.
    """
    if weights.dim() == 1:
        return torch.mv(items.reshape(len(items), -1).T, weights).reshape(items.shape[1:])
    return (per_element(weights, items.dim()) * items).sum(0)


def per_element(weights: Tensor, dim: int) -> Tensor:
    """Give ``weights`` of shape ``(count, *)`` the ones that broadcasting to ``dim`` dimensions needs."""
    return weights.reshape(len(weights), *([1] * (dim - weights.dim())), *weights.shape[1:])


def sum_to(value: Tensor, shape: torch.Size) -> Tensor:
    """Sum a gradient ``(count, *state)`` to the shape ``(count, *)`` of broadcast weights."""
    return value.sum_to_size(per_element(value.new_empty(shape), value.dim()).shape).reshape(shape)
