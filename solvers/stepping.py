"""One step after another: the loop over time of a solve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .implicit import solve_step
from .memory import Memory
from .methods import Method

Rhs = Callable[[Tensor, Tensor], Tensor]


def march(
    method: Method, memory: Memory, rhs: Rhs, y0: Tensor, times: Tensor, alpha: Tensor, h: float
) -> Tensor:
    """Return the states at all ``times``, stacked; differentiable by plain autograd.

    Args:
        method: the step rule.
        memory: what is kept of the past.
        rhs: right-hand side, ``rhs(t, y)`` of the shape of ``y``.
        y0: initial state ``(*)``.
        times: ``(T,)``, uniform.
        alpha: orders, broadcastable to ``y0``.
        h: the time step.

    Returns:
        ``(T, *)``; the first entry is ``y0``.
    """
    coefficients = method.coefficients(alpha, h, len(times))
    gain, kernel = coefficients.gain.to(y0.dtype), coefficients.kernel.to(y0.dtype)
    past = memory.begin(kernel)
    states = [y0]
    for n in range(1, len(times)):
        last = states[-1]
        base = last - past.weighted_sum()
        if method.implicit:
            y = solve_step(partial(rhs, times[n]), base, gain, last)
        else:
            y = base + gain * rhs(times[n - 1], last)
        past.append(y - last)
        states.append(y)
    return torch.stack(states)
