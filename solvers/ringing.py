r"""A watch over the trapezoid rule, which does not damp a decay that its step does not resolve.

For y' = -lambda y and alpha = 1 a step multiplies y by :math:`(1 - G) / (1 + G)` with :math:`G = g \lambda`.
Beyond G = 1 the solution overshoots its equilibrium at every step, and for a large G it hardly decays. With
alpha < 1 the rule does the same, less and less for smaller orders. The equation of a step has no other root,
so the roots tell nothing. The rates do: they flip their signs, although the solution of such a decay never
crosses its equilibrium.

Source: Hairer and Wanner (1996), Solving Ordinary Differential Equations II, section IV.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import transforms
from .jacobian import Field, edge_of, transposed
from .watch import StepError

FAR = 4.0  # G from which a step is far from resolving a decay: at alpha = 1 an overshoot of 0.6
SHOWN = 0.1  # of the largest value of an element so far: an overshoot that is seen in the solution


class Ringing:
    """Looks at the states of a solve by the trapezoid rule, one step after another.

    Args:
        y: the first state, ``(*)``.
        rate: the right-hand side there, ``(*)``.
    """

    def __init__(self, y: Tensor, rate: Tensor) -> None:
        self._y, self._rate = y.detach(), rate.detach()
        self._largest = self._y.abs()

    def look(self, field: Field, gain: Tensor, y: Tensor, rate: Tensor) -> None:
        r"""Look at the next state.

        An element rings if its rate changes sign, the change of the rate is that of a decay with G above
        ``FAR``, and its equilibrium, which lies where the rate on the line through the two states is 0, is
        missed by more than ``SHOWN`` of its largest value. That the right-hand side changes in time, or by
        other elements, may look the same; so its Jacobian J must tell the same along the move,
        :math:`-x^T g J x > \text{FAR}\, x^T x`, of the whole and of an element, with x the move of those
        that seem to ring.

        Args:
            field: the right-hand side at the new time.
            gain: what multiplies it in the step.
            y: the new state.
            rate: the right-hand side there.

        Raises:
            StepError: if it rings.
        """
        if torch.compiler.is_compiling():
            return
        gain, y, rate = gain.detach(), y.detach(), rate.detach()
        last, before = self._y, self._rate
        self._y, self._rate, self._largest = y, rate, torch.maximum(self._largest, y.abs())
        signs = rate * before
        if not _any(signs.amin() < 0):
            return
        move, change = y - last, gain * (rate - before)
        flipped = (signs < 0) & ((change + FAR * move) * move < 0)
        if not _any(flipped):
            return
        miss = (move * rate / (rate - before)).abs()
        whole = torch.finfo(y.dtype).eps ** 0.5 * self._largest.max()  # less is rounding of others
        bound = SHOWN * torch.maximum(self._largest, whole)
        x = torch.where(flipped & (miss > bound), move, 0)
        if not _any(x != 0):
            return
        told = -x * _product(field, gain, y, x)
        slopes = told / torch.where(x == 0, 1, x * x)
        missed = (slopes > FAR) & ((gain * rate).abs() > slopes * bound)
        if _any(missed) and _any(told.sum() > FAR * (x * x).sum()):
            raise StepError(
                "the solution oscillates about its equilibrium because the trapezoid rule does not damp a "
                f"decay much faster than the step (gain times slope above {FAR:g}); use method 'l1', which "
                "does, or a smaller time step"
            )


def _any(x: Tensor) -> bool:
    values = transforms.values(x)
    with transforms.Outside():
        return bool(values.any())


def _product(field: Field, gain: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return ``(gain J)^T x`` at ``y``."""
    upstream = gain * x
    if transforms.active():
        product: Tensor = torch.func.vjp(field, y)[1](upstream)[0].detach()
        return product
    with torch.enable_grad():
        at = y.clone().requires_grad_()
        rate = field(at)
    return transposed(edge_of(rate), at, gain)(x)
