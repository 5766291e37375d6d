"""The compiled loops for every case: forward through time and its adjoint, for a range of blocks of neurons.

The common case, spikes that add the same to all modes and hold no neuron, has loops of its own (`quick`),
several times faster.

Imported on first use, because it imports Numba. Potentials are measured from rest. Neurons are taken in
blocks whose modes stay in the cache; the loops run over time, then modes, then the neurons of a block. Modes
are in double precision whatever the dtype of the sequences: the slow ones change by less than single
precision can tell.

Two tracks with one result: four steps at once (see `lanes`) where a spike adds the same to all modes, and one
step at a time where it does more (a refractory clamp, an erased memory) or the modes at the end want a
gradient.

A kernel is called with the blocks that it shall do, releases the interpreter lock, and writes to no other
place than those blocks' columns, so any number of threads may run it side by side.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .lanes import (
    LANES,
    OPTIONS,
    STEPS,
    add,
    advance,
    advance_each,
    combine,
    copy,
    product,
    settle,
    sums,
    sums_each,
)

AT_LEAST, ABOVE, SOFT = 0, 1, 2  # the step: 1 from 0 on, 1 above 0, sigmoid
NONE, SUBTRACT, VALUE = 0, 1, 2  # the reset
HALF = 0.5  # from where on a soft spike holds a neuron or erases its memory


@njit(**OPTIONS)
def _fire(v, level, noise, spike, kind, slope):
    """Decide on the spikes of a row of potentials, in their dtype, as a surrogate will see them."""
    if kind == AT_LEAST and len(noise) == 0:
        for i in range(len(v)):
            spike[i] = 1.0 if v[i] >= level[i] else 0.0
    elif kind == ABOVE and len(noise) == 0:
        for i in range(len(v)):
            spike[i] = 1.0 if v[i] > level[i] else 0.0
    else:
        for i in range(len(v)):
            e = slope * (v[i] - level[i])
            if len(noise):
                e += noise[i]
            if kind == SOFT:
                spike[i] = 1.0 / (1.0 + math.exp(-e))
            elif kind == ABOVE:
                spike[i] = 1.0 if e > 0.0 else 0.0
            else:
                spike[i] = 1.0 if e >= 0.0 else 0.0


@njit(**OPTIONS)
def _jump(jump, v, spike, v_reset, reset):
    """Write what the reset adds to a row of potentials; a soft one takes ``v_reset`` off."""
    if reset == SUBTRACT:
        for i in range(len(spike)):
            jump[i] = -v_reset[i] * spike[i]
    elif reset == VALUE:
        for i in range(len(spike)):
            jump[i] = (v_reset[i] - v[i]) * spike[i]


@njit(**OPTIONS)
def _spread(block, n, source, target):
    """Copy the columns of a block, or the one column that all neurons share, to ``(K, LANES)``."""
    common = source.shape[1] == 1
    for k in range(len(source)):
        for i in range(n):
            target[k, i] = source[k, 0 if common else block * LANES + i]


@njit(**OPTIONS)
def _powers(d, w, kernel):
    """Write the kernel ``sum_k w_k d_k^m`` for m = 0, ..., 4 to ``(5, LANES)``."""
    kernel[:] = 0.0
    for k in range(len(d)):
        for i in range(LANES):
            y = w[k, i]
            for m in range(STEPS + 1):
                kernel[m, i] += y
                y *= d[k, i]


@njit(**OPTIONS)
def forward(
    current, resistance, decay, weight, threshold, v_reset, noise, z_in, v_in, hold_in,
    kind, slope, reset, restart, period, v_out, s_out, clamp_out, z_out, hold_out, first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` through time.

    Args:
        current: ``(T, M)``.
        resistance: ``(M,)`` float64, and so are threshold and v_reset (above rest) and v_in.
        decay: ``(K, 1)``, or ``(K, M)`` for neurons of their own; K a multiple of 4; and so is weight.
        weight: of the modes.
        threshold: as said.
        v_reset: after a hard reset, or what a soft one takes off.
        noise: ``(T, M)`` added to ``slope * x`` before the step, or ``(0, M)``.
        z_in: modes at the start ``(K, M)`` float64.
        v_in: potential at the start, after reset.
        hold_in: ``(M,)`` int64, steps for which a neuron is still held.
        kind: of step.
        slope: of the soft step, and what the noise is relative to.
        reset: kind of reset.
        restart: whether a spike erases the modes.
        period: refractory steps.
        v_out: potential before reset ``(T, M)``.
        s_out: spikes ``(T, M)``.
        clamp_out: drive that held a refractory neuron, NaN elsewhere, ``(T, M)``; ``(0, M)`` without.
        z_out: modes at the end.
        hold_out: steps for which a neuron is held from there.
        first: first block.
        last: block after the last.
    """
    T, M = current.shape
    K = len(decay)
    shared = decay.shape[1] == 1
    held = len(clamp_out) > 0
    at_once = 1 if held or restart else STEPS
    d, w, z = np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES))
    kernel, steps = np.zeros((STEPS + 1, LANES)), np.zeros((STEPS, LANES))
    s, a = np.zeros((STEPS, LANES)), np.zeros((STEPS + 1, LANES))
    u, jump = np.zeros((STEPS, LANES)), np.zeros((STEPS, LANES))
    v, after, spike = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    left, level, silence = (
        np.zeros(LANES, np.int64),
        np.zeros(LANES, current.dtype),
        np.zeros(0, current.dtype),
    )
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        _spread(block, n, decay, d)
        _spread(block, n, weight, w)
        _powers(d, w, kernel)
        for m in range(STEPS):
            steps[m] = kernel[m] - kernel[m + 1]
        copy(level[:n], threshold[j : j + n])
        common_d, common_w = d[:, 0].copy(), w[:, 0].copy()
        pending = False
        for i in range(n):
            after[i], left[i] = v_in[j + i], hold_in[j + i]
            for k in range(K):
                z[k, i] = z_in[k, j + i]
        for start in range(0, T, at_once):
            count = min(at_once, T - start)
            s[:] = 0.0
            if pending and shared:
                advance(z, a, s, common_d, common_w)
            elif pending:
                advance_each(z, a, s, d, w)
            elif shared:
                sums(z, s, common_d, common_w)
            else:
                sums_each(z, s, d, w)
            for m in range(count):
                t = start + m
                product(u[m, :n], current[t, j : j + n], resistance[j : j + n])
                copy(v, s[m])
                add(v, u[m], steps[0])
                for earlier in range(m):
                    add(v, u[earlier], steps[m - earlier])
                    add(v, jump[earlier], kernel[m - earlier])
                if held:
                    for i in range(n):
                        clamp_out[t, j + i] = np.nan
                        if left[i] > 0:
                            clamp = (after[i] - v[i]) / steps[0, i]
                            clamp_out[t, j + i] = clamp
                            u[m, i] += clamp
                            v[i] = after[i]
                copy(v_out[t, j : j + n], v)
                shift = noise[t, j : j + n] if len(noise) else silence
                _fire(v_out[t, j : j + n], level, shift, spike, kind, slope)
                if held:
                    for i in range(n):
                        if left[i] > 0:
                            spike[i] = 0.0
                        left[i] = period if spike[i] > HALF else max(left[i] - 1, 0)
                copy(s_out[t, j : j + n], spike)
                _jump(jump[m, :n], v, spike[:n], v_reset[j : j + n], reset)
                for i in range(LANES):
                    after[i] = v[i] + jump[m, i]
            if at_once == STEPS and start + STEPS < T:
                pending = True
                copy(a[0], u[0])
                for m in range(1, STEPS):
                    combine(a[m], u[m - 1], jump[m - 1], u[m])
                for i in range(LANES):
                    a[STEPS, i] = u[STEPS - 1, i] + jump[STEPS - 1, i]
            else:
                pending = False
                for m in range(count):
                    settle(z, u[m], jump[m], d)
            if restart:
                for i in range(n):
                    if spike[i] > HALF:
                        for k in range(K):
                            z[k, i] = after[i]
        for i in range(n):
            hold_out[j + i] = left[i]
            for k in range(K):
                z_out[k, j + i] = z[k, i]


