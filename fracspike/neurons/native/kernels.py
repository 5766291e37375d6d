"""The compiled loops: forward through time and its adjoint, for a range of blocks of neurons.

Imported on first use, because it imports Numba. Potentials are measured from rest. The layout is what makes
it fast: neurons are taken in blocks whose modes stay in the first-level cache, and the loops run over time,
then modes (four at once), then the neurons of the block, which the compiler turns into vector instructions.
The modes are kept in double precision whatever the dtype of the sequences: the slow ones change by less than
the rounding of a single-precision number in each step. They are advanced as ``x = z + loss (u - z)`` with
``loss = 1 - decay``, which holds the rates of the slow ones to full precision.

A kernel is called with the blocks that it shall do, releases the interpreter lock, and writes to no other
place than those blocks' columns, so any number of threads may run it side by side.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math

import numpy as np
from numba import njit

LANES = 64  # neurons of a block
AT_LEAST, ABOVE, SOFT = 0, 1, 2  # the step: 1 from 0 on, 1 above 0, sigmoid
NONE, SUBTRACT, VALUE = 0, 1, 2  # the reset
HALF = 0.5  # from where on a soft spike holds a neuron or erases its memory

# Sums may be reordered and products fused; NaN and infinity keep their meaning.
_options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


@njit(**_options)
def _advance(x, jump, u, v, loss, weight):
    """Advance the modes of a block by a step and sum them: one loss and weight for all neurons."""
    for k in range(0, len(x), 4):
        l0, l1, l2, l3 = loss[k], loss[k + 1], loss[k + 2], loss[k + 3]
        w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for i in range(LANES):
            z0, z1, z2, z3 = x[k, i] + jump[i], x[k + 1, i] + jump[i], x[k + 2, i] + jump[i], x[k + 3, i] + jump[i]
            z0 += l0 * (u[i] - z0)
            z1 += l1 * (u[i] - z1)
            z2 += l2 * (u[i] - z2)
            z3 += l3 * (u[i] - z3)
            x[k, i], x[k + 1, i], x[k + 2, i], x[k + 3, i] = z0, z1, z2, z3
            v[i] += (w0 * z0 + w1 * z1) + (w2 * z2 + w3 * z3)


@njit(**_options)
def _advance_each(x, jump, u, v, loss, weight):
    """Do the same with a loss and weight for each neuron."""
    for k in range(0, len(x), 2):
        for i in range(LANES):
            z0, z1 = x[k, i] + jump[i], x[k + 1, i] + jump[i]
            z0 += loss[k, i] * (u[i] - z0)
            z1 += loss[k + 1, i] * (u[i] - z1)
            x[k, i], x[k + 1, i] = z0, z1
            v[i] += weight[k, i] * z0 + weight[k + 1, i] * z1


@njit(**_options)
def forward(
    current, resistance, loss, weight, threshold, v_reset, noise, z, v, hold,
    kind, slope, reset, restart, period, v_out, s_out, clamp_out, z_out, hold_out, first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` through time.

    Args:
        current: ``(T, M)``.
        resistance: ``(M,)`` float64, and so are threshold, v_reset and v.
        loss: ``(K, 1)``, or ``(K, M)`` for neurons of their own; K a multiple of 4; and so is weight.
        threshold: above rest.
        v_reset: above rest.
        noise: ``(T, M)`` added to ``slope * x`` before the step, or ``(0, M)``.
        z: modes at the start ``(K, M)`` float64.
        v: potential at the start, after reset.
        hold: ``(M,)`` int64, steps for which a neuron is still held.
        kind: of step.
        slope: of the soft step, and what the noise is relative to.
        reset: kind of reset.
        restart: whether a spike erases the modes.
        period: refractory steps.
        v_out: potential before reset, ``(T, M)``.
        s_out: spikes ``(T, M)``.
        clamp_out: drive that held a refractory neuron, NaN elsewhere, ``(T, M)``; ``(0, M)`` without.
        z_out: modes at the end.
        hold_out: steps for which a neuron is held from there.
        first: first block.
        last: block after the last.
    """
    T, M = current.shape
    K = len(loss)
    shared = loss.shape[1] == 1
    noisy, held = len(noise) > 0, len(clamp_out) > 0
    x = np.zeros((K, LANES))
    losses, weights = np.zeros((K, LANES)), np.zeros((K, LANES))
    jump, u, before, after, s = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    left, level = np.zeros(LANES, np.int64), np.zeros(LANES, current.dtype)
    common_loss, common_weight = loss[:, 0].copy(), weight[:, 0].copy()
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        for k in range(K):
            for i in range(n):
                x[k, i] = z[k, j + i]
                if not shared:
                    losses[k, i], weights[k, i] = loss[k, j + i], weight[k, j + i]
        for i in range(n):
            jump[i], after[i], left[i], level[i] = 0.0, v[j + i], hold[j + i], threshold[j + i]
        for t in range(T):
            for i in range(n):
                u[i] = resistance[j + i] * current[t, j + i]
            before[:] = 0.0
            if shared:
                _advance(x, jump, u, before, common_loss, common_weight)
            else:
                _advance_each(x, jump, u, before, losses, weights)
            if held:
                for i in range(n):
                    clamp_out[t, j + i] = np.nan
                    if left[i] > 0:
                        gain = 0.0
                        for k in range(K):
                            gain += weight[k, 0] * loss[k, 0] if shared else weights[k, i] * losses[k, i]
                        clamp = (after[i] - before[i]) / gain
                        for k in range(K):
                            x[k, i] += (loss[k, 0] if shared else losses[k, i]) * clamp
                        clamp_out[t, j + i] = clamp
                        before[i] = after[i]
            for i in range(n):
                v_out[t, j + i] = before[i]
                e = v_out[t, j + i] - level[i]  # in the dtype of the sequences, as a surrogate will see it
                if kind == SOFT or noisy:
                    e *= slope
                    if noisy:
                        e += noise[t, j + i]
                if kind == SOFT:
                    s[i] = 1.0 / (1.0 + math.exp(-e))
                elif kind == ABOVE:
                    s[i] = 1.0 if e > 0.0 else 0.0
                else:
                    s[i] = 1.0 if e >= 0.0 else 0.0
            if held:
                for i in range(n):
                    if left[i] > 0:
                        s[i] = 0.0
                    left[i] = period if s[i] > HALF else max(left[i] - 1, 0)
            if reset == SUBTRACT:
                for i in range(n):
                    jump[i] = -threshold[j + i] * s[i]
            elif reset == VALUE:
                for i in range(n):
                    jump[i] = (v_reset[j + i] - before[i]) * s[i]
            for i in range(n):
                s_out[t, j + i] = s[i]
                after[i] = before[i] + jump[i]
            if restart:
                for i in range(n):
                    if s[i] > HALF:
                        jump[i] = 0.0
                        for k in range(K):
                            x[k, i] = after[i]
        for i in range(n):
            hold_out[j + i] = left[i]
        for k in range(K):
            for i in range(n):
                z_out[k, j + i] = x[k, i] + jump[i]


