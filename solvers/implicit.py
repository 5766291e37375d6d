r"""The equation of an implicit step, :math:`y = \text{base} + g\, f(y)`.

The root is found by Newton's method with the diagonal of the Jacobian, which is all of it for a right-hand
side that acts on each element alone, as neurons do, and Anderson mixing of the steps, if there are several;
if that fails, by Newton's method with the whole Jacobian. It is differentiated by the implicit function
theorem, never through the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .iterate import CLOSE, ROUNDING, Forecast, Guide, Mixing, damping, largest, met
from .jacobian import LARGEST_JACOBIAN, Field, Hints, Root, Roots, edge_of, evaluate, look, matrix, transposed

SLOPES = 5  # how often the diagonal is renewed
ITERATIONS = 30  # before the whole Jacobian is formed
NEWTON_STEPS = 30


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
            RuntimeError: if the iteration does not meet the root to rounding.
        """
        gain_now = gain.detach()
        at, rate = self.root(field, base.detach(), gain_now, guess.detach())
        if not torch.is_grad_enabled():
            return at, rate
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
        equation, foreseen, found = _Equation(field, base, gain, room), self._forecast.rate(), None
        if foreseen is not None:
            found = self._descend(equation, torch.addcmul(base, gain, foreseen, out=room), CLOSE)
        right = found is not None and found.steps == 0
        if found is None:
            found = self._descend(equation, guess)
        if found is None:
            found = equation.newton(guess)
        if self._guide.diagonal and found.steps > SLOPES:  # it did not do: is it all there is?
            self._guide = look(field, found.at.detach(), gain)
        self._forecast.learn(found.rate.detach(), foreseen, right=right)
        return found.at, found.rate

    def together(self, at: Sequence[Tensor], rates: Tensor, gain: Tensor) -> Roots:
        """Return roots as one, with their rates stacked, ``(n, *)``."""
        assert self._guide is not None
        return Roots(at, edge_of(rates), gain, self._guide, self._hints)

    def _descend(self, equation: _Equation, y: Tensor, units: int = 0) -> _Found | None:
        """Iterate from ``y``, a root if it is one within ``units`` of rounding; None if that fails."""
        assert self._guide is not None
        mixing, graph, before = None, torch.is_grad_enabled(), math.inf
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
                return _Found(at, rate, step) if graph else _Found(at.detach(), rate.detach(), step)
            if not math.isfinite(size):
                return None
            if mixing is None:
                mixing = Mixing(self._guide.damping)
            if self._guide.diagonal and step < SLOPES and rate.requires_grad:
                mixing.damping = damping(transposed(edge_of(rate), at, equation.gain)(torch.ones_like(y)))
                self._guide = Guide(mixing.damping, diagonal=True)
            # the start may lie in the room, which is needed again
            y, before = mixing.next(y if step else y.clone(), residual), size
        return None


class _Found(NamedTuple):
    at: Tensor
    rate: Tensor
    steps: int


class _Equation(NamedTuple):
    field: Field
    base: Tensor
    gain: Tensor
    room: Tensor | None

    def residual(self, y: Tensor, rate: Tensor) -> Tensor:
        return torch.addcmul(self.base, self.gain, rate.detach()).sub_(y)

    def newton(self, guess: Tensor) -> _Found:
        """Solve with the whole Jacobian."""
        y, size = guess, float("inf")
        for step in range(NEWTON_STEPS):
            with torch.enable_grad():
                at, rate = evaluate(self.field, y)
            residual = self.residual(y, rate)
            size = largest(residual)
            if met(size, self.base, y, ROUNDING):
                return _Found(*evaluate(self.field, y), step)
            if not size < float("inf") or y.numel() > LARGEST_JACOBIAN:
                break
            slopes = torch.eye(y.numel()).to(y) - matrix(transposed(edge_of(rate), at, self.gain), y)
            move = torch.linalg.solve(slopes, residual.reshape(-1)).reshape(y.shape)
            # in a stiff system the residual is rounding long before it is small
            if bool(move.abs().max() <= ROUNDING * torch.finfo(y.dtype).eps * y.abs().max()):
                return _Found(*evaluate(self.field, y), step)
            y = y + move
        raise RuntimeError(
            f"the implicit step did not converge: residual {size:.2g}; use a smaller time step, an explicit "
            "method, or check that the right-hand side is finite and continuous"
        )


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
