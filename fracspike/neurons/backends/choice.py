"""Which backend runs a call, and why."""

from __future__ import annotations

from torch import Tensor

from ..backend import Choice
from .registry import find

#: tried in turn where nothing was asked for
COMPILED = ("native", "triton")


def choose(asked: str, current: Tensor, *, dense: bool = False) -> Choice:
    """Return the backend for a current, and why; the loop in torch if no other can.

    Args:
        asked: the name of a backend, or "auto".
        current: ``(T, B, *)``.
        dense: whether spikes come back from all neurons to all.
    """
    names = COMPILED if asked == "auto" else (asked,)
    reasons = {name: find(name).reason(current, dense) for name in names}
    for name, reason in reasons.items():
        if reason is None:
            return Choice(name, "it can run this" if asked == "auto" else f"backend={asked!r} was asked for")
    own = "triton" if current.device.type == "cuda" and asked == "auto" else names[0]
    return Choice("torch", str(reasons[own]))
