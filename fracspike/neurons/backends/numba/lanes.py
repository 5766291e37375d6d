"""What the general kernels do to the modes of one block of neurons in a step, in one pass over them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated,no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

from .sizes import LANES as TOGETHER
from .vectors import OPTIONS, PART, add, expect, fill, fma, load, mul, store, sub


@njit(**OPTIONS)
def columns(source, room):
    """Return an array for the coefficients of a block of ``room``: one vector, if all neurons share them."""
    return np.zeros((len(source), TOGETHER if source.shape[1] == 1 else room))


@njit(**OPTIONS)
def spread(j, n, source, target):
    """Copy the ``n`` columns of a block from ``j`` on, or the one that all neurons share, to `columns`."""
    common = source.shape[1] == 1
    for k in range(len(source)):
        for i in range(target.shape[1] if common else n):
            target[k, i] = source[k, 0 if common else j + i]


@njit(**PART)
def expect_rows(sequence, t, j, n):
    """Bring step ``t`` of a block's sequence into the cache, if there is one."""
    if 0 <= t < len(sequence):
        for g in range(0, n, TOGETHER):
            expect(sequence, t, j + g)


@njit(**OPTIONS)
def times(result, x, y):
    """Write ``x y``, all ``(K, LANES)``."""
    for k in range(len(x)):
        for i in range(x.shape[1]):
            result[k, i] = x[k, i] * y[k, i]


@njit(**OPTIONS)
def at_once(d, w, row):
    """Write ``sum_k w_k (1 - d_k)``, what the potential takes of the drive in a step."""
    row[:] = 0.0
    own = d.shape[1] >= len(row)
    for i in range(len(row)):
        c, left = i if own else 0, 0.0
        for k in range(len(d)):
            row[i] += w[k, c] - w[k, c] * d[k, c]
            left += w[k, c] * d[k, c]
        if row[i] > 0.5:  # nothing cancels, and a potential that has arrived at its drive is that drive
            row[i] = 1.0 - left


@njit(**PART)
def read(z, seen, rows, n):
    """Write ``sum_k seen_k z_k`` of ``n`` neurons to the first of ``rows``; coefficients are `columns`."""
    own = seen.shape[1] >= z.shape[1]
    for g in range(0, n, TOGETHER):
        total = fill(0.0, load(rows, 0, g))
        for k in range(len(z)):
            total = fma(load(seen, k, g if own else 0), load(z, k, g), total)
        store(rows, 0, g, total)


@njit(**PART)
def advance(z, d, seen, rows, n):
    """Take modes over a step, and then do as `read`: ``z <- keep d (z - u) + base``.

    Args:
        z: modes ``(K, LANES)``, and, as `columns`,
        d: their decays,
        seen: and what the next step sees of them, ``w d``.
        rows: what it sees all told, u, keep and base.
        n: neurons.
    """
    own = d.shape[1] >= z.shape[1]
    for g in range(0, n, TOGETHER):
        u, keep, base = load(rows, 1, g), load(rows, 2, g), load(rows, 3, g)
        total, at = fill(0.0, u), g if own else 0
        for k in range(len(z)):
            y = fma(mul(keep, load(d, k, at)), sub(load(z, k, g), u), base)
            store(z, k, g, y)
            total = fma(load(seen, k, at), y, total)
        store(rows, 0, g, total)


@njit(**PART)
def retreat(q, d, seen, twice, moved, rows, n):
    """Take adjoint modes a step back, ``q <- keep d q + dv``, and read them.

    Args:
        q: modes ``(K, LANES)``, and, as `columns`,
        d: their decays,
        seen: the weights times d,
        twice: and times d squared; no rows if that is not wanted.
        moved: sums of q times ``change``, ``(K, LANES)``, to which is added; no rows if that is not wanted.
        rows: sums over modes with ``seen`` and ``twice``, to be written; keep, dv and change.
        n: neurons.
    """
    own = d.shape[1] >= q.shape[1]
    for g in range(0, n, TOGETHER):
        keep, dv, change = load(rows, 2, g), load(rows, 3, g), load(rows, 4, g)
        zero, at = fill(0.0, keep), g if own else 0
        total, second = zero, zero
        for k in range(len(q)):
            x = load(q, k, g)
            if len(moved):
                store(moved, k, g, fma(x, change, load(moved, k, g)))
            y = fma(mul(keep, load(d, k, at)), x, dv)
            store(q, k, g, y)
            total = fma(load(seen, k, at), y, total)
            if len(twice):
                second = fma(load(twice, k, at), y, second)
        store(rows, 0, g, total)
        store(rows, 1, g, second)


@njit(**PART)
def end(tail, d, rows, n):
    """Add to ``rows`` what the gradient in the modes at the end gives, and take it a step back."""
    own = d.shape[1] >= tail.shape[1]
    for g in range(0, n, TOGETHER):
        first, second, at = load(rows, 0, g), load(rows, 1, g), g if own else 0
        for k in range(len(tail)):
            y = load(tail, k, g)
            left = mul(load(d, k, at), y)
            first, second = add(first, y), add(second, left)
            store(tail, k, g, left)
        store(rows, 0, g, first)
        store(rows, 1, g, second)
