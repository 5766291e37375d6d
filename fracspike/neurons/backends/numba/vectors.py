"""Vectors of neurons as a type of the compiled language: a loop is written once for LANES neurons at a time.

A compiler finds vector instructions in a loop over arrays only if it can show that no array overlaps
another, which takes it longer than a short loop lasts. So the kernels say it: a `Vector` is loaded, combined
and stored as one value. It is a vector type of LLVM, which any processor executes in as many registers as
it needs.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .sizes import LANES

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
PART: dict[str, Any] = OPTIONS | {"forceinline": True}
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


def place(context, builder, kind, array, row, column):
    """Return a pointer to the vector that begins at an item of an array ``(rows, columns)``."""
    view = context.make_array(kind)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, kind, view, [row, column], wraparound=False)
    return builder.bitcast(item, ir.VectorType(context.get_data_type(kind.dtype), LANES).as_pointer())


def _after(builder, pointer, number):
    index = ir.Constant(ir.IntType(64), number) if isinstance(number, int) else number
    return builder.gep(pointer, [index])


def read(builder, kind, pointer, number=0):
    """Load the vector at a pointer of `place`, or the one ``number`` vectors after it."""
    return builder.load(_after(builder, pointer, number), align=kind.dtype.bitwidth // 8)


def write(builder, kind, value, pointer, number=0):
    """Store a vector where `read` would load it from."""
    builder.store(value, _after(builder, pointer, number), align=kind.dtype.bitwidth // 8)


class Coefficients:
    """Coefficients, of all neurons ``(rows, items)``, or of each ``(groups, rows, items, LANES)``."""

    def __init__(self, context, builder, kind, array, group) -> None:
        self.builder, self.kind, self.shared = builder, kind, kind.ndim == 2
        view = context.make_array(kind)(context, builder, array)
        zero = ir.Constant(ir.IntType(64), 0)
        start = [zero, zero] if self.shared else [group, zero, zero, zero]
        self.pointer = cgutils.get_item_pointer(context, builder, kind, view, start, wraparound=False)
        if not self.shared:
            vector = ir.VectorType(context.get_data_type(kind.dtype), LANES)
            self.pointer = builder.bitcast(self.pointer, vector.as_pointer())

    def __getitem__(self, number):
        """Return the coefficient ``number`` (rows times items), a constant or a value, for all lanes."""
        where = _after(self.builder, self.pointer, number)
        value = self.builder.load(where, align=self.kind.dtype.bitwidth // 8)
        return spread(self.builder, value) if self.shared else value


@intrinsic
def load(typing, array, row, column):
    """Load from an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        return read(builder, kind, place(context, builder, kind, *args))

    return Vector(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def store(typing, array, row, column, value):
    """Store in an array ``(rows, columns)``."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        write(builder, kind, args[3], place(context, builder, kind, *args[:3]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, Vector(array.dtype)), generate


@intrinsic
def stream(typing, array, row, column, value):
    """Store past the cache, in an array whose rows begin and end with a line of it."""

    def generate(context, builder, signature, args):
        pointer = place(context, builder, signature.args[0], *args[:3])
        stored = builder.store(args[3], pointer, align=LINE)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, Vector(array.dtype)), generate


@intrinsic
def pick(typing, array, group, row, item):
    """Take a coefficient, see `Coefficients`."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, args[0])
        items = cgutils.unpack_tuple(builder, view.shape, kind.ndim)[1 if kind.ndim == 2 else 2]
        number = builder.add(builder.mul(args[2], items), args[3])
        return Coefficients(context, builder, kind, *args[:2])[number]

    return Vector(array.dtype)(array, types.intp, types.intp, types.intp), generate


def spread(builder, number):
    """Return a vector with one number in all lanes."""
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
        return spread(builder, value)

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
div = _binary("fdiv", "Divide.")


@intrinsic
def size(typing, x):
    """Return the absolute value."""

    def generate(context, builder, signature, args):
        return _of_llvm(builder, "fabs", args[0])

    return x(x), generate


@intrinsic
def fma(typing, x, y, z):
    """Return ``x y + z``."""

    def generate(context, builder, signature, args):
        return product(builder, *args)

    return x(x, x, x), generate


@intrinsic
def fnma(typing, x, y, z):
    """Return ``z - x y``."""

    def generate(context, builder, signature, args):
        return shortfall(builder, *args)

    return x(x, x, x), generate


def product(builder, x, y, z):
    """Return ``x y + z``."""
    return builder.fadd(builder.fmul(x, y, flags=FLAGS), z, flags=FLAGS)


def shortfall(builder, x, y, z):
    """Return ``z - x y``."""
    return builder.fsub(z, builder.fmul(x, y, flags=FLAGS), flags=FLAGS)


def logistic(builder, x):
    """Return ``1 / (1 + exp(-x))``, to rounding."""
    one = constant(x, 1.0)
    exp = _exp(builder, builder.fsub(constant(x, 0.0), x))
    return builder.fdiv(one, builder.fadd(one, exp))


def constant(like, number):
    """Return a number in all lanes of the dtype of a vector."""
    return ir.Constant(like.type, [float(number)] * LANES)


def _exp(builder, x):
    """Return the exponential: a power of two, and a series for what is left, at most log(2) / 2."""
    single = isinstance(x.type.element, ir.FloatType)
    most, terms, mantissa, bias = (87.0, 7, 23, 127) if single else (708.0, 13, 52, 1023)
    for limit, comparison in ((most, ">"), (-most, "<")):
        bound = constant(x, limit)
        x = builder.select(builder.fcmp_ordered(comparison, x, bound), bound, x)
    twos = _of_llvm(builder, "rint", builder.fmul(x, constant(x, 1 / math.log(2))))
    high = math.floor(math.log(2) * 2**12) / 2**12  # so few bits that its products are exact
    left = shortfall(builder, twos, constant(x, high), x)
    left = shortfall(builder, twos, constant(x, math.log(2) - high), left)
    series = constant(x, 1 / math.factorial(terms))
    for n in range(terms - 1, -1, -1):
        series = product(builder, series, left, constant(x, 1 / math.factorial(n)))
    word = ir.VectorType(ir.IntType(32 if single else 64), LANES)
    exponent = builder.add(builder.fptosi(twos, word), ir.Constant(word, [bias] * LANES))
    scale = builder.bitcast(builder.shl(exponent, ir.Constant(word, [mantissa] * LANES)), x.type)
    return builder.fmul(series, scale)


def _comparison(sign, text):
    @intrinsic
    def operation(typing, x, y):
        def generate(context, builder, signature, args):
            one, zero = constant(args[0], 1), constant(args[0], 0)
            return builder.select(builder.fcmp_ordered(sign, *args), one, zero)

        return x(x, x), generate

    operation.__doc__ = text
    return operation


above = _comparison(">", "Return 1 where ``x > y``, else 0.")
at_least = _comparison(">=", "Return 1 where ``x >= y``, else 0.")


def call(builder, name, result, *arguments):
    """Call an operation of LLVM by its full name."""
    kind = ir.FunctionType(result, [value.type for value in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}"), arguments)


def kind_of(vector):
    """Return how LLVM names a type of vector in its operations."""
    return f"v{LANES}f{32 if isinstance(vector.element, ir.FloatType) else 64}"


def _of_llvm(builder, name, x):
    return call(builder, f"{name}.{kind_of(x.type)}", x.type, x)


@intrinsic
def expect(typing, array, row, column):
    """Bring a vector that will be read into the cache."""

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(
            place(context, builder, signature.args[0], *args), ir.IntType(8).as_pointer()
        )
        options = [ir.IntType(32)(n) for n in (0, 2, 1)]
        for line in range(0, LANES * signature.args[0].dtype.bitwidth // 8, LINE):
            where = builder.gep(pointer, [ir.Constant(ir.IntType(64), line)])
            call(builder, "prefetch.p0", ir.VoidType(), where, *options)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate
