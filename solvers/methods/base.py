r"""What methods share: one step is a base value plus a gain times the right-hand side.

.. math:: y_n = \text{base}_n + g\, f(t_*, y_*)

The base holds all that is known before the step: the initial or last value and a weighted sum over
the remembered past. An explicit method evaluates ``f`` at the last point, an implicit one at the
new point. Methods differ in what they remember: increments of the solution, or its rates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


class Method(ABC):
    """A step rule; a new one is a class with coefficients, and one line in ``METHODS``.

    Attributes:
        name: in ``METHODS``.
        implicit: whether a step looks for a state at its end.
        corrects: whether an explicit step evaluates a second time, at a state that it has predicted.
    """

    name: ClassVar[str]
    implicit: ClassVar[bool]
    corrects: ClassVar[bool] = False

    @staticmethod
    def order(alpha: float) -> float:
        """Return the order of convergence for smooth solutions; 1 unless a method says otherwise."""
        return 1.0

    @staticmethod
    def singular_order(alpha: float) -> float:
        """Return the order at a fixed time for solutions that start like t^alpha, on a uniform grid."""
        return 1.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True)
class IncrementCoefficients:
    """The numbers of a difference scheme, float64, of the shape ``(*)`` of the order.

    Attributes:
        gain: ``(*)``, what multiplies the right-hand side.
        kernel: ``(count, *)``, ``kernel[m]`` weighs the increment of ``m`` steps ago; ``kernel[0] = 1``.
    """

    gain: Tensor
    kernel: Tensor


class IncrementMethod(Method):
    r"""A difference scheme for :math:`D^\alpha y = f`, written in increments of ``y``.

    .. math:: \sum_{m=0}^{n-1} k_m (y_{n-m} - y_{n-m-1}) = g\, f(t_*, y_*), \qquad k_0 = 1

    Increments, not values, enter the memory, so that a constant is never forgotten and the
    initial value is right by construction. The sum of such schemes over several orders is again
    one: that is how multi-term equations are solved.
    """

    @abstractmethod
    def derivative(self, alpha: Tensor, h: float | Tensor, count: int) -> Tensor:
        r"""Return :math:`K_m`, with :math:`D^\alpha y(t_n) \approx \sum_m K_m (y_{n-m} - y_{n-m-1})`.

        ``(count, *)``, differentiable in ``alpha``.
        """

    def coefficients(
        self, alphas: list[Tensor], factors: list[Tensor], h: float | Tensor, count: int
    ) -> IncrementCoefficients:
        r"""Return gain and kernel for :math:`\sum_i c_i D^{\alpha_i} y = f`."""
        total = sum(
            (c * self.derivative(a, h, count) for a, c in zip(alphas, factors, strict=True)),
            start=alphas[0].new_zeros(()),
        )
        assert isinstance(total, Tensor)
        return IncrementCoefficients(gain=1 / total[0], kernel=total / total[0])


@dataclass(frozen=True)
class RateCoefficients:
    """The numbers of a product-integration rule, float64, with the gain in them.

    Attributes:
        kernel: ``(count, *)``, ``kernel[m]`` weighs the rate of ``m`` steps ago; entry 0 is that of
            the new point, unused by explicit rules.
        start: ``(count, *)``, what the initial rate has more than its place in the kernel gives, at
            step ``n``; None if nothing.
        predictor: kernel of a first, explicit step; None if there is none.
    """

    kernel: Tensor
    start: Tensor | None = None
    predictor: Tensor | None = None


class RateMethod(Method):
    r"""Product integration of :math:`y = y_0 + I^\alpha f`; the memory holds rates ``f``.

    .. math:: y_n = y_0 + s_n f_0 + \sum_{m \ge 1} k_m f_{n-m} + k_0 f(t_n, y_*)
    """

    @abstractmethod
    def coefficients(self, alpha: Tensor, h: float | Tensor, count: int) -> RateCoefficients:
        """Return the kernels for ``count`` grid points, differentiable in ``alpha``."""
