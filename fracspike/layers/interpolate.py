"""Samples as a function of time: held, linear, or cubic between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def hold(x: Tensor, s: Tensor) -> Tensor:
    """Return ``x[n]`` for ``n <= s < n + 1``: each sample is held until the next."""
    return x[_index(x, s)]


def linear(x: Tensor, s: Tensor) -> Tensor:
    r"""Return :math:`(1 - u)\, x_n + u\, x_{n+1}`, with n the whole and u the broken part of s."""
    n = _index(x, s)
    u = _share(x, s, n)
    return x[n] + u * (x[_clamp(x, n + 1)] - x[n])


def cubic(x: Tensor, s: Tensor) -> Tensor:
    r"""Return the Catmull-Rom spline, cubic between samples with the slopes :math:`(x_{n+1} - x_{n-1})/2`.

    It is local and smooth, and exact for quadratic functions away from the ends, beyond which the end
    samples repeat.

    Source: Catmull and Rom (1974), Computer Aided Geometric Design.
    """
    n = _index(x, s)
    u = _share(x, s, n)
    before, here, after, beyond = (x[_clamp(x, n + k)] for k in (-1, 0, 1, 2))
    slope, slope_after = 0.5 * (after - before), 0.5 * (beyond - here)
    rise = after - here
    return here + u * (
        slope + u * (3 * rise - 2 * slope - slope_after + u * (slope + slope_after - 2 * rise))
    )


#: each takes samples ``(T, B, *)`` and times ``(n,)`` in units of the sampling step; returns ``(n, B, *)``
INTERPOLATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hold": hold,
    "linear": linear,
    "cubic": cubic,
}


def _index(x: Tensor, s: Tensor) -> Tensor:
    return _clamp(x, s.floor().long())


def _clamp(x: Tensor, n: Tensor) -> Tensor:
    return n.clamp(0, len(x) - 1)


def _share(x: Tensor, s: Tensor, n: Tensor) -> Tensor:
    share = (s - n).clamp(0, 1).to(x.dtype)
    return share.reshape(-1, *([1] * (x.dim() - 1)))


def on_grid(t: Tensor, dt: float) -> Tensor:
    """Return ``t / dt`` in float64, whole where only the rounding of ``t`` keeps it from being so."""
    s = t.detach().double() / dt
    whole = s.round()
    slack = 1e-9 + 4 * torch.finfo(t.dtype).eps * s.abs()
    return torch.where((s - whole).abs() <= slack, whole, s)