@njit(**_options)
def _retreat(q, g, dv, u, change, back, total, loss, weight):
    """Take the adjoint modes of a block back by a step and sum them: the mirror image of `_advance`."""
    for k in range(0, len(q), 4):
        l0, l1, l2, l3 = loss[k], loss[k + 1], loss[k + 2], loss[k + 3]
        w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        k0, k1, k2, k3 = 1.0 - l0, 1.0 - l1, 1.0 - l2, 1.0 - l3
        b0, b1, b2, b3 = w0 * k0, w1 * k1, w2 * k2, w3 * k3
        r0, r1, r2, r3 = w0 * l0, w1 * l1, w2 * l2, w3 * l3
        for i in range(LANES):
            q0, q1, q2, q3 = q[k, i], q[k + 1, i], q[k + 2, i], q[k + 3, i]
            q0 += dv[i] - l0 * q0
            q1 += dv[i] - l1 * q1
            q2 += dv[i] - l2 * q2
            q3 += dv[i] - l3 * q3
            q[k, i], q[k + 1, i], q[k + 2, i], q[k + 3, i] = q0, q1, q2, q3
            back[i] += (b0 * q0 + b1 * q1) + (b2 * q2 + b3 * q3)
            total[i] += (r0 * q0 + r1 * q1) + (r2 * q2 + r3 * q3)
            g[k, i] += (u[i] + k0 * change[i]) * q0
            g[k + 1, i] += (u[i] + k1 * change[i]) * q1
            g[k + 2, i] += (u[i] + k2 * change[i]) * q2
            g[k + 3, i] += (u[i] + k3 * change[i]) * q3


