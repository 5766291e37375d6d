"""What a neuron carries from one chunk of input to the next, and what a simulation returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fracspike.solvers import checks, modes


@dataclass(frozen=True)
class State:
    """The state of a neuron between two calls; pass it as ``state=`` to go on from there.

    ``torch.save`` keeps it, and ``torch.load`` reads it with ``weights_only=True`` as well.

    Attributes:
        v: membrane potential after reset, ``(B, *)``.
        past: what the memory holds: its items, oldest first, or its modes, ``(n, B, *)``.
        drive: resistance times the current of the last step, ``(B, *)``.
        refractory: steps for which the neuron is still held, ``(B, *)``, whole numbers.
        kind: method and reset memory that made the state; only the same may go on from it.
        extra: what else a neuron carries, by name: further variables ``(B, *)``, or states of its parts.
        grid: the rates of the modes, if the memory is a sum of exponentials.
        steps: how many steps were made, if it has a horizon.
    """

    v: Tensor
    past: Tensor
    drive: Tensor
    refractory: Tensor
    kind: str
    extra: dict[str, Tensor | State] = field(default_factory=dict)
    grid: modes.Grid | None = None
    steps: int = 0

    def detach(self) -> State:
        """Return the state cut from the graph: truncated backpropagation through time."""
        return replace(
            self,
            v=self.v.detach(),
            past=self.past.detach(),
            drive=self.drive.detach(),
            extra={name: value.detach() for name, value in self.extra.items()},
        )

    def apart(self) -> State:
        """Return the state with tensors of its own: it shares none with recordings, inputs or constants.

        The past needs no copy: every run stacks it anew.
        """
        return replace(
            self,
            v=self.v.clone(),
            drive=self.drive.clone(),
            refractory=self.refractory.clone(),
            extra={k: x.clone() if isinstance(x, Tensor) else x.apart() for k, x in self.extra.items()},
        )

    @classmethod
    def at(cls, v: Tensor, kind: str, extra: dict[str, Tensor | State] | None = None) -> State:
        """Return the state of a neuron that starts at the potential ``v`` with no past."""
        return cls(
            v=v,
            past=v.new_zeros((0, *v.shape)),
            drive=torch.zeros_like(v),
            refractory=torch.zeros_like(v, dtype=torch.long),
            kind=kind,
            extra=dict(extra or {}),
        )


torch.serialization.add_safe_globals([State])  # plain data, which torch.load takes with weights_only


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


def check_current(current: Tensor, size: tuple[int, ...] | None) -> None:
    """Refuse a current that is not ``(T, B, *)``, floating point and of the neurons' shape."""
    checks.floating("current", current)
    if current.dim() < 1 or len(current) == 0:
        raise ValueError(f"`current` must have shape (T, B, *) with T >= 1, got {tuple(current.shape)}")
    if size and not _fits(size, tuple(current.shape[1:][-len(size) :])):
        raise ValueError(f"`current` must end in the neurons' shape {size}, got {tuple(current.shape)}")


def _fits(size: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(size) == len(shape) and all(s in (1, n) for s, n in zip(size, shape, strict=True))


def check_state(state: State, current: Tensor, kind: str) -> None:
    """Refuse a state of another kind of neuron, or of another shape or dtype than the current."""
    if not isinstance(state, State):
        raise TypeError(f"`state` must be a State, from run.state, got {type(state).__name__}")
    if state.kind != kind:
        raise ValueError(f"`state` must come from a {kind} neuron, got {state.kind}")
    if state.v.shape != current.shape[1:] or state.v.dtype != current.dtype:
        raise ValueError(
            f"`state` must match the current, {tuple(current.shape[1:])} of {current.dtype}; "
            f"got {tuple(state.v.shape)} of {state.v.dtype}"
        )
