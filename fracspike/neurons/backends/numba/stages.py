"""The stages of a step, compiled: what a spike, a reset and a refractory period do to one block of neurons.

Numbers of a block lie in ``lines``, ``(lines, LANES)`` float64, a line for each thing that the constants
below name; ``rows`` are those that `lanes` reads and writes. What is rare is a loop over neurons, on a line
cut to them.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .masks import give, take
from .sizes import LANES as TOGETHER
from .vectors import OPTIONS, PART, above, add, at_least, fill, fma, fnma, load, mul, narrow, store, sub, wide

AT_LEAST, ABOVE, SOFT, NEVER = 0, 1, 2, 3  # the step: 1 from 0 on, 1 above 0, sigmoid, 0
NONE, SUBTRACT, VALUE = 0, 1, 2  # the reset
HALF = 0.5  # from where on a soft spike holds a neuron or erases its memory

PAST, U, KEEP, BASE = range(4)  # rows forward: what a step sees of the modes, drive, and how modes go on
B, B_BEFORE, _, DV, CHANGE = range(5)  # rows back: see `retreat`
# lines of both: constants of the neurons, and what a step was; lift, stay and pull as in `carry`
R, FALL, FRESH, LIFT, STAY, PULL, V, SPIKE, A, W = range(10)
LEVEL, X, AFTER = range(10, 13)  # forward: threshold, what a surrogate steps on, potential after reset
# back: drives of this step and the next, and gradients in potential after reset (without memory, and with),
# spike, threshold, drive of the next step; that drive's without what the memory takes off
DRIVE, NEXT, UP, REACH, AT_S, AT_LEVEL, AT_DRIVE, PARTIAL = range(10, 18)
D_R, D_LEVEL, D_FALL, D_LIFT, D_STAY, D_PULL, D_A, D_W = range(18, 26)  # sums of gradients, and in a and w
LINES = 26


@njit(**OPTIONS)
def copy(source, target):
    """Write ``source``, in the dtype of ``target``."""
    for i in range(len(target)):
        target[i] = source[i]


@njit(**PART)
def fetch(sequence, t, j, n, lines, line):
    """Write a step of a sequence to a line."""
    for g in range(0, n, TOGETHER):
        store(lines, line, g, wide(take(sequence, t, j + g, n - g)))


@njit(**PART)
def jumps(v, spike, fall, reset):
    """Return what the reset adds; a soft one takes ``fall`` off."""
    if reset == SUBTRACT:
        return fnma(fall, spike, fill(0.0, v))
    if reset == VALUE:
        return mul(sub(fall, v), spike)
    return fill(0.0, v)


# -- forward -----------------------------------------------------------------------------------------------


@njit(**PART)
def advance_to(t, j, n, current, rows, lines):
    """Write drive and potential before reset."""
    for g in range(0, n, TOGETHER):
        given = wide(take(current, t, j + g, n - g))
        u = sub(mul(given, load(lines, R, g)), load(lines, W, g))
        store(rows, U, g, u)
        store(lines, V, g, fma(u, load(lines, FRESH, g), load(rows, PAST, g)))


@njit(**PART)
def compare(t, j, n, lines, slope, noise, v_out, x_out):
    """Write what a surrogate steps on: the potential above threshold, in the dtype that it will see."""
    for g in range(0, n, TOGETHER):
        v, level = load(lines, V, g), fma(load(lines, LIFT, g), load(lines, A, g), load(lines, LEVEL, g))
        before = narrow(v, take(v_out, t, j + g, 0))
        give(v_out, t, j + g, before, n - g)
        over = sub(before, narrow(level, before))
        if len(x_out):
            give(x_out, t, j + g, over, n - g)
        x = mul(fill(slope, v), wide(over))
        if len(noise):
            x = add(x, wide(take(noise, t, j + g, n - g)))
        store(lines, X, g, x)


@njit(**PART)
def decide(kind, n, lines):
    """Write the spikes."""
    if kind == SOFT:
        for i in range(n):
            lines[SPIKE, i] = 1.0 / (1.0 + math.exp(-lines[X, i]))
    elif kind != NEVER:
        for g in range(0, n, TOGETHER):
            x = load(lines, X, g)
            zero = fill(0.0, x)
            store(lines, SPIKE, g, above(x, zero) if kind == ABOVE else at_least(x, zero))


@njit(**PART)
def finish(t, j, n, rows, lines, reset, s_out, course):
    """Reset, and take adaptation and opposing drive over the step, in the dtype of their sequences."""
    for g in range(0, n, TOGETHER):
        v, spike = load(lines, V, g), load(lines, SPIKE, g)
        fired = narrow(spike, take(s_out, t, j + g, 0))
        give(s_out, t, j + g, fired, n - g)
        jump = jumps(v, spike, load(lines, FALL, g), reset)
        after = add(v, jump)
        store(lines, AFTER, g, after)
        store(rows, BASE, g, add(load(rows, U, g), jump))
        if len(course.a):
            a = narrow(fma(load(lines, STAY, g), load(lines, A, g), spike), fired)
            give(course.a, t, j + g, a, n - g)
            store(lines, A, g, wide(a))
        if len(course.w):
            gained = mul(load(lines, PULL, g), after)
            w = narrow(fma(load(lines, STAY, g), load(lines, W, g), gained), fired)
            give(course.w, t, j + g, w, n - g)
            store(lines, W, g, wide(w))


@njit(**OPTIONS)
def hold(left, after, fresh, u, v, clamp):
    """Hold refractory neurons at ``after`` by a drive, and write it; NaN for the others."""
    for i in range(len(left)):
        clamp[i] = np.nan
        if left[i] > 0:
            extra = (after[i] - v[i]) / fresh[i]
            clamp[i] = extra
            u[i] += extra
            v[i] = after[i]


@njit(**OPTIONS)
def rest(left, period, spike):
    """Let no refractory neuron spike, and count the steps for which it is still held."""
    for i in range(len(left)):
        if left[i] > 0:
            spike[i] = 0.0
        left[i] = period if spike[i] > HALF else max(left[i] - 1, 0)


@njit(**OPTIONS)
def forget(spike, after, keep, base):
    """Erase the modes of the neurons that spike: each begins at the potential after reset."""
    for i in range(len(spike)):
        fires = spike[i] > HALF
        keep[i] = 0.0 if fires else 1.0
        if fires:
            base[i] = after[i]


# -- back --------------------------------------------------------------------------------------------------


@njit(**PART)
def at_drive(t, j, n, current, rows, lines, d_current):
    """Write the gradient in the drive of step ``t``, now that it is known, and in the current."""
    for g in range(0, n, TOGETHER):
        total = sub(load(lines, PARTIAL, g), load(rows, B, g))
        given = take(current, t, j + g, n - g)
        give(d_current, t, j + g, narrow(mul(load(lines, R, g), total), given), n - g)
        store(lines, D_R, g, fma(total, wide(given), load(lines, D_R, g)))
        store(lines, AT_DRIVE, g, total)


@njit(**PART)
def recall(t, j, n, current, s_in, before, lines):
    """Write what the step was: spikes, drive, potential before reset."""
    fetch(s_in, t, j, n, lines, SPIKE)
    if len(before):
        fetch(before, t, j, n, lines, V)
    for g in range(0, n, TOGETHER):
        given = wide(take(current, t, j + g, n - g))
        store(lines, DRIVE, g, sub(mul(given, load(lines, R, g)), load(lines, W, g)))


@njit(**PART)
def at_reset(t, j, n, rows, lines, back, reset, detach, grad_s):
    """Write the gradients in the potential after reset and the spike, and how the modes changed."""
    for g in range(0, n, TOGETHER):
        v, spike, fall = load(lines, V, g), load(lines, SPIKE, g), load(lines, FALL, g)
        jump, u = jumps(v, spike, fall, reset), load(lines, DRIVE, g)
        store(rows, CHANGE, g, add(u, sub(jump, load(lines, NEXT, g))))
        store(lines, NEXT, g, u)
        reach = add(load(rows, B, g), load(lines, UP, g))
        store(lines, REACH, g, reach)
        store(lines, D_PULL, g, fma(load(lines, D_W, g), add(v, jump), load(lines, D_PULL, g)))
        at_s = add(wide(take(grad_s, t, j + g, n - g)), add(load(lines, D_A, g), wide(load(back, 0, g))))
        if reset == SUBTRACT:
            store(lines, D_FALL, g, fnma(reach, spike, load(lines, D_FALL, g)))
            if not detach:
                at_s = fnma(reach, fall, at_s)
        elif reset == VALUE:
            store(lines, D_FALL, g, fma(reach, spike, load(lines, D_FALL, g)))
            if not detach:
                at_s = fma(reach, sub(fall, v), at_s)
        store(lines, AT_S, g, at_s)


@njit(**PART)
def at_spike(t, j, n, rows, lines, reset, derivative, grad_v, d_s):
    """Write the gradients in threshold and potential before reset, but for what the memory gives."""
    for g in range(0, n, TOGETHER):
        at_s, slope = load(lines, AT_S, g), take(derivative, t, j + g, n - g)
        if len(d_s):
            give(d_s, t, j + g, narrow(at_s, slope), n - g)
        at_level = fnma(wide(slope), at_s, fill(0.0, at_s))
        store(lines, AT_LEVEL, g, at_level)
        store(lines, D_LEVEL, g, add(load(lines, D_LEVEL, g), at_level))
        y = sub(load(lines, UP, g), at_level)
        if reset == VALUE:
            y = fnma(load(lines, REACH, g), load(lines, SPIKE, g), y)
        if len(grad_v):
            y = add(y, wide(take(grad_v, t, j + g, n - g)))
        store(rows, DV, g, y)
        store(lines, UP, g, fill(0.0, y))


@njit(**PART)
def end_step(n, rows, lines):
    """Write the gradient in the drive without what the memory takes off it."""
    for g in range(0, n, TOGETHER):
        store(lines, PARTIAL, g, add(load(rows, DV, g), load(rows, B, g)))


@njit(**OPTIONS)
def plus_clamp(clamp, u):
    """Add the drive that `hold` wrote."""
    for i in range(len(u)):
        if not math.isnan(clamp[i]):
            u[i] += clamp[i]


@njit(**OPTIONS)
def at_rest(clamp, at_s):
    """Take the gradient off the spikes that could not be."""
    for i in range(len(at_s)):
        if not math.isnan(clamp[i]):
            at_s[i] = 0.0


@njit(**OPTIONS)
def erased(spike, v, u, change):
    """Write how the modes changed that `forget` erased: not by the drive."""
    for i in range(len(spike)):
        if spike[i] > HALF:
            change[i] += v[i] - u[i]


@njit(**OPTIONS)
def at_memory(spike, b, keep, y, tail):
    """Give what comes back through the modes to the potential, for neurons whose modes were erased."""
    for i in range(len(spike)):
        keep[i] = 1.0
        if spike[i] > HALF:
            y[i] += b[i]
            b[i], keep[i] = 0.0, 0.0
            tail[:, i] = 0.0


@njit(**OPTIONS)
def at_hold(clamp, b, b_before, fresh, up, y):
    """Give the gradient of a held potential to what held it, a drive of (held - v) / (1 - E(dt))."""
    for i in range(len(y)):
        if not math.isnan(clamp[i]):
            pull = (b[i] - b_before[i]) / fresh[i]
            up[i] = y[i] + pull
            y[i] = -pull
