"""The Grünwald-Letnikov scheme, implicit and explicit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..weights import gl_increment_weights
from .base import IncrementMethod


class GL(IncrementMethod):
    r"""Implicit Grünwald-Letnikov scheme, for the Caputo derivative.

    .. math:: \sum_{j=0}^{n} w_j (y_{n-j} - y_0) = h^\alpha f(t_n, y_n), \qquad
              w_j = \left(1 - \frac{1+\alpha}{j}\right) w_{j-1},\ w_0 = 1

    The subtraction of :math:`y_0` is what makes it Caputo. Summed by parts it is a scheme in
    increments. Order 1; at ``alpha = 1`` it is the backward Euler method.

    Source: Podlubny (1999), Fractional Differential Equations, section 8.4; Scherer, Kalla, Tang and
    Huang (2011), Comput. Math. Appl. 62(3), 902-917.
    """

    name = "gl"
    implicit = True

    def derivative(self, alpha: Tensor, h: float | Tensor, count: int) -> Tensor:
        """See :class:`IncrementMethod`."""
        alpha = alpha.to(torch.float64)
        return gl_increment_weights(alpha, count) / h**alpha


class GLExplicit(GL):
    r"""Explicit Grünwald-Letnikov scheme: as :class:`GL`, with :math:`f(t_{n-1}, y_{n-1})` on the right.

    Order 1; at ``alpha = 1`` it is the forward Euler method.
    """

    name = "gl_explicit"
    implicit = False
