"""Loops over time compiled by Numba, for the CPU: a whole sequence in one call, with its adjoint.

`blocked` takes sixteen steps of a vector of neurons at once, where a spike adds the same to all modes and
holds no neuron; `general` does everything, step by step. Importing this package does not import Numba; the
first sequence does.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...problem import Arriving, Fixed, Made, Moved, Options
from ..base import Backend
from .available import missing


def forward(moved: Moved, fixed: Fixed, options: Options) -> Made:
    """Run a problem; see `Backend`."""
    from . import run  # imports Numba

    return run.forward(moved, fixed, options)


def adjoint(
    moved: Moved,
    fixed: Fixed,
    options: Options,
    made: Made,
    derivative: Tensor,
    arriving: Arriving,
    wants: Sequence[bool],
) -> list[Tensor]:
    """Return gradients; see `Backend`."""
    from . import run

    return run.adjoint(moved, fixed, options, made, derivative, arriving, wants)


def keeps(moved: Moved, options: Options) -> frozenset[str]:
    """Return what the adjoint asks for of what was made; see `Backend`."""
    kept = {"clamp", "a", "w", "total"}
    carries = moved.tires or moved.echoes or options.restart or options.period or len(moved.z)
    if carries or not options.form:  # else the blocked loop finds them again from the potentials
        kept |= {"spikes"}
    if options.reset == 2 or options.restart or moved.opposed:  # a hard reset, or a slope in the potential
        kept |= {"before"}
    return frozenset(kept)


def reason(current: Tensor, dense: bool) -> str | None:
    """Return why the loops cannot run on a current; None if they can."""
    if current.device.type != "cpu":
        return f"the current is on {current.device.type!r}, and the compiled loop runs on the CPU"
    return missing()


BACKEND = Backend(forward, adjoint, keeps, reason)
