"""Distributed order: a density of orders, as a multi-term equation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fracspike.solvers import checks


def distributed(
    density: Callable[[Tensor], Tensor], low: float = 0.0, high: float = 1.0, nodes: int = 8
) -> tuple[list[float], list[float]]:
    r"""Return the orders and coefficients that stand for a density of orders.

    .. math:: \int_\text{low}^\text{high} w(\alpha)\, D^\alpha v\, d\alpha
              \approx \sum_i c_i\, D^{\alpha_i} v

    by Gauss-Legendre quadrature, whose error falls faster than any power of ``nodes`` for smooth
    densities. Orders where the density is zero are left out.

    Args:
        density: ``w(alpha)``, elementwise on a float64 tensor ``(nodes,)``, not negative.
        low: lowest order, at least 0.
        high: highest order, at most 1.
        nodes: number of orders.

    Returns:
        ``(orders, coefficients)``, for ``alpha`` and ``coefficients`` of a neuron or of ``fdeint``.

    Raises:
        TypeError: if the density returns no tensor.
        ValueError: if the range is empty, or the density negative, not finite or zero everywhere.

    Source: Diethelm and Ford (2009), J. Comput. Appl. Math. 225(1), 96-104.

    >>> orders, coefficients = distributed(lambda a: 6 * a * (1 - a), nodes=4)
    >>> [round(a, 3) for a in orders], round(sum(coefficients), 6)
    ([0.069, 0.33, 0.67, 0.931], 1.0)
    """
    checks.real("low", low, at_least=0.0, below=1.0)
    checks.real("high", high, above=float(low), at_most=1.0)
    points, weights = np.polynomial.legendre.leggauss(checks.positive_int("nodes", nodes))
    half = (high - low) / 2
    orders = torch.as_tensor(low + half * (1 + points), dtype=torch.float64)
    value = checks.all_finite("density(alpha)", torch.as_tensor(density(orders)))
    if value.shape not in (orders.shape, torch.Size([])) or bool((value < 0).any()):
        raise ValueError(
            f"`density` must return {len(orders)} values >= 0 for as many orders, got {value.tolist()}"
        )
    coefficients = half * torch.as_tensor(weights) * value.double()
    kept = coefficients > 0
    if not bool(kept.any()):
        raise ValueError("`density` must be positive somewhere, got 0 at every order; widen low..high")
    return orders[kept].tolist(), coefficients[kept].tolist()
