"""The formulas that both kernels share, for one block of neurons: ``[BLOCK]``, modes ``[K, BLOCK]``."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

AT_LEAST: tl.constexpr = tl.constexpr(0)
ABOVE: tl.constexpr = tl.constexpr(1)
SOFT: tl.constexpr = tl.constexpr(2)
NEVER: tl.constexpr = tl.constexpr(3)
NONE: tl.constexpr = tl.constexpr(0)
SUBTRACT: tl.constexpr = tl.constexpr(1)
VALUE: tl.constexpr = tl.constexpr(2)
HALF: tl.constexpr = tl.constexpr(0.5)  # from where on a soft spike holds a neuron or erases its memory
INFINITE: tl.constexpr = tl.constexpr(float("inf"))


@triton.constexpr_function
def sum_of(values, count):
    """Return the sum of the first few."""
    return sum(values[:count])


# -- memory ------------------------------------------------------------------------------------------------


@triton.jit
def row(sequence, stride, o, t, T, mask, ACC: tl.constexpr):
    """Return step ``t`` of a sequence: the offsets ``o``, ``t`` strides on; 0 outside of it.

    A sequence that does not exist is 0, of which the compiler makes nothing.
    """
    if sequence is None:
        return tl.zeros(o.shape, ACC)
    else:
        step = o * 0 + t
        return tl.load(sequence + step * stride + o, mask & (step >= 0) & (step < T), 0.0).to(ACC)


@triton.jit
def row_before(sequence, start, stride, o, t, T, mask, ACC: tl.constexpr):
    """Return step ``t - 1`` of a sequence; before the first, what it started from."""
    if sequence is None:
        return tl.zeros(o.shape, ACC)
    else:
        return tl.where(t > 0, row(sequence, stride, o, t - 1, T, mask, ACC), start)


@triton.jit
def put(sequence, stride, o, t, mask, values):
    """Write step ``t`` of a sequence, if there is one."""
    if sequence is not None:
        tl.store(sequence + (o * 0 + t) * stride + o, values.to(sequence.dtype.element_ty), mask)


@triton.jit
def constant(values, o, ACC: tl.constexpr):
    """Return a constant ``(pointer, n)`` of n neurons; 0 if there is none."""
    if values is None:
        return tl.zeros(o.shape, ACC)
    else:
        return tl.load(values[0] + o % values[1]).to(ACC)


@triton.jit
def start_of(values, o, mask, ACC: tl.constexpr):
    """Return where a run of neurons starts; 0 if nothing is said."""
    if values is None:
        return tl.zeros(o.shape, ACC)
    else:
        return tl.load(values + o, mask, 0.0).to(ACC)


@triton.jit
def place(layout, o):
    """Return the offsets of neurons in a row of ``(B, N)``, laid out as ``(N, stride of B, stride of N)``."""
    if layout is None:
        return o
    else:
        return o // layout[0] * layout[1] + o % layout[0] * layout[2]


# -- modes -------------------------------------------------------------------------------------------------


@triton.jit
def table(values, k, o, columns, ACC: tl.constexpr):
    """Return rows ``k`` of a table: ``[K, 1]`` if all share them (no columns), else ``[K, BLOCK]``."""
    if columns is None:
        return tl.load(values + k[:, None]).to(ACC)
    else:
        return tl.load(values + k[:, None] * columns + (o % columns)[None, :]).to(ACC)


@triton.jit
def rows_of(tile: tl.constexpr, TILES: tl.constexpr):
    """Return which modes are in a tile."""
    first: tl.constexpr = sum_of(TILES, tile)
    ROWS: tl.constexpr = TILES[tile]
    return first + tl.arange(0, ROWS)


@triton.jit
def there(k, K, mask, LEAKY: tl.constexpr):
    """Return which of a tile's places are a mode of a neuron; with a leak the last mode is in no tile."""
    if LEAKY:
        return (k < K - 1)[:, None] & mask[None, :]
    else:
        return (k < K)[:, None] & mask[None, :]


@triton.jit
def advance(x, c, u, jump, loss, COMPENSATED: tl.constexpr):
    """Take modes over a step: the jump that ended the last one, then the relaxation to the drive.

    With compensated (Kahan) sums ``c`` is by how much rounding left ``x`` too large.
    """
    change = jump[None, :] + loss * ((u - jump)[None, :] - x)
    if COMPENSATED:
        change -= c
        total = x + change
        c = (total - x) - change
        x = total
    else:
        x += change
    return x, c


# -- spikes ------------------------------------------------------------------------------------------------


@triton.jit
def spike(over, noise, slope, STEP: tl.constexpr, NOISY: tl.constexpr, ACC: tl.constexpr):
    """Return what a potential ``over`` threshold makes."""
    if STEP == NEVER:
        return tl.zeros(over.shape, ACC)
    else:
        x = over
        if NOISY or STEP == SOFT:
            x = slope * over + noise
        if STEP == SOFT:
            return 1.0 / (1.0 + tl.exp(-x))
        elif STEP == ABOVE:
            return (x > 0.0).to(ACC)
        else:
            return (x >= 0.0).to(ACC)


@triton.jit
def slope_of(over, p, q, r, factor):
    """Return the derivative of a spike in the potential: ``factor / (p + (q |over| + r)^2)``."""
    root = q * tl.abs(over) + r
    return factor / (p + root * root)


@triton.jit
def reset_of(v, s, fall, RESET: tl.constexpr):
    """Return what a reset adds to the potential."""
    if RESET == SUBTRACT:
        return -fall * s
    elif RESET == VALUE:
        return (fall - v) * s
    else:
        return tl.zeros_like(v)
