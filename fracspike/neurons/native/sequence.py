"""From a layer's tensors of any shape to the operators' flat ones, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fracspike.solvers.modes import Grid

from .given import shaped
from .rates import pack
from .step import Step


@dataclass(frozen=True)
class Neuron:
    """What a layer is, potentials measured from rest; tensors are numbers or per neuron, float64.

    Attributes:
        alpha: order.
        tau: time constant.
        resistance: potential per current.
        threshold: where it spikes.
        v_reset: where a hard reset takes it; with a soft one, what it takes off.
        dt: time step.
        reset: "none", "subtract" or "value".
        restart: whether a spike erases the modes.
        period: refractory steps.
        detach: whether no gradient flows through the spike in the reset.
        horizon: steps over which ``tol`` holds.
        tol: relative error of the memory.
    """

    alpha: Tensor
    tau: Tensor
    resistance: Tensor
    threshold: Tensor
    v_reset: Tensor
    dt: float
    reset: str
    restart: bool
    period: int
    detach: bool
    horizon: int
    tol: float


@dataclass(frozen=True)
class Feedback:
    """What steps carry to later ones beside the modes; None where a layer has no such thing.

    Numbers, or per neuron, are float64; states are ``(B, *)``.

    Attributes:
        lift: rise of the threshold per unit of adaptation.
        stay: what a step leaves of adaptation and opposing drive.
        adaptation: at the start.
        pull: what the opposing drive gains in a step per potential above rest.
        w: opposing drive at the start.
        weight: with which spikes come back: of each neuron to itself, or with ``dense`` ``(N, N)``, to each
            of the last dimension from all of it, in the dtype of the current.
        dense: which of the two.
        bias: current that comes back without a spike.
        last_spikes: of the step before the first.
    """

    lift: Tensor | None = None
    stay: Tensor | None = None
    adaptation: Tensor | None = None
    pull: Tensor | None = None
    w: Tensor | None = None
    weight: Tensor | None = None
    dense: bool = False
    bias: Tensor | None = None
    last_spikes: Tensor | None = None


@dataclass(frozen=True)
class Sequence:
    """What came out: ``(T, B, *)`` each, but for modes ``(K, B, *)`` and holds ``(B, *)`` at the end.

    Attributes:
        spikes: as said.
        before: potential before reset, above rest; empty unless traces were wanted.
        modes: after the last reset; none if none were given.
        hold: steps for which a neuron is still held.
        variables: adaptation and opposing drive after each step, ``(T, B, *)``, if traces were wanted.
    """

    spikes: Tensor
    before: Tensor
    modes: Tensor
    hold: Tensor
    variables: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def shaped(
        cls, current: Tensor, spikes: Tensor, before: Tensor, modes: Tensor, hold: Tensor,
        *, traces: bool, **variables: Tensor,
    ) -> Sequence:  # fmt: skip
        """Give what a kernel made the shape of the current; what comes from a Function has it."""
        shape = tuple(current.shape)
        return cls(
            spikes=shaped(spikes, shape),
            before=shaped(before, shape) if traces else before.new_empty(0),
            modes=shaped(modes, (-1, *shape[1:])),
            hold=shaped(hold, shape[1:]),
            variables={name: shaped(x, shape) for name, x in variables.items() if traces and x.numel()},
        )


def run(
    current: Tensor,
    neuron: Neuron,
    step: Step,
    grid: Grid | None,
    modes: Tensor,
    v: Tensor,
    hold: Tensor,
    feedback: Feedback | None = None,
    *,
    traces: bool,
) -> Sequence:
    """Run a layer over a sequence.

    Args:
        current: ``(T, B, *)``, float32 or float64, on the CPU.
        neuron: the layer.
        step: from `plan`.
        grid: rates of the modes; None to choose them, and then no modes can be given.
        modes: at the start, ``(K, B, *)`` float64; none, ``(0, B, *)``, if there is no past.
        v: potential at the start, above rest.
        hold: steps for which a neuron is still held.
        feedback: what else the steps carry on; not under `torch.compile`.
        traces: whether potentials are wanted.

    Raises:
        MismatchError: if the surrogate does not step as the plan said.
    """
    if feedback is not None:
        from . import feedback as carried

        return carried.run(current, neuron, step, grid, modes, v, hold, feedback, traces=traces)
    from . import ops

    shape = current.shape[1:]
    size = math.prod(shape)
    *parts, start, v = flatten(current, neuron, modes, v)
    flat, threshold = parts[0], parts[4]
    reset = ops.RESETS[neuron.reset]
    where = list(shape), neuron.dt, pack(grid), neuron.horizon, neuron.tol
    plain = ops.is_plain(flat.detach())
    drawn, held = step.flat_shift(flat), hold.reshape(size).contiguous()
    with torch.no_grad():
        potential: Any = ops.run_potential if plain else ops.potential
        detached = [part.detach() for part in parts]
        if step.kind == "never":
            detached[4] = torch.full_like(threshold, math.inf)
        before, spikes, clamp, end, left = potential(
            *detached, drawn, start.detach(), v.detach(), held, *where, ops.KINDS[step.kind], step.slope,
            reset, neuron.restart, neuron.period,
        )  # fmt: skip
    level = neuron.threshold.to(current.dtype)
    trace, fired = before.reshape(current.shape), spikes.reshape(current.shape)
    learns = step.trained or any(part.requires_grad for part in (*parts, start, v))
    if torch.is_grad_enabled() and learns:
        derivative, form = trace, list(step.form)
        if not plain or neuron.restart or neuron.period:
            form = []
        if not form:
            kept = traces or neuron.restart or neuron.reset == "value" or step.trained or not plain
            with torch.no_grad():
                derivative = step.slopes(trace, level.detach(), fired, None if kept else trace)
        smooth = before.new_empty(0)
        if step.trained:
            smooth = step.spikes((trace - level).detach(), step.noise).reshape(flat.shape)
        derivative, rules = derivative.reshape(flat.shape), (reset, neuron.restart, neuron.detach, form)
        if plain:
            again = ops.Again(step.kind == "never", ops.KINDS[step.kind], step.slope, neuron.period)
            made = before, spikes, clamp, end, drawn, held
            function: Any = ops.Spikes.apply
            spikes, before, end = function(
                made, again, derivative, smooth, where, rules, traces, *parts, start, v
            )
        else:
            spikes, before, end = ops.spikes(
                *parts, start, v, before, spikes, derivative, smooth, clamp, end, *where, *rules, traces
            )
    else:
        step.check(trace, level, fired)
    return Sequence.shaped(current, spikes, before, end, left, traces=traces)


def flatten(current: Tensor, neuron: Neuron, modes: Tensor, v: Tensor) -> list[Tensor]:
    """Return current, resistance, alpha, tau, threshold, v_reset, modes and v as the kernels take them."""
    shape = current.shape[1:]
    size = math.prod(shape)
    resistance, threshold, v_reset = (
        value.double().expand(shape).reshape(size)
        for value in (neuron.resistance, neuron.threshold, neuron.v_reset)
    )
    return [
        current.reshape(-1, size).contiguous(),
        resistance,
        neuron.alpha.double(),
        neuron.tau.double(),
        threshold,
        v_reset,
        modes.reshape(-1, size).contiguous(),
        v.double().reshape(size).contiguous(),
    ]
