"""The L1 scheme, implicit and explicit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..weights import gamma, l1_weights
from .base import IncrementMethod


class L1(IncrementMethod):
    r"""Implicit L1 scheme: the derivative of the piecewise linear path, met at the new point.

    .. math:: \sum_{j=1}^{n} b_{n-j} (y_j - y_{j-1}) = h^\alpha \Gamma(2-\alpha)\, f(t_n, y_n)

    Order :math:`2-\alpha` for smooth solutions, 1 for solutions that start like
    :math:`t^\alpha`; at ``alpha = 1`` it is the backward Euler method.

    Source: Lin and Xu (2007), J. Comput. Phys. 225, 1533-1552; for the order 1 at a fixed time, Jin,
    Lazarov and Zhou (2016), IMA J. Numer. Anal. 36(1), 197-221.
    """

    name = "l1"
    implicit = True

    def derivative(self, alpha: Tensor, h: float | Tensor, count: int) -> Tensor:
        """See :class:`IncrementMethod`."""
        alpha = alpha.to(torch.float64)
        return l1_weights(alpha, count) / (h**alpha * gamma(2 - alpha))

    @staticmethod
    def order(alpha: float) -> float:
        """See :class:`Method`."""
        return 2 - alpha


class L1Explicit(L1):
    r"""Explicit L1 scheme: as :class:`L1`, with :math:`f(t_{n-1}, y_{n-1})` on the right.

    Order 1; at ``alpha = 1`` it is the forward Euler method. This is the scheme of Teka,
    Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526.
    """

    name = "l1_explicit"
    implicit = False

    @staticmethod
    def order(alpha: float) -> float:
        """See :class:`Method`."""
        return 1.0
