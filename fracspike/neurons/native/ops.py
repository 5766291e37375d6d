"""The kernels as operators of torch: `torch.compile` sees them whole, autograd knows their gradient.

Three operators. ``fracspike::potential`` runs a sequence and has no gradient. Then the derivative of the
spike is evaluated on the whole tensor of potentials, by whatever surrogate there is, in torch. Then
``fracspike::spikes`` takes both and *is* the layer for autograd: forward it reads the spikes off, backward it
runs the adjoint (``fracspike::adjoint``) with that derivative. No surrogate need be known to a kernel.
Outside the compiler `Spikes` does the same without copying.

The modes are looked up inside, from alpha, tau and a grid (`rates.pack`; without one, the grid is chosen from
horizon and tolerance), because how many there are depends on the values of alpha and tau.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fracspike.solvers import checks
from fracspike.surrogate.reciprocal import reciprocal

from . import buffers
from .given import Witness, own
from .rates import BLOCK, HEADROOM, modes, split, unpack
from .threads import arrays, blocks_in_threads

KINDS = {"at_least": 0, "above": 1, "soft": 2, "never": 0}
RESETS = {"none": 0, "subtract": 1, "value": 2}
ADDS = ((0.0, 0.0), (0.0, -1.0), (-1.0, 1.0))  # with a spike, by reset: times v, times v_reset


def _blocks(current: Tensor) -> int:
    return -(-current.shape[1] // BLOCK)


def start_modes(z: Tensor, v: Tensor, count: int) -> Tensor:
    """Return the modes at the start: those given, or with no past each the potential."""
    return z if len(z) else v.expand(count, *v.shape).contiguous()


def is_plain(x: Tensor) -> bool:
    """Return whether nobody is to see an operator: no compiler, no tracer (which has its own tensors)."""
    return type(x) is Tensor and not torch.compiler.is_compiling()


def _rows(current: Tensor, *rows: Tensor) -> list[Tensor]:
    return [row.to(current.dtype) for row in rows]


def _bar(level: Tensor, kind: int) -> Tensor:
    """Return above what a neuron spikes, whose threshold is the level."""
    return torch.nextafter(level, level.new_tensor(-math.inf)) if kind == KINDS["at_least"] else level


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return like.new_empty(tuple(shape))


def run_potential(
    current: Tensor,
    resistance: Tensor,
    alpha: Tensor,
    tau: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    noise: Tensor,
    z: Tensor,
    v: Tensor,
    hold: Tensor,
    shape: Sequence[int],
    dt: float,
    grid: Sequence[float],
    horizon: int,
    tol: float,
    kind: int,
    slope: float,
    reset: int,
    restart: bool,
    period: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return potential before reset, spikes, clamp, modes and holds at the end.

    Args:
        current: ``(T, M)``.
        resistance: ``(M,)`` float64, and so are threshold, v_reset and v, potentials from rest.
        alpha: broadcasts to ``shape``, float64; and so does
        tau: time constant.
        threshold: as said.
        v_reset: as said.
        noise: ``(T, M)``, or ``(0, M)`` without.
        z: modes at the start ``(K, M)``; ``(0, M)`` if there is no past, and then none are returned.
        v: potential at the start, after reset.
        hold: steps for which a neuron is still held ``(M,)``.
        shape: of the neurons, batch first; M of them.
        dt: time step.
        grid: see the module.
        horizon: likewise.
        tol: likewise.
        kind: of step, see the kernels; and so are the rest.
        slope: as said.
        reset: as said.
        restart: as said.
        period: as said.

    Raises:
        ValueError: if the current is not finite.
    """
    from . import carry, kernels, quick

    step = dt / tau
    found = unpack(grid, alpha, step, horizon, tol)
    before, s, clamp, left = _like_potential(current, hold, period, buffers.empty)
    if not (restart or period or (len(noise) and kind == KINDS["above"])):
        groups = split(found, alpha, step, shape, current.dtype, tangents=False)
        end = z.new_empty(z.shape)
        r, level, fall = _rows(current, resistance, threshold, v_reset)
        if not len(noise):
            level = _bar(level, kind)
        finite = quick.forward_in_threads(
            (current, noise, r, level, fall, z if len(z) else v.unsqueeze(0)), groups,
            (kind == KINDS["soft"], slope, *ADDS[reset]), (before, s, end),
        )  # fmt: skip
        if not finite:
            check_drive(current, resistance, shape)
        return before, s, clamp, end, hold.clone()
    check_drive(current, resistance, shape)
    decay, weight, _ = modes(found, alpha, step, shape, tangents=False)
    start = start_modes(z, v, len(weight))
    end = torch.empty_like(start)
    inputs = arrays(current, resistance, decay, weight, threshold, v_reset, noise, start, v, hold)
    outputs = arrays(before, s, clamp, end, left)
    nothing, course = carry.nothing(inputs[0].dtype)
    options = (nothing, kind, slope, reset, restart, period, BLOCK)
    blocks_in_threads(kernels.forward, (*inputs, *options, *outputs, course), _blocks(current))
    return before, s, clamp, end[: len(z)].clone(), left


