"""Surrogates that are one over a square: one formula, of which the families give the coefficients."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Surrogate
from .helpers import affine


class Reciprocal(Surrogate):
    r"""A family whose derivative is :math:`g(x) = 1 / (p + (q|x| + r)^2)`.

    What it costs little to evaluate: the compiled loops of neurons do so where they need it, and never
    hold the derivative of a sequence.

    Example:
        >>> import torch
        >>> from fracspike.surrogate.reciprocal import Reciprocal
        >>> class Lorentz(Reciprocal):
        ...     width: float = 1.0
        ...     def form(self):
        ...         return 1.0, 1.0 / self.width, 0.0
        >>> Lorentz(width=0.5).derivative(torch.tensor([0.0, 0.5]))
        tensor([1.0000, 0.5000])
    """

    def form(self) -> tuple[Any, Any, Any]:
        """Return p >= 0, q and r >= 0 of the formula, not both p and r 0; numbers unless they are trained."""
        raise NotImplementedError(f"give {type(self).__name__} a method form(self) that returns p, q and r")

    def g(self, x: Tensor) -> Tensor:
        """See :class:`Surrogate`."""
        return reciprocal(x, *self.form())


def reciprocal(x: Tensor, p: float | Tensor, q: float | Tensor, r: float | Tensor) -> Tensor:
    """Return ``1 / (p + (q |x| + r)^2)``."""
    root = x * q if isinstance(r, float) and r == 0.0 else affine(x.abs(), q, r)
    square = root.square_()
    return (square if isinstance(p, float) and p == 0.0 else square.add_(p)).reciprocal_()
