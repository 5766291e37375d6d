r"""The equation of an implicit step, :math:`y = \text{base} + g\, f(y)`.

The root is found by Newton's method with the diagonal of the Jacobian, which is all of it for a right-hand
side that acts on each element alone, as neurons do, and Anderson mixing of the steps, if there are several;
if that fails, or leaves a doubt which root it met, the one that continues the last value is followed. It is
differentiated by the implicit function theorem, never through the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import transforms
from .branch import SHRINKS, Equation, Found, astray, follow, has_true_slope, too_large
from .iterate import CLOSE, Forecast, Guide, Mixing, damping, largest, met
from .jacobian import (
    LARGEST_JACOBIAN,
    Field,
    Hints,
    Root,
    Roots,
    depends_on_more,
    edge_of,
    evaluate,
    look,
    transposed,
)
from .transformed import TransformedStep
from .watch import StepError

SLOPES = 5  # how often the diagonal is renewed
ITERATIONS = 30  # before the root is followed from the last value


class ImplicitStep:
    """Solves the steps of one march, keeping what helps from one to the next."""

    def __init__(self) -> None:
        self._guide: Guide | None = None
        self._forecast, self._hints = Forecast(), Hints()

    def solve(self, field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ``y`` with ``y = base + gain * field(y)``, and the rate ``field(y)``.

        Both are differentiable in all that enters.

        Args:
            field: the right-hand side at the new time, ``(*) -> (*)``.
            base: known part, ``(*)``.
            gain: broadcastable to ``base``.
            guess: where to start, ``(*)``.

        Raises:
            StepError: if no root that continues the last value is met to rounding.
        """
        gain_now = gain.detach()
        at, rate = self.root(field, base.detach(), gain_now, guess.detach())
        if not torch.is_grad_enabled():
            return at, rate
        if not (base.requires_grad or gain.requires_grad or depends_on_more(rate, [at])):
            return at.detach(), rate.detach()
        assert self._guide is not None
        root = Root(at, edge_of(rate), gain_now, self._guide, self._hints)
        y, rate = _Root.apply(base, gain, rate, root)  # type: ignore[no-untyped-call]
        return y, rate

    def root(
        self, field: Field, base: Tensor, gain: Tensor, guess: Tensor, room: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the root, put into ``room``, and the field there, with a graph from one to the other.

        The arguments have none.
        """
        if self._guide is None:
            self._guide = look(field, guess, gain)
        equation, foreseen, found = Equation(field, base, gain, room), self._forecast.rate(), None
        if foreseen is not None:
            found = self._descend(equation, torch.addcmul(base, gain, foreseen, out=room), CLOSE)
        right = found is not None and found.steps == 0
        if found is None:
            found = self._descend(equation, guess)
        if found is None or not found.sure:
            found = self._continued(equation, found, guess)
        if self._guide.diagonal and found.steps > SLOPES:  # it did not do: is it all there is?
            self._guide = look(field, found.at.detach(), gain)
        self._forecast.learn(found.rate.detach(), foreseen, right=right)
        return found.at, found.rate

    def _continued(self, equation: Equation, found: Found | None, last: Tensor) -> Found:
        """Return the root that continues ``last``, where ``found`` may be another one, or there is none."""
        assert self._guide is not None
        diagonal = self._guide.diagonal
        if found is not None and not diagonal and not astray(equation, found, last):
            return found
        followed = None
        if diagonal or last.numel() <= LARGEST_JACOBIAN:
            followed = follow(equation, last, diagonal=diagonal)
        if followed is None and diagonal and found is None and last.numel() <= LARGEST_JACOBIAN:
            self._guide = look(equation.field, last, equation.gain)  # is it still diagonal?
            if not self._guide.diagonal:
                followed = follow(equation, last, diagonal=False)
        if followed is not None:
            return followed
        if found is not None and not has_true_slope(equation, found.at.detach()):
            return found
        raise StepError(too_large(equation, last))

    def together(self, at: Sequence[Tensor], rates: Tensor, gain: Tensor) -> Roots:
        """Return roots as one, with their rates stacked, ``(n, *)``."""
        assert self._guide is not None
        return Roots(at, edge_of(rates), gain, self._guide, self._hints)

    def _descend(self, equation: Equation, y: Tensor, units: int = 0) -> Found | None:
        """Iterate from ``y``, a root if it is one within ``units`` of rounding; None if that fails."""
        assert self._guide is not None
        mixing, graph, before = None, torch.is_grad_enabled(), math.inf
        steepest, slowest = -math.inf, 0.0  # slope of gJ; how much of a residual the first moves left
        for step in range(ITERATIONS):
            # without a graph there is no slope; where none is wanted later, that at the start will do
            if graph or step or self._forecast.right or not self._guide.diagonal:
                at, rate = evaluate(equation.field, y, equation.room)
            else:
                with torch.enable_grad():
                    at, rate = evaluate(equation.field, y, equation.room)
            residual = equation.residual(y, rate)
            size = largest(residual)
            if met(size, equation.base, y, CLOSE if step else units, before):
                if self._guide.diagonal:
                    sure = steepest < 1 and (slowest <= SHRINKS or -math.inf < steepest <= 0)
                else:
                    sure = step < 3 or slowest <= SHRINKS
                return Found(at if graph else at.detach(), rate if graph else rate.detach(), step, sure)
            if not math.isfinite(size):
                return None
            if 0 < step < 3:
                slowest = max(slowest, size / before)
            if mixing is None:
                mixing = Mixing(self._guide.damping)
            if self._guide.diagonal and step < SLOPES and rate.requires_grad:
                slopes = transposed(edge_of(rate), at, equation.gain)(torch.ones_like(y))
                steepest = max(steepest, float(slopes.max()))
                mixing.damping = damping(slopes)
                self._guide = Guide(mixing.damping, diagonal=True)
            # the start may lie in the room, which is needed again
            y, before = mixing.next(y if step else y.clone(), residual), size
        return None


def implicit_step() -> ImplicitStep | TransformedStep:
    """Return what solves the implicit steps of a march that is differentiated by plain autograd."""
    return TransformedStep() if transforms.active() else ImplicitStep()


class _Root(torch.autograd.Function):
    """The root, and the rate there, as functions of base, gain and the field's own parameters."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, gain: Tensor, rate: Tensor, root: Root) -> tuple[Tensor, Tensor]:
        value = rate.data
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gain, value if ctx.needs_input_grad[1] else None)
        ctx.root = root
        return root.at.data, value.data  # aliases, not copies

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, in_rate: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "implicit steps give first derivatives only; use an explicit method with gradient='autograd' "
                "to differentiate twice"
            )
        gain, rate = ctx.saved_tensors
        if in_rate is not None:  # the rate is (y - base) / gain
            direct = in_rate / gain
            upstream = direct if upstream is None else upstream + direct
        if upstream is None:
            return (None,) * 4
        mu = ctx.root.pull_back(upstream)
        in_base = mu if in_rate is None else mu - direct
        in_gain = (in_base * rate).sum_to_size(gain.shape) if ctx.needs_input_grad[1] else None
        return in_base, in_gain, gain * mu if ctx.needs_input_grad[2] else None, None
