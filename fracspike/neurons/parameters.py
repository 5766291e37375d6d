"""Neuron parameters: scalar or per neuron, fixed or learnable, always inside their range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from fracspike.solvers import checks

from .module import LAZY, NO_SIZE


class UnitInterval(nn.Module):
    r"""Maps the real line onto (0, 1) by :math:`\sigma(p)`, for the Caputo order."""

    def forward(self, p: Tensor) -> Tensor:
        """Return the constrained value."""
        return torch.sigmoid(_shaped(p))

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the unconstrained value that gives ``value``."""
        return torch.logit(value)


class Above(nn.Module):
    r"""Maps the real line onto :math:`(\text{floor}, \infty)` by :math:`\text{floor} + e^p`."""

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, p: Tensor) -> Tensor:
        """Return the constrained value."""
        return self.floor + torch.exp(_shaped(p))

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the unconstrained value that gives ``value``."""
        return torch.log(value - self.floor)


def _shaped(p: Tensor) -> Tensor:
    if isinstance(p, UninitializedParameter):
        raise ValueError(NO_SIZE)
    return p


def expand(name: str, value: float | Tensor, size: tuple[int, ...] | None) -> Tensor:
    """Return ``value`` as a float64 tensor, a scalar or of shape ``size``.

    Float64, whatever the layer computes in: kernels are built from these numbers in float64,
    and 0.7 stored in float32 would be another order.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            f"`{name}` must not require grad, since the layer keeps a copy; pass value.detach(), and "
            f"learn=({name!r},) to learn it"
        )
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    if size is None or tensor.shape == size:
        return tensor
    if tensor.dim() > 0:
        raise ValueError(
            f"`{name}` must be a number or have shape {size} (`size`), got {tuple(tensor.shape)}"
        )
    return tensor.expand(size).clone()


def register(module: nn.Module, name: str, value: Tensor, range_: nn.Module | None, learnable: bool) -> None:
    """Register ``value`` on ``module``: a buffer, or a parameter kept inside ``range_``."""
    if not learnable:
        module.register_buffer(name, value)
        return
    if isinstance(range_, UnitInterval) and bool((value >= 1).any()):
        raise ValueError(
            f"a learnable `{name}` must start inside (0, 1), got 1; start at 0.99, or keep it fixed"
        )
    module.register_parameter(name, nn.Parameter(value))
    if range_ is not None:
        parametrize.register_parametrization(module, name, range_)


def register_all(
    module: nn.Module,
    values: Mapping[str, float | Tensor],
    ranges: Mapping[str, nn.Module],
    learned: Iterable[str],
    size: tuple[int, ...] | None,
) -> None:
    """Register every value: a scalar, or of shape ``size`` if it is a tensor or learned."""
    learned = set(learned)
    for name, value in values.items():
        own = size if name in learned or isinstance(value, Tensor) else None
        register(module, name, expand(name, value, own), ranges.get(name), name in learned)


def names(learn: str | Sequence[str], known: Iterable[str]) -> set[str]:
    """Return the names to learn, each of which must be known."""
    if not isinstance(learn, str | Iterable):
        raise TypeError(f"`learn` must be names such as ('alpha', 'tau'), got {learn!r}; pass () for none")
    return {checks.one_of("learn", name, known) for name in ([learn] if isinstance(learn, str) else learn)}


def flag(name: str, value: object) -> bool:
    """Return ``value``, True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}")
    return value


def differs(value: object, default: float) -> bool:
    """Return whether an argument, a number or a tensor, says anything else than its default does."""
    return bool((value != default).any()) if isinstance(value, Tensor) else value != default


def common_shape(values: Iterable[Any], size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return ``size``, or the one shape that per-neuron values have; None if all are scalars.

    Raises:
        ValueError: if there are several shapes and no ``size``.
    """
    shapes = {tuple(v.shape) for v in values if isinstance(v, Tensor) and v.dim() > 0}
    if size is None and len(shapes) > 1:
        raise ValueError(f"per-neuron parameters must have one shape, got {sorted(shapes)}; pass size=...")
    return shapes.pop() if size is None and shapes else size


def terms(alpha: Any, coefficients: Any) -> tuple[float | Tensor, Tensor | None]:
    """Return order and None, or the orders ``(k,)`` and coefficients ``(k,)`` of a multi-term equation.

    Raises:
        TypeError: if an entry is no number.
        ValueError: if there is not one coefficient for each order, or one is out of range.
    """
    if not isinstance(alpha, list | tuple):
        if coefficients is not None:
            raise ValueError(
                "`coefficients` must go with a list of orders, got one `alpha`; pass alpha=[...]"
            )
        return checks.order("alpha", alpha), None
    count = 0 if coefficients is None else len(coefficients)
    if count != len(alpha) or not count:
        raise ValueError(
            f"`coefficients` must be one for each order, got {count} for {len(alpha)}; "
            "pass coefficients=[...] with alpha=[...]"
        )
    orders = [float(checks.order("alpha", a)) for a in alpha]
    factors = [float(checks.real("coefficients", c, above=0.0)) for c in coefficients]
    return torch.tensor(orders, dtype=torch.float64), torch.tensor(factors, dtype=torch.float64)


def size_tuple(size: object) -> tuple[int, ...] | None:
    """Return ``size`` as a tuple of whole numbers; None stays None."""
    if size is None:
        return None
    if isinstance(size, str):
        raise ValueError(
            f"`size` must be whole numbers, got {size!r}; "
            "'lazy' goes with neurons that have nothing else of that size, such as weights"
        )
    dims = size if isinstance(size, tuple | list | torch.Size) else (size,)
    return tuple(checks.positive_int("size", n) for n in dims)


def shared_size(values: Iterable[Any], size: int | Sequence[int] | str | None) -> Any:
    """Return :func:`common_shape`, or "lazy" as it is."""
    return size if size == LAZY else common_shape(values, size_tuple(size))


def short(value: Tensor) -> str:
    """Return a number, or the range of several, for printing."""
    if value.dim() == 0:
        return f"{value.item():.4g}"
    return f"{value.min().item():.4g}..{value.max().item():.4g}"
