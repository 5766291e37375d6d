"""A layer whose steps carry more to the next ones than modes: its sequence in one call, with its adjoint.

As in `ops`: the kernel makes the spikes, torch the derivative of the step on whole tensors, and `Carried` is
the layer for autograd. Weights with which spikes come back enter a kernel as they are; the gradient in them
is one product over all steps, made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fracspike.solvers.modes import Grid

from . import buffers, kernels
from .carry import Carry, Course
from .given import Witness, own
from .ops import KINDS, RESETS, check_drive, in_alpha_and_tau, second_derivative, start_modes
from .rates import BLOCK, LANES, modes, pack, unpack
from .sequence import Feedback, Neuron, flatten
from .sequence import Sequence as Run
from .stages import NEVER
from .step import Step
from .threads import arrays, blocks_in_threads


class Options(NamedTuple):
    """What is no tensor: as in `ops`, and how many neurons make a block."""

    shape: list[int]
    dt: float
    grid: list[float]
    horizon: int
    tol: float
    kind: int
    slope: float
    reset: int
    restart: bool
    period: int
    detach: bool
    width: int
    want_v: bool


class Flat(NamedTuple):
    """The tensors that a gradient may go to: ``(M,)`` float64 unless said, and empty where there is none.

    ``current`` is ``(T, M)``, alpha and tau broadcast to the shape, ``z`` is ``(K, M)``, and ``matrix``, of
    ``(N, N)``, and ``last`` have the dtype of the current.
    """

    current: Tensor
    resistance: Tensor
    alpha: Tensor
    tau: Tensor
    threshold: Tensor
    v_reset: Tensor
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

    def carry(self, *, back: bool = False) -> Carry:
        """Return what the kernels take; with ``back``, what the adjoint does."""
        matrix = self.matrix if back else self.matrix.t()
        wide = functional.pad(matrix.detach(), (0, -matrix.shape[1] % LANES))
        names = ("lift", "stay", "pull", "a", "w", "own")
        return Carry(*arrays(*(getattr(self, name) for name in names), wide.contiguous(), self.last))


class Made(NamedTuple):
    """What a forward pass has made; all but the modes and holds at the end are ``(T, M)``, or ``(0, M)``."""

    before: Tensor
    s: Tensor
    clamp: Tensor
    z: Tensor
    hold: Tensor
    x: Tensor
    a: Tensor
    w: Tensor
    current: Tensor

    @property
    def course(self) -> Course:
        """What the kernels take."""
        return Course(*arrays(self.x, self.a, self.w, self.current))


def run(
    current: Tensor,
    neuron: Neuron,
    step: Step,
    grid: Grid | None,
    modes: Tensor,
    v: Tensor,
    hold: Tensor,
    feedback: Feedback,
    *,
    traces: bool,
) -> Run:
    """Run a layer with feedback over a sequence; see `sequence.run`."""
    if feedback.bias is not None:
        current = current + feedback.bias
    shape, size = current.shape[1:], math.prod(current.shape[1:])
    flat = Flat(*flatten(current, neuron, modes, v), *_flatten(feedback, current))
    options = Options(
        shape=list(shape), dt=neuron.dt, grid=pack(grid), horizon=neuron.horizon, tol=neuron.tol,
        kind=NEVER if step.kind == "never" else KINDS[step.kind], slope=step.slope,
        reset=RESETS[neuron.reset], restart=neuron.restart, period=neuron.period, detach=neuron.detach,
        width=shape[-1] if feedback.dense else BLOCK, want_v=traces,
    )  # fmt: skip
    with torch.no_grad():
        bare, shift = Flat(*(part.detach() for part in flat)), step.flat_shift(flat.current)
        made = run_forward(bare, shift, hold.reshape(size), options)
    fired = made.s.reshape(current.shape)
    tires = len(made.x) > 0
    over = (made.x if tires else made.before).reshape(current.shape)
    level = over.new_zeros(()) if tires else neuron.threshold.to(current.dtype).detach()
    spikes, before, z, a, w = made.s, made.before, made.z, made.a, made.w
    if torch.is_grad_enabled() and (step.trained or any(part.requires_grad for part in flat)):
        with torch.no_grad():
            derivative = step.slopes(over, level, fired, over if tires and not step.trained else None)
            smooth = over.new_empty(0)
        if step.trained:
            smooth = step.spikes(over - level, step.noise).reshape(flat.current.shape)
        kept = traces or _asks_for_potential(flat, options)
        made = made._replace(x=over.new_empty(0), before=made.before if kept else made.before[:0].clone())
        function: Any = Carried.apply
        drawn = shift, hold.reshape(size)
        spikes, before, z, a, w = function(
            options, made, drawn, derivative.reshape(flat.current.shape), smooth, *flat
        )
    else:
        step.check(over, level, fired)
    return Run.shaped(current, spikes, before, z, made.hold, traces=traces, adaptation=a, w=w)


def _flatten(given: Feedback, current: Tensor) -> list[Tensor]:
    """Return the last eight of `Flat`."""
    shape = current.shape[1:]

    def row(value: Tensor | None) -> Tensor:
        if value is None:
            return current.new_empty(0, dtype=torch.float64)
        return value.double().expand(shape).reshape(-1).contiguous()

    lasting = (given.lift, given.stay, given.pull, given.adaptation, given.w)
    own, last = None if given.dense else given.weight, given.last_spikes
    matrix = given.weight if given.dense and given.weight is not None else current.new_empty((0, 0))
    flat = current.new_empty(0) if last is None else last.to(current.dtype).reshape(-1).contiguous()
    return [*map(row, (*lasting, own)), matrix, flat]


def _asks_for_potential(flat: Flat, options: Options) -> bool:
    """Return whether the adjoint does."""
    return options.reset == RESETS["value"] or options.restart or len(flat.pull) > 0


def run_forward(flat: Flat, noise: Tensor, hold: Tensor, options: Options) -> Made:
    """Run the kernel.

    Raises:
        ValueError: if the current is not finite.
    """
    current = flat.current
    check_drive(current, flat.resistance, options.shape)
    decay, weight, _ = _modes(flat, options, tangents=False)
    start = start_modes(flat.z, flat.v, len(weight))
    tires, coupled, echoes = len(flat.lift) > 0, len(flat.pull) > 0, len(flat.last) > 0
    wanted = (True, True, options.period > 0, tires, tires, coupled, echoes)
    before, s, clamp, x, a, w, total = (_sequence(current, want) for want in wanted)
    made = Made(before, s, clamp, torch.empty_like(start), torch.empty_like(hold), x, a, w, total)
    inputs = arrays(
        current, flat.resistance, decay, weight, flat.threshold, flat.v_reset, noise, start, flat.v, hold
    )
    numbers = (options.kind, options.slope, options.reset, options.restart, options.period, options.width)
    outputs = arrays(*made[:5])
    arguments = (*inputs, flat.carry(), *numbers, *outputs, made.course)
    blocks_in_threads(kernels.forward, arguments, math.ceil(current.shape[1] / options.width))
    return made._replace(z=made.z[: len(flat.z)])


class Carried(torch.autograd.Function):
    """Spikes, potential before reset, modes at the end, and the course of what is carried: see `run`.

    They have the shape of the layer's current, and may be written to.
    """

    @staticmethod
    def forward(
        ctx: Any, options: Options, made: Made, drawn: tuple[Tensor, Tensor], derivative: Tensor,
        smooth: Tensor, *flat: Tensor,
    ) -> Any:  # fmt: skip
        """Return them as they are, and keep what the adjoint asks for."""
        ctx.options, ctx.smooth = options, smooth.numel() > 0
        shown = (made.before, made.a, made.w) if options.want_v else [made.s.new_empty(0)] * 3
        before, a, w = (own(x, (-1, *options.shape)) if x.numel() else x.new_empty(0) for x in shown)
        output = own(made.s, (-1, *options.shape)), before, own(made.z, (-1, *options.shape)), a, w
        ctx.seen = Witness(*output)
        ctx.save_for_backward(*drawn, derivative, *made, *flat)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the adjoint."""
        shift, hold, derivative, *saved = ctx.saved_tensors
        count = len(Made._fields)
        made, flat = Made(*saved[:count]), Flat(*saved[count:])
        if ctx.seen.written:
            with torch.no_grad():
                bare = Flat(*(part.detach() for part in flat))
                made = run_forward(bare, shift, hold, ctx.options)._replace(x=made.x)
        empty = made.s.new_empty((0, made.s.shape[1]))
        kinds = (made.s, empty, empty.double(), empty, empty)
        arriving = [
            (torch.zeros_like(made.s) if kind is made.s else kind)
            if grad is None or not grad.numel()
            else grad.reshape(-1, made.s.shape[1]).contiguous()
            for grad, kind in zip(grads, kinds, strict=True)
        ]
        needs = ctx.needs_input_grad[5:]
        move = bool(needs[2] or needs[3])
        adjoint: Any = Adjoint.apply
        d_s, *found = adjoint(ctx.options, made, (move, ctx.smooth), derivative, *arriving, *flat)
        found = [grad if need else None for grad, need in zip(found, needs, strict=True)]
        return (None, None, None, None, d_s if ctx.smooth else None, *found)


