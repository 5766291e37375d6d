"""Argument checks shared by the whole library: name, expected, got, remedy, in one line.

Raised early and once, at the public entry points, so that inner loops stay free of them.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import transforms

LARGEST = 2**63 - 1  # what torch can count to


def one_of(name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: with the list of choices and the nearest match.
    """
    known = sorted(choices)
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}; got {value!r}{hint}")


def real(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    remedy: str = "",
) -> float | Tensor:
    """Return ``value``, a finite real number or floating tensor inside the stated bounds.

    Raises:
        TypeError: if it is neither a real number nor a real tensor.
        ValueError: if any entry is NaN, infinite or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Tensor):
        raise TypeError(f"`{name}` must be a number or a tensor, got {type(value).__name__}")
    if isinstance(value, Tensor) and (value.is_complex() or value.dtype == torch.bool):
        raise TypeError(f"`{name}` must be real, got a tensor of {value.dtype}")
    if isinstance(value, Tensor) and _dense(name, value).numel() == 0:
        raise ValueError(f"`{name}` must not be empty, got a tensor of shape {tuple(value.shape)}")
    plain = value if isinstance(value, Tensor) else _float(value)
    offender = _outside(plain, above, at_least, at_most, below)
    if offender is not None:
        bounds = _range_text(above, at_least, at_most, below)
        if math.isinf(offender) and "finite" not in bounds:  # "must be <= 0, got -inf" would puzzle
            bounds += " and be finite"
        raise ValueError(f"`{name}` must {bounds}, got {offender:g}" + (f"; {remedy}" if remedy else ""))
    return value if isinstance(value, Tensor) else float(value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number or a fraction beyond all floats
        return math.inf if value > 0 else -math.inf


def _outside(
    value: float | Tensor, above: float, at_least: float, at_most: float, below: float
) -> float | None:
    """Return the first entry that is not finite or out of bounds."""
    if not isinstance(value, Tensor):
        x = float(value)
        inside = math.isfinite(x) and x > above and x >= at_least and x <= at_most and x < below
        return None if inside else x
    entries = transforms.values(value)
    with transforms.Outside():
        good = (entries > above) & (entries >= at_least) & (entries <= at_most) & (entries < below)
        good &= torch.isfinite(entries)
        return None if bool(good.all()) else float(entries[~good].flatten()[0])


def number(name: str, value: object, **bounds: float) -> float:
    """Return ``value``, one finite real number inside the bounds of :func:`real`, as a float.

    Raises:
        TypeError: if it is not one number.
        ValueError: if it is out of bounds, or a tensor that wants a gradient, which a float has not.
    """
    checked = real(name, value, **bounds)  # type: ignore[arg-type]
    if isinstance(checked, Tensor):
        if checked.numel() != 1:
            raise TypeError(f"`{name}` must be one number, got a tensor of shape {tuple(checked.shape)}")
        if checked.requires_grad:
            raise ValueError(f"`{name}` must be a number, got a tensor that requires grad; call .item()")
    return float(checked)


def _range_text(above: float, at_least: float, at_most: float, below: float) -> str:
    low = f"({above:g}" if above > -math.inf else f"[{at_least:g}" if at_least > -math.inf else ""
    high = f"{below:g})" if below < math.inf else f"{at_most:g}]" if at_most < math.inf else ""
    if low and high:
        return f"lie in {low}, {high}"
    if low:
        return f"be > {above:g}" if above > -math.inf else f"be >= {at_least:g}"
    if high:
        return f"be < {below:g}" if below < math.inf else f"be <= {at_most:g}"
    return "be finite"


def order(name: str, value: object) -> float | Tensor:
    """Return ``value``, a Caputo order (or a tensor of orders) in (0, 1]."""
    return real(name, value, above=0.0, at_most=1.0, remedy="for integer order pass alpha=1")


def floating(name: str, value: object) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor that holds its values, all of them.

    Raises:
        TypeError: if it is no tensor, or one that is complex, of whole numbers, sparse, nested or on the meta
            device.
    """
    if isinstance(value, PackedSequence):
        raise TypeError(
            f"`{name}` must be a torch.Tensor, got a PackedSequence; "
            "pad it: torch.nn.utils.rnn.pad_packed_sequence"
        )
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}; use torch.as_tensor")
    if value.is_complex():
        raise TypeError(
            f"`{name}` must be a real floating-point tensor, got {value.dtype}; use torch.view_as_real"
        )
    if not value.is_floating_point():
        raise TypeError(f"`{name}` must be a floating-point tensor, got {value.dtype}; call .float() first")
    return _dense(name, value)


