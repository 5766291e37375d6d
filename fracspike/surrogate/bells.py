"""Surrogates with exponential tails: Gaussians and exponentials."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Surrogate
from .fields import any_real
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
