"""The compiled loops for every case: forward through time and its adjoint, for a range of blocks of neurons.

The common case, spikes that add the same to all modes and hold no neuron, has loops of its own (`blocked`),
several times faster.

Imported on first use, because it imports Numba. Potentials are measured from rest. Neurons are taken in
blocks whose modes stay in the cache, step by step. Modes are in double precision whatever the dtype of the
sequences: the slow ones change by less than single precision can tell.

A kernel is called with the blocks that it shall do, releases the interpreter lock, and writes to no other
place than those blocks' columns, so any number of threads may run it side by side.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated,assignment"

from __future__ import annotations

import numpy as np
from numba import njit

from . import stages
from .carry import arrive, begin, echo, listen, trace_back
from .compiling import kernel
from .lanes import advance, at_once, columns, end, expect_rows, read, retreat, spread, times
from .sizes import LANES as TOGETHER
from .vectors import OPTIONS

AHEAD = 4  # steps by which sequences are asked for before they are read: their rows are far apart in memory


@njit(**OPTIONS)
def set_up(j, n, decay, weight, resistance, v_reset, carry, d, w, seen, lines):
    """Write what the ``n`` neurons of a block from ``j`` on are, for both directions."""
    here = slice(j, j + n)
    spread(j, n, decay, d)
    spread(j, n, weight, w)
    times(seen, w, d)
    at_once(d, w, lines[stages.FRESH])
    begin(carry, here, lines)
    stages.copy(resistance[here], lines[stages.R, :n])
    stages.copy(v_reset[here], lines[stages.FALL, :n])


@kernel
def forward(
    version, current, resistance, decay, weight, threshold, v_reset, noise, z_in, v_in, hold_in,
    carry, kind, slope, reset, restart, period, width, v_out, s_out, clamp_out, z_out, hold_out, course,
    first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` through time.

    Args:
        version: see `threads.sources`.
        current: ``(T, M)``.
        resistance: ``(M,)`` float64, and so are threshold and v_reset (above rest) and v_in.
        decay: ``(K, 1)``, or ``(K, M)`` for neurons of their own; and so is weight.
        weight: of the modes.
        threshold: as said.
        v_reset: after a hard reset, or what a soft one takes off.
        noise: ``(T, M)`` added to ``slope * x`` before the step, or ``(0, M)``.
        z_in: modes at the start ``(K, M)`` float64.
        v_in: potential at the start, after reset.
        hold_in: ``(M,)`` int64, steps for which a neuron is still held.
        carry: what a step carries to the next beside the modes, see there.
        kind: of step.
        slope: of the soft step, and what the noise is relative to.
        reset: kind of reset.
        restart: whether a spike erases the modes.
        period: refractory steps.
        width: neurons of a block: those among which spikes come back must be together.
        v_out: potential before reset ``(T, M)``.
        s_out: spikes ``(T, M)``.
        clamp_out: drive that held a refractory neuron, NaN elsewhere, ``(T, M)``; ``(0, M)`` without.
        z_out: modes at the end.
        hold_out: steps for which a neuron is held from there.
        course: of what is carried.
        first: first block.
        last: block after the last.
    """
    T, M = current.shape
    K, held, echoes = len(decay), len(clamp_out) > 0, len(carry.last) > 0
    room = -(-width // TOGETHER) * TOGETHER
    d, w, seen, z = columns(decay, room), columns(decay, room), columns(decay, room), np.zeros((K, room))
    rows, lines, left_all = np.zeros((4, room)), np.zeros((stages.LINES, room)), np.zeros(room, np.int64)
    back, active = np.zeros((1, room), current.dtype), np.zeros(room, np.int64)
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        here = slice(j, j + n)
        set_up(j, n, decay, weight, resistance, v_reset, carry, d, w, seen, lines)
        left, u, v, spike, after = (
            left_all[:n],
            rows[stages.U, :n],
            lines[stages.V, :n],
            lines[stages.SPIKE, :n],
            lines[stages.AFTER, :n],
        )
        stages.copy(threshold[here], lines[stages.LEVEL, :n])
        stages.copy(v_in[here], after)
        stages.copy(hold_in[here], left)
        rows[stages.KEEP] = 1.0
        for k in range(K):
            stages.copy(z_in[k, here], z[k, :n])
        read(z, seen, rows, n)
        for t in range(T):
            for sequence in (current, v_out, s_out):
                expect_rows(sequence, t + AHEAD, j, n)
            if echoes:
                echo(carry, j, s_out[t - 1, here] if t else carry.last[here], back, active)
                listen(t, j, n, current, back, course.current)
            stages.advance_to(t, j, n, course.current if echoes else current, rows, lines)
            if held:
                stages.hold(left, after, lines[stages.FRESH], u, v, clamp_out[t, here])
            stages.compare(t, j, n, lines, slope, noise, v_out, course.x)
            stages.decide(kind, n, lines)
            if held:
                stages.rest(left, period, spike)
            stages.finish(t, j, n, rows, lines, reset, s_out, course)
            if restart:
                stages.forget(spike, after, rows[stages.KEEP], rows[stages.BASE])
            advance(z, d, seen, rows, n)
        stages.copy(left, hold_out[here])
        for k in range(K):
            stages.copy(z[k, :n], z_out[k, here])


@kernel
def adjoint(
    version, current, resistance, decay, weight, threshold, v_reset, z_in,
    derivative, s_in, before, clamp, carry, course, reset, restart, detach, width, grad_s, grad_v, grad_z,
    arriving, d_current, d_resistance, d_weight, d_threshold, d_v_reset, d_z, d_v, d_s, d_carry, first, last,
):  # fmt: skip
    r"""Run blocks ``first`` to ``last`` back through time.

    With :math:`\delta_n` the gradient in the potential before reset, the adjoint modes are
    :math:`Q_k^n = d_k Q_k^{n+1} + \delta_n`. Then :math:`b_n = \sum_k w_k d_k Q_k^{n+1}` is the gradient in
    what a reset adds to all modes, and :math:`\delta_n + b_n - b_{n-1}` that in the drive. That in the
    weight :math:`w_k` is :math:`d_k \sum_n Q_k^{n+1} (u_n + J_n - u_{n+1})`, but for a number common to all
    modes, since the weights sum to 1.

    Args:
        current: as in `forward`, with what came back; and so are those not named here.
        derivative: of the step in the potential, ``(T, M)``.
        s_in: spikes ``(T, M)``.
        before: potential before reset, ``(T, M)``; ``(0, M)`` unless the reset needs it.
        clamp: as `forward` gave it.
        carry: as in `forward`, but for ``matrix``, which gives a gradient back: the transpose of that.
        course: of what is carried, as `forward` gave it.
        detach: whether no gradient flows through the spike in the reset.
        grad_s: gradient that arrives at the spikes, ``(T, M)``.
        grad_v: at the potential before reset, or ``(0, M)``; and
        grad_z: at the modes at the end, ``(K, M)`` or ``(0, M)``.
        arriving: gradients that arrive at the course of ``a`` and ``w``, or ``(0, M)``.
        d_current: gradient in the current.
        d_resistance: ``(M,)`` float64, and so are those in threshold, v_reset and the potential at the start.
        d_weight: in the weights: summed over the neurons of each block ``(blocks, K)`` if all share them,
            else ``(K, M)``; or none.
        d_z: in the modes at the start.
        d_s: at the spikes all told, ``(T, M)``, or ``(0, M)`` if it is not wanted.
        d_carry: in what is carried: lift, stay, pull, a and w, ``(5, M)`` or none.
    """
    T, M = current.shape
    K, moves = len(decay), len(d_weight) > 0
    held, tailed = len(clamp) > 0, len(grad_z) > 0
    tires, echoes = len(carry.lift) > 0, len(carry.last) > 0
    room = -(-width // TOGETHER) * TOGETHER
    d, w, seen, twice = columns(decay, room), columns(decay, room), columns(decay, room), columns(decay, room)
    q, tail, moved = np.zeros((K, room)), np.zeros((K, room)), np.zeros((K if moves else 0, room))
    rows, lines = np.zeros((5, room)), np.zeros((stages.LINES, room))
    back, active = np.zeros((1, room), current.dtype), np.zeros(room, np.int64)
    for block in range(first, last):
        j = block * width
        n = min(width, M - j)
        here = slice(j, j + n)
        for part in (q, tail, moved, rows, lines):
            part[:] = 0.0
        back[:] = 0.0
        rows[stages.KEEP] = 1.0
        set_up(j, n, decay, weight, resistance, v_reset, carry, d, w, seen, lines)
        times(twice, seen, d)
        v, u, spike, at_s, y = (
            lines[stages.V, :n],
            lines[stages.DRIVE, :n],
            lines[stages.SPIKE, :n],
            lines[stages.AT_S, :n],
            rows[stages.DV, :n],
        )
        if tailed:
            for k in range(K):
                stages.copy(grad_z[k, here], tail[k, :n])
        for t in range(T - 1, -1, -1):
            for sequence in (current, s_in, derivative, grad_s, d_current, course.a):
                expect_rows(sequence, t - AHEAD, j, n)
            if tailed:
                end(tail, d, rows, n)
            if t + 1 < T:
                stages.at_drive(t + 1, j, n, current, rows, lines, d_current)
                if echoes:
                    echo(carry, j, d_current[t + 1, here], back, active)
            if tires:
                stages.fetch(course.a, t, j, n, lines, stages.A)
                if len(course.w):
                    stages.fetch(course.w, t, j, n, lines, stages.W)
                trace_back(carry, n, lines)
                arrive(t, j, n, carry, course, arriving, lines)
            stages.recall(t, j, n, current, s_in, before, lines)
            if held:
                stages.plus_clamp(clamp[t, here], u)
            stages.at_reset(t, j, n, rows, lines, back, reset, detach, grad_s)
            if restart:
                stages.erased(spike, v, u, rows[stages.CHANGE])
            if held:
                stages.at_rest(clamp[t, here], at_s)
            stages.at_spike(t, j, n, rows, lines, reset, derivative, grad_v, d_s)
            if restart:
                stages.at_memory(spike, rows[stages.B], rows[stages.KEEP], y, tail)
            if held:
                stages.at_hold(
                    clamp[t, here],
                    rows[stages.B],
                    rows[stages.B_BEFORE],
                    lines[stages.FRESH],
                    lines[stages.UP],
                    y,
                )
            stages.end_step(n, rows, lines)
            retreat(q, d, seen, twice if held else twice[:0], moved, rows, n)
        shared = decay.shape[1] == 1
        for i in range(n):
            rows[stages.B, i] = 0.0
            for k in range(K):
                d_z[k, j + i] = seen[k, 0 if shared else i] * q[k, i] + tail[k, i]
                rows[stages.B, i] += d_z[k, j + i]
        stages.at_drive(0, j, n, current, rows, lines, d_current)
        for k in range(K if moves else 0):
            for i in range(n):
                sum_k = moved[k, i] + (z_in[k, j + i] - lines[stages.NEXT, i]) * q[k, i]
                if shared:
                    d_weight[block, k] += d[k, 0] * sum_k
                else:
                    d_weight[k, j + i] = d[k, i] * sum_k
        stages.copy(lines[stages.D_R, :n], d_resistance[here])
        stages.copy(lines[stages.D_LEVEL, :n], d_threshold[here])
        stages.copy(lines[stages.D_FALL, :n], d_v_reset[here])
        stages.copy(lines[stages.UP, :n], d_v[here])
        if tires:
            begin(carry, here, lines)
            trace_back(carry, n, lines)
            for i in range(len(d_carry)):
                stages.copy(lines[stages.D_LIFT + i, :n], d_carry[i, here])
