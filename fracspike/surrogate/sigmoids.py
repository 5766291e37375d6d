"""Surrogates whose primitive is a sigmoid with unbounded support: logistic, arc tangent, rational."""

# ruff: noqa: D102, N802 -- g, form and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .base import Surrogate
from .fields import any_real, positive
from .helpers import affine, bounded, magnitude, sign
from .reciprocal import Reciprocal
from .registry import register
from .spike import heaviside


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
class ATan(Reciprocal):
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

    def form(self) -> tuple[Any, Any, Any]:
        return 2.0 / self.alpha, math.pi * (self.alpha / 2) ** 0.5, 0.0

    def G(self, x: Tensor) -> Tensor:
        return torch.atan(x * (math.pi / 2 * self.alpha)) / math.pi + 0.5

    def peak_of_g(self) -> float:
        return self.alpha / 2

    def area_of_g(self) -> float:
        return 1.0


@register
class FastSigmoid(Reciprocal):
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

    def form(self) -> tuple[Any, Any, Any]:
        return 0.0, self.slope, 1.0

    def G(self, x: Tensor) -> Tensor:
        y = bounded(x * self.slope)
        return y / (magnitude(y) + 1.0) / self.slope

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return 2.0 / self.slope


@register
class SoftSign(Reciprocal):
    r"""Derivative of the soft sign: the shape of `FastSigmoid`, with area 1.

    .. math:: g(x) = \frac{\alpha/2}{(1 + \alpha|x|)^2}, \qquad
              G(x) = \frac12\Bigl(\frac{\alpha x}{1 + \alpha|x|} + 1\Bigr)

    Peak alpha/2, area 1; tails fall as 1/x^2.

    Args:
        alpha: steepness, > 0, in units of 1/x.

    Source: F. Zenke, S. Ganguli, SuperSpike: supervised learning in multilayer spiking neural networks,
    Neural Computation 30(6), 2018, for the shape.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import SoftSign
        >>> SoftSign(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
        tensor([1.0000, 0.2500])
    """

    alpha: float = 2.0

    def form(self) -> tuple[Any, Any, Any]:
        return 0.0, (2 * self.alpha) ** 0.5, (2 / self.alpha) ** 0.5

    def G(self, x: Tensor) -> Tensor:
        y = bounded(x * self.alpha)
        return y / (magnitude(y) + 1.0) * 0.5 + 0.5

    def peak_of_g(self) -> float:
        return self.alpha / 2

    def area_of_g(self) -> float:
        return 1.0


@register
class SparseFastSigmoid(Surrogate):
    r"""`FastSigmoid` above a gradient threshold B, zero at and below it: few neurons carry gradient.

    .. math:: g(x) = \frac{\mathbf 1[x > B]}{(1 + k|x|)^2}, \qquad
              G(x) = \mathbf 1[x > B]\,\Bigl(\frac{x}{1 + k|x|} - \frac{B}{1 + k|B|}\Bigr)

    Peak 1/(1 + k max(B, 0))^2 (approached at B, if B >= 0), area 1/k - B/(1 + k\|B\|).

    Args:
        slope: k > 0, in units of 1/x.
        B: gradient threshold, in units of x.

    Source: N. Perez-Nieves, D. F. M. Goodman, Sparse spiking gradient descent, NeurIPS 2021, for the idea;
    the formula with B is that of snnTorch's SFS.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import SparseFastSigmoid
        >>> SparseFastSigmoid(slope=1.0, B=0.5).derivative(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 0.0000, 0.2500])
    """

    slope: float = 25.0
    B: float = any_real(default=1.0)

    def g(self, x: Tensor) -> Tensor:
        window = heaviside(x - self.B, strict=True)
        return affine(x.abs(), self.slope, 1.0).square_().reciprocal_() * window

    def G(self, x: Tensor) -> Tensor:
        y = bounded(x * self.slope)
        above = y / (magnitude(y) + 1.0) / self.slope - self._at_threshold()
        return torch.where(x > self.B, above, torch.zeros_like(x))

    def _at_threshold(self) -> float:
        return self.B / (1.0 + self.slope * abs(self.B))

    def peak_of_g(self) -> float:
        b = (self.B + abs(self.B)) / 2
        return 1.0 / (1.0 + self.slope * b) ** 2

    def area_of_g(self) -> float:
        return 1.0 / self.slope - self._at_threshold()


