"""What a step carries to the next ones beside the modes, compiled: adaptation, and spikes that come back.

The general kernels call these between the steps of a block. Every array is empty where a layer has no such
thing.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .masks import give, take
from .sizes import LANES as TOGETHER
from .stages import (
    AT_DRIVE,
    AT_LEVEL,
    D_A,
    D_LIFT,
    D_STAY,
    D_W,
    LIFT,
    PULL,
    STAY,
    UP,
    A,
    W,
    copy,
    fetch,
)
from .vectors import OPTIONS, PART, add, fill, fma, load, mul, store, sub, wide

AT_ONCE = 4  # vectors of a product that are summed side by side, so that none waits for itself
WIDE = AT_ONCE * TOGETHER


class Carry(NamedTuple):
    """What is carried on, by neuron, ``(M,)`` float64 where nothing else is said.

    Attributes:
        lift: rise of the threshold per unit of adaptation.
        stay: what a step leaves of adaptation and opposing drive.
        pull: what the opposing drive gains in a step per potential above rest.
        a: adaptation at the start.
        w: opposing drive at the start.
        own: weight with which a neuron's spikes come back to itself.
        matrix: ``(N, columns)`` in the dtype of the sequences, what a neuron of a block gives to the others.
        last: spikes of the step before the first, in the dtype of the sequences.
    """

    lift: NDArray[Any]
    stay: NDArray[Any]
    pull: NDArray[Any]
    a: NDArray[Any]
    w: NDArray[Any]
    own: NDArray[Any]
    matrix: NDArray[Any]
    last: NDArray[Any]


class Course(NamedTuple):
    """Sequences ``(T, M)`` that a forward pass makes of it, in the dtype of the current.

    Attributes:
        x: potential before reset less the threshold of the moment.
        a: adaptation after each step, and
        w: opposing drive; in the adjoint, either these or the gradients that arrive there.
        current: with what came back.
    """

    x: NDArray[Any]
    a: NDArray[Any]
    w: NDArray[Any]
    current: NDArray[Any]


def nothing(kind: Any) -> tuple[Carry, Course]:
    """Return what a layer without any of it carries, for sequences of a dtype."""
    none, rows = np.empty(0), np.empty((0, 0), kind)
    return Carry(none, none, none, none, none, none, rows, rows.reshape(-1)), Course(rows, rows, rows, rows)


@njit(**OPTIONS)
def echo(carry, j, x, out, active):
    """Write to the first row of ``out`` what weights make of ``x``, ``(n,)``, of the block from ``j`` on."""
    n, matrix = len(x), carry.matrix
    if not len(matrix):
        for i in range(n):
            out[0, i] = carry.own[j + i] * x[i]
        return
    count = 0
    for i in range(n):
        if x[i] != 0.0:
            active[count] = i
            count += 1
    g = 0
    while g + WIDE <= matrix.shape[1]:
        zero = fill(0.0, load(matrix, 0, g))
        y0, y1, y2, y3 = zero, zero, zero, zero
        for c in range(count):
            i = active[c]
            factor = fill(x[i], zero)
            y0 = fma(factor, load(matrix, i, g), y0)
            y1 = fma(factor, load(matrix, i, g + TOGETHER), y1)
            y2 = fma(factor, load(matrix, i, g + 2 * TOGETHER), y2)
            y3 = fma(factor, load(matrix, i, g + 3 * TOGETHER), y3)
        store(out, 0, g, y0)
        store(out, 0, g + TOGETHER, y1)
        store(out, 0, g + 2 * TOGETHER, y2)
        store(out, 0, g + 3 * TOGETHER, y3)
        g += WIDE
    while g < matrix.shape[1]:
        y = fill(0.0, load(matrix, 0, g))
        for c in range(count):
            y = fma(fill(x[active[c]], y), load(matrix, active[c], g), y)
        store(out, 0, g, y)
        g += TOGETHER


@njit(**OPTIONS)
def begin(carry, here, lines):
    """Write to the lines of a block what is carried to its first step."""
    n = here.stop - here.start
    if len(carry.lift):
        copy(carry.lift[here], lines[LIFT, :n])
        copy(carry.stay[here], lines[STAY, :n])
        copy(carry.a[here], lines[A, :n])
    if len(carry.pull):
        copy(carry.pull[here], lines[PULL, :n])
        copy(carry.w[here], lines[W, :n])


@njit(**PART)
def listen(t, j, n, current, back, target):
    """Add to the current what came back."""
    for g in range(0, n, TOGETHER):
        give(target, t, j + g, add(take(current, t, j + g, n - g), load(back, 0, g)), n - g)


@njit(**PART)
def trace_back(carry, n, lines):
    r"""Take the gradients in adaptation and opposing drive a step back.

    With :math:`\theta_{n+1} = \theta + \beta a_n`, :math:`a_{n+1} = d\,a_n + s_{n+1}`, and
    :math:`u_{n+1} = R I - w_n`, :math:`w_{n+1} = d\,w_n + p\,v_{n+1}`: from those after step n + 1 to those
    after step n, by the gradients in threshold and drive of step n + 1. The lines hold a and w after step n.
    """
    for g in range(0, n, TOGETHER):
        stay, a, at_level = load(lines, STAY, g), load(lines, A, g), load(lines, AT_LEVEL, g)
        d_a = load(lines, D_A, g)
        store(lines, D_LIFT, g, fma(at_level, a, load(lines, D_LIFT, g)))
        d_stay = fma(d_a, a, load(lines, D_STAY, g))
        store(lines, D_A, g, fma(stay, d_a, mul(load(lines, LIFT, g), at_level)))
        if len(carry.pull):
            d_w = load(lines, D_W, g)
            d_stay = fma(d_w, load(lines, W, g), d_stay)
            store(lines, D_W, g, sub(mul(stay, d_w), load(lines, AT_DRIVE, g)))
        store(lines, D_STAY, g, d_stay)


@njit(**PART)
def arrive(t, j, n, carry, course, arriving, lines):
    """Add what arrives from outside after step ``t``, and what its end gave to the opposing drive.

    The latter is a gradient in the potential after reset; then the lines hold the w that step ``t`` met.
    """
    for g in range(0, n, TOGETHER):
        if len(arriving.a):
            given = wide(take(arriving.a, t, j + g, n - g))
            store(lines, D_A, g, add(load(lines, D_A, g), given))
        if len(carry.pull):
            d_w = load(lines, D_W, g)
            if len(arriving.w):
                d_w = add(d_w, wide(take(arriving.w, t, j + g, n - g)))
                store(lines, D_W, g, d_w)
            store(lines, UP, g, fma(load(lines, PULL, g), d_w, load(lines, UP, g)))
    if len(carry.pull):
        if t:
            fetch(course.w, t - 1, j, n, lines, W)
        else:
            copy(carry.w[j : j + n], lines[W, :n])
