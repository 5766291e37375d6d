"""The exact solution with constant memory: a fractional membrane as a few ordinary ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .membrane import Membrane
from .state import State


class Modes(Membrane):
    r"""What `Propagator` solves, with its kernel as a sum of exponentials: constant memory, linear time.

    With :math:`E(m h) = \sum_k w_k d_k^m` it is a few ordinary leaky membranes that share a threshold:

    .. math:: x_k = z_k + (1 - d_k)(u_n - z_k), \qquad v_n = v_\text{rest} + \sum_k w_k x_k, \qquad
        z_k = x_k + J_n

    with :math:`J_n` what the reset took off. A clamp :math:`c` is an extra drive.

    Args:
        state: where to start.
        v_rest: resting potential.
        loss: :math:`1 - d_k`, ``(K, *)``.
        weight: :math:`w_k`, ``(K, *)``.
    """

    def __init__(self, state: State, v_rest: Tensor, loss: Tensor, weight: Tensor) -> None:
        self.v, self.drive, self._v_rest = state.v, state.drive, v_rest
        self._modes = start_modes(state, v_rest, len(weight))
        self._loss, self._weight = (_spread(x, state.v.dim()).to(self._modes) for x in (loss, weight))
        self._gain = (self._loss * self._weight).sum(0)

    def advance(self, u: Tensor, clamped: Tensor | None) -> Tensor:
        """See :class:`Membrane`."""
        self._modes = torch.lerp(self._modes, u.to(self._modes).expand_as(self._modes), self._loss)
        # as deviations from the drive: a potential that has arrived there is the drive, to the bit
        above = u.to(self._modes) + (self._weight * (self._modes - u)).sum(0)
        v: Tensor = self._v_rest + above.to(u.dtype)
        self.drive = u
        if clamped is None:
            return v
        clamp = torch.where(clamped, (self.v - self._v_rest - above) / self._gain, 0.0)
        self._modes = self._modes + self._loss * clamp
        self.drive = u + clamp.to(u.dtype)
        held: Tensor = torch.where(clamped, self.v, v)
        return held

    def settle(self, before: Tensor, after: Tensor) -> None:
        """See :class:`Membrane`."""
        self._modes = self._modes + (after - before)
        self.v = after

    def forget(self, where: Tensor) -> None:
        """See :class:`Membrane`."""
        self._modes = torch.where(where, (self.v - self._v_rest).to(self._modes), self._modes)

    @property
    def past(self) -> list[Tensor]:
        """See :class:`Membrane`."""
        return list(self._modes.unbind(0))


def start_modes(state: State, v_rest: Tensor, count: int) -> Tensor:
    """Return the modes that a state begins with, ``(K, B, *)``: with no past, each the deviation from rest.

    In double precision wherever there is any: slow modes change by less than single precision can tell.
    """
    if len(state.past):
        return state.past
    kind = torch.float32 if state.v.device.type == "mps" else torch.float64
    return (state.v - v_rest).to(kind).expand(count, *state.v.shape)


def _spread(value: Tensor, dims: int) -> Tensor:
    """Return ``(K, *)`` with dimensions of size 1 after the first, to broadcast with ``dims`` others."""
    return value.reshape(len(value), *([1] * (dims - value.dim() + 1)), *value.shape[1:])
