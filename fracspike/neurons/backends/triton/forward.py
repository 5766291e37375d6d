"""Forward through time: one program takes one block of neurons through all steps, its modes in registers.

The plain loop is `reference.run`. What differs here is the order of two things. The potential of the next
step is read off the modes *before* the jump is added to them (`kept` times the jump is added to the sum), so
that the sum over the modes need not wait for the spike. And the drive is asked for AHEAD steps before it is
needed.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment"
# mypy: disable-error-code="name-defined,misc,var-annotated,unreachable"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .equations import (
    HALF,
    INFINITE,
    advance,
    constant,
    place,
    put,
    reset_of,
    row,
    rows_of,
    spike,
    start_of,
    table,
    there,
)


class Given(NamedTuple):
    """Tensors that the forward kernel reads; None where there is none. Constants are ``(tensor, n)``."""

    drive: Any
    noise: Any
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
    v: Any
    modes: Any
    hold: Any
    adaptation: Any
    opposing: Any
    last: Any


class Taken(NamedTuple):
    """Tensors that it writes."""

    spikes: Any
    before: Any
    over: Any
    clamp: Any
    adaptation: Any
    opposing: Any
    modes: Any
    hold: Any
    v: Any
    wrong: Any


@triton.jit
def forward_kernel(
    given, taken, layout, stride, columns, T, M, K, slope: "fp64", period,  # noqa: F821, UP037
    TILES: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr, KEPT: tl.constexpr, STEP: tl.constexpr,
    RESET: tl.constexpr, LEAKY: tl.constexpr, RESTART: tl.constexpr, HOLD: tl.constexpr,
    COMPENSATED: tl.constexpr, AHEAD: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Run one block of neurons; ``layout`` and ``stride`` are those of the drive, M neurons, K modes."""
    o = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    mask = o < M
    at = place(layout, o)
    numbers = (
        constant(given.fresh, o, ACC), constant(given.kept, o, ACC), constant(given.resistance, o, ACC),
        constant(given.threshold, o, ACC), constant(given.fall, o, ACC), constant(given.stay, o, ACC),
        constant(given.lift, o, ACC), constant(given.pull, o, ACC), constant(given.own, o, ACC),
        tl.full([1], slope, tl.float64).to(ACC), period,
    )  # fmt: skip
    after = start_of(given.v, o, mask, ACC)
    zero = tl.zeros_like(after)
    tables, modes, read = (), (), zero
    for i in tl.static_range(len(TILES)):
        k = rows_of(i, TILES)
        loss, seen = table(given.loss, k, o, columns, ACC), table(given.seen, k, o, columns, ACC)
        x, c = begin(given.modes, k, K, M, o, mask, after, ACC, LEAKY)
        read += tl.sum(seen * x, 0)
        tables = tables + ((loss, seen),)
        modes = modes + ((x, c),)
    hold = start_of(given.hold, o, mask, tl.int32)
    a, w = start_of(given.adaptation, o, mask, ACC), start_of(given.opposing, o, mask, ACC)
    last = start_of(given.last, o, mask, ACC)
    # modes, and by how much they are too large; what the next step sees of them; jump; potential after the
    # reset; the mode that is in no tile; steps held; adaptation; opposing drive; spike; bad input
    state = (modes, read, zero, after, zero, hold, a, w, last, zero)
    ring = ()
    for i in tl.static_range(AHEAD):
        ring = ring + (inputs(given, stride, at, o, i, T, M, mask, ACC),)
    for t in tl.range(0, T, loop_unroll_factor=UNROLL):
        later = inputs(given, stride, at, o, t + AHEAD, T, M, mask, ACC)
        state = step(
            state, ring[0], given, taken, tables, numbers, t, o, M, mask, ACC, KEPT, STEP, RESET, LEAKY,
            RESTART, HOLD, COMPENSATED,
        )  # fmt: skip
        ring = ring[1:] + (later,)

    modes, read, jump, after, tail, hold, a, w, last, wrong = state
    if taken.modes is not None:
        for i in tl.static_range(len(TILES)):
            k = rows_of(i, TILES)
            x, c = modes[i]
            z = x.to(tl.float64) - c.to(tl.float64)
            if LEAKY:
                z += jump.to(tl.float64)[None, :]
            spot = k[:, None].to(tl.int64) * M + o[None, :]
            tl.store(taken.modes + spot, z, there(k, K, mask, LEAKY))
        if LEAKY:
            put(taken.modes, M, o, K - 1, mask, tail + jump)
    if HOLD:
        tl.store(taken.hold + o, hold, mask)
    tl.store(taken.v + o, after, mask)
    tl.store(taken.wrong + tl.program_id(0), tl.max(tl.where(mask, wrong, 0.0), 0))


