r"""Quadrature weights of fractional derivatives and integrals, one formula each.

All weights are computed in float64 and without differences of large powers
(``expm1``/``log1p``), because in float32 such differences lose every digit after a few
hundred steps. They are smooth in the order, up to and including ``alpha = 1``, so that
gradients with respect to the order come from differentiating them.

Each function takes orders ``alpha`` of any shape ``(*)`` and a ``count``, and returns
``(count, *)`` in float64, entry ``m`` for lag ``m``.
"""

from __future__ import annotations

import torch
from torch import Tensor

SERIES_FROM = 32  # lag from which second differences of powers are summed as a series


def lags(first: int, count: int, like: Tensor) -> Tensor:
    """Return the lags ``first``, ..., ``count - 1``, shaped to broadcast against ``like``."""
    steps = torch.arange(first, count, dtype=torch.float64, device=like.device)
    return steps.reshape(-1, *([1] * like.dim()))


def gamma(x: Tensor) -> Tensor:
    """Return the gamma function of positive ``x``."""
    return torch.exp(torch.lgamma(x))


def l1_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the L1 weights :math:`b_m = (m+1)^{1-\alpha} - m^{1-\alpha}`.

    They integrate the weakly singular kernel of the Caputo derivative exactly over a
    path that is linear between grid points:

    .. math:: D^\alpha y(t_n) \approx \frac{h^{-\alpha}}{\Gamma(2-\alpha)}
              \sum_{j=1}^{n} b_{n-j} (y_j - y_{j-1}).

    ``b_0 = 1``, and all others vanish at ``alpha = 1``.

    Source: Oldham and Spanier (1974), section 8.2; Lin and Xu (2007), J. Comput. Phys. 225.

    >>> l1_weights(torch.tensor(0.5), 3)
    tensor([1.0000, 0.4142, 0.3178], dtype=torch.float64)
    """
    alpha = alpha.to(torch.float64)
    m = lags(1, count, alpha)
    rest = m ** (1 - alpha) * torch.expm1((1 - alpha) * torch.log1p(1 / m))
    return torch.cat([torch.ones_like(alpha).unsqueeze(0), rest])


def gl_increment_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the Grünwald-Letnikov weights for increments, :math:`W_m = \prod_{i=1}^{m} (1 - \alpha/i)`.

    With the usual weights :math:`w_j = (1 - (1+\alpha)/j)\, w_{j-1}` of the values, :math:`W_m` is the sum of
    the first :math:`m + 1`, so that

    .. math:: D^\alpha y(t_n) \approx h^{-\alpha} \sum_{j=0}^{n} w_j (y_{n-j} - y_0)
              = h^{-\alpha} \sum_{j=1}^{n} W_{n-j} (y_j - y_{j-1}).

    ``W_0 = 1``, and all others vanish at ``alpha = 1``.

    Source: Podlubny (1999), Fractional Differential Equations, section 7.4, for the :math:`w_j`.

    >>> gl_increment_weights(torch.tensor(0.5), 3)
    tensor([1.0000, 0.5000, 0.3750], dtype=torch.float64)
    """
    alpha = alpha.to(torch.float64)
    factors = 1 - alpha / lags(1, count, alpha)
    return torch.cat([torch.ones_like(alpha).unsqueeze(0), torch.cumprod(factors, 0)])


def rectangle_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the product-rectangle weights :math:`m^\alpha - (m-1)^\alpha`; entry 0 is zero.

    .. math:: I^\alpha f(t_n) \approx \frac{h^\alpha}{\Gamma(1+\alpha)} \sum_{m=1}^{n}
              \left(m^\alpha - (m-1)^\alpha\right) f_{n-m}

    Source: Diethelm, Ford and Freed (2002), Nonlinear Dyn. 29, equation (14).

    >>> rectangle_weights(torch.tensor(0.5), 4)
    tensor([0.0000, 1.0000, 0.4142, 0.3178], dtype=torch.float64)
    """
    alpha = alpha.to(torch.float64)
    m = lags(2, count, alpha)
    head = torch.stack([torch.zeros_like(alpha), torch.ones_like(alpha)])[:count]
    return torch.cat([head, -(m**alpha) * torch.expm1(alpha * torch.log1p(-1 / m))])


def trapezoid_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the product-trapezoid weights :math:`(m+1)^p - 2m^p + (m-1)^p,\ p = 1 + \alpha`; entry 0 is 1.

    .. math:: I^\alpha f(t_n) \approx \frac{h^\alpha}{\Gamma(2+\alpha)} \left( c_n f_0 +
              \sum_{m=0}^{n-1} a_m f_{n-m} \right)

    Source: Diethelm, Ford and Freed (2002), Nonlinear Dyn. 29, equation (9).

    >>> trapezoid_weights(torch.tensor(1.0), 4)  # the ordinary trapezoid rule
    tensor([1., 2., 2., 2.], dtype=torch.float64)
    """
    p = 1 + alpha.to(torch.float64)
    return torch.cat([torch.ones_like(p).unsqueeze(0), _second_differences(p, count)])


def trapezoid_start_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the weight of :math:`f_0` at step n, :math:`c_n = (n-1)^p - (n-1-\alpha)\, n^\alpha`.

    Written as :math:`n^p (\mathrm{expm1}(p\, \mathrm{log1p}(-1/n)) + p/n)`; entry 0 is 0.

    Source: as for :func:`trapezoid_weights`.

    >>> trapezoid_start_weights(torch.tensor(1.0), 3)
    tensor([0., 1., 1.], dtype=torch.float64)
    """
    p = 1 + alpha.to(torch.float64)
    n = lags(2, count, p)
    few = n**p * (torch.expm1(p * torch.log1p(-1 / n)) + p / n)
    many = n ** (p - 2) * _series(p, n, sign=-1.0, first=2, step=1)
    head = torch.stack([torch.zeros_like(p), p - 1])[:count]
    return torch.cat([head, torch.where(n < SERIES_FROM, few, many)])


def _second_differences(p: Tensor, count: int) -> Tensor:
    """Return (m+1)^p - 2 m^p + (m-1)^p for m = 1, ..., count - 1."""
    m = lags(2, count, p)
    few = m**p * (torch.expm1(p * torch.log1p(1 / m)) + torch.expm1(p * torch.log1p(-1 / m)))
    many = 2 * m ** (p - 2) * _series(p, m, sign=1.0, first=2, step=2)
    head = (2**p - 2).unsqueeze(0)[: max(count - 1, 0)]
    return torch.cat([head, torch.where(m < SERIES_FROM, few, many)])


def _series(p: Tensor, m: Tensor, *, sign: float, first: int, step: int) -> Tensor:
    """Return m^2 times the sum over i = first, first + step, ... of binomial(p, i) (sign / m)^i."""
    total = torch.zeros_like(p * m)
    term = torch.ones_like(p * m)
    for i in range(1, 17):
        term = term * (p - (i - 1)) / i * (sign / m)
        if i >= first and (i - first) % step == 0:
            total = total + term
    return total * m**2
