"""The L1 scheme, implicit and explicit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..weights import l1_weights
from .base import Coefficients, Method


class L1(Method):
    r"""Implicit L1 scheme: the derivative of the piecewise linear path, met at the new point.

    .. math:: \sum_{j=1}^{n} b_{n-j} (y_j - y_{j-1}) = h^\alpha \Gamma(2-\alpha)\, f(t_n, y_n)

    Order :math:`2-\alpha` for smooth solutions, 1 for solutions that start like
    :math:`t^\alpha`; at ``alpha = 1`` it is the backward Euler method.

    Source: Lin and Xu (2007), J. Comput. Phys. 225, 1533-1552.
    """

    name = "l1"
    implicit = True

    def coefficients(self, alpha: Tensor, h: float, count: int) -> Coefficients:
        """Return the L1 weights and the gain, the reciprocal of what stands before the sum."""
        alpha = alpha.to(torch.float64)
        gain = h**alpha * torch.exp(torch.lgamma(2 - alpha))
        return Coefficients(gain, l1_weights(alpha, count))


class L1Explicit(L1):
    r"""Explicit L1 scheme: as :class:`L1`, with :math:`f(t_{n-1}, y_{n-1})` on the right.

    Order 1; at ``alpha = 1`` it is the forward Euler method.  This is the scheme of Teka,
    Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526.
    """

    name = "l1_explicit"
    implicit = False
