"""Vectors of neurons as a type of the compiled language: a loop is written once for LANES neurons at a time.

A compiler finds vector instructions in a loop over arrays only if it can show that no array overlaps
another, which takes it longer than a short loop lasts. So the kernels say it: a `Vector` is loaded, combined
and stored as one value. It is a vector type of LLVM, which any processor executes in as many registers as
it needs.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .rates import LANES

LINE = 64  # bytes that a cache moves at once
FLAGS = ("contract", "nsz", "arcp")  # products may be fused with sums


class Vector(types.Type):
    """LANES numbers of a dtype."""

    def __init__(self, dtype) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How a `Vector` is held."""

    def __init__(self, manager, kind) -> None:
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, LANES))


def _place(context, builder, kind, array, row, column):
    view = context.make_array(kind)(context, builder, array)
    indices = [row, column] if kind.ndim == 2 else [column]
    return cgutils.get_item_pointer(context, builder, kind, view, indices, wraparound=False)


def _vector_pointer(context, builder, kind, array, row, column):
    place = _place(context, builder, kind, array, row, column)
    return builder.bitcast(place, ir.VectorType(context.get_data_type(kind.dtype), LANES).as_pointer())


@intrinsic
def load(typing, array, row, column):
    """Load from an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        pointer = _vector_pointer(context, builder, kind, *args)
        return builder.load(pointer, align=kind.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def store(typing, array, row, column, value):
    """Store in an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        pointer = _vector_pointer(context, builder, kind, *args[:3])
        builder.store(args[3], pointer, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, Vector(array.dtype)), generate


@intrinsic
def pick(typing, array, row, item, column):
    """Take a coefficient: of all neurons from ``(rows, items)``, of each from ``(rows, items, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, args[0])
        indices = list(args[1:]) if kind.ndim == 3 else [args[1], args[2]]
        place = cgutils.get_item_pointer(context, builder, kind, view, indices, wraparound=False)
        size = kind.dtype.bitwidth // 8
        if kind.ndim == 2:
            return _spread(builder, builder.load(place))
        vector = ir.VectorType(context.get_data_type(kind.dtype), LANES)
        return builder.load(builder.bitcast(place, vector.as_pointer()), align=size)

    return Vector(array.dtype)(array, types.intp, types.intp, types.intp), generate


def _spread(builder, number):
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    index = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(undefined, number, index)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, undefined, mask)


@intrinsic
def fill(typing, number, like):
    """Give all lanes one number, in the dtype of a vector."""

    def generate(context, builder, signature, args):
        value = context.cast(builder, args[0], signature.args[0], signature.args[1].dtype)
        return _spread(builder, value)

    return like(number, like), generate


@intrinsic
def wide(typing, x):
    """Convert to double precision."""

    def generate(context, builder, signature, args):
        if signature.args[0].dtype == types.float64:
            return args[0]
        return builder.fpext(args[0], ir.VectorType(ir.DoubleType(), LANES))

    return Vector(types.float64)(x), generate


@intrinsic
def narrow(typing, x, like):
    """Convert double precision to the dtype of a vector."""

    def generate(context, builder, signature, args):
        if signature.args[1].dtype == types.float64:
            return args[0]
        return builder.fptrunc(args[0], ir.VectorType(ir.FloatType(), LANES))

    return like(x, like), generate


def _binary(name, text):
    @intrinsic
    def operation(typing, x, y):
        def generate(context, builder, signature, args):
            return getattr(builder, name)(*args, flags=FLAGS)

        return x(x, x), generate

    operation.__doc__ = text
    return operation


add = _binary("fadd", "Add.")
sub = _binary("fsub", "Subtract.")
mul = _binary("fmul", "Multiply.")


@intrinsic
def fma(typing, x, y, z):
    """Return ``x y + z``."""

    def generate(context, builder, signature, args):
        return builder.fadd(builder.fmul(*args[:2], flags=FLAGS), args[2], flags=FLAGS)

    return x(x, x, x), generate


@intrinsic
def fnma(typing, x, y, z):
    """Return ``z - x y``."""

    def generate(context, builder, signature, args):
        return builder.fsub(args[2], builder.fmul(*args[:2], flags=FLAGS), flags=FLAGS)

    return x(x, x, x), generate


def _step(comparison, text):
    @intrinsic
    def operation(typing, x, y):
        def generate(context, builder, signature, args):
            kind = args[0].type
            one, zero = (ir.Constant(kind, [float(n)] * LANES) for n in (1, 0))
            return builder.select(builder.fcmp_ordered(comparison, *args), one, zero)

        return x(x, x), generate

    operation.__doc__ = text
    return operation


at_least = _step(">=", "Return 1 where ``x >= y``, else 0.")
above = _step(">", "Return 1 where ``x > y``, else 0.")


def _prefetch(write, text):
    @intrinsic
    def operation(typing, array, row, column):
        def generate(context, builder, signature, args):
            kind = signature.args[0]
            place = _place(context, builder, kind, *args)
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
            )
            for line in range(0, LANES, LINE // (kind.dtype.bitwidth // 8)):
                where = builder.gep(place, [ir.Constant(ir.IntType(64), line)])
                builder.call(function, [builder.bitcast(where, byte), *(word(n) for n in (write, 2, 1))])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp), generate

    operation.__doc__ = text
    return operation


expect = _prefetch(0, "Bring a vector that will be read into the cache.")
expect_write = _prefetch(1, "Bring the place of a vector that will be written into the cache.")