@register("q_pseudo_spike")
class QPseudoSpike(Surrogate):
    r"""Power-law tail of exponent q.

    .. math:: g(x) = \Bigl(1 + \frac{|x|}{w}\Bigr)^{-q}, \qquad
              G(x) = \frac12 + \operatorname{sign}(x)\,\frac{w}{1-q}
                     \Bigl(\bigl(1 + \tfrac{|x|}{w}\bigr)^{1-q} - 1\Bigr)

    The width is w = (q - 1)/2 unless given; then q > 1, the area is 1, and G(x) = (1 - 2x/(q-1))^(1-q) / 2
    for x < 0.  Peak 1, area 2w/(q - 1), infinite for q <= 1.

    Args:
        q: exponent, > 1 (with a ``width`` of its own, > 0).
        width: w > 0, in units of x, or None for (q - 1)/2.

    Source: L. Herranz-Celotti, J. Rouat, Surrogate gradients design, arXiv:2202.00282.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import QPseudoSpike
        >>> QPseudoSpike(q=2.0).derivative(torch.tensor([0.0, 0.5, 1.5]))
        tensor([1.0000, 0.2500, 0.0625])
    """

    q: float = 2.0
    width: float | None = positive(default=None)

    def g(self, x: Tensor) -> Tensor:
        base = affine(x.abs(), 1.0 / self._width(), 1.0)
        # The derivative with respect to a trained q has the logarithm of the base, which must be finite.
        return (base if isinstance(self.q, float) else bounded(base)).pow(-self.q)

    def G(self, x: Tensor) -> Tensor:
        log_base = bounded(magnitude(x) / self._width()).log1p()
        power = 1.0 - self.q
        # The limit of (base**power - 1) / power for power -> 0 is the logarithm.
        rise = log_base if isinstance(power, float) and power == 0.0 else (log_base * power).expm1() / power
        return sign(x) * (rise * self._width()) + 0.5

    def _width(self) -> float:
        return (self.q - 1.0) / 2 if self.width is None else self.width

    def check(self) -> None:
        if self._values["width"] is None and self._values["q"] <= 1.0:
            raise ValueError(f"`q` must be > 1, got {self._values['q']:g}; a smaller q needs a `width`")

    def trained_above(self, name: str) -> float | None:
        if self._values["width"] is None and name in ("q", "width"):
            return {"q": 1.0, "width": None}[name]
        return super().trained_above(name)

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return 2.0 * self._width() / (self.q - 1.0) if self.q > 1.0 else math.inf


@register
class Circular(Surrogate):
    r"""Derivative of x/sqrt(1 + (x/w)^2), the height on a circle.

    .. math:: g(x) = \bigl(1 + (x/w)^2\bigr)^{-3/2}, \qquad G(x) = \frac{x}{\sqrt{1 + (x/w)^2}}

    Peak 1, area 2w; tails fall as 1/\|x\|^3.

    Args:
        width: w > 0, in units of x.

    Source: the "circ" threshold of Norse (C. Pehle, J. E. Pedersen, 2021).

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Circular
        >>> Circular(width=1.0).derivative(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 0.3536])
    """

    width: float = 1.0

    def g(self, x: Tensor) -> Tensor:
        inverse = (x * (1.0 / self.width)).square_().add_(1.0).rsqrt_()
        return inverse * inverse * inverse

    def G(self, x: Tensor) -> Tensor:
        # The sine of the arc tangent is y / sqrt(1 + y^2), without overflow.
        return torch.atan(x * (1.0 / self.width)).sin() * self.width

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return 2.0 * self.width
