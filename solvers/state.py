"""Where a solve stopped, and whether another may go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import transforms
from .memory import MEMORIES, Memory

SAME = 1e-6  # what numbers that were not learned may differ by, relatively: rounding
LEARNED = 0.05  # what a learned order, or coefficient (relatively), may move between two solves


@dataclass(frozen=True)
class SolveState:
    """Where a solve stopped; pass it in place of ``y0`` to go on from there.

    It shares no storage with the solution, and knows what made it: only a solve of the same kind may go on.

    Attributes:
        y: the last state, flattened if it was a tuple.
        initial: the state where the memory began.
        past: all that was remembered, ``(n, *)``.
        t: the time reached.
        h: the time step.
        method: name of the method.
        shapes: shapes of the tuple's members; None if the state is one tensor.
        memory: what was kept of the past.
        alphas: the orders, one tensor for each term.
        coefficients: as many coefficients.
        learned: whether orders or coefficients required grad.
    """

    y: Tensor
    initial: Tensor
    past: Tensor
    t: float
    h: float
    method: str
    shapes: list[torch.Size] | None
    memory: Memory
    alphas: tuple[Tensor, ...]
    coefficients: tuple[Tensor, ...]
    learned: bool


torch.serialization.add_safe_globals([SolveState, *MEMORIES.values()])  # torch.load(weights_only=True)


def check_continues(
    state: SolveState,
    *,
    method: str,
    memory: Memory,
    alphas: Sequence[Tensor],
    coefficients: Sequence[Tensor],
    start: float,
    h: float,
    rounding: float,
) -> None:
    """Refuse to go on from a state that another kind of solve has made.

    The past is kept as it was, so the solve that goes on weighs it by its own orders. Numbers that are not
    learned must be the same. Learned ones, which an optimiser moves between two solves, may differ by
    ``LEARNED``: they make the solution that of an equation whose order moved on the way, which is what
    truncated backpropagation means.

    Args:
        state: to go on from.
        method: name of the method.
        memory: what is kept of the past.
        alphas: orders.
        coefficients: of the orders.
        start: first time.
        h: time step.
        rounding: how far times may be off by rounding of ``t``.

    Raises:
        ValueError: saying what differs.
    """
    if state.method != method:
        raise ValueError(f"`method` must be that of the state, {state.method!r}, got {method!r}")
    if state.memory != memory:
        raise ValueError(f"`memory` must be that of the state, {state.memory!r}, got {memory!r}")
    if abs(start - state.t) > 1e-6 * state.h + rounding or abs(h - state.h) > 1e-6 * state.h + rounding:
        raise ValueError(
            f"`t` must go on from the state, at {state.t:g} with step {state.h:g}; got {start:g} and {h:g}"
        )
    learned = state.learned or any(transforms.differentiated(x) for x in (*alphas, *coefficients))
    _check_same("alpha", state.alphas, alphas, LEARNED if learned else SAME, relative=False)
    _check_same("coefficients", state.coefficients, coefficients, LEARNED if learned else SAME, relative=True)


def _check_same(
    name: str, before: Sequence[Tensor], now: Sequence[Tensor], tolerance: float, *, relative: bool
) -> None:
    if len(before) != len(now):
        raise ValueError(
            f"`{name}` must have as many terms as that of the state, {len(before)}, got {len(now)}"
        )
    for old, live in zip(before, now, strict=True):
        new = transforms.values(live)
        old = old.to(new.device)
        if new.dim() == live.dim():
            old, new = torch.broadcast_tensors(old, new)  # type: ignore[no-untyped-call]
        else:  # a batch of them, in the last dimensions
            old = old.reshape(*old.shape, *([1] * (new.dim() - live.dim()))).expand_as(new)
        apart = (new - old).abs() > tolerance * (old.abs().clamp(min=SAME) if relative else 1.0)
        if bool(apart.any()):
            was, is_now = (float(x[apart][0]) for x in (old, new))
            learned = (
                f"; what is learned may move by {LEARNED:g} between two solves" if tolerance > SAME else ""
            )
            raise ValueError(f"`{name}` must be that of the state, {was:g}, got {is_now:g}{learned}")
