r"""The compiled loops for the common case: a hard step, and spikes that add the same to all modes.

Whole vectors of neurons are taken through time (see `vectors`), in the dtype of the sequence. What makes
single precision enough, and the modes few, is that they are kept in two groups.

**Fast modes** lose more than a thousandth or so in a step. They are kept as deviations from the drive,
:math:`V_k = x_k - u`, to which every change of drive and every reset adds the same :math:`c_n`:

.. math:: V_k \leftarrow d_k (V_k + c_n), \qquad c_n = J_{n-1} + u_{n-1} - u_n, \qquad v_n = u_n + \sum_k w_k V_k.

They are read and advanced four steps at once: what was there at the start, ``reading`` of the four powers of d,
and what is added within the four, by the kernel :math:`\sum_k w_k d_k^j`.

**Slow modes** lose so little that they change once in STRETCH steps, in double precision. Within a stretch
:math:`d^j = (1-\lambda)^j = \sum_p (-\lambda)^p \binom{j}{p}` with MOMENTS terms, so all of them together are
MOMENTS numbers read at its start and as many moments of what has been added since,
:math:`D_p = \sum_l \binom{n-l+1}{p} c_l`, which take one addition each a step.

The adjoint is the same recurrence back through time, with no drive and the gradient :math:`\delta` in the
potential for the change.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .rates import QUAD, STRETCH, Split
from .threads import arrays, blocks_in_threads
from .vectors import LANES, above, add, at_least, fill, fma, fnma, load, mul, narrow, pick, store, sub, wide

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
WIDTH = 256  # neurons whose steps are copied together: long rows, and all of it in the second-level cache
ABOVE = 1
SUBTRACT, VALUE = 1, 2


@njit(**OPTIONS)
def _gather(tile, source, start, count, down, j, n):
    """Copy steps of a block from a sequence; back through time if ``down``, from ``start`` on."""
    for m in range(count):
        t = start - m if down else start + m
        for i in range(n):
            tile[m, i] = source[t, j + i]


@njit(**OPTIONS)
def _scatter(target, tile, start, count, down, j, n):
    """Copy steps of a block to a sequence, as `_gather` reads them."""
    for m in range(count):
        t = start - m if down else start + m
        for i in range(n):
            target[t, j + i] = tile[m, i]


@njit(**OPTIONS)
def _read(fast, coefficients, first, g, j):
    """Return what the fast modes give to each of the next four steps."""
    zero = fill(0.0, load(fast, 0, g))
    s0, s1, s2, s3 = zero, zero, zero, zero
    for k in range(len(coefficients)):
        y = load(fast, k, g)
        s0 = fma(pick(coefficients, k, first, j), y, s0)
        s1 = fma(pick(coefficients, k, first + 1, j), y, s1)
        s2 = fma(pick(coefficients, k, first + 2, j), y, s2)
        s3 = fma(pick(coefficients, k, first + 3, j), y, s3)
    return s0, s1, s2, s3


@njit(**OPTIONS)
def _advance(fast, coefficients, g, j, c0, c1, c2, c3):
    """Take the fast modes over four steps, and return what they give to each of the four after."""
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
        s0 = fma(pick(coefficients, k, 4, j), y, s0)
        s1 = fma(pick(coefficients, k, 5, j), y, s1)
        s2 = fma(pick(coefficients, k, 6, j), y, s2)
        s3 = fma(pick(coefficients, k, 7, j), y, s3)
    return s0, s1, s2, s3


@njit(**OPTIONS)
def _advance_once(fast, coefficients, g, j, c):
    """Take the fast modes over one step."""
    for k in range(len(coefficients)):
        y = add(load(fast, k, g), c)
        store(fast, k, g, fnma(pick(coefficients, k, 0, j), y, y))


@njit(**OPTIONS)
def _read_slow(slow, origin, coefficients, first, g, j):
    """Return the moments of the slow modes: the first of them as they are, the others from the drive."""
    zero = fill(0.0, pick(coefficients, 0, 0, j))
    a0, a1, a2, a3 = zero, zero, zero, zero
    for k in range(len(coefficients)):
        x = load(slow, k, g)
        a0 = fma(pick(coefficients, k, first, j), narrow(x, zero), a0)
        y = narrow(sub(x, origin), zero)
        a1 = fma(pick(coefficients, k, first + 1, j), y, a1)
        a2 = fma(pick(coefficients, k, first + 2, j), y, a2)
        a3 = fma(pick(coefficients, k, first + 3, j), y, a3)
    return a0, a1, a2, a3


@njit(**OPTIONS)
def _advance_slow(slow, origin, losses, coefficients, count, added, d1, d2, d3, g, j):
    """Take the slow modes over a stretch in which ``added`` came to all; ``d`` its moments."""
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


@njit(**OPTIONS)
def _within(m, s0, s1, s2, s3, c0, c1, c2, c3, sums, row, j):
    """Return what step ``m`` of four sees of the fast modes: those at the start, and what came since."""
    k1, k2, k3, k4 = pick(sums, row, 1, j), pick(sums, row, 2, j), pick(sums, row, 3, j), pick(sums, row, 4, j)
    if m == 0:
        return fma(k1, c0, s0)
    if m == 1:
        return fma(k1, c1, fma(k2, c0, s1))
    if m == 2:
        return fma(k1, c2, fma(k2, c1, fma(k3, c0, s2)))
    return fma(k1, c3, fma(k2, c2, fma(k3, c1, fma(k4, c0, s3))))


@njit(**OPTIONS)
def _slowly(binomials, i, a0, a1, a2, a3, added, d1, d2, d3, sums, row, j):
    """Return what step ``i`` of a stretch sees of the slow modes."""
    v = fma(pick(sums, row, 5, j), added, a0)
    v = fma(pick(binomials, i, 1, 0), a1, fma(pick(sums, row, 6, j), d1, v))
    v = fma(pick(binomials, i, 2, 0), a2, fma(pick(sums, row, 7, j), d2, v))
    return fma(pick(binomials, i, 3, 0), a3, fma(pick(sums, row, 8, j), d3, v))


@njit(**OPTIONS)
def _put(row, source, j, n):
    row[:] = 0.0
    for i in range(n):
        row[0, i] = source[j + i]


@njit(**OPTIONS)
def forward(
    current, resistance, threshold, v_reset, z_in, fast_rates, slow_rates, losses, sums, binomials,
    kind, reset, v_out, s_out, z_out, width, first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` of ``width`` neurons through time.

    Args:
        current: ``(T, M)``, and all that has no dtype here has its dtype.
        resistance: ``(M,)``, and so are threshold and v_reset, from rest.
        threshold: as said.
        v_reset: after a hard reset, or what a soft one takes off.
        z_in: modes at the start ``(K, M)`` float64, slow, fast, then the one that decays at once; ``(1, M)`` if all alike.
        fast_rates: see `rates.split`, and so are slow_rates, losses (float64), sums and binomials.
        slow_rates: as said.
        losses: as said.
        sums: as said.
        binomials: as said.
        kind: of step.
        reset: kind of reset.
        v_out: potential before reset ``(T, M)``.
        s_out: spikes ``(T, M)``.
        z_out: modes at the end ``(K, M)``; ``(0, M)`` if not wanted.
        width: neurons of a block, a multiple of LANES.
        first: first block.
        last: block after the last.
    """
    T, M = current.shape
    F, S, most = len(fast_rates), len(slow_rates), len(z_in) - 1
    kind_of = current.dtype
    x_tile, v_tile, s_tile = (
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
    )
    fast, slow = np.zeros((max(F, 1), width), kind_of), np.zeros((max(S, 1), width))
    readings = np.zeros((QUAD, width), kind_of)
    u_row, jump_row = np.zeros((1, width), kind_of), np.zeros((1, width), kind_of)
    level_row, reset_row, r_row = (
        np.zeros((1, width), kind_of),
        np.zeros((1, width), kind_of),
        np.zeros((1, width), kind_of),
    )
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        _put(level_row, threshold, j, n)
        _put(reset_row, v_reset, j, n)
        _put(r_row, resistance, j, n)
        u_row[:] = 0.0
        jump_row[:] = 0.0
        for i in range(n):
            for k in range(S):
                slow[k, i] = z_in[min(k, most), j + i]
            for k in range(F):
                fast[k, i] = z_in[min(S + k, most), j + i]
        groups = range(0, n, LANES)
        for g in groups:
            s0, s1, s2, s3 = _read(fast, fast_rates, 4, g, j + g)
            store(readings, 0, g, s0)
            store(readings, 1, g, s1)
            store(readings, 2, g, s2)
            store(readings, 3, g, s3)
        for start in range(0, T, STRETCH):
            count = min(STRETCH, T - start)
            _gather(x_tile, current, start, count, False, j, n)
            for g in groups:
                here = j + g
                level, vr, r = load(level_row, 0, g), load(reset_row, 0, g), load(r_row, 0, g)
                u, jump = load(u_row, 0, g), load(jump_row, 0, g)
                origin = wide(u)
                a0, a1, a2, a3 = _read_slow(slow, origin, slow_rates, 1, g, here)
                s0, s1, s2, s3 = load(readings, 0, g), load(readings, 1, g), load(readings, 2, g), load(readings, 3, g)
                zero = fill(0.0, u)
                d0, d1, d2, d3, added = zero, zero, zero, zero, zero
                share = pick(sums, 0, 0, here)
                for quad in range(0, count, QUAD):
                    c0, c1, c2, c3 = zero, zero, zero, zero
                    for m in range(min(QUAD, count - quad)):
                        i = quad + m
                        u_new = mul(r, load(x_tile, i, g))
                        c = add(jump, sub(u, u_new))
                        u = u_new
                        if m == 0:
                            c0 = c
                        elif m == 1:
                            c1 = c
                        elif m == 2:
                            c2 = c
                        else:
                            c3 = c
                        added = add(added, jump)
                        d3 = add(d3, d2)
                        d2 = add(d2, d1)
                        d0 = add(d0, c)
                        d1 = add(d1, d0)
                        v = _slowly(binomials, i, a0, a1, a2, a3, added, d1, d2, d3, sums, 0, here)
                        v = add(v, _within(m, s0, s1, s2, s3, c0, c1, c2, c3, sums, 0, here))
                        v = fma(u, share, v)
                        spike = above(v, level) if kind == ABOVE else at_least(v, level)
                        store(v_tile, i, g, v)
                        store(s_tile, i, g, spike)
                        if reset == SUBTRACT:
                            jump = mul(fill(-1.0, vr), mul(vr, spike))
                        elif reset == VALUE:
                            jump = mul(sub(vr, v), spike)
                    if count - quad >= QUAD:
                        s0, s1, s2, s3 = _advance(fast, fast_rates, g, here, c0, c1, c2, c3)
                    else:
                        rest = count - quad
                        _advance_once(fast, fast_rates, g, here, c0)
                        if rest > 1:
                            _advance_once(fast, fast_rates, g, here, c1)
                        if rest > 2:
                            _advance_once(fast, fast_rates, g, here, c2)
                _advance_slow(slow, origin, losses, slow_rates, count, wide(added), d1, d2, d3, g, here)
                store(u_row, 0, g, u)
                store(jump_row, 0, g, jump)
                store(readings, 0, g, s0)
                store(readings, 1, g, s1)
                store(readings, 2, g, s2)
                store(readings, 3, g, s3)
            _scatter(v_out, v_tile, start, count, False, j, n)
            _scatter(s_out, s_tile, start, count, False, j, n)
        for i in range(n if len(z_out) else 0):
            for k in range(S):
                z_out[k, j + i] = slow[k, i] + jump_row[0, i]
            for k in range(F):
                z_out[S + k, j + i] = np.float64(fast[k, i]) + u_row[0, i] + jump_row[0, i]
            for k in range(S + F, len(z_out)):
                z_out[k, j + i] = np.float64(u_row[0, i]) + jump_row[0, i]


