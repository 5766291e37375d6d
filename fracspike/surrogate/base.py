"""The base class: a family of surrogates is its g or its G, and everything else is here."""

from __future__ import annotations

import difflib
import inspect
import math
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import torch
from torch import Tensor, nn

from .drawing import draw
from .fields import (
    Field,
    any_real,
    anything,
    choice,
    flag,
    from_raw,
    non_negative,
    number,
    positive,
    to_raw,
    whole,
)
from .quadrature import area_from, area_of, peak_of
from .spike import heaviside, smooth_spike, spike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _trainable(name: str, value: object) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, tuple | list) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise TypeError(f"`{name}` must be True, False or a tuple of parameter names, got {value!r}")


# Lets type checkers and editors derive each family's constructor from the parameters it declares.
@dataclass_transform(
    kw_only_default=False,
    field_specifiers=(positive, non_negative, any_real, whole, flag, choice, anything),
)
class _Declared:
    pass


class Surrogate(_Declared, nn.Module):
    r"""Base of all surrogates: :math:`s(x) = H(x)` forward, :math:`ds/dx = g(x)` backward.

    A subclass declares its parameters as annotated class attributes with a default (a plain number means
    "positive"; see `fields` for others) and gives ``g(self, x)``, the derivative, or ``G(self, x)``, its
    primitive, or both.  If only G is given, the derivative comes by automatic differentiation.

    Learnable parameters.  The hard step does not depend on them, so their honest gradient is zero, and
    nothing could be learnt from it.  With ``learnable=True`` the spike is differentiated as if it were its
    smooth version G throughout: :math:`\partial s/\partial p := \partial G(x; p)/\partial p`, consistent
    with :math:`\partial s/\partial x := g(x; p)`.  ``parameter_gradient="zero"`` keeps the honest zero, and
    still lets a second derivative see p through g, as meta-learning of the surrogate needs.

    Args:
        amplitude: factor on g and G; without effect when ``normalize`` is set.
        strict: whether s(0) = 0 (as in snnTorch and Norse) instead of 1.
        normalize: "peak" scales g to a largest value of 1, "area" to an integral of 1.
        learnable: True trains every number among the family's parameters, a tuple of names only those
            ("amplitude" may be among them).  A number bounded below by b is stored as log(value - b).
        parameter_gradient: "primitive" or "zero", as said above.

    Raises:
        TypeError: for an unknown parameter or a value of the wrong type.
        ValueError: for a value out of range, an infinite area under ``normalize="area"``, or
            ``learnable`` without a primitive.

    Example:
        >>> import math
        >>> import torch
        >>> from fracspike.surrogate import Surrogate
        >>> class Cauchy(Surrogate):
        ...     gamma: float = 1.0
        ...     def g(self, x):
        ...         return self.gamma / math.pi / (self.gamma**2 + x**2)
        >>> Cauchy(gamma=2.0).derivative(torch.tensor([0.0, 2.0]))
        tensor([0.1592, 0.0796])
    """

    amplitude: float = positive(default=1.0, kw_only=True)
    strict: bool = flag(default=False, kw_only=True)
    normalize: str | None = choice(("peak", "area"), default=None, kw_only=True)
    learnable: bool | tuple[str, ...] = anything(_trainable, default=False, kw_only=True)
    parameter_gradient: str = choice(("primitive", "zero"), default="primitive", kw_only=True)

    name: ClassVar[str] = ""
    """Canonical name, set by `register`."""
    _options: ClassVar[dict[str, Field]] = {}
    _shape: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._shape = {**cls._shape, **_declared(cls)}
        cls.__signature__ = _signature(cls._shape, cls._options)  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        values = self._bind(args, kwargs)
        self._values: dict[str, Any] = values
        self._trained: tuple[str, ...] = ()
        for name, value in values.items():
            values[name] = self._fields()[name].check(name, value)
        self.check()
        self._factor: float | None = None
        self._train_parameters(values["learnable"])
        self._rescale()

    # ------------------------------------------------------------------ what a family gives

    def g(self, x: Tensor) -> Tensor:
        """Derivative of the family at amplitude 1, elementwise; by default that of ``G`` by autograd."""
        value, pull_back = torch.func.vjp(self.G, x)[:2]
        derivative: Tensor = pull_back(torch.ones_like(value))[0]
        return derivative

    def G(self, x: Tensor) -> Tensor:  # noqa: N802 -- the letter of the formulas
        """Primitive of ``g``, elementwise; by default there is none."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no primitive G; give the class a method G(self, x) with G' = g"
        )

    def check(self) -> None:
        """Raise ValueError if the parameters do not go together; by default they do."""

    def peak_of_g(self) -> Any:
        """Largest value of ``g``; found numerically unless the family gives it."""
        return peak_of(self.g)

    def area_of_g(self) -> Any:
        """Integral of ``g`` over the real line (inf if it diverges); numerical unless the family gives it."""
        if type(self).G is not Surrogate.G:
            area = area_from(self.G)
            if area is not None:
                return area
        return area_of(self.g)

    def trained_above(self, name: str) -> float | None:
        """Bound that parameter ``name`` stays above while it is trained; None if it cannot be."""
        return self._fields()[name].trained_above

    # ------------------------------------------------------------------ what the user calls

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes H(x), differentiated as g(x).

        Args:
            x: membrane potential minus threshold, any floating dtype and shape.

        Returns:
            Zeros and ones of the dtype and shape of ``x``; NaN where ``x`` is NaN.
        """
        floating(x)
        if self._trained:
            smooth = self.primitive(x)
            if self.parameter_gradient == "zero":
                # Both terms move alike with the parameters, so only g(x; p) is left.
                smooth = smooth - self.primitive(x.detach())
            return smooth_spike(heaviside(x, self.strict), smooth.to(x.dtype))
        if type(self).g is Surrogate.g:
            return smooth_spike(heaviside(x, self.strict), self.primitive(x))
        return spike(x, self.derivative, self.strict)

    def derivative(self, x: Tensor) -> Tensor:
        """Return the surrogate derivative at ``x``, amplitude and normalisation included."""
        floating(x)
        return self._scaled(self.g(x)).to(x.dtype)

    def primitive(self, x: Tensor) -> Tensor:
        """Return the smooth step whose derivative is `derivative`.

        Raises:
            NotImplementedError: if the family has none.
        """
        floating(x)
        return self._scaled(self.G(x)).to(x.dtype)

    def peak(self) -> float:
        """Return the largest value of `derivative`."""
        with torch.no_grad():
            return float(self.factor() * self.peak_of_g())

    def area(self) -> float:
        """Return the integral of `derivative` over the real line, inf if it diverges."""
        with torch.no_grad():
            return float(self.factor() * self.area_of_g())

    def factor(self) -> Any:
        """Return the factor between ``g`` and `derivative`: the amplitude, or what normalises g."""
        if self._factor is not None:
            return self._factor
        if self.normalize is None:
            return self.amplitude
        return 1.0 / (self.peak_of_g() if self.normalize == "peak" else self.area_of_g())

    def plot(self, **options: Any) -> Figure:
        """Draw spike, primitive and derivative; see `plot_surrogates` for the options."""
        return draw([self], **options)

    def __repr__(self) -> str:
        shown = {
            name: getattr(self, name)
            for name in self._shape
            if not (self._values[name] is None or isinstance(self._values[name], torch.Generator))
        }
        shown |= {
            name: value
            for name, field in self._options.items()
            if (value := getattr(self, name)) != field.default
        }
        pairs = (f"{k}={v.item() if isinstance(v, Tensor) else v!r}" for k, v in shown.items())
        return f"{type(self).__name__}({', '.join(pairs)})"

    # ------------------------------------------------------------------ how it is built

    @classmethod
    def _fields(cls) -> dict[str, Field]:
        return {**cls._shape, **cls._options}

    @classmethod
    def _bind(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        fields, own = cls._fields(), list(cls._shape)
        accepted = ", ".join(fields)
        if len(args) > len(own):
            raise TypeError(
                f"{cls.__name__} takes {len(own)} positional arguments ({', '.join(own) or 'none'}), "
                f"got {len(args)}; pass options by keyword: {', '.join(cls._options)}"
            )
        given = dict(zip(own, args, strict=False))
        for key, value in kwargs.items():
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{cls.__name__} has no parameter {key!r}; it accepts {accepted}{hint}")
            if key in given:
                raise TypeError(f"{cls.__name__} got `{key}` twice, by position and by keyword")
            given[key] = value
        return {name: given.get(name, field.default) for name, field in fields.items()}

    def _train_parameters(self, wanted: bool | tuple[str, ...]) -> None:
        if wanted is False:
            return
        possible = [name for name in (*self._shape, "amplitude") if self.trained_above(name) is not None]
        names = tuple(n for n in possible if n != "amplitude") if wanted is True else wanted
        for name in names:
            if name not in possible:
                raise ValueError(
                    f"`learnable` must name parameters of {type(self).__name__} "
                    f"among {possible}, got {name!r}"
                )
        if names and type(self).G is Surrogate.G:
            raise ValueError(
                f"`learnable` needs the primitive G, which {type(self).__name__} does not define: "
                "a parameter is trained by the gradient of G"
            )
        closed = {"peak": "peak_of_g", "area": "area_of_g"}.get(str(self.normalize))
        if names and closed and getattr(type(self), closed) is getattr(Surrogate, closed):
            raise ValueError(
                f"`normalize`={self.normalize!r} with `learnable` needs a closed form: "
                f"give {type(self).__name__} a method {closed}(self)"
            )
        for name in names:
            bound, value = self.trained_above(name), self._values[name]
            assert bound is not None
            if value <= bound:
                raise ValueError(
                    f"`{name}` must be > {bound:g} to be learnable, got {value:g}; "
                    "start it above, or leave it out of `learnable`"
                )
            self.register_parameter(_raw_name(name, bound), nn.Parameter(to_raw(value, bound)))
        self._trained = names

    def _value(self, name: str) -> Any:
        if name in self._trained:
            bound = self.trained_above(name)
            assert bound is not None
            return from_raw(getattr(self, _raw_name(name, bound)), bound)
        return self._values[name]

    def _set(self, name: str, value: object) -> None:
        if name == "learnable":
            raise AttributeError("`learnable` is fixed at construction; build a new surrogate")
        checked = self._fields()[name].check(name, value)
        if name in self._trained:
            bound = self.trained_above(name)
            assert bound is not None
            raw = getattr(self, _raw_name(name, bound))
            with torch.no_grad():
                raw.copy_(to_raw(number(name, checked, above=bound), bound))
            return
        before = self._values[name]
        self._values[name] = checked
        try:
            self.check()
            self._rescale()
        except ValueError:
            self._values[name] = before
            raise

    def _rescale(self) -> None:
        """Work out the factor once, unless it moves with a trained parameter."""
        self._factor = None
        if self.normalize is None:
            self._factor = None if "amplitude" in self._trained else float(self._values["amplitude"])
            return
        with torch.no_grad():
            measure = float(self.peak_of_g() if self.normalize == "peak" else self.area_of_g())
        if not (math.isfinite(measure) and measure > 0.0):
            raise ValueError(
                f"`normalize`={self.normalize!r} needs a derivative with a finite positive {self.normalize}, "
                f'got {measure:g} for {type(self).__name__}; use normalize="peak" or `amplitude`'
            )
        if not self._trained:
            self._factor = 1.0 / measure

    def _scaled(self, y: Tensor) -> Tensor:
        factor = self.factor()
        # A multiplication by 1.0 would still pass over the whole tensor.
        return y if isinstance(factor, float) and factor == 1.0 else y * factor


def floating(x: object) -> None:
    """Raise TypeError unless ``x`` is a real floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"`x` must be a torch.Tensor, got {type(x).__name__}; use torch.as_tensor")
    if not x.is_floating_point():
        raise TypeError(f"`x` must be a real floating-point tensor, got {x.dtype}; call .float() first")


def _raw_name(name: str, bound: float) -> str:
    return f"raw_{name}" if bound == -math.inf else f"log_{name}"


def _declared(cls: type) -> dict[str, Field]:
    """Turn the annotated class attributes of ``cls`` into checked properties, and return their fields."""
    found: dict[str, Field] = {}
    for name, annotation in inspect.get_annotations(cls).items():
        if "ClassVar" in str(annotation) or name.startswith("_"):
            continue
        if name not in vars(cls):
            raise TypeError(f"parameter `{name}` of {cls.__name__} needs a default: `{name}: float = 1.0`")
        default = vars(cls)[name]
        if isinstance(default, bool):
            default = flag(default=default)
        elif isinstance(default, int | float):
            default = positive(default=float(default))
        elif not isinstance(default, Field):
            raise TypeError(
                f"parameter `{name}` of {cls.__name__} must default to a number, a bool or a field "
                f"(positive, any_real, choice, ...), got {default!r}"
            )
        found[name] = default
        setattr(cls, name, _property(name))
    return found


def _property(name: str) -> property:
    def read(self: Surrogate) -> Any:
        return self._value(name)

    def write(self: Surrogate, value: object) -> None:
        self._set(name, value)

    return property(read, write)


def _signature(shape: dict[str, Field], options: dict[str, Field]) -> inspect.Signature:
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=field.default)
            for fields, kind in zip((shape, options), kinds, strict=True)
            for name, field in fields.items()
        ]
    )


Surrogate._options = _declared(Surrogate)
