"""What the quick kernels are made of: each function does one thing to one vector of neurons (see `vectors`).

They are part of the loops that call them, so that vectors stay in registers.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from typing import Any

from numba import njit

from .rates import STRETCH
from .vectors import above, add, at_least, fill, fma, fnma, load, mul, narrow, pick, store, sub, wide

OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
PART: dict[str, Any] = OPTIONS | {"forceinline": True}
ABOVE = 1
SUBTRACT, VALUE = 1, 2


@njit(**OPTIONS)
def gather(tile, source, start, count, down, j, n):
    """Copy steps of a block from a sequence; back through time if ``down``, from ``start`` on."""
    for m in range(count):
        t = start - m if down else start + m
        for i in range(n):
            tile[m, i] = source[t, j + i]


@njit(**OPTIONS)
def scatter(target, tile, start, count, down, j, n):
    """Copy steps of a block to a sequence, as `gather` reads them."""
    for m in range(count):
        t = start - m if down else start + m
        for i in range(n):
            target[t, j + i] = tile[m, i]


@njit(**PART)
def read(fast, u, coefficients, first, g, j):
    """Return what the fast modes, drive included, give to each of the next four steps."""
    zero = fill(0.0, u)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for k in range(len(coefficients)):
        y = add(load(fast, k, g), u)
        s0 = fma(pick(coefficients, k, first, j), y, s0)
        s1 = fma(pick(coefficients, k, first + 1, j), y, s1)
        s2 = fma(pick(coefficients, k, first + 2, j), y, s2)
        s3 = fma(pick(coefficients, k, first + 3, j), y, s3)
    return s0, s1, s2, s3


@njit(**PART)
def advance(fast, u, coefficients, g, j, c0, c1, c2, c3):
    """Take the fast modes over four steps, and then do as `read`."""
    zero = fill(0.0, c0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    rest = add(add(c1, c2), c3)
    for k in range(len(coefficients)):
        y = add(load(fast, k, g), c0)
        fed = fnma(pick(coefficients, k, 2, j), c1, rest)
        fed = fnma(pick(coefficients, k, 1, j), c2, fed)
        fed = fnma(pick(coefficients, k, 0, j), c3, fed)
        y = add(fnma(pick(coefficients, k, 3, j), y, y), fed)
        store(fast, k, g, y)
        y = add(y, u)
        s0 = fma(pick(coefficients, k, 4, j), y, s0)
        s1 = fma(pick(coefficients, k, 5, j), y, s1)
        s2 = fma(pick(coefficients, k, 6, j), y, s2)
        s3 = fma(pick(coefficients, k, 7, j), y, s3)
    return s0, s1, s2, s3


@njit(**PART)
def advance_once(fast, coefficients, g, j, c):
    """Take the fast modes over one step."""
    for k in range(len(coefficients)):
        y = add(load(fast, k, g), c)
        store(fast, k, g, fnma(pick(coefficients, k, 0, j), y, y))


@njit(**PART)
def read_slow(slow, u, losses, coefficients, g, j):
    """Return the moments of the slow modes: the first of them as they are, the others from the drive."""
    zero, origin = fill(0.0, u), wide(u)
    a0, a1, a2, a3 = wide(zero), zero, zero, zero
    for k in range(len(coefficients)):
        x = load(slow, k, g)
        a0 = fma(pick(losses, k, 2, j), x, a0)
        y = narrow(sub(x, origin), zero)
        a1 = fma(pick(coefficients, k, 1, j), y, a1)
        a2 = fma(pick(coefficients, k, 2, j), y, a2)
        a3 = fma(pick(coefficients, k, 3, j), y, a3)
    return narrow(a0, zero), a1, a2, a3


@njit(**PART)
def read_slow_last(slow, coefficients, g, j):
    """Return the moment after those of `read_slow`, from a drive of zero."""
    a4 = fill(0.0, pick(coefficients, 0, 4, j))
    for k in range(len(coefficients)):
        a4 = fma(pick(coefficients, k, 4, j), narrow(load(slow, k, g), a4), a4)
    return a4


@njit(**PART)
def advance_slow(slow, u, losses, coefficients, count, added, d1, d2, d3, g, j):
    """Take the slow modes over a stretch in which ``added`` came to all; ``d`` its moments."""
    origin = wide(u)
    for k in range(len(losses)):
        x = load(slow, k, g)
        y = sub(x, origin)
        if count == STRETCH:
            left = fnma(pick(losses, k, 1, j), y, add(x, added))
        else:
            lost = pick(losses, k, 0, j)
            z = y
            for _ in range(count):
                z = fnma(lost, z, z)
            left = add(add(x, added), sub(z, y))
        rate = pick(coefficients, k, 0, j)
        later = mul(rate, fnma(rate, fnma(rate, d3, d2), d1))
        store(slow, k, g, sub(left, wide(later)))


@njit(**PART)
def since(m, first, s, x0, x1, x2, x3, sums, j):
    """Add to ``s`` what came at steps 0 to m, by a kernel that begins at an item of ``sums``."""
    s = fma(pick(sums, 0, first + m, j), x0, s)
    if m > 0:
        s = fma(pick(sums, 0, first + m - 1, j), x1, s)
    if m > 1:
        s = fma(pick(sums, 0, first + m - 2, j), x2, s)
    if m > 2:
        s = fma(pick(sums, 0, first + m - 3, j), x3, s)
    return s


@njit(**PART)
def slowly(binomials, i, a0, a1, a2, a3, added, d1, d2, d3, sums, j):
    """Return what step ``i`` of a stretch sees of the slow modes."""
    v = fma(pick(sums, 0, 8, j), added, a0)
    v = fma(pick(binomials, i + 1, 1, 0), a1, fma(pick(sums, 0, 9, j), d1, v))
    v = fma(pick(binomials, i + 1, 2, 0), a2, fma(pick(sums, 0, 10, j), d2, v))
    return fma(pick(binomials, i + 1, 3, 0), a3, fma(pick(sums, 0, 11, j), d3, v))


@njit(**PART)
def lose(binomials, i, c, a1, a2, a3, a4, d0, d1, d2, d3, sums, j):
    """Return what the slow modes lose in step ``i`` of a stretch, ``c`` having come to them."""
    v = fma(pick(sums, 0, 9, j), add(d0, c), a1)
    v = fma(pick(binomials, i, 1, 0), a2, fma(pick(sums, 0, 10, j), d1, v))
    v = fma(pick(binomials, i, 2, 0), a3, fma(pick(sums, 0, 11, j), d2, v))
    v = fma(pick(binomials, i, 3, 0), a4, fma(pick(sums, 0, 12, j), d3, v))
    return sub(fill(0.0, v), v)


@njit(**PART)
def collect(jump, c, added, d0, d1, d2, d3):
    """Take a jump and a change into the sum and the moments of a stretch."""
    d3 = add(d3, d2)
    d2 = add(d2, d1)
    d0 = add(d0, c)
    d1 = add(d1, d0)
    return add(added, jump), d0, d1, d2, d3


@njit(**PART)
def fire(v_tile, s_tile, i, g, v, level, vr, kind, reset):
    """Decide on the spikes of a step, and return what the reset adds to the potential."""
    spike = above(v, level) if kind == ABOVE else at_least(v, level)
    store(v_tile, i, g, v)
    store(s_tile, i, g, spike)
    if reset == SUBTRACT:
        return mul(fill(-1.0, vr), mul(vr, spike))
    if reset == VALUE:
        return mul(sub(vr, v), spike)
    return fill(0.0, vr)


@njit(**PART)
def weigh(fast, weighed, coefficients, g, j, h0, h1, h2, h3):
    """Add to the sums of the fast modes times ``h``, over four steps, what was there at their start."""
    for k in range(len(coefficients)):
        q = mul(pick(coefficients, k, 8, j), h0)
        q = fma(pick(coefficients, k, 9, j), h1, q)
        q = fma(pick(coefficients, k, 10, j), h2, q)
        q = fma(pick(coefficients, k, 11, j), h3, q)
        store(weighed, k, g, fma(load(fast, k, g), q, load(weighed, k, g)))


@njit(**PART)
def weigh_once(fast, weighed, coefficients, g, h):
    """Add to the sums of the fast modes times ``h`` one step."""
    for k in range(len(coefficients)):
        store(weighed, k, g, fma(load(fast, k, g), h, load(weighed, k, g)))


@njit(**PART)
def weigh_slow(slow, weighed, coefficients, g, j, x0, x1, x2, x3):
    """Add to the sums of the slow modes times ``h``, over a stretch, what was there at its start."""
    for k in range(len(coefficients)):
        rate = pick(coefficients, k, 0, j)
        q = fnma(rate, fnma(rate, fnma(rate, x3, x2), x1), x0)
        store(weighed, k, g, fma(load(slow, k, g), wide(q), load(weighed, k, g)))


@njit(**PART)
def finish(fast, coefficients, g, j, count, c0, c1, c2):
    """Take the fast modes over fewer than four steps, at the end of time."""
    advance_once(fast, coefficients, g, j, c0)
    if count > 1:
        advance_once(fast, coefficients, g, j, c1)
    if count > 2:
        advance_once(fast, coefficients, g, j, c2)


@njit(**OPTIONS)
def put(row, source, j, n):
    """Copy what belongs to the neurons of a block, with zeros after it."""
    row[:] = 0.0
    for i in range(n):
        row[0, i] = source[j + i]


@njit(**PART)
def accumulate(total, row, g, part):
    """Add to a sum over all time, in double precision."""
    store(total, row, g, add(load(total, row, g), wide(part)))


@njit(**PART)
def pair(binomials, i, h, added, d1, d2, d3, x0, x1, x2, x3, y0, y1, y2, y3):
    """Add a step to the sums of ``h`` times what slow modes at the start give, and what came since."""
    x1, y1 = fma(pick(binomials, i + 1, 1, 0), h, x1), fma(h, d1, y1)
    x2, y2 = fma(pick(binomials, i + 1, 2, 0), h, x2), fma(h, d2, y2)
    x3, y3 = fma(pick(binomials, i + 1, 3, 0), h, x3), fma(h, d3, y3)
    return add(x0, h), x1, x2, x3, fma(h, added, y0), y1, y2, y3


@njit(**PART)
def fired(i, g, reach, vr, d_th, d_vr, tiles, options):
    """Return the gradient in the potential before reset, what the reset added, and sums; see `adjoint`."""
    s_tile, p_tile, g_tile, v_tile, o_tile, w_tile = tiles
    reset, detach, outer, wanted = options
    spike, at_s = load(s_tile, i, g), load(g_tile, i, g)
    jump = fill(0.0, vr)
    if reset == SUBTRACT:
        jump = sub(jump, mul(vr, spike))
        d_vr = fnma(reach, spike, d_vr)
        if not detach:
            at_s = fnma(reach, vr, at_s)
    elif reset == VALUE:
        gap = sub(vr, load(v_tile, i, g))
        jump = mul(gap, spike)
        d_vr = fma(reach, spike, d_vr)
        if not detach:
            at_s = fma(reach, gap, at_s)
    if wanted:
        store(w_tile, i, g, at_s)
    slope = mul(load(p_tile, i, g), at_s)
    dv = slope
    if reset == VALUE:
        dv = fnma(reach, spike, dv)
    if outer:
        dv = add(dv, load(o_tile, i, g))
    return dv, jump, sub(d_th, slope), d_vr


@njit(**PART)
def decide(m, quad, g, j, s, jump, c, came, moments, setting):
    """Make step ``m`` of four forward: return the moments with it in them, and what its reset adds.

    Args:
        m: 0 to 3.
        quad: first of the four.
        g: first neuron in the tiles.
        j: and in all.
        s: what the fast modes at the start of the four give to this step.
        jump: what the reset before this step added, and
        c: that with the change of drive.
        came: jumps and drives of the four steps, zero where they are still to come.
        moments: what has come to the slow modes in this stretch, and its moments.
        setting: what `read_slow` found at its start; binomials and sums; threshold and ``v_reset`` of the
            kernel; the tiles of potentials and spikes; kind of step and of reset.
    """
    (a0, a1, a2, a3), (binomials, sums), (level, vr), (v_tile, s_tile), (kind, reset) = setting
    j0, j1, j2, j3 = came[0]
    u0, u1, u2, u3 = came[1]
    moments = collect(jump, c, *moments)
    added, _, d1, d2, d3 = moments
    v = slowly(binomials, quad + m, a0, a1, a2, a3, added, d1, d2, d3, sums, j)
    v = add(v, since(m, 0, s, j0, j1, j2, j3, sums, j))
    v = since(m, 4, v, u0, u1, u2, u3, sums, j)
    return moments, fire(v_tile, s_tile, quad + m, g, v, level, vr, kind, reset)


@njit(**PART)
def retrace(m, quad, g, j, s, c, state, setting):
    """Make step ``m`` of four back through time.

    Args:
        m: 0 to 3, and so are the next four as in `decide`.
        quad: as said.
        g: as said.
        j: as said.
        s: as said.
        c: gradients in the potential of the four steps, zero where they are still to come.
        state: of the step before (later in time) the gradient in its potential, what of the gradient in its
            drive is known, its drive and its current; the gradients in resistance, threshold and v_reset so
            far; the moments, as in `decide`; the sums of `pair`.
        setting: what `read_slow` and `read_slow_last` found, and the weight of all modes but the slow;
            binomials and sums; ``v_reset`` of the kernel and resistance; the tiles of currents, of their
            gradients, and those of `fired`; whether gradients along the weights are wanted, and the options
            of `fired`.

    Returns:
        ``state`` after this step, and the change that the step made to all modes.
    """
    (a0, a1, a2, a3, a4, share), (binomials, sums), (vr, r), (x_tile, d_tile, more), (moves, options) = (
        setting
    )
    (dv, partial, u_next, x_next), (d_r, d_th, d_vr), moments, pairs = state
    _, d0, d1, d2, d3 = moments
    i, h = quad + m, fill(0.0, vr)
    lost_now = lose(binomials, i, dv, a1, a2, a3, a4, d0, d1, d2, d3, sums, j)
    moments = collect(dv, dv, *moments)
    added, _, d1, d2, d3 = moments
    rapid = since(m, 0, s, c[0], c[1], c[2], c[3], sums, j)
    b = add(rapid, slowly(binomials, i, a0, a1, a2, a3, added, d1, d2, d3, sums, j))
    all_told = add(sub(partial, rapid), lost_now)
    store(d_tile, i, g, mul(r, all_told))
    d_r = fma(all_told, x_next, d_r)
    x = load(x_tile, i, g)
    u = mul(r, x)
    dv, jump, d_th, d_vr = fired(i, g, b, vr, d_th, d_vr, more, options)
    if moves:
        h = add(jump, sub(u, u_next))
        pairs = pair(binomials, i, h, added, d1, d2, d3, *pairs)
    return ((dv, fma(share, dv, rapid), u, x), (d_r, d_th, d_vr), moments, pairs), h
