"""Surrogates made of straight pieces."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .base import Surrogate
from .fields import flag, non_negative
from .helpers import affine, mix
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
        return affine(_outside(x, self.width, self.closed), -0.5 / self.width, 0.5 / self.width)

    def G(self, x: Tensor) -> Tensor:
        return (x * (0.5 / self.width) + 0.5).clamp(0.0, 1.0)

    def peak_of_g(self) -> float:
        return 0.5 / self.width

    def area_of_g(self) -> float:
        return 1.0


@register
class Triangle(Surrogate):
    r"""Tent of half-width w.

    .. math:: g(x) = \max\Bigl(0,\, 1 - \frac{|x|}{w}\Bigr), \qquad
              G(x) = \frac w2 + y - \frac{y|y|}{2w},\quad y = \operatorname{clip}(x, -w, w)

    Peak 1, area w, both times ``amplitude``.

    Args:
        width: half-width w > 0, in units of x.

    Source: S. K. Esser et al., Convolutional networks for fast, energy-efficient neuromorphic computing,
    PNAS 113(41), 2016; G. Bellec et al., Long short-term memory and learning-to-learn in networks of spiking
    neurons, NeurIPS 2018.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Triangle
        >>> Triangle(width=1.0, amplitude=0.3).derivative(torch.tensor([0.0, 0.5, 2.0]))
        tensor([0.3000, 0.1500, 0.0000])
    """

    width: float = 1.0

    def g(self, x: Tensor) -> Tensor:
        return affine(x.abs(), -1.0 / self.width, 1.0).clamp(min=0.0)

    def G(self, x: Tensor) -> Tensor:
        y = (x * (1.0 / self.width)).clamp(-1.0, 1.0)
        return (y - y * y.abs() * 0.5 + 0.5) * self.width

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return self.width


@register
class LeakyRectangle(Surrogate):
    r"""Boxcar of half-width w on a floor c, so that no neuron is cut off.

    .. math:: g(x) = \frac{1}{2w}\ (|x| \le w),\quad c\ \text{else}, \qquad
              G(x) = \operatorname{clip}\Bigl(\frac{x}{2w} + \frac12, 0, 1\Bigr)
                     + c\,\bigl(x - \operatorname{clip}(x, -w, w)\bigr)

    Peak max(1/(2w), c); the area is infinite unless c = 0.

    Args:
        width: half-width w > 0, in units of x.
        c: derivative outside, >= 0.
        closed: whether the two points \|x\| = w lie inside (True) or outside.

    Source: the PiecewiseLeakyReLU of SpikingJelly (W. Fang et al., Science Advances 9, 2023).

    Example:
        >>> import torch
        >>> from fracspike.surrogate import LeakyRectangle
        >>> LeakyRectangle(width=1.0, c=0.01).derivative(torch.tensor([0.0, 3.0]))
        tensor([0.5000, 0.0100])
    """

    width: float = 1.0
    c: float = non_negative(default=0.01)
    closed: bool = flag(default=True)

    def g(self, x: Tensor) -> Tensor:
        return mix(_outside(x, self.width, self.closed), zero=0.5 / self.width, one=self.c)

    def G(self, x: Tensor) -> Tensor:
        y = (x * (1.0 / self.width)).clamp(-1.0, 1.0)
        return y * 0.5 + 0.5 + (x - y * self.width) * self.c

    def peak_of_g(self) -> Any:
        return _larger(0.5 / self.width, self.c)

    def area_of_g(self) -> float:
        return math.inf if self.c > 0 else 1.0


@register("leaky_relu")
class LeakyReLU(Surrogate):
    r"""Constant derivative on either side of the threshold.

    .. math:: g(x) = k\ (x \ge 0),\quad \text{leak}\ (x < 0), \qquad G(x) = g(x)\,x

    Peak max(k, leak), infinite area.  With ``strict`` the point x = 0 belongs to the leak.

    Args:
        slope: k > 0, derivative above threshold.
        leak: derivative below threshold, >= 0.

    Source: the LeakyKReLU of SpikingJelly (W. Fang et al., Science Advances 9, 2023); with leak = 0.1 the
    leaky spike operator of snnTorch.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import LeakyReLU
        >>> LeakyReLU(slope=1.0, leak=0.1).derivative(torch.tensor([-1.0, 0.0]))
        tensor([0.1000, 1.0000])
    """

    slope: float = 1.0
    leak: float = non_negative(default=0.0)

    def g(self, x: Tensor) -> Tensor:
        above = heaviside(x, self.strict)
        # The usual case costs nothing more.
        usual = (self.slope, self.leak) == (1.0, 0.0) and not self._trained
        return above if usual else mix(above, zero=self.leak, one=self.slope)

    def G(self, x: Tensor) -> Tensor:
        above = x > 0 if self.strict else x >= 0
        return torch.where(above, x * self.slope, x * self.leak)

    def peak_of_g(self) -> Any:
        return _larger(self.slope, self.leak)

    def area_of_g(self) -> float:
        return math.inf


@register("log_tailed_relu")
class LogTailedReLU(Surrogate):
    r"""Rectified linear up to 1, logarithmic beyond.

    .. math:: g(x) = \alpha\ (x \le 0),\quad 1\ (0 < x \le 1),\quad \frac1x\ (x > 1), \qquad
              G(x) = \alpha x,\quad x,\quad 1 + \ln x

    Peak max(1, alpha), infinite area.

    Args:
        alpha: derivative below threshold, >= 0.

    Source: Z. Cai, X. He, J. Sun, N. Vasconcelos, Deep learning with low precision by half-wave Gaussian
    quantization, CVPR 2017.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import LogTailedReLU
        >>> LogTailedReLU(alpha=0.1).derivative(torch.tensor([-1.0, 0.5, 4.0]))
        tensor([0.1000, 1.0000, 0.2500])
    """

    alpha: float = non_negative(default=0.0)

    def g(self, x: Tensor) -> Tensor:
        above = x.clamp(min=1.0).reciprocal_()
        # A step rather than a comparison: it leaves NaN in place.
        below = heaviside(-x)
        return above - below + below * self.alpha

    def G(self, x: Tensor) -> Tensor:
        above = torch.where(x <= 1.0, x, x.clamp(min=1.0).log() + 1.0)
        return torch.where(x <= 0.0, x * self.alpha, above)

    def peak_of_g(self) -> Any:
        return _larger(1.0, self.alpha)

    def area_of_g(self) -> float:
        return math.inf


@register
class StraightThrough(Surrogate):
    r"""Straight-through estimator: the gradient passes unchanged.

    .. math:: g(x) = 1, \qquad G(x) = x

    Peak 1, infinite area.

    Source: Y. Bengio, N. Léonard, A. Courville, Estimating or propagating gradients through stochastic
    neurons for conditional computation, arXiv:1308.3432.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import StraightThrough
        >>> StraightThrough().derivative(torch.tensor([-3.0, 0.0]))
        tensor([1., 1.])
    """

    # Only G: its derivative by autograd saves nothing and costs nothing.
    def G(self, x: Tensor) -> Tensor:
        return x

    def peak_of_g(self) -> float:
        return 1.0

    def area_of_g(self) -> float:
        return math.inf


def _outside(x: Tensor, width: float, closed: bool) -> Tensor:
    """Return 1 where |x| > width (|x| >= width unless closed), else 0."""
    distance = x.abs().sub_(width) if isinstance(width, float) else x.abs() - width
    return heaviside(distance, strict=closed)


def _larger(a: Any, b: Any) -> Any:
    """Return the larger of two numbers, either of which may be a trained tensor."""
    return a if bool(a >= b) else b
