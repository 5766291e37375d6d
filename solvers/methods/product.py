"""Product integration of the Volterra equation: rectangle, trapezoid, and the two as a pair."""

from __future__ import annotations

import torch
from torch import Tensor

from ..weights import gamma, rectangle_weights, trapezoid_start_weights, trapezoid_weights
from .base import RateCoefficients, RateMethod


class Predictor(RateMethod):
    r"""Explicit product rectangle rule: fractional Euler, or fractional Adams-Bashforth of one step.

    .. math:: y_n = y_0 + \frac{h^\alpha}{\Gamma(1+\alpha)} \sum_{m=1}^{n}
              \left(m^\alpha - (m-1)^\alpha\right) f_{n-m}

    Order 1; at ``alpha = 1`` it is the forward Euler method.

    Source: Diethelm, Ford and Freed (2002), Nonlinear Dyn. 29, 3-22, equation (14).
    """

    name = "predictor"
    implicit = False

    def coefficients(self, alpha: Tensor, h: float | Tensor, count: int) -> RateCoefficients:
        """See :class:`RateMethod`."""
        return RateCoefficients(kernel=rectangle_rule(alpha, h, count))


class Trapezoid(RateMethod):
    r"""Implicit product trapezoid rule.

    .. math:: y_n = y_0 + \frac{h^\alpha}{\Gamma(2+\alpha)}
              \left( c_n f_0 + \sum_{m=0}^{n-1} a_m f_{n-m} \right)

    Order 2 for smooth right-hand sides, :math:`1+\alpha` for solutions that start like
    :math:`t^\alpha`; at ``alpha = 1`` it is the ordinary trapezoid rule.

    Source: Diethelm, Ford and Freed (2002), Nonlinear Dyn. 29, equation (9), for the weights; Garrappa
    (2015), Int. J. Comput. Math. 87(10), 2281-2290, for the order.
    """

    name = "trapezoid"
    implicit = True

    def coefficients(self, alpha: Tensor, h: float | Tensor, count: int) -> RateCoefficients:
        """See :class:`RateMethod`."""
        kernel, start = trapezoid_rule(alpha, h, count)
        return RateCoefficients(kernel=kernel, start=start)

    @staticmethod
    def order(alpha: float) -> float:
        """See :class:`Method`."""
        return 2.0

    @staticmethod
    def singular_order(alpha: float) -> float:
        """See :class:`Method`."""
        return 1 + alpha


class ABM(RateMethod):
    r"""Adams-Bashforth-Moulton: predict by the rectangle rule, correct once by the trapezoid rule.

    Order :math:`1+\alpha` for smooth solutions (2 at ``alpha = 1``, where it is Heun's method);
    explicit, with two evaluations a step.

    Source: Diethelm, Ford and Freed (2004), Numer. Algorithms 36, 31-52, theorem 3.2.
    """

    name = "abm"
    implicit = False
    corrects = True

    def coefficients(self, alpha: Tensor, h: float | Tensor, count: int) -> RateCoefficients:
        """See :class:`RateMethod`."""
        kernel, start = trapezoid_rule(alpha, h, count)
        return RateCoefficients(kernel=kernel, start=start, predictor=rectangle_rule(alpha, h, count))

    @staticmethod
    def order(alpha: float) -> float:
        """See :class:`Method`."""
        return 1 + alpha

    @staticmethod
    def singular_order(alpha: float) -> float:
        """See :class:`Method`."""
        return 1 + alpha


def rectangle_rule(alpha: Tensor, h: float | Tensor, count: int) -> Tensor:
    """Return the rectangle weights times their gain."""
    alpha = alpha.to(torch.float64)
    return h**alpha / gamma(1 + alpha) * rectangle_weights(alpha, count)


def trapezoid_rule(alpha: Tensor, h: float | Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the trapezoid weights, and what the initial rate has beside its place among them."""
    alpha = alpha.to(torch.float64)
    gain = h**alpha / gamma(2 + alpha)
    kernel = trapezoid_weights(alpha, count)
    return gain * kernel, gain * (trapezoid_start_weights(alpha, count) - kernel)
