r"""What every method shares: one step is a base value plus a gain times the right-hand side.

.. math:: y_n = \text{base}_n + g\, f(t_*, y_*)

The base holds everything that is known before the step: the last value and the weighted
sum over the remembered past.  An explicit method evaluates ``f`` at the last point, an
implicit one at the new point.  A method is therefore a kernel, a gain and a flag.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Coefficients:
    """The numbers of one solve, float64, with the shape ``(*)`` of the order.

    Attributes:
        gain: ``(*)``, what multiplies the right-hand side.
        kernel: ``(count, *)``, ``kernel[m]`` weighs the increment of ``m`` steps ago.
    """

    gain: Tensor
    kernel: Tensor


class Method(ABC):
    r"""A step rule for :math:`D^\alpha y = f(t, y)` written in increments of ``y``.

    .. math:: \sum_{m=0}^{n-1} k_m (y_{n-m} - y_{n-m-1}) = g\, f(t_*, y_*), \qquad k_0 = 1

    Increments, not values, enter the memory, so that a constant is never forgotten and the
    initial value is right by construction.
    """

    name: ClassVar[str]
    implicit: ClassVar[bool]

    @abstractmethod
    def coefficients(self, alpha: Tensor, h: float, count: int) -> Coefficients:
        """Return gain and kernel for ``count`` steps of size ``h``, differentiable in ``alpha``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
