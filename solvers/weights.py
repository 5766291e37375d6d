r"""Quadrature weights of fractional derivatives and integrals, one formula each.

All weights are computed in float64 and without differences of large powers
(``expm1``/``log1p``), because in float32 such differences lose every digit after a few
hundred steps.  They are smooth in the order, up to and including ``alpha = 1``, so that
gradients with respect to the order come from differentiating them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lags(count: int, like: Tensor) -> Tensor:
    """Return the lags 1, ..., ``count - 1``, shaped to broadcast against the order ``like``."""
    steps = torch.arange(1, count, dtype=torch.float64, device=like.device)
    return steps.reshape(-1, *([1] * like.dim()))


def l1_weights(alpha: Tensor, count: int) -> Tensor:
    r"""Return the L1 weights :math:`b_m = (m+1)^{1-\alpha} - m^{1-\alpha}`.

    They integrate the weakly singular kernel of the Caputo derivative exactly over a
    path that is linear between grid points:

    .. math:: D^\alpha y(t_n) \approx \frac{h^{-\alpha}}{\Gamma(2-\alpha)}
              \sum_{j=1}^{n} b_{n-j} (y_j - y_{j-1}).

    Args:
        alpha: orders in (0, 1], any shape ``(*)``.
        count: how many weights, at least 1.

    Returns:
        ``(count, *)``, float64; ``b_0 = 1``, and all others vanish at ``alpha = 1``.

    Source: Oldham and Spanier (1974), section 8.2; Lin and Xu (2007), J. Comput. Phys. 225.

    >>> l1_weights(torch.tensor(0.5), 3)
    tensor([1.0000, 0.4142, 0.3178], dtype=torch.float64)
    """
    alpha = alpha.to(torch.float64)
    m = lags(count, alpha)
    rest = m ** (1 - alpha) * torch.expm1((1 - alpha) * torch.log1p(1 / m))
    return torch.cat([torch.ones_like(alpha).unsqueeze(0), rest])
