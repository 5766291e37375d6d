"""What a backend is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..problem import Arriving, Fixed, Made, Moved, Options

Forward = Callable[[Moved, Fixed, Options], Made]
Adjoint = Callable[[Moved, Fixed, Options, Made, Tensor, Arriving, Sequence[bool]], list[Tensor]]


@dataclass(frozen=True)
class Backend:
    """A way to run a problem.

    Attributes:
        forward: makes the sequences of a problem.
        adjoint: gradients in `Moved`, and last in the spikes all told, from what was made, the derivative of
            the step (or, with a ``form``, the potential before reset) and the gradients that arrive. The
            booleans say which are wanted; what is not may be an empty tensor.
        keeps: names of `Made` that the adjoint asks for.
        reason: why the backend cannot run a call, in a user's words, from its current and whether spikes come
            back from all neurons to all; None if it can.
    """

    forward: Forward
    adjoint: Adjoint
    keeps: Callable[[Moved, Options], frozenset[str]]
    reason: Callable[[Tensor, bool], str | None]


def like_made(moved: Moved, fixed: Fixed, options: Options, empty: Any = None) -> Made:
    """Return tensors of the shapes of what a forward pass makes, to be filled.

    Args:
        moved: of the problem, and so are ``fixed`` and ``options``.
        fixed: as said.
        options: as said.
        empty: makes a sequence of a shape like a tensor; ``new_empty`` by default.
    """
    current = moved.current

    def sequence(wanted: bool) -> Tensor:
        if not wanted:
            return current.new_empty(0)
        return empty(current.shape, current) if empty else current.new_empty(current.shape)

    return Made(
        spikes=sequence(True),
        before=sequence(True),
        z=moved.z.new_empty(moved.z.shape),
        hold=fixed.hold.new_empty(fixed.hold.shape),
        clamp=sequence(options.period > 0),
        over=sequence(moved.tires),
        a=sequence(moved.tires),
        w=sequence(moved.opposed),
        total=sequence(moved.echoes),
    )
