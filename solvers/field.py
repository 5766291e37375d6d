"""The right-hand side of a solve, guarded: it may not change what the solve still needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import checks


class Field:
    """A right-hand side ``rhs(t, y)`` whose values are of the right kind, and are the solve's own.

    A right-hand side may write all its values into one buffer, or into ``y``. A value that may be written
    to again is copied. Without a graph the right-hand side is given a copy of ``y``; with one, where a copy
    would take the memory of a second solution, writing into ``y`` is an error.

    Args:
        rhs: the right-hand side.
        like: a state, whose shape and dtype its values have; the first value must be finite.
    """

    def __init__(self, rhs: Callable[[Tensor, Tensor], Tensor], like: Tensor) -> None:
        self._rhs, self._kind = rhs, (like.shape, like.dtype, like.device)
        self._last: torch.UntypedStorage | None = None  # where the last value lay; held, lest it be reused

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the right-hand side.

        Raises:
            ValueError: if the value is of another shape or dtype than the state, if the first is not
                finite, or if ``y`` was written to.
        """
        if checks.hidden():
            return self._of_the_kind(self._rhs(t, y)).clone()
        if not y.requires_grad or y.is_inference():  # the latter have no version
            return self._owned(self._of_the_kind(self._rhs(t, y.clone())))
        version = y._version
        value = self._of_the_kind(self._rhs(t, y))
        if y._version != version:
            raise ValueError("`rhs` must not write into `y`, the solution itself; write into y.clone()")
        return self._owned(value)

    def _of_the_kind(self, value: object) -> Tensor:
        if not isinstance(value, Tensor):
            got = type(value).__name__
        elif (kind := (value.shape, value.dtype, value.device)) == self._kind:
            return value
        else:
            got = _described(*kind)
        raise ValueError(f"`rhs` must return the shape of the state, {_described(*self._kind)}; got {got}")

    def _owned(self, value: Tensor) -> Tensor:
        """Return ``value``, or a copy if others may write to it later."""
        storage, last = value.untyped_storage(), self._last
        self._last = storage
        if last is None:
            checks.all_finite("rhs(t, y)", value)
        if (
            last is None  # nothing is known of the first
            or value.is_inference()  # these have no version
            or value._version > 0  # written to after it was made
            or storage.data_ptr() == last.data_ptr()
            or not storage.resizable()  # memory of NumPy or another library
        ):
            return value.clone()
        return value


def _described(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> str:
    return f"{tuple(shape)} of {dtype}" + ("" if device.type == "cpu" else f" on {device}")