def _dense(name: str, value: Tensor) -> Tensor:
    """Refuse tensors that are no plain array of values."""
    if value.is_nested:
        raise TypeError(f"`{name}` must be a plain tensor, got a nested one; pad it to one shape")
    if value.layout != torch.strided:
        raise TypeError(f"`{name}` must be a dense tensor, got {value.layout}; call .to_dense() first")
    if value.is_meta:
        raise TypeError(f"`{name}` must hold values, got a tensor on the meta device; make it on a real one")
    return value


def all_finite(name: str, value: Tensor) -> Tensor:
    """Return the floating tensor ``value`` if it holds neither NaN nor infinity.

    Raises:
        TypeError: if it is no real floating-point tensor.
        ValueError: with the index of the first offending entry.
    """
    floating(name, value)
    if torch.compiler.is_compiling():
        return value  # a graph cannot look at values
    entries = transforms.values(value)
    with transforms.Outside():
        if bool(torch.isfinite(entries.sum())):  # one pass, and no tensor of Booleans
            return value
        finite = torch.isfinite(entries)
        if not bool(finite.all()):
            index = tuple(int(i) for i in (~finite).nonzero()[0])
            raise ValueError(f"`{name}` must be finite, got {entries[index].item()} at index {index}")
    return value


def hidden() -> bool:
    """Return whether values cannot be looked at: in a graph, or under a transform of torch.func."""
    return torch.compiler.is_compiling() or transforms.active()


def positive_int(name: str, value: object, *, at_least: int = 1, at_most: int = LARGEST) -> int:
    """Return ``value``, a whole number not below ``at_least`` nor above ``at_most``, by default 2^63 - 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    number = int(value)
    if number < at_least:
        raise ValueError(f"`{name}` must be >= {at_least}, got {shown(number)}")
    if number > at_most:
        limit = "2^63 - 1, the largest number of 64 bits" if at_most == LARGEST else at_most
        raise ValueError(f"`{name}` must be <= {limit}, got {shown(number)}")
    return number


def shown(value: int) -> str:
    """Return a whole number as text, a very long one as the power of ten next to it.

    >>> shown(12), shown(-(10**5000))
    ('12', 'about -10^5000')
    """
    size = abs(value)
    if size < 10**25:
        return str(value)
    return f"about {'-' if value < 0 else ''}10^{round(math.log10(2) * size.bit_length())}"


def times(name: str, value: object, *, falling: bool = False) -> Tensor:
    """Return ``value``, at least two finite times, one after the other.

    Args:
        name: of the argument.
        value: ``(T,)``.
        falling: whether they may run backward.

    Raises:
        TypeError: if it is no real floating-point tensor.
        ValueError: if it has another shape, is not finite, or does not increase.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor of times, got {type(value).__name__}; use torch.linspace")
    if value.dim() != 1 or len(value) < 2:
        raise ValueError(
            f"`{name}` must have shape (T,) with T >= 2, the initial time first, got {tuple(value.shape)}"
        )
    given = transforms.values(all_finite(name, value)).double()  # (T,), or (T, batches) inside vmap
    with transforms.Outside():
        steps = given.diff(dim=0)
        wrong = steps >= 0 if falling and bool((steps[0] < 0).all()) else steps <= 0
        if bool(wrong.any()):
            n, *batch = (int(i) for i in wrong.nonzero()[0])
            here, then = (float(given[(i, *batch)]) for i in (n, n + 1))
            way = "increase, or decrease, at every step" if falling else "increase"
            raise ValueError(
                f"`{name}` must {way}, got {name}[{n}] = {here:g} and {name}[{n + 1}] = {then:g}"
            )
    return value
