r"""The march of an implicit product integration, and its gradients.

One step is :math:`y_n = y_0 + s_n f_0 + H_n + g f_n` with :math:`H_n = \sum_{m \ge 1} k_m f_{n-m}`,
:math:`f_n = f(t_n, y_n)`. With :math:`u_n` the gradient that reaches a state from elsewhere,
:math:`r_n = \sum_{m \ge 1} k_m \lambda_{n+m}` what later steps add to that in a rate, and the Jacobian J,

.. math:: (I - g J)^T \lambda_n = u_n + J^T r_n

is the gradient in the known part of a step, and :math:`r_n + g \lambda_n` that in its rate. The others are
sums over the steps:

.. math:: \frac{\partial L}{\partial k_m} = \sum_n \langle \lambda_n, f_{n-m} \rangle, \qquad
    \frac{\partial L}{\partial g} = \sum_n \langle \lambda_n, f_n \rangle, \qquad
    \frac{\partial L}{\partial s_n} = \langle \lambda_n, f_0 \rangle .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .jacobian import Roots
from .march import ImplicitMarch, Tape
from .memory import Memory, Past
from .memory.base import per_element, sum_to
from .methods.base import RateCoefficients


class RateMarch(ImplicitMarch):
    """The states of an implicit product integration, one step at a time; differentiated by an adjoint memory.

    Args:
        memory: the strategy.
        rule: coefficients, float64.
        initial: state where the memory begins, ``(*)``.
        start: the first state, ``(*)``.
        count: how many states there will be, the first included.
        past: rates so far, that at the first state included, oldest first.
        keep: whether the rates are wanted in the end.
    """

    _tape: _Tape

    def __init__(
        self,
        memory: Memory,
        rule: RateCoefficients,
        initial: Tensor,
        start: Tensor,
        count: int,
        past: Sequence[Tensor],
        *,
        keep: bool,
    ) -> None:
        dtype = start.dtype
        weights, gain = memory.weights(rule.kernel, dtype), rule.kernel[0].to(dtype)
        extra = gain.new_zeros((0,))
        if rule.start is not None:
            extra = rule.start[len(past) : len(past) - 1 + count].to(dtype)
        tape = _Tape(memory, weights, gain, start, count, past, initial=initial, extra=extra, keep=keep)
        begun = _Begin.apply(initial, past[0], gain, weights, extra, tape)  # type: ignore[no-untyped-call]
        super().__init__(tape, begun, start)

    @property
    def rates(self) -> list[Tensor]:
        """All rates, those from before included, if they were to be kept."""
        return self._tape.rates()


class _Tape(Tape):
    """See :class:`Tape`; it remembers rates.

    Args:
        memory: see there, and so on;
        weights: of it.
        gain: of the rule.
        start: first state.
        count: of the states.
        past: rates so far, that at the first state included.
        initial: state where the memory begins.
        extra: what multiplies the first rate beside its weight, ``(count - 1, *)``; empty if nothing.
        keep: whether the rates are wanted in the end.
    """

    def __init__(
        self,
        memory: Memory,
        weights: Tensor,
        gain: Tensor,
        start: Tensor,
        count: int,
        past: Sequence[Tensor],
        *,
        initial: Tensor,
        extra: Tensor,
        keep: bool,
    ) -> None:
        super().__init__(memory, weights, gain, start, count, past)
        self._initial, self._extra = initial.detach(), extra.detach() if len(extra) else None
        self._rates = start.new_empty((count - 1, *start.shape)) if self._wanted or keep else None

    def known(self) -> Tensor:
        """See :class:`Tape`."""
        assert self._past is not None
        known = self._past.weighted_sum().add_(self._initial)
        return known if self._extra is None else known.addcmul_(self._extra[self.n], self._earlier[0])

    def _remember(self, past: Past, rate: Tensor) -> None:
        if self._rates is not None:
            self._rates[self.n].copy_(rate)
        past.append(rate)

    def rates(self) -> list[Tensor]:
        assert self._rates is not None
        return [*self._earlier, *self._rates.unbind(0)]

    def pull_back_roots(self, first: int, upstream: Tensor, roots: Roots) -> Tensor:
        """See :class:`Tape`."""
        if self._passes.begins():
            self._adjoint = self._begin()
            self._in_initial = torch.zeros_like(self._initial)
            self._in_first, self._in_gain = torch.zeros_like(self._initial), torch.zeros_like(self.gain)
            self._in_extra: list[Tensor] = []
        in_rates, lambdas = torch.zeros_like(upstream), torch.empty_like(upstream)
        solve = _solver(roots, upstream)
        for i in reversed(range(len(upstream))):
            later = in_rates[i]
            if first + i < self.n:
                later.copy_(self._adjoint.weighted_sum())
                if self._rates is not None:
                    self._pair(self._rates[first - 1 + i])
            known = solve(i, later, self._adjoint.room(later))
            lambdas[i].copy_(known)
            self._adjoint.append(known)
        self._take_in(first, lambdas)
        return in_rates.addcmul_(self.gain, lambdas)

    def _take_in(self, first: int, lambdas: Tensor) -> None:
        """Add what steps give for the gradients that are sums over all of them."""
        self._in_initial += lambdas.sum(0)
        steps = slice(first - 1, first - 1 + len(lambdas))
        if self._extra is not None:
            self._in_first += (per_element(self._extra[steps], lambdas.dim()) * lambdas).sum(0)
        if self._wanted:
            assert self._rates is not None
            self._in_gain += (lambdas * self._rates[steps]).sum(0).sum_to_size(self.gain.shape)
            if self._extra is not None:
                self._in_extra.append(sum_to(lambdas * self._earlier[0], self._extra[steps].shape))

    def pull_back_start(self) -> tuple[Tensor | None, ...]:
        """Return the gradients in initial state, first rate, gain, weights and what is extra."""
        for rate in reversed(self._earlier):
            later = self._adjoint.weighted_sum()
            self._pair(rate)
            if rate is not self._earlier[0]:
                self._adjoint.append(torch.zeros_like(rate))
        in_gain = in_weights = in_extra = None
        if self._wanted:
            in_gain, in_weights = self._in_gain, self._adjoint.paired()
            in_extra = torch.cat(self._in_extra[::-1]) if self._in_extra else None
        sums = self._in_initial, self._in_first + later, in_gain, in_weights, in_extra
        del self._adjoint, self._in_initial, self._in_first, self._in_gain, self._in_extra
        return sums


def _solver(roots: Roots, upstream: Tensor) -> Callable[[int, Tensor, Tensor], Tensor]:
    r"""Return what gives :math:`\lambda` of step ``i`` from :math:`r`, and where it may be put."""
    gain, found = roots.gain, roots.slopes()
    if found is None:

        def one_by_one(i: int, later: Tensor, room: Tensor) -> Tensor:
            root = roots.one(i)
            return root.pull_back(upstream[i] + root.product(later / gain))

        return one_by_one
    slopes, inverses = found
    direct, pull = inverses * upstream, inverses * slopes / gain

    def by_division(i: int, later: Tensor, room: Tensor) -> Tensor:
        return torch.addcmul(direct[i], pull[i], later, out=room)

    return by_division


class _Begin(torch.autograd.Function):
    """What a march begins with, and in the backward pass the end: where all sums over its steps come out."""

    @staticmethod
    def forward(
        ctx: Any, initial: Tensor, first: Tensor, gain: Tensor, weights: Tensor, extra: Tensor, tape: _Tape
    ) -> Tensor:
        ctx.tape = tape
        return initial.new_empty(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.tape.pull_back_start(), None
