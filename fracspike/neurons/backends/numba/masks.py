"""Vectors of neurons where there are fewer than LANES."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,call-arg"

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .sizes import LANES
from .vectors import PART, Vector, call, kind_of, load, place, spread, store


def _mask(builder, count):
    """Return the first ``count`` lanes."""
    word = ir.VectorType(count.type, LANES)
    return builder.icmp_signed("<", ir.Constant(word, list(range(LANES))), spread(builder, count))


@intrinsic
def load_some(typing, array, row, column, count):
    """Load ``count`` lanes from an array ``(rows, columns)``; the others are 0."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        vector = ir.VectorType(context.get_data_type(kind.dtype), LANES)
        align = ir.Constant(ir.IntType(32), kind.dtype.bitwidth // 8)
        pointer = place(context, builder, kind, *args[:3])
        nothing = ir.Constant(vector, [0.0] * LANES)
        name, mask = f"masked.load.{kind_of(vector)}.p0", _mask(builder, args[3])
        return call(builder, name, vector, pointer, align, mask, nothing)

    return Vector(array.dtype)(array, types.intp, types.intp, types.intp), generate


@intrinsic
def store_some(typing, array, row, column, value, count):
    """Store ``count`` lanes in an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        align = ir.Constant(ir.IntType(32), kind.dtype.bitwidth // 8)
        pointer = place(context, builder, kind, *args[:3])
        name, mask = f"masked.store.{kind_of(args[3].type)}.p0", _mask(builder, args[4])
        call(builder, name, ir.VoidType(), args[3], pointer, align, mask)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, Vector(array.dtype), types.intp), generate


@njit(**PART)
def take(array, row, column, count):
    """Load as many lanes as there are."""
    if count >= LANES:
        return load(array, row, column)
    return load_some(array, row, column, count)


@njit(**PART)
def give(array, row, column, value, count):
    """Store as many lanes as there are."""
    if count >= LANES:
        store(array, row, column, value)
    else:
        store_some(array, row, column, value, count)
