"""The states of a march, gathered into one tensor while it runs, so that none is stored twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Trajectory:
    """One buffer for all states; each is differentiated as what it was made from.

    Args:
        start: the first state, ``(*)``.
        count: how many states there will be, the first included.
    """

    def __init__(self, start: Tensor, count: int) -> None:
        self._buffer = start.new_empty((count, *start.shape)).detach()
        self._states: list[Tensor] = []
        self.append(start)

    @property
    def last(self) -> Tensor:
        """The newest state."""
        return self._states[-1]

    def append(self, y: Tensor) -> None:
        """Take ``y`` as the next state."""
        # .data: a row has its own version, lest writing the next row should seem to change this one
        place = self._buffer.data[len(self._states)]
        self._states.append(_Placed.apply(y, place))  # type: ignore[no-untyped-call]

    def seen(self, first: int, last: int) -> Tensor:
        """Return the states first, ..., last - 1, ``(n, *)``, to look at."""
        return self._buffer.data[first:last]

    def gathered(self) -> Tensor:
        """Return all states, ``(count, *)``; none must be appended later."""
        return gathered(self._buffer, self._states)


class Stacked:
    """As :class:`Trajectory`, by plain operations, which any transform and any order of derivative passes."""

    def __init__(self, start: Tensor, count: int) -> None:
        self._states = [start]

    @property
    def last(self) -> Tensor:
        """The newest state."""
        return self._states[-1]

    def append(self, y: Tensor) -> None:
        """Take ``y`` as the next state."""
        self._states.append(y)

    def seen(self, first: int, last: int) -> Tensor:
        """Return the states first, ..., last - 1, ``(n, *)``, to look at."""
        return torch.stack([y.detach() for y in self._states[first:last]])

    def gathered(self) -> Tensor:
        """Return all states, ``(count, *)``."""
        return torch.stack(self._states)


def gathered(buffer: Tensor, states: list[Tensor]) -> Tensor:
    """Return ``buffer``, ``(count, *)``, as a function of the ``states`` that lie in it.

    Each is one state, ``(*)``, or several in one, ``(n, *)``.
    """
    result: Tensor = _Gathered.apply(buffer, *states)  # type: ignore[no-untyped-call]
    return result


class _Placed(torch.autograd.Function):
    """The same tensor in another place."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, place: Tensor) -> Tensor:
        place.copy_(y)
        return place.data

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


class _Gathered(torch.autograd.Function):
    """The buffer that holds all states, as a function of the states."""

    @staticmethod
    def forward(ctx: Any, buffer: Tensor, *states: Tensor) -> Tensor:
        result = buffer.data
        ctx.save_for_backward(result)
        ctx.lengths = [len(x) if x.dim() == buffer.dim() else 0 for x in states]
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if the states, which steps have saved, were overwritten since
        parts = torch.split(upstream, [n or 1 for n in ctx.lengths])
        return None, *(part if n else part[0] for part, n in zip(parts, ctx.lengths, strict=True))
