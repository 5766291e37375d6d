"""What the kernels do to the modes of one block of neurons, in loops that become vector instructions.

A compiler turns a loop into vector instructions if it can see that what is written is not what is read; it
checks a handful of arrays, not more. So each function here takes few arrays, and does one thing.

Modes are advanced four steps at once: what the modes at the start of four steps give to each of them is
read off in one pass (`sums`), what happens within the four is added by the kernel itself, from the kernel
of the equation, and one pass takes the modes over all four (`advance`), Horner's scheme in the decay.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import njit

LANES = 64  # neurons of a block: its modes stay in the first-level cache
STEPS = 4  # taken at once

# Sums may be reordered and products fused; NaN and infinity keep their meaning.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}


@njit(**OPTIONS)
def sums(z, s, d, w):
    """Add ``sum_k w_k d_k^(j + 1) z_k`` to ``s[j]`` for four j; d and w common to all neurons."""
    for k in range(0, len(z), 4):
        d0, d1, d2, d3 = d[k], d[k + 1], d[k + 2], d[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for i in range(LANES):
            y0, y1, y2, y3 = w0 * z[k, i], w1 * z[k + 1, i], w2 * z[k + 2, i], w3 * z[k + 3, i]
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[0, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[1, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[2, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[3, i] += (y0 + y1) + (y2 + y3)


@njit(**OPTIONS)
def advance(z, a, s, d, w):
    """Take modes over four steps, ``z <- ((((z - a0) d + a1) d + a2) d + a3) d + a4``, then do as `sums`."""
    for k in range(0, len(z), 4):
        d0, d1, d2, d3 = d[k], d[k + 1], d[k + 2], d[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for i in range(LANES):
            a0, a1, a2, a3, a4 = a[0, i], a[1, i], a[2, i], a[3, i], a[4, i]
            y0 = ((((z[k, i] - a0) * d0 + a1) * d0 + a2) * d0 + a3) * d0 + a4
            y1 = ((((z[k + 1, i] - a0) * d1 + a1) * d1 + a2) * d1 + a3) * d1 + a4
            y2 = ((((z[k + 2, i] - a0) * d2 + a1) * d2 + a2) * d2 + a3) * d2 + a4
            y3 = ((((z[k + 3, i] - a0) * d3 + a1) * d3 + a2) * d3 + a3) * d3 + a4
            z[k, i], z[k + 1, i], z[k + 2, i], z[k + 3, i] = y0, y1, y2, y3
            y0, y1, y2, y3 = w0 * y0, w1 * y1, w2 * y2, w3 * y3
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[0, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[1, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[2, i] += (y0 + y1) + (y2 + y3)
            y0, y1, y2, y3 = y0 * d0, y1 * d1, y2 * d2, y3 * d3
            s[3, i] += (y0 + y1) + (y2 + y3)


@njit(**OPTIONS)
def sums_each(z, s, d, w):
    """Do as `sums` with d and w for each neuron, ``(K, LANES)``."""
    for k in range(0, len(z), 2):
        for i in range(LANES):
            d0, d1 = d[k, i], d[k + 1, i]
            y0, y1 = w[k, i] * z[k, i], w[k + 1, i] * z[k + 1, i]
            y0, y1 = y0 * d0, y1 * d1
            s[0, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[1, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[2, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[3, i] += y0 + y1


@njit(**OPTIONS)
def advance_each(z, a, s, d, w):
    """Do as `advance` with d and w for each neuron, ``(K, LANES)``."""
    for k in range(0, len(z), 2):
        for i in range(LANES):
            a0, a1, a2, a3, a4 = a[0, i], a[1, i], a[2, i], a[3, i], a[4, i]
            d0, d1 = d[k, i], d[k + 1, i]
            y0 = ((((z[k, i] - a0) * d0 + a1) * d0 + a2) * d0 + a3) * d0 + a4
            y1 = ((((z[k + 1, i] - a0) * d1 + a1) * d1 + a2) * d1 + a3) * d1 + a4
            z[k, i], z[k + 1, i] = y0, y1
            y0, y1 = w[k, i] * y0 * d0, w[k + 1, i] * y1 * d1
            s[0, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[1, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[2, i] += y0 + y1
            y0, y1 = y0 * d0, y1 * d1
            s[3, i] += y0 + y1


@njit(**OPTIONS)
def settle(z, u, jump, d):
    """Take modes over one step, ``z <- (z - u) d + u + jump``; d for each neuron."""
    for k in range(len(z)):
        for i in range(LANES):
            z[k, i] = (z[k, i] - u[i]) * d[k, i] + (u[i] + jump[i])


@njit(**OPTIONS)
def add(v, x, factor):
    """Add a product to a row."""
    for i in range(LANES):
        v[i] += x[i] * factor[i]


@njit(**OPTIONS)
def product(result, x, factor):
    """Write a product to a row as long as the factors."""
    for i in range(len(x)):
        result[i] = x[i] * factor[i]


@njit(**OPTIONS)
def copy(result, x):
    """Write a row, in its own dtype."""
    for i in range(len(result)):
        result[i] = x[i]


@njit(**OPTIONS)
def combine(result, x, y, minus):
    """Write ``x + y - minus`` to a row."""
    for i in range(LANES):
        result[i] = x[i] + y[i] - minus[i]