@njit(**_options)
def _retreat_each(q, g, dv, u, change, back, total, loss, weight):
    """Do the same with a loss and weight for each neuron."""
    for k in range(len(q)):
        for i in range(LANES):
            lost, kept = loss[k, i], 1.0 - loss[k, i]
            q0 = q[k, i]
            q0 += dv[i] - lost * q0
            q[k, i] = q0
            back[i] += weight[k, i] * kept * q0
            total[i] += weight[k, i] * lost * q0
            g[k, i] += (u[i] + kept * change[i]) * q0


@njit(**_options)
def adjoint(
    current, resistance, loss, weight, threshold, v_reset, z, derivative, s, before, clamp,
    reset, restart, detach, grad_s, grad_v, grad_z,
    d_current, d_resistance, d_weight, d_threshold, d_v_reset, d_z, d_v, d_s, first, last,
):  # fmt: skip
    """Run blocks ``first`` to ``last`` back through time.

    Args:
        current: as in `forward`, and so are those not named here.
        derivative: of the step in the potential, ``(T, M)``.
        s: spikes ``(T, M)``.
        before: potential before reset, ``(T, M)``; ``(0, M)`` unless the reset needs it.
        clamp: as `forward` gave it.
        detach: whether no gradient flows through the spike in the reset.
        grad_s: gradient that arrives at the spikes, ``(T, M)``.
        grad_v: at the potential before reset, or ``(0, M)``; and
        grad_z: at the modes at the end, ``(K, M)`` or ``(0, M)``.
        d_current: gradient in the current.
        d_resistance: ``(M,)`` float64, and so are those in threshold, v_reset and the start v.
        d_weight: ``(K, M)``, or ``(K, blocks)`` for common weights, whose columns remain to be summed.
        d_z: in the modes at the start.
        d_s: at the spikes all told, ``(T, M)``, or ``(0, M)`` if it is not wanted.
    """
    T, M = current.shape
    K = len(loss)
    shared = loss.shape[1] == 1
    held, outer, tailed, wanted = len(clamp) > 0, len(grad_v) > 0, len(grad_z) > 0, len(d_s) > 0
    q, g, tail = np.zeros((K, LANES)), np.zeros((K, LANES)), np.zeros((K, LANES))
    losses, weights = np.zeros((K, LANES)), np.zeros((K, LANES))
    dv, u, change = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    back, total, up = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    d_r, d_th, d_vr = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    erased = np.zeros(LANES, np.bool_)
    common_loss, common_weight = loss[:, 0].copy(), weight[:, 0].copy()
    for block in range(first, last):
        j = block * LANES
        n = min(LANES, M - j)
        q[:] = 0.0
        g[:] = 0.0
        for i in range(LANES):
            back[i] = up[i] = d_r[i] = d_th[i] = d_vr[i] = u[i] = change[i] = dv[i] = 0.0
        for k in range(K):
            for i in range(n):
                if not shared:
                    losses[k, i], weights[k, i] = loss[k, j + i], weight[k, j + i]
                if tailed:
                    tail[k, i] = grad_z[k, j + i]
                    back[i] += tail[k, i]
        for t in range(T - 1, -1, -1):
            # `back` is the gradient in what the reset adds to every mode, `up` what else reaches the
            # potential after reset
            for i in range(n):
                spike = float(s[t, j + i])
                erased[i] = restart and spike > HALF
                reach = back[i] + up[i]
                by_v, by_s = 1.0, 0.0
                if reset == SUBTRACT:
                    by_s = -threshold[j + i]
                    d_th[i] -= reach * spike
                elif reset == VALUE:
                    by_v = 1.0 - spike
                    by_s = v_reset[j + i] - before[t, j + i]
                    d_vr[i] += reach * spike
                at_s = float(grad_s[t, j + i])
                if not detach:
                    at_s += reach * by_s
                clamped = held and not math.isnan(clamp[t, j + i])
                if clamped:
                    at_s = 0.0
                if wanted:
                    d_s[t, j + i] = at_s
                at_v = at_s * derivative[t, j + i]
                d_th[i] -= at_v
                dv[i] = at_v + reach * by_v
                if outer:
                    dv[i] += grad_v[t, j + i]
                if not erased[i]:
                    dv[i] -= back[i]
                up[i] = 0.0
                u[i] = resistance[j + i] * current[t, j + i]
                if clamped:
                    # the drive `c` that held the potential at that before: c = (v_held - v) / gain
                    c = float(clamp[t, j + i])
                    d_c, gain = 0.0, 0.0
                    for k in range(K):
                        lost = loss[k, 0] if shared else losses[k, i]
                        w = weight[k, 0] if shared else weights[k, i]
                        gain += w * lost
                        d_c += lost * (w * (1.0 - lost) * q[k, i] + tail[k, i])
                    for k in range(K):
                        lost = loss[k, 0] if shared else losses[k, i]
                        g[k, i] += lost * c * ((1.0 - lost) * q[k, i] - d_c / gain)
                    up[i] = dv[i] + d_c / gain
                    dv[i] = -d_c / gain
                change[i] = 0.0
                if t > 0:
                    earlier = float(s[t - 1, j + i])
                    if reset == SUBTRACT:
                        change[i] = -threshold[j + i] * earlier
                    elif reset == VALUE:
                        change[i] = (v_reset[j + i] - before[t - 1, j + i]) * earlier
                    if restart and earlier > HALF:
                        change[i] += before[t - 1, j + i]
                change[i] -= u[i]
                if erased[i]:
                    for k in range(K):
                        q[k, i] = 0.0
                        tail[k, i] = 0.0
            back[:] = 0.0
            total[:] = 0.0
            if tailed:
                for k in range(K):
                    for i in range(n):
                        lost = loss[k, 0] if shared else losses[k, i]
                        total[i] += lost * tail[k, i]
                        tail[k, i] -= lost * tail[k, i]
                        back[i] += tail[k, i]
            if shared:
                _retreat(q, g, dv, u, change, back, total, common_loss, common_weight)
            else:
                _retreat_each(q, g, dv, u, change, back, total, losses, weights)
            for i in range(n):
                d_current[t, j + i] = resistance[j + i] * total[i]
                d_r[i] += total[i] * current[t, j + i]
        for i in range(n):
            d_resistance[j + i], d_threshold[j + i], d_v_reset[j + i], d_v[j + i] = d_r[i], d_th[i], d_vr[i], up[i]
        for k in range(K):
            if shared:
                d_weight[k, block] = 0.0
            for i in range(n):
                lost = loss[k, 0] if shared else losses[k, i]
                w = weight[k, 0] if shared else weights[k, i]
                d_z[k, j + i] = w * (1.0 - lost) * q[k, i] + tail[k, i]
                of_weight = g[k, i] + (1.0 - lost) * z[k, j + i] * q[k, i]
                if shared:
                    d_weight[k, block] += of_weight
                else:
                    d_weight[k, j + i] = of_weight
