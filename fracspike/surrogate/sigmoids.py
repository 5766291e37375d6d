"""Surrogates whose primitive is a sigmoid with unbounded support: logistic, arc tangent, rational."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Surrogate
from .helpers import bounded, magnitude
from .registry import register


@register
class Sigmoid(Surrogate):
    r"""Derivative of the logistic function.

    .. math:: g(x) = \alpha\,\sigma(\alpha x)\,(1 - \sigma(\alpha x)), \qquad G(x) = \sigma(\alpha x)

    Peak alpha/4, area 1.  Used by Zenke and Vogels (2021) as sigmoid'; `tanh` surrogates are this family,
    as sech(kx)^2 = 4 sigma(2kx) (1 - sigma(2kx)).  Evaluated at -\|alpha x\|, so finite for every finite x.

    Args:
        alpha: steepness, > 0, in units of 1/x.

    Source: F. Zenke, T. P. Vogels, The remarkable robustness of surrogate gradient learning, Neural
    Computation 33(4), 2021.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Sigmoid
        >>> Sigmoid(alpha=4.0).derivative(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 0.0707])
    """

    alpha: float = 4.0

    def g(self, x: Tensor) -> Tensor:
        s = (x.abs() * -self.alpha).sigmoid_()
        return torch.addcmul(s, s, s, value=-1) * self.alpha

    def G(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x * self.alpha)

    def peak_of_g(self) -> float:
        return self.alpha / 4

    def area_of_g(self) -> float:
        return 1.0


@register("atan")
class ATan(Surrogate):
    r"""Derivative of the arc tangent.

    .. math:: g(x) = \frac{\alpha/2}{1 + (\pi\alpha x/2)^2}, \qquad
              G(x) = \frac{1}{\pi}\arctan\frac{\pi\alpha x}{2} + \frac12

    Peak alpha/2, area 1; tails fall as 1/x^2.

    Args:
        alpha: steepness, > 0, in units of 1/x.

    Source: W. Fang et al., Incorporating learnable membrane time constant to enhance learning of spiking
    neural networks, ICCV 2021.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import ATan
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> ATan(alpha=2.0)(x).sum().backward()
        >>> x.grad
        tensor([0.0920, 1.0000, 0.0920])
    """

    alpha: float = 2.0

    def g(self, x: Tensor) -> Tensor:
        y = (x * (math.pi / 2 * self.alpha)).square_().add_(1.0)
        return y.reciprocal_() * (self.alpha / 2)

    def G(self, x: Tensor) -> Tensor:
        return torch.atan(x * (math.pi / 2 * self.alpha)) / math.pi + 0.5

    def peak_of_g(self) -> float:
        return self.alpha / 2

    def area_of_g(self) -> float:
        return 1.0


@register
class FastSigmoid(Surrogate):
    r"""SuperSpike: derivative of the fast sigmoid, with peak 1.

    .. math:: g(x) = \frac{1}{(1 + k|x|)^2}, \qquad G(x) = \frac{x}{1 + k|x|}

    Peak 1, area 2/k.  `SoftSign` is the same shape with area 1.

    Args:
        slope: k > 0, in units of 1/x.

    Source: F. Zenke, S. Ganguli, SuperSpike: supervised learning in multilayer spiking neural networks,
    Neural Computation 30(6), 2018.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import FastSigmoid
        >>> FastSigmoid(slope=25.0).derivative(torch.tensor([0.0, 0.04]))
        tensor([1.0000, 0.2500])
    """

    slope: float = 25.0

    def g(self, x: Tensor) -> Tensor:
        return (x.abs() * self.slope).add_(1.0).square_().reciprocal_()

    def G(self, x: Tensor) -> Tensor:
        y = bounded(x * self.slope)
        return y / (magnitude(y) + 1.0) / self.slope

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return 2.0 / self.slope
