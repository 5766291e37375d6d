"""The orders of a solve: one, one for each component, or several terms whose derivatives are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import checks
from .transforms import values

#: a number, a tensor that broadcasts to the state, or one such entry for each part of a tuple of states
Entry = float | Tensor | Sequence[float | Tensor]

PER_COMPONENT = "for one order per component pass a tensor that broadcasts to `y0`"
PER_PART = "for one order per part of `y0` pass as many entries as it has parts"
SUMMED = "for the sum of several derivatives also pass `coefficients`, one for each order"


def orders(
    alpha: Entry | Sequence[Entry],
    coefficients: Sequence[Entry] | Tensor | None,
    start: Tensor,
    shapes: Sequence[torch.Size] | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return orders and coefficients, one each but for a multi-term equation.

    Args:
        alpha: as given to ``fdeint``.
        coefficients: as given to ``fdeint``.
        start: the state, flat if it is a tuple.
        shapes: of the parts, if it is a tuple.

    Returns:
        As many float64 tensors each, of one shape, which broadcasts to ``start``.

    Raises:
        TypeError: if an entry is no number.
        ValueError: if one is out of range or of a wrong shape, or the numbers of entries do not agree.
    """
    listed = isinstance(alpha, list | tuple)
    if coefficients is None:
        if listed and (shapes is None or len(alpha) != len(shapes)):  # type: ignore[arg-type]
            parts = "a tensor" if shapes is None else f"a tuple of {len(shapes)} parts"
            raise ValueError(
                f"`alpha` must not be a list of {len(alpha)} orders where `y0` is {parts} and "  # type: ignore[arg-type]
                f"`coefficients` is not given; {PER_COMPONENT if shapes is None else PER_PART}; {SUMMED}"
            )
        terms: list[Entry] = [alpha]  # type: ignore[list-item]
        factors: list[Entry] = [1.0]
    else:
        if not listed or not isinstance(coefficients, list | tuple | Tensor):
            raise ValueError(
                "`alpha` and `coefficients` must both be lists, one for each of a list of orders, got "
                f"{type(alpha).__name__} and {type(coefficients).__name__}; for one order pass none"
            )
        terms, factors = list(alpha), list(coefficients)  # type: ignore[arg-type]
        if len(terms) != len(factors) or not terms:
            raise ValueError(
                "`coefficients` must be one for each of a list of orders, "
                f"got {len(factors)} for {len(terms)}"
            )
    alphas = [_on_state("alpha", entry, start, shapes, checks.order) for entry in terms]
    weights = [_on_state("coefficients", entry, start, shapes, _coefficient) for entry in factors]
    total = values(torch.stack(torch.broadcast_tensors(*weights)).sum(0))  # type: ignore[no-untyped-call]
    if not bool((total > 0).all()):
        raise ValueError("`coefficients` must be > 0 for one order at least, got 0 for every order")
    if len(alphas) > 1:
        shape = torch.broadcast_shapes(*(x.shape for x in (*alphas, *weights)))  # type: ignore[no-untyped-call]
        alphas, weights = ([x.expand(shape) for x in part] for part in (alphas, weights))
    return alphas, weights


def _coefficient(name: str, value: object) -> float | Tensor:
    return checks.real(name, value, at_least=0.0)


def _on_state(
    name: str,
    entry: Entry,
    start: Tensor,
    shapes: Sequence[torch.Size] | None,
    check: Callable[[str, object], float | Tensor],
) -> Tensor:
    """Return an entry as a tensor that broadcasts to the state."""
    if not isinstance(entry, list | tuple):
        if isinstance(entry, Tensor) and entry.dim() > 0 and shapes is not None:
            raise ValueError(
                f"`{name}` must be a number, or one entry for each of the {len(shapes)} parts of `y0`, "
                f"such as a tuple; got a tensor of shape {tuple(entry.shape)}"
            )
        return _broadcasting(name, check(name, entry), start.shape, start.device)
    if shapes is None:
        raise ValueError(
            f"`{name}` must have a number or a tensor for each order, got {type(entry).__name__}; "
            "for one value per component pass a tensor that broadcasts to `y0`"
        )
    if len(entry) != len(shapes):
        raise ValueError(
            f"`{name}` must have one entry for each of the {len(shapes)} parts of `y0`, got {len(entry)}"
        )
    if all(isinstance(x, int | float) and x == entry[0] for x in entry):
        return _broadcasting(name, check(name, entry[0]), start.shape, start.device)
    pieces = []
    for i, (part, shape) in enumerate(zip(entry, shapes, strict=True)):
        place = f"{name}[{i}]"
        pieces.append(_broadcasting(place, check(place, part), shape, start.device).expand(shape).reshape(-1))
    return torch.cat(pieces)


def _broadcasting(name: str, value: float | Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64, device=device)
    tail = shape[len(shape) - tensor.dim() :] if tensor.dim() <= len(shape) else ()
    if len(tail) != tensor.dim() or any(a not in (1, s) for a, s in zip(tensor.shape, tail, strict=True)):
        raise ValueError(
            f"`{name}` must broadcast to the state, {tuple(shape)}, got shape {tuple(tensor.shape)}"
        )
    return tensor
