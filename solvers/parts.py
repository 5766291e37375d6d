"""States that are a tuple of tensors: as one flat vector inside a solve, in parts outside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import checks

State = Tensor | tuple[Tensor, ...]
Rhs = Callable[[Tensor, Any], Any]


@dataclass(frozen=True)
class Parts:
    """How a state is put together.

    Attributes:
        shapes: of the members of a tuple; None if the state is one tensor.
    """

    shapes: list[torch.Size] | None

    def split(self, y: Tensor) -> Any:
        """Return a state, or many, ``(T, *)``, as the user gave it."""
        if self.shapes is None:
            return y
        ends = list(itertools.accumulate((math.prod(shape) for shape in self.shapes), initial=0))
        pieces = [y[..., a:b] for a, b in itertools.pairwise(ends)]
        return tuple(p.reshape((*y.shape[:-1], *s)) for p, s in zip(pieces, self.shapes, strict=True))

    def field(self, rhs: Rhs) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the right-hand side of the flat state."""
        if self.shapes is None:
            return rhs
        shapes = self.shapes

        def field(t: Tensor, y: Tensor) -> Tensor:
            values = rhs(t, self.split(y))
            if not isinstance(values, tuple | list) or [getattr(v, "shape", None) for v in values] != shapes:
                raise ValueError(
                    f"`rhs` must return a tuple of tensors of shapes {[tuple(s) for s in shapes]}, "
                    f"got {_described(values)}"
                )
            return torch.cat([v.reshape(-1) for v in values])

        return field


def flatten(y0: State) -> tuple[Tensor, Parts]:
    """Return the state as one tensor, and how to get its parts back.

    Raises:
        TypeError: if it is neither a tensor nor a tuple of real floating-point tensors.
        ValueError: if it is empty or not finite, or its parts differ in dtype or device.
    """
    if isinstance(y0, Tensor):
        return _state("y0", y0), Parts(None)
    if not isinstance(y0, tuple) or not y0:
        got = "an empty tuple" if y0 == () else type(y0).__name__
        raise TypeError(f"`y0` must be a tensor or a tuple of tensors, got {got}; use torch.as_tensor")
    parts = [_state(f"y0[{i}]", part) for i, part in enumerate(y0)]
    if len({(part.dtype, part.device) for part in parts}) > 1:
        got = ", ".join(f"{p.dtype} on {p.device}" for p in parts)
        raise ValueError(f"`y0` must have one dtype and device, got {got}; use .to(...)")
    return torch.cat([part.reshape(-1) for part in parts]), Parts([part.shape for part in parts])


def _state(name: str, value: Tensor) -> Tensor:
    checks.floating(name, value)
    if value.numel() == 0:
        raise ValueError(f"`{name}` must not be empty, got a tensor of shape {tuple(value.shape)}")
    return checks.all_finite(name, value)


def _described(values: object) -> str:
    if isinstance(values, Sequence):
        return str([tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in values])
    return f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
