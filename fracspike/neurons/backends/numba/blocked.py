r"""The compiled loops for the common case: spikes that add the same to all modes.

Vectors of neurons (see `vectors`) are taken through time STRETCH steps at once (see `stretch`). With modes
:math:`x_k`, their deviations from the drive change by the same for all of them,

.. math:: x_k - u \leftarrow d_k (x_k - u + c_n), \qquad c_n = J_{n-1} + u_{n-1} - u_n,

so the potential in a stretch is what the modes at its start give, and what drives and jumps in it give by the
kernel :math:`K_j = \sum_k w_k d_k^j`; each mode is then read and changed once in a stretch. What makes single
precision enough is how it is done.

**Fast modes** are kept as deviations, after the reset. They are read as :math:`x_k`, with the drive, and a
drive gives by the fall of the kernel, so that nothing cancels near rest.

**Slow modes** lose so little that single precision could not tell. They are kept in double precision, and
:math:`d^j = (1-\lambda)^j = \sum_p (-\lambda)^p \binom{j}{p}` with MOMENTS terms, so all of them together are
MOMENTS numbers read at the start of a stretch and as many moments of what has been added in it.

The adjoint is the same recurrence back through time, with no drive and the gradient :math:`\delta` in the
potential for the change. The gradient in what a reset adds follows from it by the kernel, that in a drive
by its fall. Along any direction of the weights the gradient is :math:`\sum_k w'_k G_k`, with :math:`G_k`
the sum over time of the adjoint mode times the change that the step made.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .coefficients import Array, Split
from .compiling import kernel
from .parts import (
    ROOM,
    accumulate,
    add_and_clear,
    advance_slow,
    bend,
    finish,
    finish_slow,
    gather,
    gather_drive,
    put,
    read_slow,
    read_slow_last,
    rows_of,
    scatter,
    weigh_slow,
)
from .sizes import LANES, STRETCH
from .stretch import (
    correlate,
    drives,
    feed,
    fire_above,
    fire_noisily,
    fire_softly,
    foresee,
    moments_ahead,
    moments_left,
    recall,
    retrace_hard,
    retrace_soft,
    weigh,
)
from .threads import SMALL, arrays, blocks_in_threads
from .vectors import LINE, add, expect, fill, fma, load, mul, store, sub, wide

WIDTH = 512  # neurons whose steps are copied together: long rows, and all of it in the second-level cache
PAST = 1 << 24  # bytes of a sequence from which on it is written past the cache, as nobody finds it there
FLUSH = 8  # stretches over which single precision adds up


@kernel
def forward(
    version, current, noise, resistance, level, v_reset, z_in, weights, gone, slow_rates, losses, kernel,
    soft, slope, share, sign, v_out, s_out, z_out, finite, past, width, first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` of ``width`` neurons through time.

    Args:
        version: see `threads.sources`.
        current: ``(T, M)``, and all that has no dtype here has its dtype.
        noise: added to what a surrogate steps on, ``(T, M)``; ``(0, M)`` if there is none.
        resistance: ``(M,)``, and so are level and v_reset, from rest.
        level: from where a neuron spikes, with noise; above which, without.
        v_reset: after a hard reset, or what a soft one takes off.
        z_in: modes at the start ``(K, M)`` float64, slow, fast, then the one that decays at once;
            ``(1, M)`` if all are alike.
        weights: see `coefficients.Split`, and so are gone, slow_rates, losses (float64) and kernel.
        gone: as said.
        slow_rates: as said.
        losses: as said.
        kernel: as said.
        soft: whether a spike is the logistic function, not the step.
        slope: what the potential above the level is multiplied by, if soft or with noise; None without, and
            then the steps that are not asked for are not compiled.
        share: a reset adds ``share v + sign v_reset``.
        sign: as said.
        v_out: potential before reset ``(T, M)``.
        s_out: spikes ``(T, M)``.
        z_out: modes at the end ``(K, M)``; ``(0, M)`` if not wanted.
        finite: whether all currents of a block are, ``(blocks,)`` bool.
        past: whether sequences are written past the cache, see `vectors.stream`.
        width: neurons of a block, a multiple of LANES.
        first: first block.
        last: block after the last.
    """
    T, M = current.shape
    F, S, most = rows_of(gone), rows_of(losses), len(z_in) - 1
    own = 1 if kernel.ndim == 2 else len(kernel)
    kind, vectors = current.dtype, width // LANES
    u_tile, v_tile, s_tile, n_tile = (
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
    )
    changes = np.zeros((STRETCH, LANES), kind)
    fast, slow = np.zeros((vectors * F, LANES), kind), np.zeros((vectors * S, LANES))
    level_row, reset_row, r_row, u_row = (
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
    )
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        put(level_row, level, j, n)
        put(reset_row, v_reset, j, n)
        put(r_row, resistance, j, n)
        u_row[:] = 0.0
        for i in range(n):
            g, lane = i // LANES, i % LANES
            for k in range(S):
                slow[g * S + k, lane] = z_in[min(k, most), j + i]
            for k in range(F):
                fast[g * F + k, lane] = z_in[min(S + k, most), j + i]
        zero = fill(0.0, load(u_row, 0, 0))
        wrong, part = zero, fill(share, zero)
        for start in range(0, T, STRETCH):
            wrong = gather_drive(u_tile, current, r_row, start, j, n, wrong)
            if len(noise):
                gather(n_tile, noise, start, False, j, n)
            for g in range(-(-n // LANES)):
                row, group = g * ROOM, (j // LANES + g) % own
                before = load(u_row, g, 0)
                for i in range(STRETCH):
                    expect(current, min(start + STRETCH + i, T - 1), j + g * LANES)
                a = read_slow(slow, g * S, losses, slow_rates, group, zero)
                foresee(v_tile, row, weights, group, fast, g * F, F, before, a, kernel, u_tile, row)
                shift = mul(fill(sign, zero), load(reset_row, g, 0))
                bar = load(level_row, g, 0)
                if slope is None:
                    total = fire_above(
                        v_tile, u_tile, s_tile, n_tile, row, changes, kernel, group, bar, zero, part, shift,
                        before,
                    )  # fmt: skip
                elif soft:
                    total = fire_softly(
                        v_tile, u_tile, s_tile, n_tile, row, changes, kernel, group, bar, fill(slope, zero),
                        part, shift, before,
                    )  # fmt: skip
                else:
                    total = fire_noisily(
                        v_tile, u_tile, s_tile, n_tile, row, changes, kernel, group, bar, fill(slope, zero),
                        part, shift, before,
                    )  # fmt: skip
                if start + STRETCH <= T:
                    u = load(u_tile, row + STRETCH - 1, 0)
                    feed(fast, g * F, F, gone, group, changes, add(total, sub(before, u)))
                    d = moments_left(changes)
                    advance_slow(slow, g * S, losses, slow_rates, group, before, wide(total), d)
                    store(u_row, g, 0, u)
                elif len(z_out):
                    end = row + T - start - 1
                    u, v = load(u_tile, end, 0), load(v_tile, end, 0)
                    jump = mul(load(s_tile, end, 0), fma(part, v, shift))
                    finish(fast, g * F, gone, group, changes, T - start, jump)
                    finish_slow(slow, g * S, losses, group, changes, T - start, before, add(u, jump))
                    store(u_row, g, 0, u)
            scatter(v_out, v_tile, start, False, j, n, past)
            scatter(s_out, s_tile, start, False, j, n, past)
        store(u_tile, 0, 0, wrong)
        finite[block] = True
        for lane in range(LANES):
            if u_tile[0, lane] != 0.0:
                finite[block] = False
        for i in range(n if len(z_out) else 0):
            g, lane, t = i // LANES, i % LANES, T - 1
            for k in range(S):
                z_out[k, j + i] = slow[g * S + k, lane]
            for k in range(F):
                z_out[S + k, j + i] = np.float64(fast[g * F + k, lane]) + u_row[g, lane]
            jump = s_out[t, j + i] * (share * v_out[t, j + i] + sign * v_reset[j + i])
            for k in range(S + F, len(z_out)):
                z_out[k, j + i] = np.float64(u_row[g, lane]) + jump


@kernel
def adjoint(
    version, current, resistance, level, bar, v_reset, z_in, weights, gone, slow_rates, losses, kernel,
    lost, weight, derivative, s_in, before, grad_s, grad_v, form, hard, share, sign, through,
    d_current, d_sums, d_weight, d_z, d_s, past, width, first, last,
):  # fmt: skip
    r"""Run blocks ``first`` to ``last`` back through time; see `general.adjoint` for the equations.

    Args:
        version: as in `forward`, and so is what says no more.
        current: as said.
        resistance: as said.
        level: threshold, from where the derivative counts.
        bar: above which a neuron spikes.
        v_reset: as said.
        z_in: as said.
        weights: as said.
        gone: as said.
        slow_rates: as said.
        losses: as said.
        kernel: as said.
        lost: loss of each mode ``(K, 1)`` or ``(K, N)``, float64.
        weight: of each mode, likewise.
        derivative: of the step in the potential, ``(T, M)``; with ``form``, the potential before reset.
        s_in: spikes ``(T, M)``; ``(0, M)`` with ``form``.
        before: potential before reset, ``(T, M)``; ``(0, M)`` unless ``hard``.
        grad_s: gradient that arrives at the spikes, ``(T, M)``.
        grad_v: at the potential before reset, or ``(0, M)``.
        form: how the derivative follows from the potential, see `parts.bend`, or ``(0,)``.
        hard: whether a reset follows from the potential; None if not, and then that is not compiled.
        share: as said.
        sign: as said.
        through: 1 if a gradient flows through the spike in the reset, else 0.
        d_current: gradient in the current.
        d_sums: gradients ``(3, M)`` float64 in resistance, threshold and v_reset.
        d_weight: in the weights, but for a number common to all modes, since the weights sum to 1: summed
            over each vector of neurons ``(vectors, K)`` if all share them, else ``(K, M)``; None if it is not
            wanted, and then it is not compiled.
        d_z: in the modes at the start, like ``z_in``.
        d_s: at the spikes all told, ``(T, M)``, or ``(0, M)`` if it is not wanted.
        past: as said.
        width: as said.
        first: as said.
        last: as said.
    """
    T, M = current.shape
    F, S, most = rows_of(gone), rows_of(losses), len(z_in) - 1
    own = 1 if kernel.ndim == 2 else len(kernel)
    kind, vectors = current.dtype, width // LANES
    wanted, outer, shared = len(d_s) > 0, len(grad_v) > 0, lost.shape[1] == 1
    x_tile, p_tile, s_tile, g_tile, v_tile, o_tile, d_tile = (
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
        np.zeros((vectors * ROOM, LANES), kind),
    )
    tiles = x_tile, p_tile, s_tile, g_tile, v_tile, o_tile
    reach, changes = np.zeros((STRETCH, LANES), kind), np.zeros((STRETCH, LANES), kind)
    found = np.zeros((STRETCH + 1, LANES), kind)
    fast, slow = np.zeros((vectors * F, LANES), kind), np.zeros((vectors * S, LANES))
    weighed, weighed_slow = np.zeros((vectors * F, LANES), kind), np.zeros((vectors * S, LANES))
    lags = np.zeros((vectors * STRETCH, LANES), kind)
    weighed_long, lags_long = np.zeros((vectors * F, LANES)), np.zeros((vectors * STRETCH, LANES))
    sums, totals = np.zeros((3 * vectors, LANES), kind), np.zeros((3 * vectors, LANES))
    level_row, bar_row, reset_row, r_row, u_row = (
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
        np.zeros((vectors, LANES), kind),
    )
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        put(level_row, level, j, n)
        put(bar_row, bar, j, n)
        put(reset_row, v_reset, j, n)
        put(r_row, resistance, j, n)
        fast[:] = 0.0
        slow[:] = 0.0
        u_row[:] = 0.0
        weighed[:] = 0.0
        weighed_slow[:] = 0.0
        lags[:] = 0.0
        weighed_long[:] = 0.0
        lags_long[:] = 0.0
        sums[:] = 0.0
        totals[:] = 0.0
        zero = fill(0.0, load(u_row, 0, 0))
        part, flows = fill(share, zero), fill(through, zero)
        for start in range((T - 1) // STRETCH * STRETCH, -1, -STRETCH):
            gather(x_tile, current, start, True, j, n)
            gather(p_tile, derivative, start, True, j, n)
            if len(s_in):
                gather(s_tile, s_in, start, True, j, n)
            gather(g_tile, grad_s, start, True, j, n)
            if len(before):
                gather(v_tile, before, start, True, j, n)
            if outer:
                gather(o_tile, grad_v, start, True, j, n)
            for g in range(-(-n // LANES)):
                row, group = g * ROOM, (j // LANES + g) % own
                r, shift = load(r_row, g, 0), mul(fill(sign, zero), load(reset_row, g, 0))
                for i in range(STRETCH):
                    t = max(start - STRETCH + i, 0)
                    expect(current, t, j + g * LANES)
                    expect(derivative, t, j + g * LANES)
                    if len(s_in):
                        expect(s_in, t, j + g * LANES)
                    expect(grad_s, t, j + g * LANES)
                if len(form):
                    bend(p_tile, s_tile, row, load(level_row, g, 0), load(bar_row, g, 0), form)
                a0, a1, a2, a3 = read_slow(slow, g * S, losses, slow_rates, group, zero)
                a4 = read_slow_last(slow, g * S, slow_rates, group, zero)
                loss = sub(zero, a1), sub(zero, a2), sub(zero, a3), sub(zero, a4)
                at_start = (a0, a1, a2, a3)
                recall(reach, d_tile, row, weights, group, fast, g * F, F, zero, at_start, loss)
                u = load(u_row, g, 0)
                if hard is not None:
                    total, d_th, d_vr, u = retrace_hard(
                        reach, tiles, row, changes, found, kernel, group, part, shift, flows, r, u
                    )
                else:
                    total, d_th, d_vr, u = retrace_soft(
                        reach, tiles, row, changes, found, kernel, group, part, shift, flows, r, u
                    )
                d_r = drives(d_tile, row, kernel, group, found, x_tile, r)
                store(u_row, g, 0, u)
                accumulate(sums, 3 * g, d_r)
                accumulate(sums, 3 * g + 1, d_th)
                accumulate(sums, 3 * g + 2, mul(fill(sign, zero), d_vr))
                if d_weight is not None:
                    h = moments_ahead(changes)
                    weigh(weighed, fast, g * F, F, gone, group, changes, h[0])
                    weigh_slow(slow, weighed_slow, g * S, slow_rates, group, h)
                    correlate(lags, g * STRETCH, changes, found)
                feed(fast, g * F, F, gone, group, found, total)
                d = moments_left(found)
                advance_slow(slow, g * S, losses, slow_rates, group, zero, wide(total), d)
            if start // STRETCH % FLUSH == 0:
                add_and_clear(totals, sums)
                if d_weight is not None:
                    add_and_clear(weighed_long, weighed)
                    add_and_clear(lags_long, lags)
            scatter(d_current, d_tile, start, True, j, n, past)
            if wanted:
                scatter(d_s, g_tile, start, True, j, n, past)
        for i in range(n):  # the modes at the start: one more step back
            column, g, lane = (j + i) % lost.shape[1], i // LANES, i % LANES
            b = 0.0
            for k in range(S + F):
                kept = 1.0 - lost[k, column]
                y = slow[g * S + k, lane] if k < S else np.float64(fast[g * F + k - S, lane])
                y *= kept
                if most > 0:
                    d_z[k, j + i] = weight[k, column] * y
                b += weight[k, column] * y
                if d_weight is not None:
                    y *= z_in[min(k, most), j + i] - np.float64(u_row[g, lane])
                    y += weighed_slow[g * S + k, lane] if k < S else weighed_long[g * F + k - S, lane]
                    power = 1.0
                    for lag in range(STRETCH - 1):
                        power *= kept
                        y += power * lags_long[g * STRETCH + lag, lane]
                    if shared:
                        d_weight[(j + i) // LANES, k] += y
                    else:
                        d_weight[k, j + i] = y
            if most > 0:
                for k in range(S + F, len(d_z)):
                    d_z[k, j + i] = 0.0
            else:
                d_z[0, j + i] = b
            for p in range(3):
                d_sums[p, j + i] = totals[3 * g + p, lane]


def forward_in_threads(
    inputs: Sequence[Tensor],
    groups: Split,
    options: tuple[bool, float | None, float, float],
    outputs: Sequence[Tensor],
) -> bool:
    """Run `forward` on all blocks, and return whether all currents are finite."""
    width, blocks = _blocks(inputs[0])
    finite = np.zeros(blocks, np.bool_)
    _in_threads(
        forward,
        (*arrays(*inputs), *groups.loop, *options, *arrays(*outputs), finite, _past(*outputs[:2])),
        width,
        blocks,
    )
    return bool(finite.all())


def adjoint_in_threads(
    inputs: Sequence[Tensor],
    groups: Split,
    sequences: Sequence[Tensor],
    form: Sequence[float],
    options: tuple[float, float, float],
    outputs: Sequence[Tensor],
    moves: bool,
) -> Array:
    """Run `adjoint` on all blocks, and return the gradient in the weights if they move.

    It is ``(K, 1)`` or ``(K, M)``, without the mode that decays at once.
    """
    width, blocks = _blocks(inputs[0])
    size, count, shared = inputs[0].shape[1], len(groups.lost), groups.lost.shape[1] == 1
    # summed by vectors, not by blocks, whose number depends on that of the threads
    vectors = -(-size // LANES)
    d_weight = np.zeros((vectors, count) if shared else (count, size)) if moves else None
    arguments = (*arrays(*inputs), *groups.loop, groups.lost, groups.weight, *arrays(*sequences))
    d_current, d_sums, d_z, d_s = arrays(*outputs)
    _in_threads(
        adjoint,
        (*arguments, np.array(form), options[0] or None, *options, d_current, d_sums, d_weight, d_z, d_s,
         _past(outputs[0], outputs[3])),
        width,
        blocks,
    )  # fmt: skip
    if d_weight is None:
        return np.zeros((0, 0))
    return d_weight.sum(0).reshape(-1, 1) if shared else d_weight


def _blocks(current: Tensor) -> tuple[int, int]:
    """Return neurons of a block, and how many blocks there are."""
    size, threads = current.shape[1], _threads(current.numel())
    parts = 1 if threads == 1 else 4 * threads  # so that a thread that begins late finds something left
    width = min(WIDTH, -(-size // (LANES * parts)) * LANES)
    return width, -(-size // width)


def _past(*sequences: Tensor) -> bool:
    """Return whether sequences are too long for the cache, and their rows in whole lines of it."""
    return all(
        s.nbytes > PAST and s.data_ptr() % LINE == 0 and s.shape[1] * s.element_size() % LINE == 0
        for s in sequences
        if s.numel()
    )


def _threads(numbers: int) -> int:
    return torch.get_num_threads() if numbers > SMALL else 1


def _in_threads(kernel: Callable[..., None], arguments: Sequence[Any], width: int, blocks: int) -> None:
    alone = _threads(arguments[0].size) == 1
    blocks_in_threads(kernel, (*arguments, width), blocks, alone=alone)
