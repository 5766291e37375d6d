"""A call of a neuron as tensors and numbers, and what came out: all that a backend sees.

A layer writes a `Problem`; a backend reads it and returns a `Made`. Neither knows the other.
Potentials are measured from rest. ``shape`` below is the shape of the neurons, ``(B, *)``; a constant
broadcasts to it, so it is a number, or ``(N,)``, or anything between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

#: how a spike is decided: 1 from 0 on, 1 above 0, the logistic function, or at no potential
KINDS = {"at_least": 0, "above": 1, "soft": 2, "never": 3}
#: what a spike does to the potential
RESETS = {"none": 0, "subtract": 1, "value": 2}
HEADROOM = 2.0**20  # how far below the largest number a drive must stay: modes add up to more than it
HALF = 0.5  # from where on a soft spike holds a refractory neuron, or erases a memory


class Moved(NamedTuple):
    """The tensors that a gradient may go to; those that a layer does not have are empty, ``(0,)``.

    Attributes:
        current: ``(T, *shape)``, float32 or float64. All that has no dtype below is float64.
        resistance: potential per current, constant.
        threshold: where it spikes, constant.
        fall: what a soft reset takes off, or where a hard one goes to, constant.
        weight: of the modes, ``(K, *constant)``; their sum is 1.
        z: modes at the start, ``(K, *shape)``; ``(0, *shape)`` without a past, when each is the potential.
        v: potential at the start, ``shape``.
        lift: rise of the threshold per unit of adaptation, constant.
        stay: what a step leaves of adaptation and opposing drive, constant.
        pull: what the opposing drive gains in a step per potential above rest, constant.
        a: adaptation at the start, ``shape``.
        w: opposing drive at the start, ``shape``.
        own: weight with which spikes come back to their own neuron, constant.
        matrix: weights ``(N, N)`` with which spikes come back within the last dimension, in the dtype of the
            current.
        last: spikes of the step before the first, ``shape``, in the dtype of the current.
    """

    current: Tensor
    resistance: Tensor
    threshold: Tensor
    fall: Tensor
    weight: Tensor
    z: Tensor
    v: Tensor
    lift: Tensor
    stay: Tensor
    pull: Tensor
    a: Tensor
    w: Tensor
    own: Tensor
    matrix: Tensor
    last: Tensor

    def detach(self) -> Moved:
        """Return the same without a graph."""
        return Moved(*(x.detach() for x in self))

    @property
    def shape(self) -> torch.Size:
        """The shape of the neurons, ``(B, *)``."""
        return self.current.shape[1:]

    @property
    def tires(self) -> bool:
        """Whether a spike raises the threshold."""
        return self.lift.numel() > 0

    @property
    def opposed(self) -> bool:
        """Whether a drive opposes the potential."""
        return self.pull.numel() > 0

    @property
    def echoes(self) -> bool:
        """Whether spikes come back."""
        return self.last.dim() > 1 or self.last.numel() > 0

    @property
    def dense(self) -> bool:
        """Whether they come back to all neurons of the last dimension."""
        return self.matrix.dim() == 2


class Fixed(NamedTuple):
    """The tensors that no gradient goes to.

    Attributes:
        loss: what each mode loses in a step, ``(K, *constant)`` float64: slowest first, the last one all.
        noise: what is added to ``slope * x`` before the step, ``(T, *shape)``; ``(0,)`` without.
        slope: what the potential above threshold is multiplied by there, a number.
        hold: steps for which a neuron is still held, ``shape``, int64.
    """

    loss: Tensor
    noise: Tensor
    slope: Tensor
    hold: Tensor

    @property
    def noisy(self) -> bool:
        """Whether there is noise."""
        return self.noise.dim() > 1


class Options(NamedTuple):
    """What is no tensor.

    Attributes:
        kind: one of `KINDS`.
        reset: one of `RESETS`.
        restart: whether a spike erases the modes.
        period: steps for which a neuron is held after a spike.
        detach: whether no gradient flows through the spike in the reset.
        tol: relative error of the modes.
        slow: how many modes, from the first, single precision cannot add up without compensation.
        keep_before: whether the potentials before reset are wanted.
        form: the numbers of a surrogate that a kernel may evaluate itself: p, q, r and factor of
            factor / (p + (q |x| + r)^2); none if the derivative comes from outside.
    """

    kind: int
    reset: int
    restart: bool
    period: int
    detach: bool
    tol: float
    slow: int
    keep_before: bool
    form: tuple[float, ...] = ()

    def pack(self) -> list[float]:
        """Return the options as numbers, which an operator can take."""
        return [*map(float, self[:-1]), *self.form]

    @classmethod
    def unpack(cls, numbers: Sequence[float]) -> Self:
        """Return the options of `pack`."""
        kind, reset, restart, period, detach, tol, slow, before, *form = numbers
        return cls(
            kind=int(kind),
            reset=int(reset),
            restart=bool(restart),
            period=int(period),
            detach=bool(detach),
            tol=tol,
            slow=int(slow),
            keep_before=bool(before),
            form=tuple(form),
        )


class Made(NamedTuple):
    """What a forward pass makes; an entry that a layer does not have is empty, ``(0,)``.

    Attributes:
        spikes: ``(T, *shape)``, in the dtype of the current, and so is all that has no dtype here.
        before: potential before reset, ``(T, *shape)``.
        z: modes at the end, after the last reset, ``(K, *shape)`` float64; none if none were given.
        hold: steps for which a neuron is still held, ``shape``, int64.
        clamp: drive that held a refractory neuron, NaN elsewhere, ``(T, *shape)``.
        over: potential before reset less the threshold of the moment, ``(T, *shape)``, if that moves.
        a: adaptation after each step, ``(T, *shape)``.
        w: opposing drive after each step, ``(T, *shape)``.
        total: current with what came back, ``(T, *shape)``.
    """

    spikes: Tensor
    before: Tensor
    z: Tensor
    hold: Tensor
    clamp: Tensor
    over: Tensor
    a: Tensor
    w: Tensor
    total: Tensor


class Arriving(NamedTuple):
    """Gradients that arrive at what a forward pass made; empty, ``(0,)``, where none does."""

    spikes: Tensor
    before: Tensor
    z: Tensor
    a: Tensor
    w: Tensor


@dataclass(frozen=True)
class Step:
    """How a spike is decided and differentiated: what a surrogate asks of a backend.

    Attributes:
        kind: one of `KINDS`.
        slope: what x is multiplied by before the step; a number, or a tensor if it is trained.
        noise: as the surrogate drew it, ``(T, *shape)``, or None.
        shift: what is added to ``slope * x`` before the step, None without noise.
        spikes: x and noise to spikes, with their graph.
        derivative: x and noise to the derivative of the spikes in x; None to ask autograd for it.
        trained: whether the surrogate has parameters that want a gradient.
        certain: whether the surrogate is known to step as ``kind`` says; if not, it must be checked.
        form: see `Options`; none where there is more to the derivative.
    """

    kind: str
    slope: float | Tensor
    noise: Tensor | None
    shift: Tensor | None
    spikes: Callable[[Tensor, Tensor | None], Tensor]
    derivative: Callable[[Tensor, Tensor | None], Tensor] | None
    trained: bool
    certain: bool
    form: tuple[float, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A call of a neuron.

    Attributes:
        moved: what a gradient may go to.
        fixed: what none goes to.
        options: what is no tensor.
        step: how a spike is decided and differentiated.
    """

    moved: Moved
    fixed: Fixed
    options: Options
    step: Step
