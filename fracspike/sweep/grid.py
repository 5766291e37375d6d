"""The points of a sweep, from what the command line says of its axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from fracspike.solvers import checks

Value = float | int | str
Point = dict[str, Value]
SEED = "seed"
MOST = 100_000  # points: more is a slip


@dataclass(frozen=True)
class Grid:
    """An exact list of points: the product of the axes, the last one moving fastest.

    Attributes:
        axes: values by name, in the order given.

    >>> grid = Grid.parse(["alpha=0.3:0.5:0.1", "seed=0:2"], {"alpha": float, "seed": int})
    >>> grid.axes
    {'alpha': [0.3, 0.4, 0.5], 'seed': [0, 1]}
    >>> len(grid.points()), grid.points()[3]
    (6, {'alpha': 0.4, 'seed': 1})
    """

    axes: Mapping[str, Sequence[Value]]

    @classmethod
    def parse(cls, texts: Iterable[str], kinds: Mapping[str, type]) -> Grid:
        """Return the grid of some axes ``NAME=VALUES``.

        ``VALUES`` are a list, ``atan,sigmoid``; or a range of whole numbers as in Python, ``0:5`` (that is
        0, 1, 2, 3, 4) or ``0:10:2``; or one with a decimal point or exponent, ``0.3:1.0:0.1``, which has both
        ends. Where a value holds a comma, values are separated by semicolons.

        Args:
            texts: one for each axis.
            kinds: the types of what may be varied, by name.

        Raises:
            ValueError: if an axis is unknown, given twice, empty, or a value is of the wrong kind.
        """
        axes: dict[str, list[Value]] = {}
        for text in texts:
            name, equals, values = text.partition("=")
            if not equals:
                raise ValueError(f"`grid` must hold axes such as alpha=0.3:1.0:0.1 or seed=0:5, got {text!r}")
            checks.one_of("axis of the grid", name, kinds)
            if name in axes:
                raise ValueError(
                    f"`grid` must name each axis once, got {name!r} twice; list its values together"
                )
            axes[name] = [_of_kind(name, value, kinds[name]) for value in _values(name, values, kinds[name])]
            if len(set(axes[name])) < len(axes[name]):
                raise ValueError(f"`grid` must not repeat a value, got {name}={values}")
        if not axes:
            raise ValueError("`grid` must hold an axis, such as --grid alpha=0.3:1.0:0.1 seed=0:5")
        grid = cls(axes)
        if (count := len(grid)) > MOST:
            raise ValueError(f"`grid` must have at most {MOST} points, got {count}; a step is too small")
        return grid

    def __len__(self) -> int:
        count = 1
        for values in self.axes.values():
            count *= len(values)
        return count

    def points(self) -> list[Point]:
        """Return every point, as values by name."""
        return [
            dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())
        ]

    def varied(self) -> list[str]:
        """Return the names of the axes with more than one value."""
        return [name for name, values in self.axes.items() if len(values) > 1]

    def __str__(self) -> str:
        parts = [f"{name} {_short(values)}" for name, values in self.axes.items()]
        return " x ".join(parts) + f": {len(self)} points"


def label(point: Mapping[str, Value]) -> str:
    """Return a point as text.

    >>> label({"alpha": 0.5, "seed": 1})
    'alpha=0.5 seed=1'
    """
    return " ".join(f"{name}={_text(value)}" for name, value in point.items())


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(values: Sequence[Value]) -> str:
    texts = [_text(value) for value in values]
    return (
        f"{', '.join(texts)}" if len(texts) <= 4 else f"{texts[0]}, {texts[1]} ... {texts[-1]} ({len(texts)})"
    )


def _values(name: str, text: str, kind: type) -> list[str]:
    if kind is not str and ":" in text:
        return _range(name, text)
    values = [value.strip() for value in text.split(";" if ";" in text else ",")]
    if not all(values):
        raise ValueError(f"`grid` must give values to each axis, got {name}={text}")
    return values


def _range(name: str, text: str) -> list[str]:
    parts = text.split(":")
    whole = all(part.strip().lstrip("+-").isdigit() for part in parts)
    try:
        numbers = [Decimal(part) for part in parts]  # decimals, so that 0.3 + 3 * 0.1 is 0.6
    except InvalidOperation:
        numbers = []
    if len(numbers) not in ((2, 3) if whole else (3,)) or not all(map(Decimal.is_finite, numbers)):
        raise ValueError(
            f"`grid` must have ranges START:STOP:STEP, or START:STOP of whole numbers, got {name}={text}"
        )
    start, stop, step = numbers if len(numbers) == 3 else (*numbers, Decimal(1))
    if step == 0 or (stop - start) / step > MOST:
        raise ValueError(f"`grid` must have ranges of at most {MOST} values, got {name}={text}")
    if whole:
        values = [str(i) for i in range(int(start), int(stop), int(step))]
    else:
        values = [str(start + i * step) for i in range(int((stop - start) / step) + 1)]
        values = values if (stop - start) / step >= 0 else []
    if not values:
        raise ValueError(f"`grid` must have ranges that are not empty, got {name}={text}")
    return values


def _of_kind(name: str, text: str, kind: type) -> Value:
    noun = "whole numbers" if kind is int else "finite numbers"
    try:
        value: Value = kind(text)
    except ValueError as error:
        raise ValueError(f"`{name}` must have {noun} in the grid, got {text!r}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` must have {noun} in the grid, got {text!r}")
    if name == SEED and not 0 <= int(value) < 2**63:
        raise ValueError(f"`seed` must have whole numbers from 0 to 2**63 - 1 in the grid, got {text!r}")
    return value
