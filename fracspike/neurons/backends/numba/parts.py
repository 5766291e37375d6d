"""What the blocked kernels do to a vector of neurons besides `stretch`, and to blocks of them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from numba import njit

from ...problem import HEADROOM
from .sizes import LANES, STRETCH
from .vectors import (
    OPTIONS,
    PART,
    above,
    add,
    div,
    fill,
    fma,
    fnma,
    load,
    mul,
    narrow,
    pick,
    size,
    store,
    stream,
    sub,
    wide,
)

ROOM = STRETCH + 1  # rows of a tile for each vector: STRETCH would make them share places in the cache


# -- blocks of neurons ------------------------------------------------------------------------------------


@njit(**OPTIONS)
def gather(tile, source, start, down, j, n):
    """Copy a stretch of a block from a sequence to tiles, back in time if ``down``; zeros after its end."""
    for i in range(STRETCH):
        t = start + (STRETCH - 1 - i if down else i)
        whole = n // LANES
        if t >= len(source):
            tile[i::ROOM] = 0.0
        else:
            for g in range(whole):
                store(tile, g * ROOM + i, 0, load(source, t, j + g * LANES))
            for k in range(whole * LANES, n):
                tile[whole * ROOM + i, k - whole * LANES] = source[t, j + k]


@njit(**OPTIONS)
def gather_drive(tile, source, factors, start, j, n, wrong):
    """Do as `gather`, times ``factors``, a row for each vector; what is too large makes ``wrong`` NaN."""
    gather(tile, source, start, False, j, n)
    zero, much = fill(0.0, wrong), fill(HEADROOM, wrong)
    for g in range(-(-n // LANES)):
        factor = load(factors, g, 0)
        for i in range(STRETCH):
            x = load(tile, g * ROOM + i, 0)
            drive = mul(factor, x)
            wrong = fma(fma(drive, much, x), zero, wrong)
            store(tile, g * ROOM + i, 0, drive)
    return wrong


@njit(**OPTIONS)
def scatter(target, tile, start, down, j, n, past):
    """Copy a stretch of a block from tiles to a sequence, as `gather` reads it; ``past`` the cache or not."""
    for i in range(STRETCH):
        t = start + (STRETCH - 1 - i if down else i)
        whole = n // LANES
        if t < len(target):
            for g in range(whole):
                if past:
                    stream(target, t, j + g * LANES, load(tile, g * ROOM + i, 0))
                else:
                    store(target, t, j + g * LANES, load(tile, g * ROOM + i, 0))
            for k in range(whole * LANES, n):
                target[t, j + k] = tile[whole * ROOM + i, k - whole * LANES]


@njit(**OPTIONS)
def put(rows, source, j, n):
    """Copy what belongs to the neurons of a block, with zeros after it."""
    rows[:] = 0.0
    for i in range(n):
        rows[i // LANES, i % LANES] = source[j + i]


@njit(**OPTIONS)
def add_and_clear(total, part):
    """Add sums in single precision to those in double."""
    for row in range(len(part)):
        for lane in range(LANES):
            total[row, lane] += part[row, lane]
            part[row, lane] = 0.0


@njit(**PART)
def bend(tile, spikes, row, level, bar, form):
    """Replace potentials of a stretch by the derivative of their spikes, and find the spikes again.

    Args:
        tile: of potentials.
        spikes: where the spikes go.
        row: where the stretch begins.
        level: from where the derivative counts.
        bar: above which there is a spike.
        form: see `Step`.
    """
    p, q, r, factor = (
        fill(form[0], level),
        fill(form[1], level),
        fill(form[2], level),
        fill(form[3], level),
    )
    for i in range(STRETCH):
        v = load(tile, row + i, 0)
        store(spikes, row + i, 0, above(v, bar))
        root = fma(size(sub(v, level)), q, r)
        store(tile, row + i, 0, div(factor, fma(root, root, p)))


# -- vectors of neurons -----------------------------------------------------------------------------------


@njit(**PART)
def rows_of(coefficients):
    """Return how many rows coefficients have, see `vectors.Coefficients`."""
    return coefficients.shape[0] if coefficients.ndim == 2 else coefficients.shape[1]


@njit(**PART)
def accumulate(total, row, part):
    """Add to a sum over time."""
    store(total, row, 0, add(load(total, row, 0), part))


@njit(**PART)
def read_slow(slow, first, losses, rates, group, zero):
    """Return the moments of the slow modes, which begin at row ``first``."""
    total, a1, a2, a3 = wide(zero), zero, zero, zero
    for k in range(rows_of(losses)):
        x = load(slow, first + k, 0)
        total = fma(pick(losses, group, k, 2), x, total)
        y = narrow(x, zero)
        a1 = fma(pick(rates, group, k, 1), y, a1)
        a2 = fma(pick(rates, group, k, 2), y, a2)
        a3 = fma(pick(rates, group, k, 3), y, a3)
    return narrow(total, zero), a1, a2, a3


@njit(**PART)
def read_slow_last(slow, first, rates, group, zero):
    """Return the moment after those of `read_slow`."""
    a4 = zero
    for k in range(rows_of(rates)):
        a4 = fma(pick(rates, group, k, 4), narrow(load(slow, first + k, 0), zero), a4)
    return a4


@njit(**PART)
def _later(rate, d):
    return mul(rate, fnma(rate, fnma(rate, d[3], d[2]), d[1]))


@njit(**PART)
def advance_slow(slow, first, losses, rates, group, u, added, d):
    """Take the slow modes over a stretch in which ``added`` came to all; ``d`` moments of the changes."""
    origin = wide(u)
    for k in range(rows_of(losses)):
        x = load(slow, first + k, 0)
        left = fnma(pick(losses, group, k, 1), sub(x, origin), add(x, added))
        store(slow, first + k, 0, sub(left, wide(_later(pick(rates, group, k, 0), d))))


@njit(**PART)
def weigh_slow(slow, weighed, first, rates, group, h):
    """Add to sums over time what slow modes at the start of a stretch give; ``h`` moments of the changes."""
    for k in range(rows_of(rates)):
        q = sub(h[0], _later(pick(rates, group, k, 0), h))
        y = fma(load(slow, first + k, 0), wide(q), load(weighed, first + k, 0))
        store(weighed, first + k, 0, y)


@njit(**PART)
def finish(fast, first, gone, group, changes, count, jump):
    """Take the fast modes over fewer steps than a stretch, one by one, at the end of time."""
    for k in range(rows_of(gone)):
        x = load(fast, first + k, 0)
        for i in range(count):
            x = add(x, load(changes, i, 0))
            x = fnma(pick(gone, group, k, 0), x, x)
        store(fast, first + k, 0, add(x, jump))


@njit(**PART)
def finish_slow(slow, first, losses, group, changes, count, before, after):
    """Do as `finish` with the slow modes; ``before`` and ``after`` from where they deviate."""
    for k in range(rows_of(losses)):
        x = sub(load(slow, first + k, 0), wide(before))
        for i in range(count):
            x = add(x, wide(load(changes, i, 0)))
            x = fnma(pick(losses, group, k, 0), x, x)
        store(slow, first + k, 0, add(x, wide(after)))
