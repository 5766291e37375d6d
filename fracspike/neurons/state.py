"""What a neuron carries from one chunk of input to the next, and what a simulation returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """The state of a neuron between two calls; pass it as ``state=`` to go on from there.

    Attributes:
        v: membrane potential after reset, ``(B, *)``.
        past: what the memory holds, oldest first, ``(n, B, *)``.
        drive: resistance times the current of the last step, ``(B, *)``.
        refractory: steps for which the neuron is still held, ``(B, *)``, whole numbers.
        kind: method and reset memory that made the state; only the same may go on from it.
        extra: what else a neuron carries, by name: further variables, each ``(B, *)``.
    """

    v: Tensor
    past: Tensor
    drive: Tensor
    refractory: Tensor
    kind: str
    extra: dict[str, Tensor] = field(default_factory=dict)

    def detach(self) -> State:
        """Return the state cut from the graph: truncated backpropagation through time."""
        return replace(
            self,
            v=self.v.detach(),
            past=self.past.detach(),
            drive=self.drive.detach(),
            extra={name: value.detach() for name, value in self.extra.items()},
        )

    @classmethod
    def at(cls, v: Tensor, kind: str) -> State:
        """Return the state of a neuron that starts at the potential ``v`` with no past."""
        return cls(
            v=v,
            past=v.new_zeros((0, *v.shape)),
            drive=torch.zeros_like(v),
            refractory=torch.zeros_like(v, dtype=torch.long),
            kind=kind,
        )


@dataclass(frozen=True)
class Simulation:
    """What :meth:`FractionalLIF.simulate` returns.

    Attributes:
        spikes: ``(T, B, *)``.
        voltage: membrane potential after reset, ``(T, B, *)``.
        pre_reset: membrane potential before reset, on which the spike was decided, ``(T, B, *)``.
        state: where to go on from.
        variables: what else the neuron has, such as an adaptation, by name, each ``(T, B, *)``.
    """

    spikes: Tensor
    voltage: Tensor
    pre_reset: Tensor
    state: State
    variables: dict[str, Tensor] = field(default_factory=dict)
