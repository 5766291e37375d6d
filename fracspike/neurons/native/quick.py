r"""The compiled loops for the common case: a hard step, and spikes that add the same to all modes.

Whole vectors of neurons are taken through time (see `vectors`), in the dtype of the sequence. What makes
single precision enough, and the modes few, is that they are kept in two groups.

**Fast modes** lose more than a thousandth or so in a step. They are kept as deviations from the drive,
:math:`V_k = x_k - u`, to which every change of drive and every reset adds the same :math:`c_n`:

.. math:: V_k \leftarrow d_k (V_k + c_n), \qquad c_n = J_{n-1} + u_{n-1} - u_n.

They are advanced and read four steps at once: what was there at the start gives to each of the four, and what
comes within the four is added by the kernel :math:`\sum_k w_k d_k^j`. They are read as :math:`x_k`, with the
drive, so that nothing cancels near rest.

**Slow modes** lose so little that they change once in STRETCH steps, in double precision. Within a stretch
:math:`d^j = (1-\lambda)^j = \sum_p (-\lambda)^p \binom{j}{p}` with MOMENTS terms, so all of them together are
MOMENTS numbers read at its start and as many moments of what has been added since,
:math:`D_p = \sum_l \binom{n-l+1}{p} c_l`, which take one addition each a step.

The adjoint is the same recurrence back through time, with no drive and the gradient :math:`\delta` in the
potential for the change. Along any direction of the weights the gradient is :math:`\sum_k w'_k G_k`, with
:math:`G_k` the sum over time of the adjoint mode times the change that the step made.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .parts import (
    OPTIONS,
    accumulate,
    advance,
    advance_once,
    advance_slow,
    decide,
    finish,
    gather,
    put,
    read,
    read_slow,
    read_slow_last,
    retrace,
    scatter,
    weigh,
    weigh_once,
    weigh_slow,
)
from .rates import LANES, MOMENTS, QUAD, STRETCH, Split
from .threads import arrays, blocks_in_threads
from .vectors import add, expect, expect_write, fill, fma, load, mul, pick, store, sub, wide

WIDTH = 256  # neurons whose steps are copied together: long rows, and all of it in the second-level cache
PADDING = LANES  # columns more than needed: rows a power of two apart would share places in the cache
SMALL = 1 << 17  # steps times neurons up to which one thread is enough
FLUSH = 8  # stretches over which single precision adds up


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
        z_in: modes at the start ``(K, M)`` float64, slow, fast, then the one that decays at once;
            ``(1, M)`` if all are alike.
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
    kind_of, room = current.dtype, width + PADDING
    x_tile, v_tile, s_tile = (
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
    )
    fast, slow = np.zeros((max(F, 1), room), kind_of), np.zeros((max(S, 1), room))
    readings = np.zeros((QUAD, room), kind_of)
    u_row, jump_row = np.zeros((1, room), kind_of), np.zeros((1, room), kind_of)
    level_row, reset_row, r_row = (
        np.zeros((1, room), kind_of),
        np.zeros((1, room), kind_of),
        np.zeros((1, room), kind_of),
    )
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        put(level_row, threshold, j, n)
        put(reset_row, v_reset, j, n)
        put(r_row, resistance, j, n)
        u_row[:] = 0.0
        jump_row[:] = 0.0
        for i in range(n):
            for k in range(S):
                slow[k, i] = z_in[min(k, most), j + i]
            for k in range(F):
                fast[k, i] = z_in[min(S + k, most), j + i]
        groups = range(0, n, LANES)
        for g in groups:
            s0, s1, s2, s3 = read(fast, load(u_row, 0, g), fast_rates, 4, g, j + g)
            store(readings, 0, g, s0)
            store(readings, 1, g, s1)
            store(readings, 2, g, s2)
            store(readings, 3, g, s3)
        for start in range(0, T, STRETCH):
            count = min(STRETCH, T - start)
            gather(x_tile, current, start, count, False, j, n)
            for g in groups:
                here = j + g
                level, vr, r = load(level_row, 0, g), load(reset_row, 0, g), load(r_row, 0, g)
                u, jump = load(u_row, 0, g), load(jump_row, 0, g)
                for i in range(count):
                    expect(current, min(start + STRETCH + i, T - 1), here)
                    expect_write(v_out, start + i, here)
                    expect_write(s_out, start + i, here)
                start_u = u
                a0, a1, a2, a3 = read_slow(slow, u, losses, slow_rates, g, here)
                s0, s1, s2, s3 = (
                    load(readings, 0, g),
                    load(readings, 1, g),
                    load(readings, 2, g),
                    load(readings, 3, g),
                )
                zero = fill(0.0, u)
                tables, tiles = (binomials, sums), (v_tile, s_tile)
                setting = (a0, a1, a2, a3), tables, (level, vr), tiles, (kind, reset)
                moments = zero, zero, zero, zero, zero
                for quad in range(0, count, QUAD):
                    rest = count - quad
                    c1, c2, c3, u1, u2, u3, j1, j2, j3 = zero, zero, zero, zero, zero, zero, zero, zero, zero
                    j0, u0 = jump, mul(r, load(x_tile, quad, g))
                    c0 = add(j0, sub(u, u0))
                    came = (j0, j1, j2, j3), (u0, u1, u2, u3)
                    moments, jump = decide(0, quad, g, here, s0, j0, c0, came, moments, setting)
                    u = u0
                    if rest > 1:
                        j1, u1 = jump, mul(r, load(x_tile, quad + 1, g))
                        c1 = add(j1, sub(u0, u1))
                        came = (j0, j1, j2, j3), (u0, u1, u2, u3)
                        moments, jump = decide(1, quad, g, here, s1, j1, c1, came, moments, setting)
                        u = u1
                    if rest > 2:
                        j2, u2 = jump, mul(r, load(x_tile, quad + 2, g))
                        c2 = add(j2, sub(u1, u2))
                        came = (j0, j1, j2, j3), (u0, u1, u2, u3)
                        moments, jump = decide(2, quad, g, here, s2, j2, c2, came, moments, setting)
                        u = u2
                    if rest > 3:
                        j3, u3 = jump, mul(r, load(x_tile, quad + 3, g))
                        c3 = add(j3, sub(u2, u3))
                        came = (j0, j1, j2, j3), (u0, u1, u2, u3)
                        moments, jump = decide(3, quad, g, here, s3, j3, c3, came, moments, setting)
                        u = u3
                        s0, s1, s2, s3 = advance(fast, u, fast_rates, g, here, c0, c1, c2, c3)
                    else:
                        finish(fast, fast_rates, g, here, rest, c0, c1, c2)
                added, _, d1, d2, d3 = moments
                advance_slow(slow, start_u, losses, slow_rates, count, wide(added), d1, d2, d3, g, here)
                store(u_row, 0, g, u)
                store(jump_row, 0, g, jump)
                store(readings, 0, g, s0)
                store(readings, 1, g, s1)
                store(readings, 2, g, s2)
                store(readings, 3, g, s3)
            scatter(v_out, v_tile, start, count, False, j, n)
            scatter(s_out, s_tile, start, count, False, j, n)
        for i in range(n if len(z_out) else 0):
            for k in range(S):
                z_out[k, j + i] = slow[k, i] + jump_row[0, i]
            for k in range(F):
                z_out[S + k, j + i] = np.float64(fast[k, i]) + u_row[0, i] + jump_row[0, i]
            for k in range(S + F, len(z_out)):
                z_out[k, j + i] = np.float64(u_row[0, i]) + jump_row[0, i]


@njit(**OPTIONS)
def adjoint(
    current, resistance, threshold, v_reset, z_in, fast_rates, slow_rates, losses, sums, binomials,
    lost, weights, derivative, s_in, before, grad_s, grad_v, reset, detach,
    d_current, d_sums, d_z, d_s, width, first, last,
):  # fmt: skip
    r"""Run blocks ``first`` to ``last`` back through time; see `kernels.adjoint` for the equations.

    Args:
        current: as in `forward`, and so is what says no more.
        resistance: as said.
        threshold: as said.
        v_reset: as said.
        z_in: as said.
        fast_rates: as said.
        slow_rates: as said.
        losses: as said.
        sums: as said.
        binomials: as said.
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
        width: as said.
        first: as said.
        last: as said.
    """
    T, M = current.shape
    F, S, most = len(fast_rates), len(slow_rates), len(z_in) - 1
    kind_of, room = current.dtype, width + PADDING
    moves = len(weights) > 1
    outer, wanted = len(grad_v) > 0, len(d_s) > 0
    x_tile, p_tile, s_tile, g_tile, v_tile, o_tile, d_tile, w_tile = (
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
        np.zeros((STRETCH, room), kind_of),
    )
    fast, slow = np.zeros((max(F, 1), room), kind_of), np.zeros((max(S, 1), room))
    weighed, weighed_slow = np.zeros((max(F, 1), room), kind_of), np.zeros((max(S, 1), room))
    weighed_long, readings = np.zeros((max(F, 1), room)), np.zeros((QUAD, room), kind_of)
    rows, total, products = (
        np.zeros((4, room), kind_of),
        np.zeros((3, room)),
        np.zeros((QUAD + MOMENTS, room)),
    )
    vr_row, r_row = np.zeros((1, room), kind_of), np.zeros((1, room), kind_of)
    tiles = x_tile, d_tile, (s_tile, p_tile, g_tile, v_tile, o_tile, w_tile)
    options = moves, (reset, detach, outer, wanted)
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        put(vr_row, v_reset, j, n)
        put(r_row, resistance, j, n)
        fast[:] = 0.0
        slow[:] = 0.0
        rows[:] = 0.0
        total[:] = 0.0
        readings[:] = 0.0
        weighed[:] = 0.0
        weighed_slow[:] = 0.0
        weighed_long[:] = 0.0
        products[:] = 0.0
        for end in range(T, 0, -STRETCH):
            count = min(STRETCH, end)
            gather(x_tile, current, end - 1, count, True, j, n)
            gather(p_tile, derivative, end - 1, count, True, j, n)
            gather(s_tile, s_in, end - 1, count, True, j, n)
            gather(g_tile, grad_s, end - 1, count, True, j, n)
            if len(before):
                gather(v_tile, before, end - 1, count, True, j, n)
            if outer:
                gather(o_tile, grad_v, end - 1, count, True, j, n)
            for g in range(0, n, LANES):
                here = j + g
                vr, r = load(vr_row, 0, g), load(r_row, 0, g)
                dv, partial, u_next, x_next = (
                    load(rows, 0, g),
                    load(rows, 1, g),
                    load(rows, 2, g),
                    load(rows, 3, g),
                )
                for i in range(count):
                    t = max(end - 1 - STRETCH - i, 0)
                    expect(current, t, here)
                    expect(derivative, t, here)
                    expect(s_in, t, here)
                    expect(grad_s, t, here)
                    expect_write(d_current, end - 1 - i, here)
                    if len(before):
                        expect(before, t, here)
                    if outer:
                        expect(grad_v, t, here)
                zero = fill(0.0, vr)
                a0, a1, a2, a3 = read_slow(slow, zero, losses, slow_rates, g, here)
                a4 = read_slow_last(slow, slow_rates, g, here)
                share = pick(sums, 0, 13, here)
                s0, s1, s2, s3 = (
                    load(readings, 0, g),
                    load(readings, 1, g),
                    load(readings, 2, g),
                    load(readings, 3, g),
                )
                p1, p2, p3, p4 = zero, zero, zero, zero
                setting = (a0, a1, a2, a3, a4, share), (binomials, sums), (vr, r), tiles, options
                pairs = zero, zero, zero, zero, zero, zero, zero, zero
                carried, moments = (dv, partial, u_next, x_next), (zero, zero, zero, zero, zero)
                state = carried, (zero, zero, zero), moments, pairs
                for quad in range(0, count, QUAD):
                    rest = count - quad
                    c1, c2, c3, h1, h2, h3 = zero, zero, zero, zero, zero, zero
                    c0 = state[0][0]
                    state, h0 = retrace(0, quad, g, here, s0, (c0, c1, c2, c3), state, setting)
                    if rest > 1:
                        c1 = state[0][0]
                        state, h1 = retrace(1, quad, g, here, s1, (c0, c1, c2, c3), state, setting)
                    if rest > 2:
                        c2 = state[0][0]
                        state, h2 = retrace(2, quad, g, here, s2, (c0, c1, c2, c3), state, setting)
                    if rest > 3:
                        c3 = state[0][0]
                        state, h3 = retrace(3, quad, g, here, s3, (c0, c1, c2, c3), state, setting)
                        if moves:
                            weigh(fast, weighed, fast_rates, g, here, h0, h1, h2, h3)
                            p1 = fma(h0, c0, fma(h1, c1, fma(h2, c2, fma(h3, c3, p1))))
                            p2 = fma(h1, c0, fma(h2, c1, fma(h3, c2, p2)))
                            p3 = fma(h2, c0, fma(h3, c1, p3))
                            p4 = fma(h3, c0, p4)
                        s0, s1, s2, s3 = advance(fast, zero, fast_rates, g, here, c0, c1, c2, c3)
                    else:
                        advance_once(fast, fast_rates, g, here, c0)
                        weigh_once(fast, weighed, fast_rates, g, h0)
                        if rest > 1:
                            advance_once(fast, fast_rates, g, here, c1)
                            weigh_once(fast, weighed, fast_rates, g, h1)
                        if rest > 2:
                            advance_once(fast, fast_rates, g, here, c2)
                            weigh_once(fast, weighed, fast_rates, g, h2)
                carried, found, moments, pairs = state
                x0, x1, x2, x3, y0, y1, y2, y3 = pairs
                if moves:
                    weigh_slow(slow, weighed_slow, slow_rates, g, here, x0, x1, x2, x3)
                    accumulate(products, 0, g, p1)
                    accumulate(products, 1, g, p2)
                    accumulate(products, 2, g, p3)
                    accumulate(products, 3, g, p4)
                    accumulate(products, 4, g, y0)
                    accumulate(products, 5, g, y1)
                    accumulate(products, 6, g, y2)
                    accumulate(products, 7, g, y3)
                _, d0, d1, d2, d3 = moments
                advance_slow(slow, zero, losses, slow_rates, count, wide(d0), d1, d2, d3, g, here)
                dv, partial, u_next, x_next = carried
                d_r, d_th, d_vr = found
                store(rows, 0, g, dv)
                store(rows, 1, g, partial)
                store(rows, 2, g, u_next)
                store(rows, 3, g, x_next)
                store(readings, 0, g, s0)
                store(readings, 1, g, s1)
                store(readings, 2, g, s2)
                store(readings, 3, g, s3)
                accumulate(total, 0, g, d_r)
                accumulate(total, 1, g, d_th)
                accumulate(total, 2, g, d_vr)
            if moves and (end // STRETCH % FLUSH == 0 or end <= STRETCH):
                for k in range(F):
                    for i in range(n):
                        weighed_long[k, i] += weighed[k, i]
                        weighed[k, i] = 0.0
            ahead = 1 if end == T else 0  # the gradient in a drive is known a step later
            for m in range(ahead, count):
                for i in range(n):
                    d_current[end - m, j + i] = d_tile[m, i]
            if wanted:
                scatter(d_s, w_tile, end - 1, count, True, j, n)
        # the modes at the start: one more step back, and what came before it
        for i in range(n):
            column = j + i if weights.shape[2] > 1 else 0
            dv, u, b = np.float64(rows[0, i]), np.float64(rows[2, i]), 0.0
            leaves = 0.0
            for p in range(len(weights) - 1):
                d_sums[3 + p, j + i] = 0.0
            for k in range(S + F):
                gone = lost[k, column]
                y = (slow[k, i] if k < S else np.float64(fast[k - S, i])) + dv
                y -= y * gone
                if most > 0:
                    d_z[k, j + i] = weights[0, k, column] * y
                b += weights[0, k, column] * y
                leaves += weights[0, k, column] * (y * gone / (1.0 - gone) if k < S else -y)
                if moves:
                    y *= z_in[min(k, most), j + i] - u
                    power = 1.0
                    if k < S:
                        y += weighed_slow[k, i]
                        for p in range(MOMENTS):
                            y += power * products[QUAD + p, i]
                            power *= -gone
                    else:
                        y += weighed_long[k - S, i]
                        for p in range(QUAD):
                            power *= 1.0 - gone
                            y += power * products[p, i]
                    for p in range(len(weights) - 1):
                        d_sums[3 + p, j + i] += weights[1 + p, k, column] * y
            if most > 0:
                for k in range(S + F, len(d_z)):
                    d_z[k, j + i] = 0.0
            else:
                d_z[0, j + i] = b
            last_one = rows[1, i] + leaves
            total[0, i] += last_one * current[0, j + i]
            d_current[0, j + i] = r_row[0, i] * last_one
            for p in range(3):
                d_sums[p, j + i] = total[p, i]


def forward_in_threads(
    inputs: Sequence[Tensor], groups: Split, options: Sequence[Any], outputs: Sequence[Tensor]
) -> None:
    """Run `forward` on all blocks."""
    _in_threads(forward, arrays(*inputs), groups.loop, options, outputs)


def adjoint_in_threads(
    inputs: Sequence[Tensor],
    groups: Split,
    sequences: Sequence[Tensor],
    options: Sequence[Any],
    outputs: Sequence[Tensor],
    moves: bool,
) -> None:
    """Run `adjoint` on all blocks, with the gradients along the weights if they move."""
    weights = groups.weights if moves else groups.weights[:1]
    more = (*groups.loop, groups.lost, weights, *arrays(*sequences))
    _in_threads(adjoint, arrays(*inputs), more, options, outputs)


def _in_threads(
    kernel: Callable[..., None], inputs: Sequence[Any], more: Sequence[Any], options: Any, outputs: Any
) -> None:
    steps, size = inputs[0].shape
    threads = torch.get_num_threads() if steps * size > SMALL else 1
    width = min(WIDTH, -(-size // (LANES * threads)) * LANES)
    arguments = (*inputs, *more, *options, *arrays(*outputs), width)
    blocks = -(-size // width)
    if threads == 1:
        kernel(*arguments, 0, blocks)
    else:
        blocks_in_threads(kernel, arguments, blocks)
