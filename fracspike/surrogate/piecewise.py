"""Surrogates made of straight pieces."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

from torch import Tensor

from .base import Surrogate
from .fields import flag
from .registry import register
from .spike import heaviside


@register
class Rectangle(Surrogate):
    r"""Boxcar of half-width w.

    .. math:: g(x) = \frac{1}{2w}\,\mathbf 1[|x| \le w], \qquad
              G(x) = \operatorname{clip}\Bigl(\frac{x}{2w} + \frac12,\, 0,\, 1\Bigr)

    Peak 1/(2w), area 1.

    Args:
        width: half-width w > 0, in units of x.
        closed: whether the two points \|x\| = w lie inside (True) or outside.

    Source: Y. Wu et al., Spatio-temporal backpropagation for training high-performance spiking neural
    networks, Frontiers in Neuroscience 12, 2018.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Rectangle
        >>> Rectangle(width=1.0).derivative(torch.tensor([0.0, 1.0, 1.5]))
        tensor([0.5000, 0.5000, 0.0000])
    """

    width: float = 1.0
    closed: bool = flag(default=True)

    def g(self, x: Tensor) -> Tensor:
        return heaviside(self.width - x.abs(), strict=not self.closed) * (0.5 / self.width)

    def G(self, x: Tensor) -> Tensor:
        return (x * (0.5 / self.width) + 0.5).clamp(0.0, 1.0)

    def peak_of_g(self) -> float:
        return 0.5 / self.width

    def area_of_g(self) -> float:
        return 1.0
