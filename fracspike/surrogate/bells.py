"""Surrogates with exponential tails: Gaussians and exponentials."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Surrogate
from .fields import any_real, non_negative
from .helpers import magnitude
from .registry import register


@register
class Gaussian(Surrogate):
    r"""Normal density.

    .. math:: g(x) = \frac{1}{\sigma\sqrt{2\pi}}\, e^{-(x-\mu)^2/(2\sigma^2)}, \qquad
              G(x) = \tfrac12\operatorname{erfc}\frac{\mu - x}{\sigma\sqrt2}

    Peak 1/(sigma sqrt(2 pi)), area 1, both times ``amplitude``.

    Args:
        sigma: standard deviation, > 0, in units of x.
        mu: mean, in units of x.

    Source: B. Yin, F. Corradi, S. M. Bohte, Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks, Nature Machine Intelligence 3, 2021.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Gaussian
        >>> Gaussian(sigma=0.5).derivative(torch.tensor([0.0, 0.5]))
        tensor([0.7979, 0.4839])
    """

    sigma: float = 1.0
    mu: float = any_real(default=0.0)

    def g(self, x: Tensor) -> Tensor:
        z = self._centred(x) * (math.sqrt(0.5) / self.sigma)
        return z.square_().neg_().exp_() * self.peak_of_g()

    def G(self, x: Tensor) -> Tensor:
        return torch.erfc(self._centred(x) * (-math.sqrt(0.5) / self.sigma)) * 0.5

    def _centred(self, x: Tensor) -> Tensor:
        # Subtracting the usual 0.0 would pass over the whole tensor for nothing.
        return x if isinstance(self.mu, float) and self.mu == 0.0 else x - self.mu

    def peak_of_g(self) -> float:
        return 1.0 / math.sqrt(2.0 * math.pi) / self.sigma

    def area_of_g(self) -> float:
        return 1.0


@register
class Erf(Surrogate):
    r"""Derivative of the error function: a Gaussian of standard deviation 1/(alpha sqrt 2).

    .. math:: g(x) = \frac{\alpha}{\sqrt\pi}\,e^{-\alpha^2x^2}, \qquad
              G(x) = \tfrac12\operatorname{erfc}(-\alpha x)

    Peak alpha/sqrt(pi), area 1.

    Args:
        alpha: steepness, > 0, in units of 1/x.

    Source: B. Yin, F. Corradi, S. M. Bohte, Effective and efficient computation with multiple-timescale
    spiking recurrent neural networks, ICONS 2020.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Erf
        >>> Erf(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
        tensor([1.1284, 0.4151])
    """

    alpha: float = 2.0

    def g(self, x: Tensor) -> Tensor:
        return (x * self.alpha).square_().neg_().exp_() * self.peak_of_g()

    def G(self, x: Tensor) -> Tensor:
        return torch.erfc(x * -self.alpha) * 0.5

    def peak_of_g(self) -> float:
        return self.alpha / math.sqrt(math.pi)

    def area_of_g(self) -> float:
        return 1.0


@register
class MultiGaussian(Surrogate):
    r"""Gaussian with two wide negative side lobes, so that the derivative changes sign away from 0.

    .. math:: g(x) = (1 + h)\,N(x; \mu, \sigma) - h\,N(x; \sigma, s\sigma) - h\,N(x; -\sigma, s\sigma)

    N(x; m, d) is the normal density; G is the same sum of normal distribution functions.  Area 1 - h, both
    times ``amplitude``.

    Args:
        sigma: standard deviation of the main lobe, > 0, in units of x.
        h: weight of the side lobes, >= 0.
        s: width of the side lobes in units of sigma, > 0.
        mu: mean of the main lobe, in units of x.

    Source: B. Yin, F. Corradi, S. M. Bohte, Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks, Nature Machine Intelligence 3, 2021.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import MultiGaussian
        >>> MultiGaussian().derivative(torch.tensor([0.0, 1.5]))
        tensor([ 0.8782, -0.0246])
    """

    sigma: float = 0.5
    h: float = non_negative(default=0.15)
    s: float = 6.0
    mu: float = any_real(default=0.0)

    def g(self, x: Tensor) -> Tensor:
        wide = self.s * self.sigma
        centre = _density(x - self.mu, self.sigma) * (1.0 + self.h)
        return centre - (_density(x - self.sigma, wide) + _density(x + self.sigma, wide)) * self.h

    def G(self, x: Tensor) -> Tensor:
        wide = self.s * self.sigma
        centre = _distribution(x - self.mu, self.sigma) * (1.0 + self.h)
        return centre - (_distribution(x - self.sigma, wide) + _distribution(x + self.sigma, wide)) * self.h

    def area_of_g(self) -> float:
        return 1.0 - self.h


def _density(x: Tensor, deviation: float) -> Tensor:
    peak = 1.0 / math.sqrt(2.0 * math.pi) / deviation
    return (x * (math.sqrt(0.5) / deviation)).square_().neg_().exp_() * peak


def _distribution(x: Tensor, deviation: float) -> Tensor:
    return torch.erfc(x * (-math.sqrt(0.5) / deviation)) * 0.5


@register
class PiecewiseExponential(Surrogate):
    r"""Two-sided exponential (Laplace density).

    .. math:: g(x) = \frac\alpha2\,e^{-\alpha|x|}, \qquad
              G(x) = \tfrac12 e^{\alpha x}\ (x < 0),\quad 1 - \tfrac12 e^{-\alpha x}\ (x \ge 0)

    Peak alpha/2, area 1.

    Args:
        alpha: inverse decay length, > 0, in units of 1/x.

    Source: S. B. Shrestha, G. Orchard, SLAYER: spike layer error reassignment in time, NeurIPS 2018.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import PiecewiseExponential
        >>> PiecewiseExponential(alpha=2.0).derivative(torch.tensor([0.0, -0.5]))
        tensor([1.0000, 0.3679])
    """

    alpha: float = 1.0

    def g(self, x: Tensor) -> Tensor:
        return (x.abs() * -self.alpha).exp_() * (self.alpha / 2)

    def G(self, x: Tensor) -> Tensor:
        half = (magnitude(x) * -self.alpha).exp() * 0.5
        return torch.where(x < 0, half, 1.0 - half)

    def peak_of_g(self) -> float:
        return self.alpha / 2

    def area_of_g(self) -> float:
        return 1.0


@register
class ShiftedExponential(Surrogate):
    r"""Escape rate centred one unit above threshold.

    .. math:: g(x) = k\,e^{-\beta|x - 1|}, \qquad
              G(x) = \frac k\beta e^{\beta(x-1)}\ (x < 1),\quad
              \frac k\beta\bigl(2 - e^{-\beta(x-1)}\bigr)\ (x \ge 1)

    Peak k at x = 1 (at threshold k exp(-beta)), area 2k/beta.

    Args:
        beta: inverse decay length, > 0, in units of 1/x.
        slope: k > 0, the peak.

    Source: the "spike rate escape" of snnTorch, after W. Gerstner and W. M. Kistler, Spiking Neuron Models,
    2002.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import ShiftedExponential
        >>> ShiftedExponential(beta=1.0, slope=2.0).derivative(torch.tensor([0.0, 1.0]))
        tensor([0.7358, 2.0000])
    """

    beta: float = 1.0
    slope: float = 25.0

    def g(self, x: Tensor) -> Tensor:
        return ((x - 1.0).abs_() * -self.beta).exp_() * self.slope

    def G(self, x: Tensor) -> Tensor:
        e = (magnitude(x - 1.0) * -self.beta).exp()
        return torch.where(x < 1.0, e, 2.0 - e) * (self.slope / self.beta)

    def peak_of_g(self) -> float:
        return self.slope

    def area_of_g(self) -> float:
        return 2.0 * self.slope / self.beta
