"""One step after another: the loop over time of a solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .difference import MARCHES
from .gradient import History
from .implicit import implicit_step
from .memory import Memory
from .methods import IncrementMethod, Method, RateMethod
from .methods.base import RateCoefficients
from .quadrature import RateMarch
from .ringing import Ringing
from .trajectory import Stacked, Trajectory
from .watch import Watch

Rhs = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Solve:
    """What a march over a uniform grid is made of.

    Attributes:
        method: the step rule.
        memory: what is kept of the past.
        gradient: how the past is differentiated.
        rhs: right-hand side, ``rhs(t, y)`` of the shape of ``y``.
        alphas: orders, each broadcastable to the state.
        factors: what multiplies the derivative of each order; ``[1]`` but for multi-term equations.
        h: time step; a tensor where the gradient in it is wanted.
        times: ``(T,)``; the march starts at ``times[0]``.
        initial: state where the memory begins, ``(*)``.
        start: state at ``times[0]``.
        past: what was remembered before ``times[0]``, oldest first; empty if the memory begins there.
        progress: called with steps done and steps in all.
        keep: whether the remembered items are wanted in the end.
    """

    method: Method
    memory: Memory
    gradient: type[History]
    rhs: Rhs
    alphas: list[Tensor]
    factors: list[Tensor]
    h: float | Tensor
    times: Tensor
    initial: Tensor
    start: Tensor
    past: Sequence[Tensor] = ()
    progress: Progress | None = None
    keep: bool = False

    def march(self) -> tuple[Tensor, list[Tensor]]:
        """Return the states at all times, ``(T, *)``, and the remembered items if they were to be kept."""
        if isinstance(self.method, IncrementMethod):
            return self._by_increments(self.method)
        assert isinstance(self.method, RateMethod)
        return self._by_rates(self.method)

    def _by_increments(self, method: IncrementMethod) -> tuple[Tensor, list[Tensor]]:
        count = len(self.past) + len(self.times)
        coefficients = method.coefficients(self.alphas, self.factors, self.h, count)
        march = MARCHES[self.gradient](self.memory, coefficients, self.start, len(self.times), self.past)
        times = self.times.unbind(0)

        def step(n: int) -> None:
            if method.implicit:
                march.implicit(partial(self.rhs, times[n]))
            else:
                march.explicit(self.rhs(times[n - 1], march.last))

        self._run(step, march.seen)
        states = march.gathered()
        return states, [*self.past, *states.detach().diff(dim=0)] if self.keep else []

    def _by_rates(self, method: RateMethod) -> tuple[Tensor, list[Tensor]]:
        past = list(self.past) or [self.rhs(self.times[0], self.start)]
        count = len(past) + len(self.times)
        rule = method.coefficients(self.alphas[0], self.h, count)
        if method.implicit and not self.gradient.twice:
            return self._by_roots(rule, past)
        dtype = self.start.dtype
        history = self._history(rule.kernel, past)
        predictor = None if rule.predictor is None else self._history(rule.predictor, past)
        newest_weight = rule.kernel[0].to(dtype)
        extra = [None] * count if rule.start is None else list(rule.start.to(dtype).unbind(0))
        root, kind = implicit_step(), Stacked if self.gradient.twice else Trajectory
        states, ringing = kind(self.start, len(self.times)), Ringing(self.start, past[-1])

        def step(n: int) -> None:
            base = self.initial + history.weighted_sum()
            start_weight = extra[len(past) - 1 + n]
            if start_weight is not None:
                base = base + start_weight * past[0]
            field = partial(self.rhs, self.times[n])
            if method.implicit:
                y, rate = root.solve(field, base, newest_weight, states.last)
                ringing.look(field, newest_weight, y, rate)
            else:
                y = base
                if predictor is not None:
                    y = base + newest_weight * field(self.initial + predictor.weighted_sum())
                if n == len(self.times) - 1 and not self.keep:  # no step needs another rate
                    states.append(y)
                    return
                rate = field(y)
            history.append(rate)
            if predictor is not None:
                predictor.append(rate)
            states.append(y)

        self._run(step, states.seen)
        return states.gathered(), history.items if self.keep else []

    def _by_roots(self, rule: RateCoefficients, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        count = len(self.times)
        march = RateMarch(self.memory, rule, self.initial, self.start, count, past, keep=self.keep)
        ringing, gain = Ringing(self.start, past[-1]), rule.kernel[0].to(self.start.dtype)

        def step(n: int) -> None:
            field = partial(self.rhs, self.times[n])
            ringing.look(field, gain, *march.implicit(field))

        self._run(step, march.seen)
        return march.gathered(), march.rates if self.keep else []

    def _history(self, kernel: Tensor, past: Sequence[Tensor]) -> History:
        return self.gradient(self.memory, kernel, self.start.dtype, past, keep=self.keep)

    def _run(self, step: Callable[[int], None], states: Callable[[int, int], Tensor]) -> None:
        """Make all steps, watched; ``states`` gives those with the numbers from ... to ..., stacked."""
        progress, count = self.progress, len(self.times) - 1

        def reported(n: int) -> None:
            step(n)
            assert progress is not None
            progress(n, count)

        watch = Watch(self.times, self.method.name, states, implicit=self.method.implicit)
        watch.run(step if progress is None else reported)