def check_drive(current: Tensor, resistance: Tensor, shape: Sequence[int]) -> None:
    """Refuse a current ``(T, M)`` that is not finite, or that potentials in its dtype cannot follow.

    Raises:
        ValueError: with the first entry that is neither.
    """
    most = torch.finfo(current.dtype).max / HEADROOM
    low, high = (float(x) for x in torch.aminmax(current))
    steepest = float(resistance.abs().max())
    if max(-low, high) * steepest < most and math.isfinite(low):
        return
    whole = checks.all_finite("current", current.reshape(-1, *shape))
    beyond = (current.double().abs() * resistance.abs() >= most).reshape(whole.shape).nonzero()
    if len(beyond):
        index = tuple(int(i) for i in beyond[0])
        raise ValueError(
            f"`current` must keep resistance times current below {most:.2g}, or potentials in "
            f"{current.dtype} overflow; got {whole[index].item():g} at index {index}: rescale the input"
        )


def _like_potential(
    current: Tensor, hold: Tensor, period: int, empty: Any = _empty
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, size = current.shape
    clamp = empty((rows if period else 0, size), current)
    return empty((rows, size), current), empty((rows, size), current), clamp, torch.empty_like(hold)


potential = torch.library.custom_op(
    "fracspike::potential", run_potential, mutates_args=(), device_types="cpu"
)


@potential.register_fake
def _(
    current: Tensor, resistance: Any, alpha: Any, tau: Any, threshold: Any, v_reset: Any, noise: Any,
    z: Tensor, v: Any, hold: Tensor, shape: Any, dt: Any, grid: Any, horizon: Any, tol: Any, kind: Any,
    slope: Any, reset: Any, restart: Any, period: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    before, s, clamp, left = _like_potential(current, hold, period)
    return before, s, clamp, torch.empty_like(z), left


@torch.library.custom_op("fracspike::spikes", mutates_args=(), device_types="cpu")
def spikes(
    current: Tensor,
    resistance: Tensor,
    alpha: Tensor,
    tau: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    z: Tensor,
    v: Tensor,
    before: Tensor,
    s: Tensor,
    derivative: Tensor,
    smooth: Tensor,
    clamp: Tensor,
    z_out: Tensor,
    shape: Sequence[int],
    dt: float,
    grid: Sequence[float],
    horizon: int,
    tol: float,
    reset: int,
    restart: bool,
    detach: bool,
    form: Sequence[float],
    want_v: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return spikes, potential before reset and modes at the end, as functions of all they follow from.

    Args:
        current: and the next seven as in `potential`.
        resistance: as said.
        alpha: as said.
        tau: as said.
        threshold: as said.
        v_reset: as said.
        z: as said.
        v: as said.
        before: from `potential`, and so are ``s``, ``clamp`` and ``z_out``.
        s: as said.
        derivative: of the step in the potential, ``(T, M)``; with ``form``, ``before`` or a copy.
        smooth: carries the gradient in a surrogate's own parameters, ``(T, M)``; empty without any.
        clamp: as said.
        z_out: as said.
        shape: and the next four as in `potential`.
        dt: as said.
        grid: as said.
        horizon: as said.
        tol: as said.
        reset: kind of reset.
        restart: whether a spike erases the modes.
        detach: whether no gradient flows through the spike in the reset.
        form: how the derivative follows from the potential, see `Step`; empty if it does not.
        want_v: whether the potential is wanted; without it, an empty tensor is returned.
    """
    return s.clone(), before.clone() if want_v else before.new_empty(0), z_out.clone()


@spikes.register_fake
def _(
    current: Any, resistance: Any, alpha: Any, tau: Any, threshold: Any, v_reset: Any, z: Any, v: Any,
    before: Tensor, s: Tensor, derivative: Any, smooth: Any, clamp: Any, z_out: Tensor, shape: Any, dt: Any,
    grid: Any, horizon: Any, tol: Any, reset: Any, restart: Any, detach: Any, form: Any, want_v: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    empty = before.new_empty(0)
    return torch.empty_like(s), torch.empty_like(before) if want_v else empty, torch.empty_like(z_out)


def run_adjoint(
    current: Tensor,
    resistance: Tensor,
    alpha: Tensor,
    tau: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    z: Tensor,
    v: Tensor,
    derivative: Tensor,
    s: Tensor,
    before: Tensor,
    clamp: Tensor,
    shape: Sequence[int],
    dt: float,
    grid: Sequence[float],
    horizon: int,
    tol: float,
    reset: int,
    restart: bool,
    detach: bool,
    form: Sequence[float],
    move: bool,
    want_s: bool,
    grad_s: Tensor,
    grad_v: Tensor,
    grad_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return gradients in current, resistance, alpha, tau, threshold, v_reset, z, v, and the spikes all told.

    Those in alpha and tau have their shapes, and no meaning unless ``move``; arguments are as in `spikes`.
    """
    from . import carry, kernels, quick

    step = dt / tau
    found = unpack(grid, alpha, step, horizon, tol)
    size = current.shape[1]
    d_current, d_resistance, d_threshold, d_v_reset, d_v, d_s = _like_adjoint(
        current, threshold, want_s, buffers.empty
    )
    if not (restart or len(clamp) or len(grad_z)):
        groups = split(found, alpha, step, shape, current.dtype, tangents=move)
        r, level, fall = _rows(current, resistance, threshold, v_reset)
        start = z if len(z) else v.unsqueeze(0)
        d_start, d_sums = torch.empty_like(start), threshold.new_empty((3 + 2 * move, size))
        quick.adjoint_in_threads(
            (current, r, level, _bar(level, int(form[-1])) if form else level, fall, start),
            groups, (derivative, s[:0] if form else s, before, grad_s, grad_v), form,
            (*ADDS[reset], 0.0 if detach else 1.0),
            (d_current, d_sums, d_start, d_s), move,
        )  # fmt: skip
        d_along = d_sums[3:]
        d_resistance, d_threshold, d_v_reset = d_sums[:3].unbind(0)
        d_v.zero_()
    else:
        if form:
            *numbers, factor, _ = form
            derivative = factor * reciprocal(derivative - threshold.to(derivative.dtype), *numbers)
        decay, weight, tangent = modes(found, alpha, step, shape, tangents=move)
        start = start_modes(z, v, len(weight))
        d_along, d_start = threshold.new_empty((len(tangent), size)), torch.empty_like(start)
        parts = (
            current,
            resistance,
            decay,
            weight,
            tangent,
            threshold,
            v_reset,
            start,
            derivative,
            s,
            before,
            clamp,
        )
        outputs = (d_current, d_resistance, d_along, d_threshold, d_v_reset, d_start, d_v, d_s)
        inputs = arrays(*parts)
        nothing, course = carry.nothing(inputs[0].dtype)
        options = (nothing, course, reset, restart, detach, BLOCK)
        incoming = (*arrays(grad_s, grad_v, grad_z), course)
        sums = threshold.new_empty((0, size)).numpy()
        blocks_in_threads(
            kernels.adjoint, (*inputs, *options, *incoming, *arrays(*outputs), sums), _blocks(current)
        )
    d_alpha, d_tau = torch.empty_like(alpha), torch.empty_like(tau)
    if move:
        d_alpha, d_tau = in_alpha_and_tau(d_along, alpha, tau, shape)
    if not len(z):  # every mode began at the potential
        d_v += d_start.sum(0)
    return d_current, d_resistance, d_alpha, d_tau, d_threshold, d_v_reset, d_start[: len(z)], d_v, d_s


def in_alpha_and_tau(
    along: Tensor, alpha: Tensor, tau: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients in alpha and tau from those along their tangents, see `modes`, ``(2, M)``."""
    in_alpha, in_log = along.reshape(2, *shape).unbind(0)
    return in_alpha.sum_to_size(alpha.shape), (in_log / tau).sum_to_size(tau.shape)


def _like_adjoint(
    current: Tensor, threshold: Tensor, want_s: bool, empty: Any = _empty
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, size = current.shape
    one, two, three, four = (torch.empty_like(threshold) for _ in range(4))
    return (
        empty((rows, size), current),
        one,
        two,
        three,
        four,
        empty((rows if want_s else 0, size), current),
    )


@wraps(run_adjoint)
def _apart(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(found.clone() for found in run_adjoint(*arguments))  # an operator's outputs share no memory


adjoint = torch.library.custom_op("fracspike::adjoint", _apart, mutates_args=(), device_types="cpu")


@adjoint.register_fake
def _(
    current: Tensor, resistance: Any, alpha: Tensor, tau: Tensor, threshold: Tensor, v_reset: Any, z: Tensor,
    v: Any, derivative: Any, s: Any, before: Any, clamp: Any, shape: Any, dt: Any, grid: Any, horizon: Any,
    tol: Any, reset: Any, restart: Any, detach: Any, form: Any, move: Any, want_s: bool, grad_s: Any,
    grad_v: Any, grad_z: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_current, d_resistance, d_threshold, d_v_reset, d_v, d_s = _like_adjoint(current, threshold, want_s)
    return (
        d_current, d_resistance, torch.empty_like(alpha), torch.empty_like(tau), d_threshold, d_v_reset,
        torch.empty_like(z), d_v, d_s,
    )  # fmt: skip


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *parts, before, _, derivative, smooth, clamp = inputs[:13]
    *ctx.modes, reset, restart, detach, form, _ = inputs[14:]
    ctx.reset = (reset, restart, detach, form)
    before = _asked_for(before, ctx.reset)
    ctx.save_for_backward(*parts, derivative, output[0], before, clamp)
    ctx.wants = (bool(ctx.needs_input_grad[2] or ctx.needs_input_grad[3]), smooth.numel() > 0)
    ctx.set_materialize_grads(False)


def _asked_for(before: Tensor, reset: tuple[int, bool, bool, Sequence[float]]) -> Tensor:
    """Return the potential before reset if the adjoint asks for it."""
    return before if reset[0] == RESETS["value"] or reset[1] else before.new_empty((0, before.shape[1]))


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *found, d_s = _adjoint_of(ctx, ctx.saved_tensors, grads)
    return (*found, None, None, None, d_s, *[None] * 12)


def _adjoint_of(ctx: Any, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients in the first eight arguments of `spikes`, and at the spikes all told."""
    z, s = saved[6], saved[9]
    grad_s, grad_v, grad_z = (
        None if grad is None else grad.reshape(-1, z.shape[1]).contiguous() for grad in grads
    )
    empty = s.new_empty((0, s.shape[1]))
    grad_s = torch.zeros_like(s) if grad_s is None else grad_s
    grad_v = empty if grad_v is None else grad_v
    grad_z = empty.to(z) if grad_z is None else grad_z
    run: Any = run_adjoint if is_plain(s) and not torch.is_grad_enabled() else adjoint
    *found, d_s = run(*saved, *ctx.modes, *ctx.reset, *ctx.wants, grad_s, grad_v, grad_z)
    if not ctx.wants[0]:
        found[2] = found[3] = None
    return [*found, d_s if ctx.wants[1] else None]


spikes.register_autograd(_backward, setup_context=_keep)


class Again(NamedTuple):
    """What `potential` takes beside what the adjoint keeps, to run once more.

    Attributes:
        never: whether no potential is enough for a spike, whatever the threshold says.
        kind: as in `potential`, and so are the rest.
        slope: as said.
        period: as said.
    """

    never: bool
    kind: int
    slope: float
    period: int


class Spikes(torch.autograd.Function):
    """``fracspike::spikes`` without its copies, which an operator must make and a Function need not.

    The results have the shape of the layer's current, and may be written to.
    """

    @staticmethod
    def forward(
        ctx: Any, made: tuple[Tensor, ...], again: Again, derivative: Tensor, smooth: Tensor,
        where: tuple[Any, ...], reset: tuple[int, bool, bool, Sequence[float]], want_v: bool, *parts: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return spikes, potential before reset and modes as they are; keep what the adjoint asks for.

        Args:
            ctx: of torch.
            made: potential, spikes, clamp and modes from `potential`, and the noise and holds it was given.
            again: what else it was given.
            derivative: as in `spikes`, and so are all that say no more.
            smooth: as said.
            where: shape, dt, grid, horizon and tol.
            reset: kind of reset, restart, detach and form.
            want_v: as said.
            parts: from current to v.
        """
        before, s, clamp, z, noise, hold = made
        shape = -1, *where[0]
        output = own(s, shape), own(before, shape) if want_v else before.new_empty(0), own(z, shape)
        ctx.modes, ctx.reset, ctx.again, ctx.seen = where, reset, again, Witness(*output)
        ctx.save_for_backward(*parts, derivative, s, _asked_for(before, reset), clamp, noise, hold)
        ctx.wants = (bool(ctx.needs_input_grad[9] or ctx.needs_input_grad[10]), smooth.numel() > 0)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the adjoint."""
        *saved, noise, hold = ctx.saved_tensors
        if ctx.seen.written:
            saved[8:11] = _made_again(ctx, saved, noise, hold)
        *found, d_s = _adjoint_of(ctx, saved, grads)
        return (None, None, None, d_s, None, None, None, *found)


def _made_again(ctx: Any, saved: Sequence[Tensor], noise: Tensor, hold: Tensor) -> list[Tensor]:
    """Return derivative, spikes and potential before reset as they were before a user wrote to them."""
    parts, derivative, asked_for = [x.detach() for x in saved[:8]], saved[8], len(saved[10])
    reset, restart, _, form = ctx.reset
    never, kind, slope, period = ctx.again
    if never:
        parts[4] = torch.full_like(parts[4], math.inf)
    run: Any = run_potential
    with torch.no_grad():
        before, s, *_ = run(
            *parts[:6], noise, *parts[6:], hold, *ctx.modes, kind, slope, reset, restart, period
        )
    return [before if form else derivative, s, before[:asked_for]]


def second_derivative(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Raise: there is none."""
    raise RuntimeError(
        "the native backend has no second derivative; build the layer with backend='torch', which has"
    )


adjoint.register_autograd(second_derivative)
