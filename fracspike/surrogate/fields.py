"""Declaring the parameters of a surrogate: a default, the values allowed, and how it is trained.

``default=`` and ``kw_only=`` are keywords because type checkers read them (PEP 681).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fracspike.solvers.checks import one_of, positive_int, real


@dataclass(frozen=True)
class Field:
    """One parameter: its default, the check of a value, and the bound it is trained above (None: fixed)."""

    default: object
    check: Callable[[str, object], object]
    trained_above: float | None = None


def number(name: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf) -> float:
    """Return ``value`` as a Python float inside the bounds; a tensor must hold one element."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` must be one number, got a tensor of shape {tuple(value.shape)}; "
            "to train it pass a number and learnable=True"
        )
    return float(real(name, value, above=above, at_least=at_least))


def positive(*, default: float | None, above: float = 0.0, kw_only: bool = False) -> Any:
    """Declare a number > ``above``, or None if that is the default; trained as ``above + exp(log_...)``."""

    def check(name: str, value: object) -> float | None:
        return None if value is None and default is None else number(name, value, above=above)

    return Field(default, check, above)


def non_negative(*, default: float, kw_only: bool = False) -> Any:
    """Declare a number >= 0; trained, from a start > 0, as ``exp(log_...)``."""
    return Field(default, lambda name, value: number(name, value, at_least=0.0), 0.0)


def any_real(*, default: float, kw_only: bool = False) -> Any:
    """Declare any finite number; trained as it is."""
    return Field(default, number, -math.inf)


def whole(*, default: int, kw_only: bool = False) -> Any:
    """Declare a whole number >= 1; never trained."""
    return Field(default, positive_int)


def flag(*, default: bool, kw_only: bool = False) -> Any:
    """Declare True or False; never trained."""

    def check(name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"`{name}` must be True or False, got {value!r}")
        return value

    return Field(default, check)


def choice(choices: Iterable[str], *, default: str | None, kw_only: bool = False) -> Any:
    """Declare one of ``choices`` (or None, if that is the default); never trained."""
    allowed = tuple(choices)

    def check(name: str, value: object) -> str | None:
        return None if value is None and default is None else one_of(name, value, allowed)

    return Field(default, check)


def anything(check: Callable[[str, object], object], *, default: object, kw_only: bool = False) -> Any:
    """Declare a value with a check of its own; never trained."""
    return Field(default, check)


def to_raw(value: float, above: float) -> Tensor:
    """Return the unconstrained tensor that stands for ``value`` while it is trained."""
    return torch.tensor(value if above == -math.inf else math.log(value - above))


def from_raw(raw: Tensor, above: float) -> Tensor:
    """Return the value that the unconstrained ``raw`` stands for."""
    if above == -math.inf:
        return raw
    return raw.exp() if above == 0.0 else raw.exp() + above
