"""What the marches of implicit schemes share: states in one buffer, and blocks of steps that are one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .gradient import Passes, refuse_second_derivatives
from .implicit import ImplicitStep
from .jacobian import Field, Roots, depends_on_more
from .memory import Memory, Past
from .trajectory import gathered

TOGETHER = 32  # steps that are one node of the graph, and looked at together ...
NUMBERS = 1 << 20  # ... if they have no more states than this: larger ones gain nothing, and take memory


class Tape(ABC):
    """What the steps of a march share, forward and backward; holds no tensor that has a graph.

    Args:
        memory: the strategy.
        weights: what it needs of the kernel.
        gain: what multiplies the right-hand side.
        start: first state, ``(*)``.
        count: of the states.
        past: what was remembered before, oldest first.

    Attributes:
        buffer: all states, ``(count, *)``.
        gain: as given.
        n: the number of steps made.
    """

    _adjoint: Past  # of a backward pass

    def __init__(
        self, memory: Memory, weights: Tensor, gain: Tensor, start: Tensor, count: int, past: Sequence[Tensor]
    ) -> None:
        self.buffer = start.new_empty((count, *start.shape))
        self._rows = self.buffer.unbind(0)
        self._rows[0].copy_(start.detach())
        self._wanted = torch.is_grad_enabled() and gain.requires_grad  # the gradients in gain and weights
        self.gain, self._weights, self.n = gain.detach(), weights.detach(), 0
        self._begin = partial(memory.begin, self._weights, len(past) + count, start.dtype)
        self._earlier = [item.detach() for item in past]
        self._past: Past | None = self._begin()
        for item in self._earlier:
            self._past.append(item)
        self._passes = Passes()

    @property
    def last(self) -> Tensor:
        """The newest state."""
        return self._rows[self.n]

    @property
    def next(self) -> Tensor:
        """Where the next state goes."""
        return self._rows[self.n + 1]

    @abstractmethod
    def known(self) -> Tensor:
        """Return the known part of the next step."""

    def arrive(self, y: Tensor, rate: Tensor) -> None:
        """Take ``y``, which may lie in its place already, as the next state, with ``rate`` in its step."""
        assert self._past is not None
        place = self.next
        if y.data_ptr() != place.data_ptr():
            place.copy_(y)
        self._remember(self._past, rate)
        self.n += 1

    @abstractmethod
    def _remember(self, past: Past, rate: Tensor) -> None:
        """Append to ``past`` what is remembered of the step to ``next``."""

    def finish(self) -> None:
        """Let go of the past: no step will follow, and the backward pass has its own."""
        self._past = None

    @abstractmethod
    def pull_back_roots(self, first: int, upstream: Tensor, roots: Roots) -> Tensor:
        """Return the gradients in the rates of the steps from ``first`` on; the latest block comes first."""

    def _pair(self, item: Tensor, less: Tensor | None = None) -> None:
        """Take note of what the current sum of the adjoint was multiplied by, if the weights ask for it."""
        if self._wanted:
            self._adjoint.pair(item, less)


class ImplicitMarch:
    """The states of an implicit scheme, one step at a time; differentiated by an adjoint memory.

    Args:
        tape: of the scheme.
        last: what the first node follows.
        start: the first state.
    """

    def __init__(self, tape: Tape, last: Tensor, start: Tensor) -> None:
        self._tape, self.last = tape, last
        self._step, self._states = ImplicitStep(), [start]
        self._at, self._rates = list[Tensor](), list[Tensor]()  # since the last node
        self._together = max(1, min(TOGETHER, NUMBERS // max(1, start.numel())))

    def implicit(self, field: Field) -> tuple[Tensor, Tensor]:
        """Make a step with the right-hand side ``field`` at the new time, met at the new state.

        Returns:
            The new state, and the right-hand side there.
        """
        tape = self._tape
        at, rate = self._step.root(field, tape.known(), tape.gain, tape.last, tape.next.data)
        tape.arrive(at.detach(), rate.detach())
        if torch.is_grad_enabled():
            self._at.append(at)
            self._rates.append(rate)
        if len(self._at) == self._together:
            self._close()
        return tape.last, rate

    def _close(self) -> None:
        """Make one node of the steps since the last."""
        rates = torch.stack(self._rates)
        if not self.last.requires_grad and not depends_on_more(rates, self._at):
            self._append_plain(len(rates))
            return
        roots = self._step.together(self._at, rates, self._tape.gain)
        self.last = _Steps.apply(rates, self.last, roots, self._tape)  # type: ignore[no-untyped-call]
        self._states.append(self.last)
        self._at, self._rates = [], []

    def seen(self, first: int, last: int) -> Tensor:
        """Return the states first, ..., last - 1, ``(n, *)``, to look at."""
        return self._tape.buffer.data[first:last]

    def _append_plain(self, count: int) -> None:
        """Take the steps since the last node as they are: nothing before them and in them has a gradient."""
        first = self._tape.n + 1 - count
        self._states.append(self._tape.buffer.data[first : self._tape.n + 1])
        self._at, self._rates = [], []

    def gathered(self) -> Tensor:
        """Return all states, ``(count, *)``; no step follows."""
        if self._at:
            self._close()
        self._tape.finish()
        return gathered(self._tape.buffer, self._states)


class _Steps(torch.autograd.Function):
    """Steps that were made, ``(n, *)``; those before are an input only to fix the order backward."""

    @staticmethod
    def forward(ctx: Any, rates: Tensor, last: Tensor, roots: Roots, tape: Tape) -> Tensor:
        ctx.roots, ctx.tape, ctx.first = roots, tape, tape.n + 1 - len(rates)
        return tape.buffer.data[ctx.first : tape.n + 1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        return ctx.tape.pull_back_roots(ctx.first, upstream, ctx.roots), None, None, None
