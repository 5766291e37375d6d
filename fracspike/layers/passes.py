"""The passes of a network that make the steps of a solve: which they are, and what is kept of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fracspike.solvers import METHODS

from .moment import Moment


@dataclass(frozen=True)
class Pass:
    """What a network made of its input and of the potentials, at one time or several, each ``(n, B, *)``.

    Attributes:
        rates: of each layer by name, the right-hand side.
        currents: what each layer received.
        spikes: of each layer; of a readout the potentials.
        output: of the network.
    """

    rates: dict[str, Tensor]
    currents: dict[str, Tensor]
    spikes: dict[str, Tensor]
    output: Tensor


#: ``look(t, y)`` passes the network at a time and the flat state ``(B, N)`` there ...
Look = Callable[[Tensor, Tensor], Pass]
#: ... and ``hold(y, made)`` gives the rates at another state, with the currents and spikes of a pass
Hold = Callable[[Tensor, Pass], dict[str, Tensor]]


class Steps(ABC):
    """The right-hand side of one solve, which keeps the pass that made each step.

    Args:
        look: how to pass the network.
        hold: how to go on from a pass.

    Attributes:
        at_end: whether the pass of a step lies at its end.
    """

    at_end = False

    def __init__(self, look: Look, hold: Hold) -> None:
        self._look, self._hold = look, hold

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the rates, flat ``(B, N)``."""
        return flat(self._rates(t, y))

    @abstractmethod
    def _rates(self, t: Tensor, y: Tensor) -> dict[str, Tensor]: ...

    @abstractmethod
    def passes(self, times: Tensor, y: Tensor) -> list[Pass]:
        """Return the pass of each step of the solution ``y``, ``(n + 1, B, N)`` at ``times``."""


class Explicit(Steps):
    """A step starts with its pass, at a state that is known: it is kept, with its graph."""

    def __init__(self, look: Look, hold: Hold) -> None:
        super().__init__(look, hold)
        self._made: list[Pass] = []

    def _rates(self, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        self._made.append(self._look(t, y))
        return self._made[-1].rates

    def passes(self, times: Tensor, y: Tensor) -> list[Pass]:
        """See :class:`Steps`."""
        if len(self._made) != len(times) - 1:
            raise RuntimeError(
                f"a method that passes the network once a step made {len(self._made)} passes in "
                f"{len(times) - 1} steps; set `corrects` of a method that evaluates twice"
            )
        return self._made


class Corrected(Explicit):
    """A step that is corrected once: its correction holds the currents and spikes with which it started.

    That costs no order: the predicted state, at which a correction looks, is as far off.
    """

    _corrected = True

    def _rates(self, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        self._corrected = not self._corrected
        return self._hold(y, self._made[-1]) if self._corrected else super()._rates(t, y)


class Implicit(Steps):
    """A step ends with its pass, at a state that is searched for: each look at it is from the same moment.

    So all draw the same random numbers, and statistics are counted once. The first rate of all, where a
    method has one, belongs to the first step.

    Args:
        look: how to pass the network.
        hold: how to go on from a pass; not used.
        model: the network.
        h: the time step.
    """

    at_end = True

    def __init__(self, look: Look, hold: Hold, model: nn.Module, h: float) -> None:
        super().__init__(look, hold)
        self._model, self._h = model, h
        self._moments: list[Moment] = []

    def _rates(self, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        step = max(1, math.ceil(float(t) / self._h - 0.5))
        if step > len(self._moments):
            self._moments.append(Moment(self._model))
        self._moments[step - 1].restore()
        return self._look(t, y).rates

    def passes(self, times: Tensor, y: Tensor) -> list[Pass]:
        """See :class:`Steps`; the root has no graph beyond its step, so that each is passed once more."""
        made = []
        for moment, t, state in zip(self._moments, times[1:], y[1:], strict=True):
            moment.restore()
            made.append(self._look(t, state))
        return made


def steps_of(method: str, look: Look, hold: Hold, model: nn.Module, h: float) -> Steps:
    """Return the right-hand side of a solve by a method of that name, with steps of ``h``."""
    rule = METHODS[method]
    if rule.implicit:
        return Implicit(look, hold, model, h)
    return (Corrected if rule.corrects else Explicit)(look, hold)


def flat(parts: dict[str, Tensor]) -> Tensor:
    """Return values ``(1, B, *)`` of the layers as one, ``(B, N)``."""
    return torch.cat([part.squeeze(0).flatten(1) for part in parts.values()], 1)
