"""How an equation y = base + g f(y) is approached: where to start, how to go on, when the root is met."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MIXING = 6  # how many earlier residuals Anderson mixing combines
CLOSE = 2  # a root is met when its residual is this many units of rounding ...
ROUNDING = (
    16  # ... or so many, if it will not shrink; else such misses, alike from step to step, would add up
)
SINGULAR = 1e-3  # entries of the diagonal of I - gJ that are smaller are not divided by
SELDOM = 8  # what has failed is tried again once in so many times


class Forecast:
    """The next rate, extrapolated: where the solution is smooth, the root is met at the first evaluation.

    With steps of h it misses by O(h^3), in the root by O(h^(3 + alpha)): in single precision rounding, soon
    after the start.

    Attributes:
        right: whether the last rate had been foreseen to rounding.
    """

    TERMS = 3

    def __init__(self) -> None:
        self._rates: list[Tensor] = []
        self._closer, self._steps = True, 0
        self.right = False

    def rate(self) -> Tensor | None:
        """Return the forecast; None if the last rate is likely to be closer."""
        if len(self._rates) < self.TERMS or not (self._closer or self._steps % SELDOM == 0):
            return None
        third, second, first = self._rates
        return torch.add(third, first - second, alpha=3)

    def learn(self, rate: Tensor, foreseen: Tensor | None, *, right: bool) -> None:
        """Take note of the rate as it was, of what was foreseen, and whether that was right."""
        if foreseen is not None and not right:
            self._closer = largest(rate - foreseen) < largest(rate - self._rates[-1])
        self._rates = [*self._rates, rate][-self.TERMS :]
        self.right, self._steps = right, self._steps + 1


class Guide(NamedTuple):
    """What helps towards a root: the slope of the equation, as far as it is known.

    Attributes:
        damping: an approximate inverse of the diagonal of I - gJ, with the Jacobian J of the field.
        diagonal: whether J is thought to have nothing but its diagonal.
    """

    damping: Tensor
    diagonal: bool


class Mixing:
    """Newton's method with a given diagonal, and Anderson mixing over the last moves.

    Attributes:
        damping: what a residual is multiplied by.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49(4).
    """

    def __init__(self, damping: Tensor) -> None:
        self.damping = damping
        self._points: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def next(self, y: Tensor, residual: Tensor) -> Tensor:
        """Return where to go from ``y``; both are kept."""
        self._points.append(y)
        self._residuals.append(residual)
        newest = torch.addcmul(y, self.damping, residual)
        return self._mixed(newest) if len(self._points) > 2 else newest

    def _mixed(self, newest: Tensor) -> Tensor:
        """Combine the last points so that the linearised move is smallest."""
        del self._points[:-MIXING], self._residuals[:-MIXING]
        moves = self.damping * torch.stack(self._residuals)
        changes = (moves[-1] - moves[:-1]).reshape(len(moves) - 1, -1).T  # a state may have no dimension
        earlier = zip(self._points[:-1], moves[:-1].unbind(0), strict=True)
        steps = torch.stack([newest - (point + move) for point, move in earlier])
        target = moves[-1].reshape(-1, 1)
        # not the default driver of CPUs, gelsy: it gives other last digits at each call
        driver = "gelsd" if changes.device.type == "cpu" else None
        shares = torch.linalg.lstsq(changes.double(), target.double(), driver=driver).solution.squeeze(1)
        mixed = newest - torch.tensordot(shares.to(newest.dtype), steps, dims=1)
        return mixed if bool(torch.isfinite(mixed).all()) else newest


def damping(slope: Tensor) -> Tensor:
    """Return what a residual is multiplied by in Newton's method with this diagonal of gJ."""
    return 1 / torch.where((1 - slope).abs() < SINGULAR, torch.ones_like(slope), 1 - slope)


def met(size: float, base: Tensor, y: Tensor, units: int = CLOSE, before: float = math.inf) -> bool:
    """Return whether a residual of ``size`` of ``y = base + ...`` is but rounding.

    That is, ``units`` of rounding, or more if it was of the size ``before`` and shrinks no longer.
    """
    info = torch.finfo(base.dtype)
    unit = info.eps * (units if size < before / 2 else max(units, ROUNDING))
    return size <= unit * (largest(base) + info.tiny) or size <= unit * (largest(y) + info.tiny)


def alike(x: Tensor, y: Tensor, units: int) -> bool:
    """Return whether no entry of x differs from y by more than rounding of 1 + y."""
    unit = units * torch.finfo(x.dtype).eps
    return float(torch.aminmax((x - y).abs_().sub_(unit * y.abs()))[1]) <= unit


def largest(x: Tensor) -> float:
    """Return the largest size of an entry, NaN if one is; ten times faster than the norm of that name."""
    least, most = torch.aminmax(x)
    return max(-float(least), float(most))
