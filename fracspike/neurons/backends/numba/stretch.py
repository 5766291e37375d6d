r"""What is done to one vector of neurons over a stretch of STRETCH steps, written out step by step.

A *tile* holds the steps of a vector in rows one after the other, ``(rows, LANES)``; step i of a stretch is
row ``row + i``. Modes are kept likewise, one in a row. Coefficients are as `vectors.Coefficients` takes them.
The loops over steps are unrolled here, when the kernel is compiled, because a compiler then keeps a whole
stretch in registers: every function reads and writes each row once.

With :math:`d_k` the decay of a mode in a step, :math:`w_k` its weight, :math:`K_j = \sum_k w_k d_k^j` the
kernel and :math:`F_j = K_j - K_{j+1}` its fall, items i of a row of coefficients belong to lag i + 1.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,var-annotated"

from __future__ import annotations

import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .sizes import MOMENTS, STRETCH
from .vectors import FLAGS, Coefficients, Vector, constant, logistic, place, product, read, shortfall, write

STEPS = range(STRETCH)
BINOMIALS = [[math.comb(i + 1, p) for i in STEPS] for p in range(MOMENTS)]


def _start(context, builder, kind, array, row):
    return place(context, builder, kind, array, row, ir.Constant(ir.IntType(64), 0))


def _slow(builder, moments, i):
    """Return what the moments of the slow modes give to step i."""
    value = moments[0]
    for p in range(1, min(MOMENTS, i + 2)):  # the others are zero
        value = product(builder, constant(value, BINOMIALS[p][i]), moments[p], value)
    return value


def _modes(context, builder, signature, args, sums):
    """Add to ``sums`` what the fast modes give to each step; see `foresee` for the arguments."""
    weights, group, modes, first, count, offset = args
    coefficients = Coefficients(context, builder, signature[0], weights, group)
    start = _start(context, builder, signature[2], modes, first)
    places = [cgutils.alloca_once_value(builder, value) for value in sums]
    with cgutils.for_range(builder, count) as loop:
        x = builder.fadd(read(builder, signature[2], start, loop.index), offset, flags=FLAGS)
        item = builder.mul(loop.index, ir.Constant(ir.IntType(64), STRETCH + 1))
        for i, where in enumerate(places):
            w = coefficients[builder.add(item, ir.Constant(ir.IntType(64), i))]
            builder.store(product(builder, w, x, builder.load(where)), where)
    return [builder.load(where) for where in places]


def _fold(context, builder, kind, start, falls, values):
    r"""Add to ``values`` what a drive gives: :math:`\sum_{m \le i} F_{i-m} u_m`."""
    for m in STEPS:
        u = read(builder, kind, start, m)
        for i in range(m, STRETCH):
            values[i] = product(builder, falls[STRETCH + 1 + i - m], u, values[i])


@intrinsic
def foresee(typing, tile, row, weights, group, modes, first, count, offset, slow, kernel, drive, drive_row):
    r"""Fill a tile with the potential that is known at the start of a stretch, for each of its steps.

    .. math:: y_i = \sum_k w_k d_k^{i+1} (x_k + \text{offset}) + \sum_p \binom{i+1}{p} a_p
        + \sum_{m \le i} F_{i-m} u_m

    Args:
        typing: of Numba.
        tile: to be filled,
        row: from this row.
        weights: :math:`w d^j`, ``(count, STRETCH + 1)``, of
        group: vector of neurons.
        modes: x, in rows
        first: from here,
        count: so many.
        offset: as said.
        slow: moments a of the slow modes.
        kernel: ``(2, STRETCH + 1)``: K and F at lags from 0.
        drive: u, in rows
        drive_row: from here.
    """

    def generate(context, builder, signature, args):
        moments = cgutils.unpack_tuple(builder, args[8], MOMENTS)
        values = [_slow(builder, moments, i) for i in STEPS]
        values = _modes(context, builder, signature.args[2:], args[2:8], values)
        falls = Coefficients(context, builder, signature.args[9], args[9], args[3])
        kind = signature.args[10]
        _fold(context, builder, kind, _start(context, builder, kind, *args[10:]), falls, values)
        out = _start(context, builder, signature.args[0], *args[:2])
        for i in STEPS:
            write(builder, signature.args[0], values[i], out, i)
        return context.get_dummy_value()

    index, vector = types.intp, Vector(tile.dtype)
    kinds = tile, index, weights, index, modes, index, index, vector, slow, kernel, drive, index
    return types.void(*kinds), generate


@intrinsic
def recall(typing, reach, tile, row, weights, group, modes, first, count, zero, slow, loss):
    r"""Fill tiles with what the adjoint modes give to each step back: in a jump, and in a drive.

    .. math:: y_i = \sum_k w_k d_k^{i+1} x_k + \sum_p \binom{i+1}{p} a_p, \qquad
        z_i = \sum_k w_k (1 - d_k) d_k^{i+1} x_k + \sum_p \binom{i+1}{p} a'_p

    Args:
        typing: of Numba.
        reach: to be filled with y, from row 0.
        tile: to be filled with z,
        row: from this row.
        weights: as in `foresee`, and so are the next four.
        group: as said.
        modes: as said.
        first: as said.
        count: as said.
        zero: what `foresee` takes as offset.
        slow: moments a of the slow modes,
        loss: and :math:`a'_p = -a_{p+1}`.
    """

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        slow, loss = (cgutils.unpack_tuple(builder, moments, MOMENTS) for moments in args[9:])
        sums = _modes(context, builder, signature.args[3:], args[3:9], [args[8]] * (STRETCH + 1))
        y_start = _start(context, builder, kind, args[0], ir.Constant(ir.IntType(64), 0))
        z_start = _start(context, builder, kind, *args[1:3])
        for i in STEPS:
            y = builder.fadd(sums[i], _slow(builder, slow, i), flags=FLAGS)
            fall = builder.fsub(sums[i], sums[i + 1], flags=FLAGS)
            write(builder, kind, y, y_start, i)
            write(builder, kind, builder.fadd(fall, _slow(builder, loss, i), flags=FLAGS), z_start, i)
        return context.get_dummy_value()

    index, vector = types.intp, Vector(reach.dtype)
    kinds = reach, tile, index, weights, index, modes, index, index, vector, slow, loss
    return types.void(*kinds), generate


def _firing(decide, text):
    r"""Return a function that decides on the spikes of a stretch, step after step; ``text`` says how.

    ``decide`` emits code for s and J, from a builder, v, level, slope, noise (a call) and what a reset adds.

    .. math:: v_i = y_i + \sum_{l < i} K_{i-l} J_l, \qquad s_i = S(v_i), \qquad
        J_i = s_i (\text{share} \, v_i + \text{shift}), \qquad c_i = J_{i-1} + u_{i-1} - u_i

    The function's arguments:
        potential: y from `foresee`; replaced by v.
        drive: u.
        spikes: s, to be filled.
        noise: as said, where there is one.
        row: of all four.
        changes: c, to be filled from row 0; without :math:`J_{-1}`, which the modes have in them.
        kernel: as there.
        group: as there.
        level: as said.
        slope: as said.
        share: as said.
        shift: as said.
        before: :math:`u_{-1}`.

    It returns the sum of all J.
    """

    @intrinsic
    def operation(
        typing,
        potential,
        drive,
        spikes,
        noise,
        row,
        changes,
        kernel,
        group,
        level,
        slope,
        share,
        shift,
        before,
    ):
        def generate(context, builder, signature, args):
            kind = signature.args[0]
            v_start, u_start, s_start, n_start = (
                _start(context, builder, kind, args[n], args[4]) for n in range(4)
            )
            c_start = _start(context, builder, kind, args[5], ir.Constant(ir.IntType(64), 0))
            coefficients = Coefficients(context, builder, signature.args[6], *args[6:8])
            level, slope, share, shift, before = args[8:]
            total, jumps = constant(level, 0), []
            for i in STEPS:
                u = read(builder, kind, u_start, i)
                change = builder.fsub(before, u, flags=FLAGS)
                if i:
                    change = builder.fadd(jumps[-1], change, flags=FLAGS)
                write(builder, kind, change, c_start, i)
                v, before = read(builder, kind, v_start, i), u
                for m, jump in enumerate(jumps):  # the latest last: all others are known by then
                    v = product(builder, coefficients[i - m], jump, v)
                write(builder, kind, v, v_start, i)
                gap = product(builder, share, v, shift)
                spike, jump = decide(
                    builder, v, level, slope, lambda i=i: read(builder, kind, n_start, i), gap
                )
                write(builder, kind, spike, s_start, i)
                jumps.append(jump)
                total = builder.fadd(total, jump, flags=FLAGS)
            return total

        index, vector = types.intp, Vector(potential.dtype)
        tiles = potential, drive, spikes, noise, index, changes
        return vector(*tiles, kernel, index, *[vector] * 5), generate

    operation.__doc__ = text + "; see `_firing`."
    return operation


def _hard(builder, above, gap):
    zero = constant(gap, 0)
    return builder.select(above, constant(gap, 1), zero), builder.select(above, gap, zero)


def _plainly(builder, v, level, slope, noise, gap):
    return _hard(builder, builder.fcmp_ordered(">", v, level), gap)


def _argument(builder, v, level, slope, noise):
    """Return what a surrogate steps on, rounded as it rounds."""
    return builder.fadd(builder.fmul(slope, builder.fsub(v, level)), noise())


def _noisily(builder, v, level, slope, noise, gap):
    """Spike from 0 on."""
    x = _argument(builder, v, level, slope, noise)
    return _hard(builder, builder.fcmp_ordered(">=", x, constant(x, 0)), gap)


def _softly(builder, v, level, slope, noise, gap):
    spike = logistic(builder, _argument(builder, v, level, slope, noise))
    return spike, builder.fmul(spike, gap, flags=FLAGS)


fire_above = _firing(_plainly, "Spike above the level, :math:`S = [v > level]`")
fire_noisily = _firing(_noisily, "Spike where :math:`slope (v - level) + noise` is 0 or more")
fire_softly = _firing(_softly, "Give the logistic function of :math:`slope (v - level) + noise`")


def _retrace(hard):
    r"""Find the gradient in the potential in a stretch, step i being the i-th from its end.

    With :math:`q_i = \text{share} \, v_i + \text{shift}` what a reset adds if there is a spike,

    .. math:: b_i = y_i + \sum_{m < i} K_{i-m} \delta_m, \qquad
        g_i \leftarrow g_i + \text{through} \, q_i b_i, \qquad
        \delta_i = p_i g_i + \text{share} \, s_i b_i + o_i, \qquad h_i = q_i s_i + u_i - u_{i-1}

    Args:
        hard: whether share may be other than 0.

    Args of the operation:
        typing: of Numba.
        reach: y from `recall`, from row 0.
        tiles: currents, and, for the next five, in the same rows: derivative p, spikes s, gradient g in the
            spikes (replaced by all there is), potential v, and gradient o that arrives at it.
        row: as said.
        changes: h, to be filled from row 0.
        found: :math:`\delta`, to be filled from row 1.
        kernel: as in `foresee`.
        group: as there.
        share: as said.
        shift: as said.
        through: as said.
        resistance: current to drive u.
        u_next: :math:`u_{-1}`.

    Returns:
        The sums of :math:`\delta`, of -p g, of b s, and the last drive.
    """

    @intrinsic
    def operation(
        typing, reach, tiles, row, changes, found, kernel, group, share, shift, through, resistance, u_next
    ):
        def generate(context, builder, signature, args):
            kind, zero = signature.args[0], ir.Constant(ir.IntType(64), 0)
            count = len(signature.args[1])
            b_start, h_start, d_start = (_start(context, builder, kind, args[n], zero) for n in (0, 3, 4))
            starts = [
                _start(context, builder, kind, tile, args[2])
                for tile in cgutils.unpack_tuple(builder, args[1], count)
            ]
            coefficients = Coefficients(context, builder, signature.args[5], *args[5:7])
            share, shift, through, resistance, u_next = args[7:]
            nothing = constant(share, 0)
            values, total, d_threshold, d_reset = [], nothing, nothing, nothing
            for i in STEPS:
                x, p, s, g, v, o = (read(builder, kind, start, i) for start in starts)
                gap = product(builder, share, v, shift) if hard else shift
                fixed = product(builder, p, g, o)
                open_ = builder.fmul(through, gap, flags=FLAGS)
                factor = builder.fmul(p, open_, flags=FLAGS)
                if hard:
                    factor = builder.fadd(factor, builder.fmul(share, s, flags=FLAGS), flags=FLAGS)
                b = read(builder, kind, b_start, i)
                for m, value in enumerate(values):  # the latest last: all others are known by then
                    b = product(builder, coefficients[i - m], value, b)
                values.append(product(builder, factor, b, fixed))
                write(builder, kind, values[-1], d_start, i + 1)
                total = builder.fadd(total, values[-1], flags=FLAGS)
                g = product(builder, open_, b, g)
                write(builder, kind, g, starts[3], i)
                d_threshold = shortfall(builder, p, g, d_threshold)
                d_reset = product(builder, b, s, d_reset)
                u = builder.fmul(resistance, x, flags=FLAGS)
                write(
                    builder, kind, product(builder, gap, s, builder.fsub(u, u_next, flags=FLAGS)), h_start, i
                )
                u_next = u
            sums = [total, d_threshold, d_reset, u_next]
            return context.make_tuple(builder, signature.return_type, sums)

        index, vector = types.intp, Vector(reach.dtype)
        kinds = reach, tiles, index, changes, found, kernel, index, *[vector] * 5
        return types.UniTuple(vector, 4)(*kinds), generate

    return operation


retrace_hard, retrace_soft = _retrace(hard=True), _retrace(hard=False)


@intrinsic
def drives(typing, tile, row, kernel, group, found, current, resistance):
    r"""Turn a tile of `recall` into the gradient in the current, step i being the i-th from the end.

    .. math:: R \Big( z_i + \sum_{m \le i} F_{i-m} \delta_m \Big)

    Args:
        typing: of Numba.
        tile: z; replaced.
        row: of this and the current.
        kernel: as in `foresee`.
        group: as there.
        found: :math:`\delta` from row 1, as `retrace` leaves it.
        current: as said.
        resistance: R.

    Returns:
        The gradient in the resistance.
    """

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        start, x_start = (_start(context, builder, kind, array, args[1]) for array in (args[0], args[5]))
        falls = Coefficients(context, builder, signature.args[2], *args[2:4])
        found = _start(context, builder, kind, args[4], ir.Constant(ir.IntType(64), 1))
        values = [read(builder, kind, start, i) for i in STEPS]
        _fold(context, builder, kind, found, falls, values)
        total = constant(args[6], 0)
        for i in STEPS:
            total = product(builder, values[i], read(builder, kind, x_start, i), total)
            write(builder, kind, builder.fmul(args[6], values[i], flags=FLAGS), start, i)
        return total

    index, vector = types.intp, Vector(tile.dtype)
    return vector(tile, index, kernel, index, found, current, vector), generate


@intrinsic
def feed(typing, modes, first, count, gone, group, changes, added):
    r"""Take modes over a stretch.

    With :math:`g_j = 1 - d^j`, and ``added`` the sum of all that comes,

    .. math:: x \leftarrow x - g_{16} x + \text{added} - \sum_i g_{16-i} c_i

    Args:
        typing: of Numba.
        modes: x, in rows
        first: from here,
        count: so many.
        gone: g, ``(count, STRETCH)``.
        group: as in `foresee`.
        changes: c, from row 0.
        added: as said.
    """

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        start = _start(context, builder, kind, *args[:2])
        changes = _start(context, builder, signature.args[5], args[5], ir.Constant(ir.IntType(64), 0))
        coefficients = Coefficients(context, builder, signature.args[3], *args[3:5])
        came = [read(builder, kind, changes, i) for i in STEPS]
        with cgutils.for_range(builder, args[2]) as loop:
            item = builder.mul(loop.index, ir.Constant(ir.IntType(64), STRETCH))

            def lost(lag):
                return coefficients[builder.add(item, ir.Constant(ir.IntType(64), lag - 1))]

            value = args[6]
            for i in STEPS:
                value = shortfall(builder, lost(STRETCH - i), came[i], value)
            x = read(builder, kind, start, loop.index)
            value = builder.fadd(shortfall(builder, lost(STRETCH), x, x), value, flags=FLAGS)
            write(builder, kind, value, start, loop.index)
        return context.get_dummy_value()

    index, vector = types.intp, Vector(modes.dtype)
    return types.void(modes, index, index, gone, index, changes, vector), generate


@intrinsic
def weigh(typing, sums, modes, first, count, gone, group, changes, total):
    r"""Add to sums over time what the modes at the start of a stretch give: :math:`x \sum_i d^{i+1} h_i`.

    Args:
        typing: of Numba.
        sums: of the modes, in the same rows.
        modes: x, in rows
        first: from here,
        count: so many.
        gone: :math:`1 - d^j`, ``(count, STRETCH)``.
        group: as in `foresee`.
        changes: h, from row 0.
        total: the sum of all h.
    """

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        sum_start, start = (_start(context, builder, kind, array, args[2]) for array in args[:2])
        changes = _start(context, builder, signature.args[6], args[6], ir.Constant(ir.IntType(64), 0))
        coefficients = Coefficients(context, builder, signature.args[4], *args[4:6])
        came = [read(builder, kind, changes, i) for i in STEPS]
        with cgutils.for_range(builder, args[3]) as loop:
            item = builder.mul(loop.index, ir.Constant(ir.IntType(64), STRETCH))
            value = args[7]
            for i in STEPS:
                lost = coefficients[builder.add(item, ir.Constant(ir.IntType(64), i))]
                value = shortfall(builder, lost, came[i], value)
            x, before = (read(builder, kind, where, loop.index) for where in (start, sum_start))
            write(builder, kind, product(builder, x, value, before), sum_start, loop.index)
        return context.get_dummy_value()

    index, vector = types.intp, Vector(modes.dtype)
    return types.void(sums, modes, index, index, gone, index, changes, vector), generate


@intrinsic
def correlate(typing, sums, row, changes, found):
    r"""Add to sums over time, for each lag j > 0, :math:`\sum_i h_i \delta_{i-j}`.

    Args:
        typing: of Numba.
        sums: lag j in row
        row: + j - 1.
        changes: h, from row 0.
        found: :math:`\delta` from row 1, as `retrace` leaves it.
    """

    def generate(context, builder, signature, args):
        kind, zero = signature.args[0], ir.Constant(ir.IntType(64), 0)
        start = _start(context, builder, kind, *args[:2])
        h_start, d_start = (_start(context, builder, kind, array, zero) for array in args[2:])
        found = [read(builder, kind, d_start, i + 1) for i in STEPS]
        sums = [read(builder, kind, start, lag - 1) for lag in range(1, STRETCH)]
        for i in STEPS:
            h = read(builder, kind, h_start, i)
            for lag in range(1, i + 1):
                sums[lag - 1] = product(builder, h, found[i - lag], sums[lag - 1])
        for lag in range(1, STRETCH):
            write(builder, kind, sums[lag - 1], start, lag - 1)
        return context.get_dummy_value()

    return types.void(sums, types.intp, changes, found), generate


def _moments(back, text):
    @intrinsic
    def operation(typing, changes):
        def generate(context, builder, signature, args):
            kind = signature.args[0]
            start = _start(context, builder, kind, args[0], ir.Constant(ir.IntType(64), 0))
            rows = [read(builder, kind, start, i) for i in STEPS]
            sums = [constant(rows[0], 0)] * MOMENTS
            for i, row in enumerate(reversed(rows) if back else rows):
                for p in range(MOMENTS):
                    if BINOMIALS[p][i]:
                        sums[p] = product(builder, constant(row, BINOMIALS[p][i]), row, sums[p])
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(Vector(changes.dtype), MOMENTS)(changes), generate

    operation.__doc__ = text
    return operation


moments_ahead = _moments(False, r"Return :math:`\sum_i \binom{i+1}{p} c_i` for each p, c from row 0.")
moments_left = _moments(True, r"Return :math:`\sum_i \binom{16-i}{p} c_i` for each p, c from row 0.")
