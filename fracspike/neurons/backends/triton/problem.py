"""What a run is made of: options, constants, where it starts, and what comes out of both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = {"at_least": 0, "above": 1, "soft": 2, "never": 3}
RESETS = {"none": 0, "subtract": 1, "value": 2}


@dataclass(frozen=True)
class Options:
    """What is no tensor.

    Attributes:
        step: what makes a spike of ``over``, the potential above threshold: ``"at_least"`` (1 from 0 on),
            ``"above"`` (1 above 0), ``"soft"`` (the logistic function) or ``"never"``.
        reset: ``"none"``, ``"subtract"`` (takes ``fall`` off) or ``"value"`` (takes it to ``fall``).
        leaky: whether the membrane leaks; without a leak it integrates.
        restart: whether a spike erases the memory: modes begin anew at the potential after reset.
        period: steps for which a neuron is held at its potential after a spike.
        detach: whether no gradient flows through the spike in the reset.
        slope: what ``over`` is multiplied by before noise is added, and before a soft step.
        form: p, q, r and factor of the derivative ``factor / (p + (q |over| + r)^2)``, which the adjoint then
            evaluates itself; empty if it is given the derivative of the whole sequence.
        double: whether sequences in single precision are computed in double; those in double precision are.
        block: neurons of a program, a power of two; by size if None.
        warps: of a program; by size if None.
        unroll: steps that the loop over time takes at once; by how much there is to a step if None.
    """

    step: str = "at_least"
    reset: str = "subtract"
    leaky: bool = True
    restart: bool = False
    period: int = 0
    detach: bool = False
    slope: float = 1.0
    form: tuple[float, ...] = ()
    double: bool = False
    block: int | None = None
    warps: int | None = None
    unroll: int | None = None

    def computed_in(self, sequences: torch.dtype) -> torch.dtype:
        """Return the dtype in which sequences of a dtype are computed."""
        return torch.float64 if self.double or sequences == torch.float64 else torch.float32

    def kept_in(self, sequences: torch.dtype) -> torch.dtype:
        """Return the dtype of potentials and adaptation: that of the sequences, but no half precision."""
        return torch.float64 if sequences == torch.float64 else torch.float32


class Constants(NamedTuple):
    """Constants of the neurons: tensors of one number, or of n for the n neurons of a sample, n dividing M.

    Potentials are measured from rest. None is what a layer does not have.

    Attributes:
        resistance: potential per current.
        threshold: where a neuron spikes.
        fall: what a soft reset takes off, or where a hard one ends.
        stay: what a step leaves of adaptation and opposing drive.
        lift: rise of the threshold per unit of adaptation.
        pull: what the opposing drive gains in a step per potential.
        own: weight with which a neuron's spikes come back to itself one step later.
    """

    resistance: Tensor
    threshold: Tensor
    fall: Tensor
    stay: Tensor | None = None
    lift: Tensor | None = None
    pull: Tensor | None = None
    own: Tensor | None = None


class Start(NamedTuple):
    """Where a run starts, ``(M,)`` each but for the modes; what a layer does not have is None.

    Attributes:
        v: potential after reset.
        modes: ``(K, M)``, float64; without, each is the potential (or 0 without a leak).
        hold: steps for which a neuron is still held, int32; 0 if None.
        adaptation: as said.
        opposing: opposing drive.
        last: spikes of the step before the first.
    """

    v: Tensor
    modes: Tensor | None = None
    hold: Tensor | None = None
    adaptation: Tensor | None = None
    opposing: Tensor | None = None
    last: Tensor | None = None


class Made(NamedTuple):
    """What a run made; sequences are ``(T, M)``, and what was not wanted or does not exist is None.

    Attributes:
        spikes: in the dtype of the drive.
        before: potential before reset.
        over: potential before reset less the threshold of the moment, what a surrogate steps on.
        clamp: drive that held a refractory neuron, NaN elsewhere.
        adaptation: after each step.
        opposing: opposing drive after each step.
        modes: after the last reset, ``(K, M)`` float64.
        hold: steps for which a neuron is held from there, ``(M,)`` int32.
        v: potential after the last reset, ``(M,)``.
        wrong: other than 0 for blocks of neurons whose drive is not finite; nobody has looked at it yet,
            since that waits for the device.
    """

    spikes: Tensor
    before: Tensor | None
    over: Tensor | None
    clamp: Tensor | None
    adaptation: Tensor | None
    opposing: Tensor | None
    modes: Tensor | None
    hold: Tensor | None
    v: Tensor
    wrong: Tensor


class Arriving(NamedTuple):
    """Gradients that arrive at what a run made; None for none.

    Attributes:
        spikes: ``(T, M)`` or of the shape of the drive, in any strides; and so is before.
        before: as said.
        adaptation: at the whole sequence, ``(T, M)``.
        opposing: likewise.
        modes: at the modes at the end, ``(K, M)``.
        v: at the potential after the last reset, ``(M,)``.
    """

    spikes: Tensor | None = None
    before: Tensor | None = None
    adaptation: Tensor | None = None
    opposing: Tensor | None = None
    modes: Tensor | None = None
    v: Tensor | None = None


class Wants(NamedTuple):
    """Which gradients are wanted beside that in the drive.

    Attributes:
        weights: that in the weights of the modes.
        spikes: that at the spikes all told, which a surrogate's own parameters need.
        start: that in the modes at the start.
    """

    weights: bool = False
    spikes: bool = False
    start: bool = False


class Gradients(NamedTuple):
    """What the adjoint gives; ``(M,)`` where nothing is said, to be summed where neurons share a constant.

    Attributes:
        drive: in the shape of the drive.
        spikes: at the spikes all told, ``(T, M)``.
        weights: ``(K, 1)`` or ``(K, n)``, as the weights, summed over all that share them. With a leak it is
            relative to that of the last mode: since weights sum to 1, a number common to all means nothing.
        start: in the modes at the start, ``(K, M)``.
        resistance: and so on, as `Constants` and `Start`.
        threshold: as said.
        fall: as said.
        stay: as said.
        lift: as said.
        pull: as said.
        own: as said.
        v: as said; with that of the modes that began there.
        adaptation: as said.
        opposing: as said.
        last: as said.
    """

    drive: Tensor
    spikes: Tensor | None
    weights: Tensor | None
    start: Tensor | None
    resistance: Tensor
    threshold: Tensor
    fall: Tensor
    stay: Tensor | None
    lift: Tensor | None
    pull: Tensor | None
    own: Tensor | None
    v: Tensor
    adaptation: Tensor | None
    opposing: Tensor | None
    last: Tensor | None
