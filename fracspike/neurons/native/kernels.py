"""The compiled loops for every case: forward through time and its adjoint, for a range of blocks of neurons.

The common case, spikes that add the same to all modes and hold no neuron, has loops of its own (`quick`),
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

import math

import numpy as np
from numba import njit

from .lanes import OPTIONS, PART, advance, end, read, retreat
from .rates import BLOCK as LANES

AT_LEAST, ABOVE, SOFT = 0, 1, 2  # the step: 1 from 0 on, 1 above 0, sigmoid
NONE, SUBTRACT, VALUE = 0, 1, 2  # the reset
HALF = 0.5  # from where on a soft spike holds a neuron or erases its memory


@njit(**PART)
def _fire(x, kind):
    """Return the spike for what a surrogate steps on."""
    if kind == SOFT:
        return 1.0 / (1.0 + math.exp(-x))
    if kind == ABOVE:
        return 1.0 if x > 0.0 else 0.0
    return 1.0 if x >= 0.0 else 0.0


@njit(**PART)
def _jump(v, spike, v_reset, reset):
    """Return what the reset adds; a soft one takes ``v_reset`` off."""
    if reset == SUBTRACT:
        return -v_reset * spike
    if reset == VALUE:
        return (v_reset - v) * spike
    return 0.0


@njit(**OPTIONS)
def _spread(block, n, source, target):
    """Copy the columns of a block, or the one column that all neurons share, to ``(K, LANES)``."""
    common = source.shape[1] == 1
    for k in range(len(source)):
        for i in range(n):
            target[k, i] = source[k, 0 if common else block * LANES + i]


@njit(**OPTIONS)
def _times(result, x, y):
    for k in range(len(x)):
        for i in range(LANES):
            result[k, i] = x[k, i] * y[k, i]


@njit(**OPTIONS)
def _at_once(d, w, row):
    """Write ``sum_k w_k (1 - d_k)``, what the potential takes of the drive in a step."""
    row[:] = 0.0
    for k in range(len(d)):
        for i in range(LANES):
            row[i] += w[k, i] - w[k, i] * d[k, i]


@njit(**OPTIONS)
def forward(
    version, current, resistance, decay, weight, threshold, v_reset, noise, z_in, v_in, hold_in,
    kind, slope, reset, restart, period, v_out, s_out, clamp_out, z_out, hold_out, first, last,
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
    K, held = len(decay), len(clamp_out) > 0
    d, w, z, seen = np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES))
    rows, fresh, after = np.zeros((4, LANES)), np.zeros(LANES), np.zeros(LANES)
    past, u, keep, base = rows
    left, level = np.zeros(LANES, np.int64), np.zeros(LANES, current.dtype)
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        _spread(block, n, decay, d)
        _spread(block, n, weight, w)
        _times(seen, w, d)
        _at_once(d, w, fresh)
        for i in range(n):
            after[i], left[i], level[i] = v_in[j + i], hold_in[j + i], threshold[j + i]
            for k in range(K):
                z[k, i] = z_in[k, j + i]
        read(z, seen, rows, n)
        for t in range(T):
            for i in range(n):
                u[i] = current[t, j + i] * resistance[j + i]
                v = past[i] + u[i] * fresh[i]
                holds = held and left[i] > 0
                if held:
                    clamp_out[t, j + i] = np.nan
                if holds:
                    clamp = (after[i] - v) / fresh[i]
                    clamp_out[t, j + i] = clamp
                    u[i] += clamp
                    v = after[i]
                v_out[t, j + i] = v
                x = slope * (v_out[t, j + i] - level[i])  # in its dtype, as a surrogate will see it
                if len(noise):
                    x += noise[t, j + i]
                spike = 0.0 if holds else _fire(x, kind)
                s_out[t, j + i] = spike
                jump, fires = _jump(v, spike, v_reset[j + i], reset), spike > HALF
                if held:
                    left[i] = period if fires else max(left[i] - 1, 0)
                after[i], keep[i], base[i] = v + jump, 1.0, u[i] + jump
                if restart and fires:
                    keep[i], base[i] = 0.0, after[i]
            advance(z, d, seen, rows, n)
        for i in range(n):
            hold_out[j + i] = left[i]
            for k in range(K):
                z_out[k, j + i] = z[k, i]


@njit(**OPTIONS)
def adjoint(
    version, current, resistance, decay, weight, tangent, threshold, v_reset, z_in,
    derivative, s_in, before, clamp, reset, restart, detach, grad_s, grad_v, grad_z,
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
    held, outer, tailed, wanted = len(clamp) > 0, len(grad_v) > 0, len(grad_z) > 0, len(d_s) > 0
    d, w, q, tail = np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES))
    seen, twice = np.zeros((K, LANES)), np.zeros((K if held else 0, LANES))
    along, b_along = np.zeros((P, K, LANES)), np.zeros((P, LANES))
    rows, fresh = np.zeros((4, LANES)), np.zeros(LANES)
    b, b_before, keep, dv = rows
    u_next, partial, up = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    d_r, d_th, d_vr, result = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros((P, LANES))
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        _spread(block, n, decay, d)
        _spread(block, n, weight, w)
        _times(seen, w, d)
        if held:
            _times(twice, seen, d)
        _at_once(d, w, fresh)
        for p in range(P):
            _spread(block, n, tangent[p], along[p])
            _times(along[p], along[p], d)
        vr, r = v_reset[j : j + n], resistance[j : j + n]
        for part in (q, tail, rows, result, b_along):
            part[:] = 0.0
        for row in (u_next, partial, up, d_r, d_th, d_vr):
            row[:] = 0.0
        if tailed:
            _spread(block, n, grad_z, tail)
        for t in range(T - 1, -1, -1):
            if tailed:
                end(tail, d, rows, n)
            if t + 1 < T:
                for i in range(n):
                    total = partial[i] - b[i]
                    d_current[t + 1, j + i] = r[i] * total
                    d_r[i] += total * current[t + 1, j + i]
            for i in range(n):
                # what the step was
                u, spike = current[t, j + i] * r[i], np.float64(s_in[t, j + i])
                v = np.float64(before[t, j + i]) if len(before) else 0.0
                holds, fires = held and not math.isnan(clamp[t, j + i]), spike > HALF
                if holds:
                    u += clamp[t, j + i]
                jump = _jump(v, spike, vr[i], reset)
                change = (v if restart and fires else u) + jump - u_next[i]
                u_next[i] = u
                for p in range(P):
                    result[p, i] += b_along[p, i] * change
                # gradients in the potential after reset, the spike, the potential before
                reach, at_s = b[i] + up[i], np.float64(grad_s[t, j + i])
                up[i], keep[i] = 0.0, 1.0
                if reset == SUBTRACT:
                    d_vr[i] -= reach * spike
                    if not detach:
                        at_s -= reach * vr[i]
                elif reset == VALUE:
                    d_vr[i] += reach * spike
                    if not detach:
                        at_s += reach * (vr[i] - v)
                if holds:
                    at_s = 0.0
                if wanted:
                    d_s[t, j + i] = at_s
                slope = derivative[t, j + i] * at_s
                d_th[i] -= slope
                y = slope + (reach - b[i])
                if reset == VALUE:
                    y -= reach * spike
                if outer:
                    y += grad_v[t, j + i]
                if restart and fires:
                    y += b[i]
                    b[i], keep[i] = 0.0, 0.0
                    tail[:, i] = 0.0
                if holds:  # the drive that held the potential at what it was: (held - v) / (1 - E(dt))
                    pull = (b[i] - b_before[i]) / fresh[i]
                    up[i] = y + pull
                    y = -pull
                dv[i], partial[i] = y, y + b[i]
            retreat(q, d, seen, twice, along, rows, b_along, n)
        for i in range(n):
            b_start = 0.0
            for k in range(K):
                d_z[k, j + i] = seen[k, i] * q[k, i] + tail[k, i]
                b_start += d_z[k, j + i]
                for p in range(P):
                    result[p, i] += along[p, k, i] * (z_in[k, j + i] - u_next[i]) * q[k, i]
            total = partial[i] - b_start
            d_r[i] += total * current[0, j + i]
            d_current[0, j + i] = r[i] * total
            d_resistance[j + i], d_threshold[j + i], d_v_reset[j + i], d_v[j + i] = (
                d_r[i],
                d_th[i],
                d_vr[i],
                up[i],
            )
            for p in range(P):
                d_along[p, j + i] = result[p, i]
