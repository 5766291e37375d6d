"""From a layer's tensors of any shape to the operators' flat ones, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .step import Step


@dataclass(frozen=True)
class Levels:
    """The parameters of a neuron, potentials measured from rest; each a number or per neuron, float64.

    Attributes:
        resistance: as said.
        threshold: as said.
        v_reset: as said.
        decay: of the modes, ``(K, *)``.
        weight: of the modes, ``(K, *)``; carries no gradient, but may move with parameters:
        moves: pairs of a parameter and the derivative of the weights in it, ``(K, *)``.
    """

    resistance: Tensor
    threshold: Tensor
    v_reset: Tensor
    decay: Tensor
    weight: Tensor
    moves: Items[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sequence:
    """What came out: ``(T, B, *)`` each, but for modes ``(K, B, *)`` and holds ``(B, *)`` at the end.

    Attributes:
        spikes: as said.
        before: potential before reset, above rest; None unless it was wanted.
        modes: after the last reset.
        hold: steps for which a neuron is still held.
    """

    spikes: Tensor
    before: Tensor | None
    modes: Tensor
    hold: Tensor


def run(
    current: Tensor,
    levels: Levels,
    step: Step,
    modes: Tensor,
    v: Tensor,
    hold: Tensor,
    *,
    reset: str,
    restart: bool,
    period: int,
    detach: bool,
    traces: bool,
) -> Sequence:
    """Run a layer over a sequence.

    Args:
        current: ``(T, B, *)``, float32 or float64, on the CPU.
        levels: parameters; as said there.
        step: from `plan`.
        modes: at the start, ``(K, B, *)`` float64.
        v: potential at the start, above rest.
        hold: steps for which a neuron is still held.
        reset: "none", "subtract" or "value".
        restart: whether a spike erases the modes.
        period: refractory steps.
        detach: whether no gradient flows through the spike in the reset.
        traces: whether potentials are wanted.

    Raises:
        Mismatch: if the surrogate does not step as the plan said.
    """
    from . import ops

    shape = current.shape[1:]
    size = math.prod(shape)
    resistance, threshold, v_reset = (
        value.double().expand(shape).reshape(size)
        for value in (levels.resistance, levels.threshold, levels.v_reset)
    )
    count = len(levels.weight)
    tangents = [tangent for _, tangent in levels.moves]
    shared = all(value.numel() == count for value in (levels.decay, levels.weight, *tangents))
    decay, weight, *columns = (_columns(x, shape, shared) for x in (levels.decay, levels.weight, *tangents))
    tangent = torch.stack(columns) if columns else weight.new_empty((0, *weight.shape))
    along = [parameter.double().expand(shape).reshape(size) for parameter, _ in levels.moves]
    moved = torch.stack(along) if along else weight.new_empty((0, size))
    flat, start = current.reshape(-1, size).contiguous(), _padded(modes.reshape(count, size))
    v, hold = v.double().reshape(size).contiguous(), hold.reshape(size).contiguous()
    places = (threshold, v_reset, start, v)
    shift = current.new_empty((0, size)) if step.shift is None else step.shift.reshape(-1, size)
    kinds = ops.KINDS[step.kind], step.slope, ops.RESETS[reset], restart, period
    with torch.no_grad():
        before, spikes, clamp, end, left = ops.potential(
            flat.detach(), resistance.detach(), decay, weight, threshold.detach(), v_reset.detach(), shift,
            start.detach(), v.detach(), hold, *kinds,
        )  # fmt: skip
    level = (levels.threshold).to(current.dtype)
    trace, fired = before.reshape(current.shape), spikes.reshape(current.shape)
    learns = step.trained or any(x.requires_grad for x in (flat, resistance, moved, *places))
    if torch.is_grad_enabled() and learns:
        with torch.no_grad():
            derivative = step.slopes(trace, level.detach(), fired).reshape(flat.shape)
        smooth = before.new_empty(0)
        if step.trained:
            smooth = step.spikes((trace - level).detach(), step.noise).reshape(flat.shape)
        spikes, before, end = ops.spikes(
            flat, resistance, decay, weight, tangent, moved, *places, before, spikes, derivative, smooth, clamp, end,
            ops.RESETS[reset], restart, detach, traces,
        )  # fmt: skip
    else:
        step.check(trace, level, fired)
    return Sequence(
        spikes=spikes.reshape(current.shape),
        before=before.reshape(current.shape) if traces else None,
        modes=end[:count].reshape(count, *shape),
        hold=left.reshape(shape),
    )


def _columns(value: Tensor, shape: torch.Size, shared: bool) -> Tensor:
    """Return ``(K, *)`` as ``(K, 1)`` if all neurons share it, else ``(K, M)``; K a multiple of 4."""
    count = len(value)
    value = value.detach()
    if shared:
        return _padded(value.reshape(count, 1))
    missing = len(shape) - (value.dim() - 1)
    value = value.reshape(count, *([1] * missing), *value.shape[1:])
    return _padded(value.expand(count, *shape).reshape(count, -1))


def _padded(value: Tensor) -> Tensor:
    """Return rows with zeros added up to a multiple of 4: the kernels take modes four at once."""
    return functional.pad(value, (0, 0, 0, -len(value) % 4)).contiguous()