class Adjoint(torch.autograd.Function):
    """The gradients, of which there is no derivative."""

    @staticmethod
    def forward(
        ctx: Any, options: Options, made: Made, wants: tuple[bool, bool], derivative: Tensor, *rest: Tensor
    ) -> Any:
        """Return the gradient at the spikes all told, and those of `Flat`."""
        return run_adjoint(options, made, wants, derivative, rest[:5], Flat(*rest[5:]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Say that there is none."""
        second_derivative(ctx, *grads)


def run_adjoint(
    options: Options,
    made: Made,
    wants: tuple[bool, bool],
    derivative: Tensor,
    arriving: Sequence[Tensor],
    flat: Flat,
) -> tuple[Tensor, ...]:
    """Run the kernel; see `Adjoint`."""
    decay, weight, tangent = _modes(flat, options, tangents=wants[0])
    start = start_modes(flat.z, flat.v, len(weight))
    current = made.current if len(flat.last) else flat.current
    size, coupled = current.shape[1], len(flat.pull) > 0
    before = made.before if _asks_for_potential(flat, options) else made.before[:0]
    d_current, d_s = _sequence(current, True), _sequence(current, wants[1])
    rows = flat.threshold.new_empty((4 + len(tangent), size))
    d_resistance, d_threshold, d_v_reset, d_v = rows[:4]
    d_start, sums = torch.empty_like(start), rows.new_empty((5 if len(flat.lift) else 0, size))
    inputs = arrays(
        current, flat.resistance, decay, weight, tangent, flat.threshold, flat.v_reset, start, derivative,
        made.s, before, made.clamp,
    )  # fmt: skip
    numbers = (options.reset, options.restart, options.detach, options.width)
    grad_s, grad_v, grad_z, grad_a, grad_w = arrays(*arriving)
    outputs = arrays(d_current, d_resistance, rows[4:], d_threshold, d_v_reset, d_start, d_v, d_s, sums)
    nothing = grad_s[:0]
    blocks_in_threads(
        kernels.adjoint,
        (*inputs, flat.carry(back=True), made.course, *numbers, grad_s, grad_v, grad_z,
         Course(nothing, grad_a, grad_w, nothing), *outputs),
        math.ceil(size / options.width),
    )  # fmt: skip
    d_alpha, d_tau = torch.zeros_like(flat.alpha), torch.zeros_like(flat.tau)
    if wants[0]:
        d_alpha, d_tau = in_alpha_and_tau(rows[4:], flat.alpha, flat.tau, options.shape)
    if not len(flat.z):  # every mode began at the potential
        d_v = d_v + d_start.sum(0)
    none = rows.new_empty(0)
    d_lift, d_stay, d_pull, d_a, d_w = sums if len(sums) else [none] * 5
    if not coupled:
        d_pull, d_w = none, none
    d_own, d_matrix, d_last = _echoes(flat, made.s, d_current)
    return (
        d_s, d_current, d_resistance, d_alpha, d_tau, d_threshold, d_v_reset, d_start[: len(flat.z)], d_v,
        d_lift, d_stay, d_pull, d_a, d_w, d_own, d_matrix, d_last,
    )  # fmt: skip


def _echoes(flat: Flat, s: Tensor, d_current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients in own weights, matrix and last spikes, from that in what came back."""
    if not len(flat.last):
        return flat.own, flat.matrix, flat.last
    if not len(flat.matrix):
        found = (d_current[1:] * s[:-1]).sum(0, dtype=torch.float64) + (d_current[0] * flat.last)
        return found, flat.matrix, (flat.own * d_current[0]).to(flat.last)
    width = len(flat.matrix)
    first = d_current[0].reshape(-1, width)
    found = d_current[1:].reshape(-1, width).t() @ s[:-1].reshape(-1, width)
    found = found + first.t() @ flat.last.reshape(-1, width)
    return flat.own, found, (first @ flat.matrix).reshape(-1)


def _modes(flat: Flat, options: Options, *, tangents: bool) -> tuple[Tensor, Tensor, Tensor]:
    step = options.dt / flat.tau
    grid = unpack(options.grid, flat.alpha, step, options.horizon, options.tol)
    return modes(grid, flat.alpha, step, options.shape, tangents=tangents)


def _sequence(current: Tensor, wanted: bool) -> Tensor:
    rows, size = current.shape
    return buffers.empty((rows if wanted else 0, size), current)