@njit(**OPTIONS)
def adjoint(
    current, resistance, decay, weight, tangent, threshold, v_reset, z_in, derivative, s_in, before, clamp,
    reset, restart, detach, grad_s, grad_v, grad_z,
    d_current, d_resistance, d_along, d_threshold, d_v_reset, d_z, d_v, d_s, first, last,
):  # fmt: skip
    r"""Run blocks ``first`` to ``last`` back through time.

    With :math:`\delta_n` the gradient in the potential before reset, the adjoint modes are
    :math:`Q_k^n = d_k Q_k^{n+1} + \delta_n`. Then :math:`b_n = \sum_k w_k d_k Q_k^{n+1}` is the gradient in
    what a reset adds to all modes, and :math:`\delta_n + b_n - b_{n-1}` that in the drive. Along a tangent
    :math:`w'` of the weights, it is :math:`\sum_n b'_n (u_n + J_n - u_{n+1})`, with
    :math:`b'_n = \sum_k w'_k d_k Q_k^{n+1}`.

    Args:
        current: as in `forward`, and so are those not named here.
        tangent: directions in which a gradient in the weights is wanted, ``(P, K, 1)`` or ``(P, K, M)``; each
            sums to 0 over the modes.
        derivative: of the step in the potential, ``(T, M)``.
        s_in: spikes ``(T, M)``.
        before: potential before reset, ``(T, M)``; ``(0, M)`` unless the reset needs it.
        clamp: as `forward` gave it.
        detach: whether no gradient flows through the spike in the reset.
        grad_s: gradient that arrives at the spikes, ``(T, M)``.
        grad_v: at the potential before reset, or ``(0, M)``; and
        grad_z: at the modes at the end, ``(K, M)`` or ``(0, M)``.
        d_current: gradient in the current.
        d_resistance: ``(M,)`` float64, and so are those in threshold, v_reset and the potential at the start.
        d_along: along the tangents, ``(P, M)``.
        d_z: in the modes at the start.
        d_s: at the spikes all told, ``(T, M)``, or ``(0, M)`` if it is not wanted.
    """
    T, M = current.shape
    K, P = len(decay), len(tangent)
    shared = decay.shape[1] == 1
    held, outer, tailed, wanted = len(clamp) > 0, len(grad_v) > 0, len(grad_z) > 0, len(d_s) > 0
    at_once = 1 if held or restart or tailed else STEPS
    d, w, q, tail = np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES))
    along, b_along = np.zeros((P, K, LANES)), np.zeros((P, STEPS, LANES))
    common_along = np.zeros((P, K))
    kernel, kernel_along = np.zeros((STEPS + 1, LANES)), np.zeros((P, STEPS + 1, LANES))
    b, tail_b = np.zeros((STEPS, LANES)), np.zeros((2, LANES))
    a, dv = np.zeros((STEPS + 1, LANES)), np.zeros((STEPS, LANES))
    u, u_next, jump, change = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    spike, slope, at_s, partial, total = (
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
    )
    reach, v, up, zero = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    d_r, d_th, d_vr, result = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros((P, LANES))
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        _spread(block, n, decay, d)
        _spread(block, n, weight, w)
        _powers(d, w, kernel)
        for p in range(P):
            _spread(block, n, tangent[p], along[p])
            _powers(d, along[p], kernel_along[p])
            common_along[p] = along[p, :, 0]
        common_d, common_w = d[:, 0].copy(), w[:, 0].copy()
        vr, r = v_reset[j : j + n], resistance[j : j + n]
        q[:] = 0.0
        dv[:] = 0.0
        result[:] = 0.0
        tail[:] = 0.0
        for row in (u, u_next, jump, spike, partial, up, d_r, d_th, d_vr, at_s, reach, v):
            row[:] = 0.0
        if tailed:
            for k in range(K):
                copy(tail[k, :n], grad_z[k, j : j + n])
        pending = False
        for end in range(T, 0, -at_once):
            count = min(at_once, end)
            b[:] = 0.0
            b_along[:] = 0.0
            if pending and shared:
                advance(q, a, b, common_d, common_w)
            elif pending:
                advance_each(q, a, b, d, w)
            elif shared:
                sums(q, b, common_d, common_w)
            else:
                sums_each(q, b, d, w)
            for p in range(P):
                if shared:
                    sums(q, b_along[p], common_d, common_along[p])
                else:
                    sums_each(q, b_along[p], d, along[p])
            if tailed:
                tail_b[:] = 0.0
                for k in range(K):
                    for i in range(LANES):
                        tail_b[0, i] += tail[k, i]
                        tail_b[1, i] += d[k, i] * tail[k, i]
                        tail[k, i] *= d[k, i]
                for i in range(LANES):
                    b[0, i] += tail_b[0, i]
                    b[1, i] += tail_b[1, i]
            for m in range(count):
                t = end - 1 - m
                for later in range(m):
                    add(b[m], dv[later], kernel[m - later])
                    for p in range(P):
                        add(b_along[p, m], dv[later], kernel_along[p, m - later])
                if t + 1 < T:
                    for i in range(LANES):
                        total[i] = partial[i] - b[m, i]
                    product(d_current[t + 1, j : j + n], r, total)
                    for i in range(n):
                        d_r[i] += total[i] * current[t + 1, j + i]
                # what the step was
                product(u[:n], current[t, j : j + n], r)
                copy(spike[:n], s_in[t, j : j + n])
                if len(before):
                    copy(v[:n], before[t, j : j + n])
                if held:
                    for i in range(n):
                        if not math.isnan(clamp[t, j + i]):
                            u[i] += clamp[t, j + i]
                _jump(jump[:n], v, spike[:n], vr, reset)
                combine(change, u, jump, u_next)
                if restart:
                    for i in range(n):
                        if spike[i] > HALF:
                            change[i] = v[i] + jump[i] - u_next[i]
                copy(u_next, u)
                for p in range(P):
                    add(result[p], b_along[p, m], change)
                # gradients in the potential after reset, the spike, the potential before
                for i in range(LANES):
                    reach[i] = b[m, i] + up[i]
                    up[i] = 0.0
                copy(at_s[:n], grad_s[t, j : j + n])
                if reset == SUBTRACT:
                    for i in range(n):
                        d_vr[i] -= reach[i] * spike[i]
                    if not detach:
                        for i in range(n):
                            at_s[i] -= reach[i] * vr[i]
                elif reset == VALUE:
                    for i in range(n):
                        d_vr[i] += reach[i] * spike[i]
                    if not detach:
                        for i in range(n):
                            at_s[i] += reach[i] * (vr[i] - v[i])
                if held:
                    for i in range(n):
                        if not math.isnan(clamp[t, j + i]):
                            at_s[i] = 0.0
                if wanted:
                    copy(d_s[t, j : j + n], at_s)
                product(slope[:n], derivative[t, j : j + n], at_s)
                for i in range(LANES):
                    d_th[i] -= slope[i]
                for i in range(LANES):
                    dv[m, i] = slope[i] + (reach[i] - b[m, i])
                if reset == VALUE:
                    for i in range(LANES):
                        dv[m, i] -= reach[i] * spike[i]
                if outer:
                    for i in range(n):
                        dv[m, i] += grad_v[t, j + i]
                if restart:
                    for i in range(n):
                        if spike[i] > HALF:
                            dv[m, i] += b[m, i]
                            b[m, i] = 0.0
                            for k in range(K):
                                q[k, i] = 0.0
                                tail[k, i] = 0.0
                if held:
                    for i in range(n):
                        if not math.isnan(clamp[t, j + i]):
                            # the drive that held the potential at what it was: (held - v) / (1 - E(dt))
                            pull = (b[0, i] - b[1, i]) / (kernel[0, i] - kernel[1, i])
                            up[i] = dv[m, i] + pull
                            dv[m, i] = -pull
                for i in range(LANES):
                    partial[i] = dv[m, i] + b[m, i]
            if at_once == STEPS and end > STEPS:
                pending = True
                for m in range(STEPS):
                    copy(a[m + 1], dv[m])
            else:
                pending = False
                for m in range(count):
                    settle(q, zero, dv[m], d)
        for i in range(n):
            b_start = 0.0
            for k in range(K):
                d_z[k, j + i] = w[k, i] * d[k, i] * q[k, i] + tail[k, i]
                b_start += d_z[k, j + i]
                for p in range(P):
                    result[p, i] += along[p, k, i] * d[k, i] * (z_in[k, j + i] - u[i]) * q[k, i]
            total[i] = partial[i] - b_start
            d_r[i] += total[i] * current[0, j + i]
            d_current[0, j + i] = r[i] * total[i]
            d_resistance[j + i], d_threshold[j + i], d_v_reset[j + i], d_v[j + i] = (
                d_r[i],
                d_th[i],
                d_vr[i],
                up[i],
            )
            for p in range(P):
                d_along[p, j + i] = result[p, i]
