"""The loop over time of a spiking neuron: advance, decide, reset.

The maths of the leak is the membrane's, what a spike does to the potential is the reset rule's, and
what it does to later steps is the feedback's; here is only the order of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fracspike.solvers import checks

from .membrane import Membrane

HALF = 0.5  # from where on a soft spike holds a refractory neuron, or erases a memory


class Feedback:
    """What a step does to the next ones beside the leak and the reset; this one does nothing.

    Args:
        state: where to start, by name, each ``(B, *)``.
    """

    shown: tuple[str, ...] = ()  # entries of the state that a simulation returns

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        self._state = dict(state or {})

    @property
    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on later, by name, each ``(B, *)``."""
        return self._state

    @property
    def parts(self) -> tuple[Feedback, ...]:
        """The feedbacks that this one is made of."""
        return (self,)

    def reason(self, current: Tensor) -> str | None:
        """Return why no backend but the loop in torch knows this feedback; None if one may."""
        if type(self) is Feedback:
            return None
        return f"{type(self).__name__} is a feedback of your own, which is not compiled"

    def given(self, current: Tensor) -> dict[str, Tensor]:
        """Return what it adds to a problem: entries of `Moved`, and ``bias``, a current without a spike."""
        return {}

    def drive(self, u: Tensor) -> Tensor:
        """Return the drive of the next step."""
        return u

    def threshold(self, threshold: Tensor) -> Tensor:
        """Return the threshold of the next step."""
        return threshold

    def observe(self, v: Tensor, spike: Tensor) -> None:
        """Take note of how the step ended: potential after reset, and spike."""


class Both(Feedback):
    """One feedback after another."""

    def __init__(self, first: Feedback, second: Feedback) -> None:
        self._parts = first, second
        self.shown = first.shown + second.shown

    @property
    def state(self) -> dict[str, Tensor]:
        """See :class:`Feedback`."""
        return self._parts[0].state | self._parts[1].state

    @property
    def parts(self) -> tuple[Feedback, ...]:
        """See :class:`Feedback`."""
        return self._parts[0].parts + self._parts[1].parts

    def reason(self, current: Tensor) -> str | None:
        """See :class:`Feedback`."""
        return self._parts[0].reason(current) or self._parts[1].reason(current)

    def given(self, current: Tensor) -> dict[str, Tensor]:
        """See :class:`Feedback`."""
        return self._parts[0].given(current) | self._parts[1].given(current)

    def drive(self, u: Tensor) -> Tensor:
        """See :class:`Feedback`."""
        return self._parts[1].drive(self._parts[0].drive(u))

    def threshold(self, threshold: Tensor) -> Tensor:
        """See :class:`Feedback`."""
        return self._parts[1].threshold(self._parts[0].threshold(threshold))

    def observe(self, v: Tensor, spike: Tensor) -> None:
        """See :class:`Feedback`."""
        for part in self._parts:
            part.observe(v, spike)


@dataclass
class Trace:
    """What a loop has recorded.

    Attributes:
        spikes: ``(T, B, *)``.
        voltage: potential after reset, ``(T, B, *)``.
        pre_reset: potential on which the spike was decided, ``(T, B, *)``.
        variables: the state of the feedback after each step, by name, each ``(T, B, *)``.
        refractory: steps for which the neuron is still held, ``(B, *)``.
    """

    spikes: Tensor
    voltage: Tensor
    pre_reset: Tensor
    variables: dict[str, Tensor]
    refractory: Tensor


@dataclass(frozen=True)
class Loop:
    r"""The order of events in a step of an integrate-and-fire neuron.

    But for ``reset_memory="current"`` the membrane advances, the spike is decided on where it
    arrives, and the reset follows. With ``"current"`` the spike is decided on ``charge(v, u)`` at
    the start of the step, and what the reset would take off is an input over the step, as in the
    released code of the f-SNN paper.

    Attributes:
        surrogate: what makes the spike of potential minus threshold.
        threshold: ``(*)``, in the dtype of the run.
        reset: ``reset(v, spike)``, the potential after.
        charge: ``charge(v, u)``, on which ``"current"`` decides.
        reset_memory: how the reset enters the memory.
        hold: steps for which a neuron is held after a spike.
        detach_reset: if true, no gradient flows through the reset.
        feedback: what a step does to the next ones.
    """

    surrogate: Callable[[Tensor], Tensor]
    threshold: Tensor
    reset: Callable[[Tensor, Tensor], Tensor]
    charge: Callable[[Tensor, Tensor], Tensor]
    reset_memory: str = "jump"
    hold: int = 0
    detach_reset: bool = False
    feedback: Feedback = field(default_factory=Feedback)

    def run(self, membrane: Membrane, drive: Tensor, refractory: Tensor) -> Trace:
        """Advance ``membrane`` under ``drive`` ``(T, B, *)`` and record it.

        Args:
            membrane: where it starts; afterwards, where it ended.
            drive: held drive, in the unit of the potential.
            refractory: steps for which each neuron is still held, ``(B, *)``, whole numbers.
        """
        spikes, after_reset, before_reset = [], [], []
        variables: dict[str, list[Tensor]] = {name: [] for name in self.feedback.shown}
        step = self._decide_first if self.reset_memory == "current" else self._advance_first
        for u in drive:
            clamped = refractory > 0 if self.hold else None
            before, spike, after = step(membrane, self.feedback.drive(u), clamped)
            if self.hold:
                fired = spike.detach() > HALF
                refractory = torch.where(fired, self.hold, (refractory - 1).clamp(min=0))
            self.feedback.observe(after, spike)
            spikes.append(spike)
            before_reset.append(before)
            after_reset.append(after)
            for name, values in variables.items():
                values.append(self.feedback.state[name])
        return Trace(
            spikes=torch.stack(spikes),
            voltage=torch.stack(after_reset),
            pre_reset=torch.stack(before_reset),
            variables={name: torch.stack(values) for name, values in variables.items()},
            refractory=refractory,
        )

    def _advance_first(
        self, membrane: Membrane, u: Tensor, clamped: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        before = membrane.advance(u, clamped)
        spike = self._decide(before, clamped)
        after = self._reset(before, spike)
        membrane.settle(before, after)
        if self.reset_memory == "restart":
            fired = spike.detach() > HALF
            if checks.hidden() or bool(fired.any()):
                membrane.forget(fired)
        return before, spike, after

    def _decide_first(
        self, membrane: Membrane, u: Tensor, clamped: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        charged = self.charge(membrane.v, u)
        if clamped is not None:
            charged = torch.where(clamped, membrane.v, charged)
        spike = self._decide(charged, clamped)
        after = membrane.advance(u + (self._reset(charged, spike) - charged), clamped)
        membrane.settle(after, after)
        return charged, spike, after

    def _decide(self, v: Tensor, clamped: Tensor | None) -> Tensor:
        spike = self.surrogate(v - self.feedback.threshold(self.threshold))
        return spike if clamped is None else torch.where(clamped, 0.0, spike)

    def _reset(self, v: Tensor, spike: Tensor) -> Tensor:
        return self.reset(v, spike.detach() if self.detach_reset else spike)