@triton.jit
def begin(modes, k, K, M, o, mask, after, ACC: tl.constexpr, LEAKY: tl.constexpr):
    """Return modes ``k`` at the start, and by how much rounding leaves them too large."""
    if modes is None:
        x = tl.zeros([k.shape[0], o.shape[0]], ACC)
        if LEAKY:
            x += after[None, :]
        c = tl.zeros_like(x)
    else:
        spot = k[:, None].to(tl.int64) * M + o[None, :]
        z = tl.load(modes + spot, there(k, K, mask, LEAKY), 0.0)
        x = z.to(ACC)
        c = (x.to(z.dtype) - z).to(ACC)
    return x, c


@triton.jit
def inputs(given, stride, at, o, t, T, M, mask, ACC: tl.constexpr):
    """Return drive and noise of step ``t``."""
    return row(given.drive, stride, at, t, T, mask, ACC), row(given.noise, M, o, t, T, mask, ACC)


@triton.jit
def step(
    state, now, given, taken, tables, numbers, t, o, M, mask, ACC: tl.constexpr, KEPT: tl.constexpr,
    STEP: tl.constexpr, RESET: tl.constexpr, LEAKY: tl.constexpr, RESTART: tl.constexpr, HOLD: tl.constexpr,
    COMPENSATED: tl.constexpr,
):  # fmt: skip
    """Take a block over one step; see `forward_kernel` for the state."""
    modes, read, jump, after, tail, hold, a, w, last, wrong = state
    current, noise = now
    fresh, kept, resistance, threshold, fall, stay, lift, pull, own, slope, period = numbers
    if given.own is not None:
        current += own * last
    wrong = tl.where(tl.abs(current) < INFINITE, wrong, 1.0)  # false for NaN, too
    u = resistance * current
    if given.opposing is not None:
        u -= w

    # advance, and hold refractory neurons by a drive
    v = read + (kept * jump if LEAKY else after) + fresh * u
    if HOLD:
        held = hold > 0
        clamp = (after - v) / fresh
        put(taken.clamp, M, o, t, mask, tl.where(held, clamp, float("nan")))
        u += tl.where(held, clamp, 0.0)
        v = tl.where(held, after, v)

    # decide on what a surrogate will see
    level = threshold
    if given.adaptation is not None:
        level += lift * a
    before = v.to(KEPT)
    over = before - level.to(KEPT)
    put(taken.before, M, o, t, mask, before)
    put(taken.over, M, o, t, mask, over)
    s = spike(over.to(ACC), noise, slope, STEP, given.noise is not None, ACC)
    s = tl.where(v == v, s, v)  # a potential that is no number is no silence
    if HOLD:
        s = tl.where(held, 0.0, s)
        hold = tl.where(s > HALF, period, tl.maximum(hold - 1, 0))
    put(taken.spikes, M, o, t, mask, s)

    # reset; the modes take part of it at the next step
    new_jump = reset_of(v, s, fall, RESET)
    after = v + new_jump
    if not LEAKY:
        jump = tl.zeros_like(jump)
    erased = s > HALF
    anew = v if LEAKY else tl.zeros_like(v)
    tail = u
    if RESTART:
        tail = tl.where(erased, anew, tail)
    read = tl.zeros_like(v)
    new = ()
    for i in tl.static_range(len(tables)):
        x, c = modes[i]
        loss, seen = tables[i]
        x, c = advance(x, c, u, jump, loss, COMPENSATED and i == 0)
        if RESTART:
            x = tl.where(erased[None, :], anew[None, :], x)
            c = tl.where(erased[None, :], 0.0, c)
        read += tl.sum(seen * x, 0)
        new = new + ((x, c),)

    # what spikes do to later steps
    if given.adaptation is not None:
        a = (stay * a + s).to(KEPT).to(ACC)
        put(taken.adaptation, M, o, t, mask, a)
    if given.opposing is not None:
        w = (stay * w + pull * after).to(KEPT).to(ACC)
        put(taken.opposing, M, o, t, mask, w)
    return new, read, new_jump, after, tail, hold, a, w, s, wrong
