"""What a neuron carries from one chunk of input to the next, and what a simulation returns."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fracspike.solvers import checks, modes

from .problem import HEADROOM

#: how far a learned constant may have moved since a state was made, as an optimiser's steps move it:
#: an order by so much, any other by that part of itself
MOVED_ORDER, MOVED = 0.05, 0.2
SAME = 1e-9  # relative: what rounding may change of a constant that is not learned


@dataclass(frozen=True)
class State:
    """The state of a neuron between two calls; pass it as ``state=`` to go on from there.

    ``torch.save`` keeps it, and ``torch.load`` reads it with ``weights_only=True`` as well.

    Attributes:
        v: membrane potential after reset, ``(B, *)``.
        past: what the memory holds: its items, oldest first, or its modes, ``(n, B, *)``.
        drive: resistance times the current of the last step, ``(B, *)``.
        refractory: steps for which the neuron is still held, ``(B, *)``, whole numbers.
        made: what made the state, by name: model, method, memory, time step, orders and the like.
        extra: what else a neuron carries, by name: further variables ``(B, *)``, or states of its parts.
        grid: the rates of the modes, if the memory is a sum of exponentials.
        steps: how many steps were made, if it has a horizon.
    """

    v: Tensor
    past: Tensor
    drive: Tensor
    refractory: Tensor
    made: dict[str, float | str | Tensor]
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
    def at(
        cls, v: Tensor, made: dict[str, float | str | Tensor], extra: dict[str, Tensor | State] | None = None
    ) -> State:
        """Return the state of a neuron that starts at the potential ``v`` with no past."""
        return cls(
            v=v,
            past=v.new_zeros((0, *v.shape)),
            drive=torch.zeros_like(v),
            refractory=torch.zeros_like(v, dtype=torch.long),
            made=made,
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
    if current.dim() < 1 or current.shape[0] == 0:
        raise ValueError(f"`current` must have shape (T, B, *) with T >= 1, got {tuple(current.shape)}")
    if size and not _fits(size, tuple(current.shape[1:][-len(size) :])):
        raise ValueError(f"`current` must end in the neurons' shape {size}, got {tuple(current.shape)}")


def _fits(size: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(size) == len(shape) and all(s == 1 or s == n for s, n in zip(size, shape, strict=True))


def check_state(
    state: State, current: Tensor, made: Mapping[str, float | str | Tensor], learned: Container[str]
) -> None:
    """Refuse a state that another neuron made, or of another shape or dtype than the current.

    Args:
        state: what was passed.
        current: checked.
        made: what the states of this neuron are made with.
        learned: names of its learned constants, which an optimiser moves between two chunks.
    """
    if not isinstance(state, State):
        raise TypeError(f"`state` must be a State, from run.state, got {type(state).__name__}")
    for name, here in made.items():
        if name != "model" and not len(state.past):
            break  # with no past, all begin alike
        there = state.made.get(name)
        if not _agrees(name, there, here, name in learned):
            raise ValueError(
                f"`state` must come from a neuron of {name} {_text(here)}, got one of {_text(there)}; "
                "start from rest, or go on with the neuron that made it"
            )
    if state.v.shape != current.shape[1:] or state.v.dtype != current.dtype:
        raise ValueError(
            f"`state` must match the current, {tuple(current.shape[1:])} of {current.dtype}; "
            f"got {tuple(state.v.shape)} of {state.v.dtype}"
        )


def _agrees(name: str, there: object, here: float | str | Tensor, learned: bool) -> bool:
    if not isinstance(here, Tensor):
        return there == here
    if not isinstance(there, Tensor) or there.dim() != here.dim():
        return False
    if checks.hidden():
        return True
    here, there = here.detach(), there.to(here)
    if learned and name.startswith("alpha"):
        return torch.allclose(there, here, rtol=0.0, atol=MOVED_ORDER)
    return torch.allclose(there, here, rtol=MOVED if learned else SAME, atol=0.0)


def _text(value: object) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    return f"{value.min().item():.6g}" + (f"..{value.max().item():.6g}" if value.numel() > 1 else "")


def check_drive(current: Tensor, resistance: Tensor) -> None:
    """Refuse a current that is not finite, or that potentials in its dtype cannot follow.

    On a device other than the CPU nobody waits for an answer: what is not finite makes spikes NaN there.

    Args:
        current: ``(T, B, *)``.
        resistance: potential per current, broadcasts to ``(B, *)``.

    Raises:
        ValueError: with the first entry that is neither.
    """
    if checks.hidden():
        checks.all_finite("current", current)
        return
    if current.device.type != "cpu" or not current.numel():
        return
    current, resistance = current.detach(), resistance.detach()
    most = torch.finfo(current.dtype).max / HEADROOM
    low, high = (float(x) for x in torch.aminmax(current))
    steepest = float(resistance.abs().max())
    if max(-low, high) * steepest < most and math.isfinite(low):
        return
    checks.all_finite("current", current)
    beyond = (current.double().abs() * resistance.abs() >= most).nonzero()
    if len(beyond):
        index = tuple(int(i) for i in beyond[0])
        raise ValueError(
            f"`current` must keep resistance times current below {most:.2g}, or potentials in "
            f"{current.dtype} overflow; got {current[index].item():g} at index {index}: rescale the input"
        )


def check_potential(v: Tensor, remedy: str) -> None:
    """Refuse potentials ``(T, B, *)`` that are not finite: a finite current that is too large made them."""
    if checks.hidden() or bool(torch.isfinite(v.detach().sum())):
        return
    bad = ~torch.isfinite(v.detach())
    if bool(bad.any()):
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"`current` must keep the potential finite in {v.dtype}, got {v[index].item()} at index {index}; "
            f"{remedy}"
        )
