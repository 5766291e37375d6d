"""What the general kernels do to the modes of one block of neurons in a step, in one pass over them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# mypy: disable-error-code="call-arg,unreachable,var-annotated"

from __future__ import annotations

from typing import Any

from numba import njit

from .rates import LANES as TOGETHER
from .vectors import add, fill, fma, load, mul, store, sub

OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
PART: dict[str, Any] = OPTIONS | {"forceinline": True}


@njit(**PART)
def read(z, seen, rows, n):
    """Write ``sum_k seen_k z_k`` of ``n`` neurons to the first of ``rows``; all are ``(*, LANES)``."""
    for g in range(0, n, TOGETHER):
        total = fill(0.0, load(rows, 0, g))
        for k in range(len(z)):
            total = fma(load(seen, k, g), load(z, k, g), total)
        store(rows, 0, g, total)


@njit(**PART)
def advance(z, d, seen, rows, n):
    """Take modes over a step, and then do as `read`: ``z <- keep d (z - u) + base``.

    Args:
        z: modes ``(K, LANES)``, and so are
        d: their decays,
        seen: and what the next step sees of them, ``w d``.
        rows: what it sees all told, u, keep and base.
        n: neurons.
    """
    for g in range(0, n, TOGETHER):
        u, keep, base = load(rows, 1, g), load(rows, 2, g), load(rows, 3, g)
        total = fill(0.0, u)
        for k in range(len(z)):
            y = fma(mul(keep, load(d, k, g)), sub(load(z, k, g), u), base)
            store(z, k, g, y)
            total = fma(load(seen, k, g), y, total)
        store(rows, 0, g, total)


@njit(**PART)
def retreat(q, d, seen, twice, along, rows, b_along, n):
    """Take adjoint modes a step back, ``q <- keep d q + change``, and read them.

    Args:
        q: modes ``(K, LANES)``, and so are
        d: their decays,
        seen: the weights times d,
        twice: and times d squared; ``(0, LANES)`` if that is not wanted.
        along: tangents times d, ``(P, K, LANES)``.
        rows: sums over modes with ``seen`` and ``twice``, to be written; keep and change.
        b_along: sums with ``along``, ``(P, LANES)``, to be written.
        n: neurons.
    """
    for g in range(0, n, TOGETHER):
        keep, change = load(rows, 2, g), load(rows, 3, g)
        zero = fill(0.0, keep)
        total, second = zero, zero
        for k in range(len(q)):
            y = fma(mul(keep, load(d, k, g)), load(q, k, g), change)
            store(q, k, g, y)
            total = fma(load(seen, k, g), y, total)
            if len(twice):
                second = fma(load(twice, k, g), y, second)
        store(rows, 0, g, total)
        store(rows, 1, g, second)
        for p in range(len(along)):
            total = zero
            for k in range(len(q)):
                total = fma(load(along[p], k, g), load(q, k, g), total)
            store(b_along, p, g, total)


@njit(**PART)
def end(tail, d, rows, n):
    """Add to ``rows`` what the gradient in the modes at the end gives, and take it a step back."""
    for g in range(0, n, TOGETHER):
        first, second = load(rows, 0, g), load(rows, 1, g)
        for k in range(len(tail)):
            y = load(tail, k, g)
            left = mul(load(d, k, g), y)
            first, second = add(first, y), add(second, left)
            store(tail, k, g, left)
        store(rows, 0, g, first)
        store(rows, 1, g, second)