@njit(**OPTIONS)
def _accumulate(total, row, g, part):
    """Add to a sum over all time, in double precision."""
    store(total, row, g, add(load(total, row, g), wide(part)))


@njit(**OPTIONS)
def adjoint(
    current, resistance, threshold, v_reset, z_in, fast_rates, slow_rates, losses, sums, binomials,
    lost, weights, derivative, s_in, before, grad_s, grad_v, reset, detach,
    d_current, d_sums, d_z, d_s, width, first, last,
):  # fmt: skip
    r"""Run blocks ``first`` to ``last`` back through time; see `kernels.adjoint` for the equations.

    Args:
        current: as in `forward`, and so is what is not named here.
        lost: loss of each mode ``(K, 1)`` or ``(K, M)``, float64.
        weights: weights and tangents, ``(1 + P, K, 1)`` or ``(1 + P, K, M)``, float64.
        derivative: of the step in the potential, ``(T, M)``.
        s_in: spikes ``(T, M)``.
        before: potential before reset, ``(T, M)``; ``(0, M)`` unless the reset needs it.
        grad_s: gradient that arrives at the spikes, ``(T, M)``.
        grad_v: at the potential before reset, or ``(0, M)``.
        reset: kind of reset.
        detach: whether no gradient flows through the spike in the reset.
        d_current: gradient in the current.
        d_sums: gradients ``(3 + P, M)`` float64 in resistance, threshold, v_reset, and along the tangents.
        d_z: in the modes at the start, like ``z_in``.
        d_s: at the spikes all told, ``(T, M)``, or ``(0, M)`` if it is not wanted.
    """
    T, M = current.shape
    F, S, most = len(fast_rates), len(slow_rates), len(z_in) - 1
    kind_of = current.dtype
    moves = len(weights) > 1
    outer, wanted = len(grad_v) > 0, len(d_s) > 0
    x_tile, p_tile, s_tile, g_tile, v_tile, o_tile, d_tile, w_tile = (
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
        np.zeros((STRETCH, width), kind_of),
    )
    fast, slow = np.zeros((max(F, 1), width), kind_of), np.zeros((max(S, 1), width))
    rows, total = np.zeros((6, width), kind_of), np.zeros((5, width))
    vr_row, r_row = np.zeros((1, width), kind_of), np.zeros((1, width), kind_of)
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        _put(vr_row, v_reset, j, n)
        _put(r_row, resistance, j, n)
        fast[:] = 0.0
        slow[:] = 0.0
        rows[:] = 0.0
        total[:] = 0.0
        for end in range(T, 0, -STRETCH):
            count = min(STRETCH, end)
            _gather(x_tile, current, end - 1, count, True, j, n)
            _gather(p_tile, derivative, end - 1, count, True, j, n)
            _gather(s_tile, s_in, end - 1, count, True, j, n)
            _gather(g_tile, grad_s, end - 1, count, True, j, n)
            if len(before):
                _gather(v_tile, before, end - 1, count, True, j, n)
            if outer:
                _gather(o_tile, grad_v, end - 1, count, True, j, n)
            for g in range(0, n, LANES):
                here = j + g
                vr, r = load(vr_row, 0, g), load(r_row, 0, g)
                dv, partial, u_next, x_next = load(rows, 0, g), load(rows, 1, g), load(rows, 2, g), load(rows, 3, g)
                zero = fill(0.0, vr)
                origin = wide(zero)
                a0, a1, a2, a3 = _read_slow(slow, origin, slow_rates, 1, g, here)
                e0, e1, e2, e3, f0, f1, f2, f3 = zero, zero, zero, zero, zero, zero, zero, zero
                if moves:
                    e0, e1, e2, e3 = _read_slow(slow, origin, slow_rates, 5, g, here)
                    f0, f1, f2, f3 = _read_slow(slow, origin, slow_rates, 9, g, here)
                d0, d1, d2, d3 = zero, zero, zero, zero
                d_r, d_th, d_vr, along_0, along_1 = zero, zero, zero, zero, zero
                for quad in range(0, count, QUAD):
                    s0, s1, s2, s3 = _read(fast, fast_rates, 4, g, here)
                    y0, y1, y2, y3, z0, z1, z2, z3 = zero, zero, zero, zero, zero, zero, zero, zero
                    if moves:
                        y0, y1, y2, y3 = _read(fast, fast_rates, 8, g, here)
                        z0, z1, z2, z3 = _read(fast, fast_rates, 12, g, here)
                    c0, c1, c2, c3 = zero, zero, zero, zero
                    for m in range(min(QUAD, count - quad)):
                        i = quad + m
                        if m == 0:
                            c0 = dv
                        elif m == 1:
                            c1 = dv
                        elif m == 2:
                            c2 = dv
                        else:
                            c3 = dv
                        d3 = add(d3, d2)
                        d2 = add(d2, d1)
                        d0 = add(d0, dv)
                        d1 = add(d1, d0)
                        b = _slowly(binomials, i, a0, a1, a2, a3, d0, d1, d2, d3, sums, 0, here)
                        b = add(b, _within(m, s0, s1, s2, s3, c0, c1, c2, c3, sums, 0, here))
                        all_told = sub(partial, b)
                        store(d_tile, i, g, mul(r, all_told))
                        d_r = fma(all_told, x_next, d_r)
                        # what the step was
                        x_next = load(x_tile, i, g)
                        u, spike = mul(r, x_next), load(s_tile, i, g)
                        reach = b
                        at_s = load(g_tile, i, g)
                        jump = zero
                        if reset == SUBTRACT:
                            jump = sub(zero, mul(vr, spike))
                            d_vr = fnma(reach, spike, d_vr)
                            if not detach:
                                at_s = fnma(reach, vr, at_s)
                        elif reset == VALUE:
                            gap = sub(vr, load(v_tile, i, g))
                            jump = mul(gap, spike)
                            d_vr = fma(reach, spike, d_vr)
                            if not detach:
                                at_s = fma(reach, gap, at_s)
                        if moves:
                            change = add(jump, sub(u, u_next))
                            b1 = _slowly(binomials, i, e0, e1, e2, e3, d0, d1, d2, d3, sums, 1, here)
                            b1 = add(b1, _within(m, y0, y1, y2, y3, c0, c1, c2, c3, sums, 1, here))
                            along_0 = fma(b1, change, along_0)
                            b2 = _slowly(binomials, i, f0, f1, f2, f3, d0, d1, d2, d3, sums, 2, here)
                            b2 = add(b2, _within(m, z0, z1, z2, z3, c0, c1, c2, c3, sums, 2, here))
                            along_1 = fma(b2, change, along_1)
                        u_next = u
                        if wanted:
                            store(w_tile, i, g, at_s)
                        slope = mul(load(p_tile, i, g), at_s)
                        d_th = sub(d_th, slope)
                        dv = slope
                        if reset == VALUE:
                            dv = fnma(reach, spike, dv)
                        if outer:
                            dv = add(dv, load(o_tile, i, g))
                        partial = add(dv, b)
                    rest = count - quad
                    if rest >= QUAD:
                        _advance(fast, fast_rates, g, here, c0, c1, c2, c3)
                    else:
                        _advance_once(fast, fast_rates, g, here, c0)
                        if rest > 1:
                            _advance_once(fast, fast_rates, g, here, c1)
                        if rest > 2:
                            _advance_once(fast, fast_rates, g, here, c2)
                _advance_slow(slow, origin, losses, slow_rates, count, wide(d0), d1, d2, d3, g, here)
                store(rows, 0, g, dv)
                store(rows, 1, g, partial)
                store(rows, 2, g, u_next)
                store(rows, 3, g, x_next)
                _accumulate(total, 0, g, d_r)
                _accumulate(total, 1, g, d_th)
                _accumulate(total, 2, g, d_vr)
                _accumulate(total, 3, g, along_0)
                _accumulate(total, 4, g, along_1)
            ahead = 1 if end == T else 0  # the gradient in a drive is known a step later
            for m in range(ahead, count):
                for i in range(n):
                    d_current[end - m, j + i] = d_tile[m, i]
            if wanted:
                _scatter(d_s, w_tile, end - 1, count, True, j, n)
        # the modes at the start: one more step back, and what came before it
        for i in range(n):
            column = j + i if weights.shape[2] > 1 else 0
            dv, u, b = np.float64(rows[0, i]), np.float64(rows[2, i]), 0.0
            for k in range(S + F):
                y = (slow[k, i] if k < S else np.float64(fast[k - S, i])) + dv
                y -= y * lost[k, column]
                if most > 0:
                    d_z[k, j + i] = weights[0, k, column] * y
                b += weights[0, k, column] * y
                for p in range(1, len(weights)):
                    total[2 + p, i] += weights[p, k, column] * y * (z_in[min(k, most), j + i] - u)
            if most > 0:
                for k in range(S + F, len(d_z)):
                    d_z[k, j + i] = 0.0
            else:
                d_z[0, j + i] = b
            last_one = rows[1, i] - b
            total[0, i] += last_one * current[0, j + i]
            d_current[0, j + i] = r_row[0, i] * last_one
            for p in range(len(d_sums)):
                d_sums[p, j + i] = total[p, i]



def forward_in_threads(
    inputs: Sequence[Tensor], groups: Split, options: Sequence[Any], outputs: Sequence[Tensor]
) -> None:
    """Run `forward` on all blocks."""
    _in_threads(forward, inputs, groups.loop, arrays(), options, outputs)


def adjoint_in_threads(
    inputs: Sequence[Tensor],
    groups: Split,
    sequences: Sequence[Tensor],
    options: Sequence[Any],
    outputs: Sequence[Tensor],
) -> None:
    """Run `adjoint` on all blocks."""
    _in_threads(adjoint, inputs, groups.loop, arrays(groups.lost, groups.weights, *sequences), options, outputs)


def _in_threads(kernel, inputs, loop, more, options, outputs) -> None:
    size = inputs[0].shape[1]
    share = -(-size // (LANES * torch.get_num_threads())) * LANES
    width = min(WIDTH, share)
    arguments = (*arrays(*inputs, *loop), *more, *options, *arrays(*outputs), width)
    blocks_in_threads(kernel, arguments, -(-size // width))
