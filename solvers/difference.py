r"""The march of a difference scheme: how its steps, and their gradients, follow from those before.

One step is :math:`y_n = y_{n-1} + H_n + g f_n`; with :math:`\Delta_n = y_n - y_{n-1}` and
:math:`w_m = -k_m`, :math:`H_n = \sum_{m \ge 1} w_m \Delta_{n-m}`.
With :math:`\lambda_n` the gradient in the known part of a step, and
:math:`S_n = \sum_{m \ge 1} w_m \lambda_{n+m}`, the gradient in a state is what reaches it from elsewhere,
:math:`u_n`, and what later steps add:

.. math:: u_n + (\lambda_{n+1} - S_{n+1}) + S_n, \qquad
    \frac{\partial L}{\partial w_m} = \sum_n \langle \lambda_n, \Delta_{n-m} \rangle,

    g \frac{\partial L}{\partial g} = \sum_n \langle \lambda_n, g f_n \rangle =
    \sum_n \langle \lambda_n, \Delta_n \rangle - \sum_m w_m \frac{\partial L}{\partial w_m} .

So a whole step is one node of the graph, or part of one; the memory that runs backward holds the
:math:`\lambda_n`, and of the forward pass nothing is kept but the states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .gradient import AdjointHistory, GraphHistory, History, refuse_second_derivatives
from .implicit import implicit_step
from .jacobian import Field, Roots
from .march import ImplicitMarch, Tape
from .memory import Memory, Past
from .methods.base import IncrementCoefficients


class DifferenceMarch(ABC):
    """The states of a difference scheme, one step at a time.

    Args:
        memory: the strategy.
        coefficients: of the scheme, float64.
        start: the first state, ``(*)``.
        count: how many states there will be, the first included.
        past: increments from before, oldest first.
    """

    last: Tensor

    @abstractmethod
    def __init__(
        self,
        memory: Memory,
        coefficients: IncrementCoefficients,
        start: Tensor,
        count: int,
        past: Sequence[Tensor] = (),
    ) -> None: ...

    @abstractmethod
    def explicit(self, rate: Tensor) -> None:
        """Make a step with ``rate``, the right-hand side at the last state."""

    @abstractmethod
    def implicit(self, field: Field) -> tuple[Tensor, Tensor]:
        """Make a step with the right-hand side ``field`` at the new time, met at the new state.

        Returns:
            The new state, and the right-hand side there.
        """

    @abstractmethod
    def seen(self, first: int, last: int) -> Tensor:
        """Return the states first, ..., last - 1, ``(n, *)``, to look at."""

    @abstractmethod
    def gathered(self) -> Tensor:
        """Return all states, ``(count, *)``."""


class GraphMarch(DifferenceMarch):
    """Differentiated by plain autograd."""

    def __init__(
        self,
        memory: Memory,
        coefficients: IncrementCoefficients,
        start: Tensor,
        count: int,
        past: Sequence[Tensor] = (),
    ) -> None:
        self.last = start
        self._gain = coefficients.gain.to(start.dtype)
        self._history = GraphHistory(memory, coefficients.kernel, start.dtype, past)
        self._step, self._states = implicit_step(), [start]

    def explicit(self, rate: Tensor) -> None:
        """See :class:`DifferenceMarch`."""
        self._append(torch.addcmul(self.last - self._history.weighted_sum(), self._gain, rate))

    def implicit(self, field: Field) -> tuple[Tensor, Tensor]:
        """See :class:`DifferenceMarch`."""
        base = self.last - self._history.weighted_sum()
        y, rate = self._step.solve(field, base, self._gain, self.last)
        self._append(y)
        return y, rate

    def _append(self, y: Tensor) -> None:
        self._history.append(y - self.last)
        self._states.append(y)
        self.last = y

    def seen(self, first: int, last: int) -> Tensor:
        """See :class:`DifferenceMarch`."""
        return torch.stack([y.detach() for y in self._states[first:last]])

    def gathered(self) -> Tensor:
        """See :class:`DifferenceMarch`."""
        return torch.stack(self._states)


class AdjointMarch(ImplicitMarch, DifferenceMarch):
    """Differentiated by an adjoint memory: stores states, and a graph of each step by itself."""

    _tape: _Tape

    def __init__(
        self,
        memory: Memory,
        coefficients: IncrementCoefficients,
        start: Tensor,
        count: int,
        past: Sequence[Tensor] = (),
    ) -> None:
        weights = memory.weights(-coefficients.kernel, start.dtype)
        gain = coefficients.gain.to(start.dtype)
        tape = _Tape(memory, weights, gain, start, count, past)
        first = _Begin.apply(start, gain, weights, tape)  # type: ignore[no-untyped-call]
        super().__init__(tape, first, first)

    def explicit(self, rate: Tensor) -> None:
        """See :class:`DifferenceMarch`."""
        self.last = _Step.apply(rate, self.last, self._tape)  # type: ignore[no-untyped-call]
        self._states.append(self.last)


class _Tape(Tape):
    """See :class:`Tape`; it remembers increments."""

    def known(self) -> Tensor:
        """See :class:`Tape`."""
        assert self._past is not None
        return self._past.weighted_sum().add_(self.last) if self.n or self._earlier else self.last

    def step(self, rate: Tensor) -> Tensor:
        """Make an explicit step; return the new state."""
        y = torch.addcmul(self.known(), self.gain, rate, out=self.next)
        self.arrive(y, rate)
        return y.data  # .data: a row has its own version, lest the next row should seem to change it

    def _remember(self, past: Past, rate: Tensor) -> None:
        past.append(self.next, less=self.last)

    def pull_back_roots(self, first: int, upstream: Tensor, roots: Roots) -> Tensor:
        """See :class:`Tape`."""
        slopes, in_rates = roots.slopes(), torch.empty_like(upstream)
        for i in reversed(range(len(upstream))):
            solve = (
                roots.one(i).pull_back if slopes is None else partial(torch.Tensor.mul_, other=slopes[1][i])
            )
            torch.mul(self.gain, self.pull_back(first + i, upstream[i], solve), out=in_rates[i])
        return in_rates

    def pull_back(self, n: int, upstream: Tensor, solve: Field | None = None) -> Tensor:
        r"""Return :math:`\lambda` of step ``n``; a pass goes through the steps latest first.

        Args:
            n: of the step.
            upstream: the gradient that reaches its state from elsewhere.
            solve: what an implicit step makes of the gradient in its state; it may do so in place.
        """
        if self._passes.begins():
            self._adjoint = self._begin()
            self._later, self._in_change = torch.zeros_like(upstream), torch.zeros_like(upstream)
            weighed: Tensor | float = 0.0
        else:
            weighed = self._adjoint.weighted_sum()
            self._pair(self._rows[n], self._rows[n - 1])
        self._later.add_(upstream)
        known = torch.add(self._later, weighed, out=self._adjoint.room(upstream))
        if solve is not None:
            known = solve(known)
            torch.sub(known, weighed, out=self._later)
        self._adjoint.append(known)
        if self._wanted:
            self._in_change.addcmul_(known, self._rows[n] - self._rows[n - 1])
        return known

    def pull_back_start(self, upstream: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients in the first state, the gain and the weights."""
        in_start, in_gain, in_weights = upstream + self._later, None, None
        for increment in reversed(self._earlier):
            self._adjoint.weighted_sum()
            self._pair(increment)
            self._adjoint.append(torch.zeros_like(increment))
        if self._wanted:
            in_gain = self._in_change.sum_to_size(self.gain.shape)
            if self.n > 1 or self._earlier:  # else no sum was made
                in_weights = self._adjoint.paired()
                in_gain = in_gain - (self._weights * in_weights).sum(0)
            in_gain = in_gain / self.gain
        del self._adjoint, self._later, self._in_change
        return in_start, in_gain, in_weights


class _Begin(torch.autograd.Function):
    """The first state, and in the backward pass the end: where all gradients in gain and weights come out."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, gain: Tensor, weights: Tensor, tape: _Tape) -> Tensor:
        ctx.tape = tape
        return tape.last.data

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.tape.pull_back_start(upstream), None


class _Step(torch.autograd.Function):
    """An explicit step; the last state is an input only to fix the order of the backward pass."""

    @staticmethod
    def forward(ctx: Any, rate: Tensor, last: Tensor, tape: _Tape) -> Tensor:
        y = tape.step(rate)
        ctx.tape, ctx.n = tape, tape.n
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        return ctx.tape.gain * ctx.tape.pull_back(ctx.n, upstream), None, None


MARCHES: dict[type[History], type[DifferenceMarch]] = {AdjointHistory: AdjointMarch, GraphHistory: GraphMarch}
