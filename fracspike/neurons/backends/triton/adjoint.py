r"""The adjoint: one program takes one block of neurons back through all steps.

With :math:`\delta_n` the gradient in the potential before reset, the adjoint modes are
:math:`Q_k^n = d_k Q_k^{n+1} + \delta_n`; and with :math:`s_k` what the next step sees of a mode (``seen``),

- :math:`B_n = \sum_k s_k Q_k^{n+1}` is the gradient in what a reset adds to all modes (with a leak),
- :math:`D_n = \sum_k \ell_k s_k Q_k^{n+1}` what the modes give to that in the drive,
  :math:`f \delta_n + D_n` with :math:`f` for ``fresh``,
- :math:`G_k = \sum_n Q_k^{n+1} (u_n + J_n - u_{n+1})`, times :math:`d_k`, the gradient in a weight with a
  leak, and times :math:`-\ell_k` without (where :math:`J = 0` in it).

:math:`B_{n-1} = \sum_k s_k d_k Q_k^{n+1} + \text{kept} \, \delta_n` is found so, and not from
:math:`Q^n`: the sum need not wait for :math:`\delta_n`. And :math:`D_n` is summed for itself, not taken as
:math:`B_n - B_{n-1}`, because where steps are short next to nothing would be left of that difference.

In `step`, gradients are named after what they are gradients in: ``d_v`` for the potential before reset,
``d_after`` for that after it, without what goes through the modes.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment"
# mypy: disable-error-code="name-defined,misc,var-annotated,unreachable"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .equations import (
    HALF,
    NEVER,
    SUBTRACT,
    VALUE,
    constant,
    place,
    put,
    reset_of,
    row,
    row_before,
    rows_of,
    slope_of,
    spike,
    start_of,
    sum_of,
    table,
    there,
)


class Given(NamedTuple):
    """Tensors that the adjoint reads; None where there is none. Constants are ``(tensor, n)``."""

    drive: Any
    loss: Any
    seen: Any
    fresh: Any
    kept: Any
    resistance: Any
    threshold: Any
    fall: Any
    stay: Any
    lift: Any
    pull: Any
    own: Any
    # where the run started
    v: Any
    modes: Any
    adaptation_start: Any
    opposing_start: Any
    last: Any
    # what it made
    before: Any
    spikes: Any
    clamp: Any
    adaptation: Any
    opposing: Any
    derivative: Any
    # gradients that arrive
    at_spikes: Any
    at_before: Any
    at_adaptation: Any
    at_opposing: Any
    at_modes: Any
    at_v: Any


class Taken(NamedTuple):
    """Tensors that it writes; ``sums`` are gradients in `SUMS`, ``(10, M)``."""

    drive: Any
    spikes: Any
    weights: Any
    modes: Any
    sums: Any


SUMS = (
    "resistance", "threshold", "fall", "stay", "lift", "pull", "own", "v", "adaptation", "opposing",
)  # fmt: skip


@triton.jit
def adjoint_kernel(
    given, taken, layout, stride, spikes_layout, spikes_stride, before_layout, before_stride, columns,
    T, M, K, p: tl.constexpr, q: tl.constexpr, r: tl.constexpr, factor: tl.constexpr,
    TILES: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr, KEPT: tl.constexpr, STEP: tl.constexpr,
    RESET: tl.constexpr, LEAKY: tl.constexpr, RESTART: tl.constexpr, DETACH: tl.constexpr,
    EXACT: tl.constexpr, AHEAD: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Run one block of neurons back; layouts and strides are those of drive and arriving gradients.

    The numbers of the derivative are constants of the kernel: arguments would come in single precision.
    EXACT is for slow modes in single precision, whose decay is too near 1 to be rounded.
    """
    o = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    mask = o < M
    places = (place(layout, o), stride, place(spikes_layout, o), spikes_stride, place(before_layout, o),
              before_stride)  # fmt: skip
    starts = (
        start_of(given.adaptation_start, o, mask, ACC), start_of(given.opposing_start, o, mask, ACC),
        start_of(given.last, o, mask, ACC),
    )  # fmt: skip
    numbers = (
        constant(given.fresh, o, ACC), constant(given.kept, o, ACC), constant(given.resistance, o, ACC),
        constant(given.threshold, o, ACC), constant(given.fall, o, ACC), constant(given.stay, o, ACC),
        constant(given.lift, o, ACC), constant(given.pull, o, ACC), constant(given.own, o, ACC),
        tl.full([1], p, tl.float64).to(ACC), tl.full([1], q, tl.float64).to(ACC),
        tl.full([1], r, tl.float64).to(ACC), tl.full([1], factor, tl.float64).to(ACC),
    )  # fmt: skip
    zero = tl.zeros([BLOCK], ACC)
    tables, modes, B, D = (), (), zero, zero
    for i in tl.static_range(len(TILES)):
        k = rows_of(i, TILES)
        loss, seen = table(given.loss, k, o, columns, ACC), table(given.seen, k, o, columns, ACC)
        Q = tl.zeros([k.shape[0], BLOCK], ACC)
        tail = Q
        if given.at_modes is not None:
            spot = k[:, None].to(tl.int64) * M + o[None, :]
            tail = tl.load(given.at_modes + spot, there(k, K, mask, LEAKY), 0.0).to(ACC)
            B += tl.sum(tail, 0)
        tables = tables + ((loss, loss * seen, seen - loss * seen),)
        modes = modes + ((Q, Q, tail),)
    if LEAKY:  # the mode that is in no tile: it has forgotten all but the last step
        D = row(given.at_modes, M, o, K - 1, K, mask, ACC)
        B += D
    d_after = start_of(given.at_v, o, mask, ACC)
    # adjoint modes, sums for the weights, gradients in the modes at the end; B; what the mode in no tile
    # gives to D; drive of the next step; gradients in potential after reset, adaptation, opposing drive, and
    # spike by what comes back; sums for resistance, threshold, fall, stay, lift, pull, own
    state = (modes, B, D, zero, d_after, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    last = T - 1
    ring = ()
    for i in tl.static_range(AHEAD):
        ring = ring + (inputs(given, places, starts, o, last - i, T, M, mask, ACC),)
    for n in tl.range(0, T, loop_unroll_factor=UNROLL):
        t = last - n
        earlier = inputs(given, places, starts, o, t - AHEAD, T, M, mask, ACC)
        state = step(
            state, ring[0], given, taken, tables, numbers, t, o, M, mask, ACC, KEPT, STEP, RESET, LEAKY,
            RESTART, DETACH, EXACT,
        )  # fmt: skip
        ring = ring[1:] + (earlier,)

    (modes, B, _, u, d_after, d_a, d_w, _, d_resistance, d_threshold, d_fall, d_stay, d_lift, d_pull,
     d_own) = state  # fmt: skip
    if LEAKY and given.modes is None:  # every mode began at the potential
        d_after += B
    put(taken.sums, M, o, 0, mask, d_resistance)  # in the order of SUMS
    put(taken.sums, M, o, 1, mask, d_threshold)
    put(taken.sums, M, o, 2, mask, d_fall)
    put(taken.sums, M, o, 3, mask, d_stay)
    put(taken.sums, M, o, 4, mask, d_lift)
    put(taken.sums, M, o, 5, mask, d_pull)
    put(taken.sums, M, o, 6, mask, d_own)
    put(taken.sums, M, o, 7, mask, d_after)
    put(taken.sums, M, o, 8, mask, d_a)
    put(taken.sums, M, o, 9, mask, d_w)
    for i in tl.static_range(len(TILES)):
        k = rows_of(i, TILES)
        finish(given, taken, modes[i], tables[i], k, u, columns, K, M, o, mask, TILES, ACC, LEAKY)


@triton.jit
def finish(
    given, taken, modes, tables, k, u, columns, K, M, o, mask, TILES: tl.constexpr, ACC: tl.constexpr,
    LEAKY: tl.constexpr,
):  # fmt: skip
    """Write the gradients in the modes ``k`` at the start, and in their weights.

    Weights that all neurons share get one sum a program, so that the sum of these is the same at every run.
    """
    Q, G, tail = modes
    loss, lost, left = tables
    real = there(k, K, mask, LEAKY)
    spot = k[:, None].to(tl.int64) * M + o[None, :]
    if taken.modes is not None:
        tl.store(taken.modes + spot, (lost + left) * Q + tail, real)
    if taken.weights is not None:
        if given.modes is not None:
            z = tl.load(given.modes + spot, real, 0.0)
            G += Q * (z - u[None, :]).to(ACC)
        elif LEAKY:
            G += Q * (start_of(given.v, o, mask, ACC) - u)[None, :]
        else:
            G -= Q * u[None, :]
        if LEAKY:
            G *= 1.0 - loss
        else:
            G *= -loss
        if columns is None:
            total = tl.sum(tl.where(mask[None, :], G, 0.0), 1)
            tl.store(taken.weights + tl.program_id(0) * sum_of(TILES, len(TILES)) + k, total)
        else:
            tl.store(taken.weights + spot, G, mask[None, :])


@triton.jit
def inputs(given, places, starts, o, t, T, M, mask, ACC: tl.constexpr):
    """Return what step ``t`` read and made, and the gradients that arrive there."""
    at, stride, spikes_at, spikes_stride, before_at, before_stride = places
    a, w, last = starts
    if given.own is None:
        previous = tl.zeros(o.shape, ACC)
    else:
        previous = row_before(given.spikes, last, M, o, t, T, mask, ACC)
    return (
        row(given.drive, stride, at, t, T, mask, ACC),
        row(given.before, M, o, t, T, mask, ACC),
        row(given.spikes, M, o, t, T, mask, ACC),
        row(given.clamp, M, o, t, T, mask, ACC),
        row(given.derivative, M, o, t, T, mask, ACC),
        row_before(given.adaptation, a, M, o, t, T, mask, ACC),
        row_before(given.opposing, w, M, o, t, T, mask, ACC),
        previous,
        row(given.at_spikes, spikes_stride, spikes_at, t, T, mask, ACC),
        row(given.at_before, before_stride, before_at, t, T, mask, ACC),
        row(given.at_adaptation, M, o, t, T, mask, ACC),
        row(given.at_opposing, M, o, t, T, mask, ACC),
    )


@triton.jit
def retreat(Q, loss, d_v, EXACT: tl.constexpr):
    """Take adjoint modes a step back."""
    if EXACT:
        return Q + (d_v[None, :] - loss * Q)
    else:
        return (1.0 - loss) * Q + d_v[None, :]


@triton.jit
def step(
    state, now, given, taken, tables, numbers, t, o, M, mask, ACC: tl.constexpr, KEPT: tl.constexpr,
    STEP: tl.constexpr, RESET: tl.constexpr, LEAKY: tl.constexpr, RESTART: tl.constexpr,
    DETACH: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Take a block back over one step; see `adjoint_kernel` for the state."""
    (modes, B, D, u_next, d_after, d_a, d_w, back, d_resistance, d_threshold, d_fall, d_stay, d_lift, d_pull,
     d_own) = state  # fmt: skip
    current, v, s, clamp, derivative, a, w, previous, at_s, at_v, at_a, at_w = now
    fresh, kept, resistance, threshold, fall, stay, lift, pull, own, p, q, r, factor = numbers

    # what the step was
    if given.own is not None:
        current += own * previous
    u = resistance * current
    if given.opposing is not None:
        u -= w
    if given.clamp is not None:
        held = clamp == clamp  # others are NaN
        u += tl.where(held, clamp, 0.0)
    level = threshold
    if given.adaptation is not None:
        level += lift * a
    over = (v.to(KEPT) - level.to(KEPT)).to(ACC)
    if given.spikes is None:  # a step that follows from the potential
        s = spike(over, over, 1.0, STEP, False, ACC)
        if given.clamp is not None:
            s = tl.where(held, 0.0, s)
    jump = reset_of(v, s, fall, RESET)
    after = v + jump

    # what comes back through the modes: D, and B of the step before but for `kept` times d_v
    B_before = tl.zeros_like(u)
    for i in tl.static_range(len(tables)):
        loss, lost, left = tables[i]
        Q, G, tail = modes[i]
        D += tl.sum(lost * Q, 0)
        B_before += tl.sum(left * Q, 0)
        if given.at_modes is not None:
            D += tl.sum(loss * tail, 0)
            B_before += tl.sum((1.0 - loss) * tail, 0)

    # the end of the step: adaptation, opposing drive, reset
    d_a += at_a
    d_w += at_w
    d_after += pull * d_w
    d_pull += d_w * after
    d_jump = d_after
    if LEAKY:
        d_jump += B
    d_s = at_s + d_a + back
    if RESET == SUBTRACT:
        d_fall -= d_jump * s
        if not DETACH:
            d_s -= d_jump * fall
    if RESET == VALUE:
        d_fall += d_jump * s
        if not DETACH:
            d_s += d_jump * (fall - v)

    # the spike
    if given.clamp is not None:
        d_s = tl.where(held, 0.0, d_s)
    put(taken.spikes, M, o, t, mask, d_s)
    if STEP == NEVER:
        d_level = tl.zeros_like(d_s)
    else:
        if given.derivative is None:
            derivative = slope_of(over, p, q, r, factor)
        d_level = -derivative * d_s
    d_threshold += d_level
    d_v = d_after + at_v - d_level
    if RESET == VALUE:
        d_v -= d_jump * s

    # the membrane; where a spike erased it, only the potential goes back
    change = u - u_next
    if LEAKY:
        change += jump
    if RESTART:
        erased = s > HALF
        if LEAKY:
            d_v += tl.where(erased, B, 0.0)
            change = tl.where(erased, after - u_next, change)
        else:
            change = tl.where(erased, -u_next, change)
        D = tl.where(erased, 0.0, D)
        B_before = tl.where(erased, 0.0, B_before)
    d_before = tl.zeros_like(d_v)  # in the potential after the reset of the step before
    if given.clamp is not None:  # held by a drive of (held - v) / fresh
        pulled = D / fresh
        d_before = tl.where(held, d_v + pulled, 0.0)
        d_v = tl.where(held, -pulled, d_v)
    if not LEAKY:
        d_before += d_v
    d_u = fresh * d_v + D
    d_current = resistance * d_u
    put(taken.drive, M, o, t, mask, d_current)
    d_resistance += d_u * current
    new = ()
    for i in tl.static_range(len(tables)):
        loss, lost, left = tables[i]
        Q, G, tail = modes[i]
        if taken.weights is not None:
            G += Q * change[None, :]
        if RESTART:
            Q = tl.where(erased[None, :], 0.0, Q)
            tail = tl.where(erased[None, :], 0.0, tail)
        Q = retreat(Q, loss, d_v, EXACT and i == 0)
        if given.at_modes is not None:
            tail *= 1.0 - loss
        new = new + ((Q, G, tail),)
    B = B_before + kept * d_v

    # what earlier spikes did to this step
    if given.own is not None:
        d_own += d_current * previous
        back = own * d_current
    if given.adaptation is not None:
        d_lift += d_level * a
        d_stay += d_a * a + d_w * w
        d_a = stay * d_a + lift * d_level
    if given.opposing is not None:
        d_w = stay * d_w - d_u
    return (new, B, tl.zeros_like(D), u, d_before, d_a, d_w, back, d_resistance, d_threshold, d_fall, d_stay,
            d_lift, d_pull, d_own)  # fmt: skip
