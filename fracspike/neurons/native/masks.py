"""Vectors of neurons where there are fewer than LANES, and what is decided in each lane."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,call-arg"

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import PART
from .rates import LANES
from .vectors import Vector, constant, load, place, spread, store


def _mask(builder, count):
    """Return the first ``count`` lanes."""
    word = ir.VectorType(count.type, LANES)
    return builder.icmp_signed("<", ir.Constant(word, list(range(LANES))), spread(builder, count))


def _call(builder, name, vector, result, *arguments):
    """Call an operation of LLVM on the lanes of a mask."""
    suffix = f"v{LANES}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.{suffix}.p0")
    return builder.call(function, arguments)


@intrinsic
def load_some(typing, array, row, column, count):
    """Load ``count`` lanes from an array ``(rows, columns)``; the others are 0."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        vector = ir.VectorType(context.get_data_type(kind.dtype), LANES)
        align = ir.Constant(ir.IntType(32), kind.dtype.bitwidth // 8)
        pointer = place(context, builder, kind, *args[:3])
        nothing = ir.Constant(vector, [0.0] * LANES)
        return _call(builder, "load", vector, vector, pointer, align, _mask(builder, args[3]), nothing)

    return Vector(array.dtype)(array, types.intp, types.intp, types.intp), generate


@intrinsic
def store_some(typing, array, row, column, value, count):
    """Store ``count`` lanes in an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        align = ir.Constant(ir.IntType(32), kind.dtype.bitwidth // 8)
        pointer = place(context, builder, kind, *args[:3])
        mask = _mask(builder, args[4])
        _call(builder, "store", args[3].type, ir.VoidType(), args[3], pointer, align, mask)
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


def _decision(comparison, text):
    @intrinsic
    def decision(typing, x):
        def generate(context, builder, signature, args):
            zero, one = constant(args[0], 0.0), constant(args[0], 1.0)
            return builder.select(builder.fcmp_ordered(comparison, args[0], zero), one, zero)

        return x(x), generate

    decision.__doc__ = text
    return decision


at_least_zero = _decision(">=", "Return 1 from 0 on, 0 below.")
above_zero = _decision(">", "Return 1 above 0, 0 elsewhere.")
