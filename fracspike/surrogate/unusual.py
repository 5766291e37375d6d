"""Surrogates with logarithmic, one-sided or periodic primitives."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .base import Surrogate
from .fields import whole
from .helpers import magnitude, sign
from .registry import register


@register
class NonzeroSignLog(Surrogate):
    r"""Derivative of the signed logarithm: tails as slow as 1/\|x\|.

    .. math:: g(x) = \frac{1}{1/\alpha + |x|}, \qquad G(x) = \operatorname{sign}(x)\,\ln(1 + \alpha|x|)

    Peak alpha, infinite area.

    Args:
        alpha: peak, > 0, in units of 1/x.

    Source: the NonzeroSignLogAbs of SpikingJelly (W. Fang et al., Science Advances 9, 2023).

    Example:
        >>> import torch
        >>> from fracspike.surrogate import NonzeroSignLog
        >>> NonzeroSignLog(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
        tensor([2., 1.])
    """

    alpha: float = 1.0

    def g(self, x: Tensor) -> Tensor:
        return (x.abs() + 1.0 / self.alpha).reciprocal_()

    def G(self, x: Tensor) -> Tensor:
        m = magnitude(x)
        # Beyond 1 the logarithm is split, since alpha * |x| may overflow.
        large = m.clamp(min=1.0)
        beyond = large.log() + (large.reciprocal() + self.alpha).log()
        return sign(x) * torch.where(m > 1.0, beyond, (m.clamp(max=1.0) * self.alpha).log1p())

    def peak_of_g(self) -> float:
        return self.alpha

    def area_of_g(self) -> float:
        return math.inf


@register("s2nn")
class S2NN(Surrogate):
    r"""Logistic below threshold, logarithmic above.

    .. math:: g(x) = \alpha\,\sigma(\alpha x)(1 - \sigma(\alpha x))\ (x < 0),\quad
              \frac{\beta}{1 + x}\ (x \ge 0), \qquad
              G(x) = \sigma(\alpha x),\quad \tfrac12 + \beta\ln(1 + x)

    At threshold beta (the limit from below is alpha/4); peak max(alpha/4, beta), infinite area.

    Args:
        alpha: steepness below threshold, > 0, in units of 1/x.
        beta: derivative at threshold, > 0.

    Source: K. Suetake et al., S2NN: time step reduction of spiking surrogate gradients for training energy
    efficient single-step neural networks, arXiv:2201.10879.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import S2NN
        >>> S2NN(alpha=4.0, beta=1.0).derivative(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.0707, 1.0000, 0.5000])
    """

    alpha: float = 4.0
    beta: float = 1.0

    def g(self, x: Tensor) -> Tensor:
        below = (x.abs() * -self.alpha).sigmoid_()
        above = x.clamp(min=0.0).add_(1.0).reciprocal_() * self.beta
        return torch.where(x < 0.0, torch.addcmul(below, below, below, value=-1) * self.alpha, above)

    def G(self, x: Tensor) -> Tensor:
        above = x.clamp(min=0.0).log1p() * self.beta + 0.5
        return torch.where(x < 0.0, torch.sigmoid(x * self.alpha), above)

    def peak_of_g(self) -> Any:
        return self.alpha / 4 if bool(self.alpha / 4 >= self.beta) else self.beta

    def area_of_g(self) -> float:
        return math.inf


@register
class SquarewaveFourier(Surrogate):
    r"""Derivative of the Fourier series of a square wave, cut after n terms; it changes sign.

    .. math:: g(x) = \frac4T\sum_{i=1}^n \cos\frac{(2i-1)\,2\pi x}{T}, \qquad
              G(x) = \frac12 + \frac2\pi\sum_{i=1}^n \frac{1}{2i-1}\sin\frac{(2i-1)\,2\pi x}{T}

    Peak 4n/T; periodic, hence without an area.  SpikingJelly's n is ours plus one: it sums i < n.

    Args:
        n: number of terms, >= 1.
        period: T > 0, in units of x.

    Source: the SquarewaveFourierSeries of SpikingJelly (W. Fang et al., Science Advances 9, 2023).

    Example:
        >>> import torch
        >>> from fracspike.surrogate import SquarewaveFourier
        >>> SquarewaveFourier(n=2, period=8.0).derivative(torch.tensor([0.0, 1.5]))
        tensor([ 1.0000, -0.2706])
    """

    n: int = whole(default=2)
    period: float = 8.0

    def g(self, x: Tensor) -> Tensor:
        phase = self._phase(x)
        total = phase.cos() if self.n > 1 else phase.cos_()
        for i in range(1, self.n):
            total = total + (phase * (2 * i + 1)).cos_()
        return total * (4.0 / self.period)

    def G(self, x: Tensor) -> Tensor:
        phase = self._phase(x)
        total = phase.sin()
        for i in range(1, self.n):
            total = total + (phase * (2 * i + 1)).sin() / (2 * i + 1)
        return total * (2.0 / math.pi) + 0.5

    def _phase(self, x: Tensor) -> Tensor:
        step: float | Tensor = 2.0 * math.pi / self.period  # a tensor while the period is trained
        if x.dtype in (torch.float16, torch.bfloat16):
            # Few digits are left after a multiplication; the remainder is exact, and slow.
            return torch.remainder(x, self.period) * step
        # The highest harmonic must not overflow; x that large is far coarser than any period.
        most = torch.finfo(x.dtype).max / (4.0 * self.n)
        if isinstance(step, float):
            reach = most / max(step, 1.0)
            return x.clamp(-reach, reach).mul_(step)
        return (x * step).clamp(-most, most)

    def peak_of_g(self) -> float:
        return 4.0 * self.n / self.period

    def area_of_g(self) -> float:
        return math.inf
