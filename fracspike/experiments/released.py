r"""The neuron of f-SNN's released code, to be compared with: its reset is a current.

.. math:: \tau_a D^\alpha v = -v + I - \theta S, \qquad S = H\bigl(v + (I - v)/\tau_a - \theta\bigr)

stepped by the product rectangle rule. The reset is a negative input, so how much it takes off depends on the
step; the spike is decided on the potential one unit of time ahead, whatever the step. As the step
falls the count of spikes grows without bound (``docs/neurons.md``): for comparisons only.

Source: Ge et al. (2026), Fractional-order spiking neural network, arXiv:2507.16937, and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fracspike import surrogate as surrogates
from fracspike.neurons import parameters


class CurrentReset(nn.Module):
    """A layer of these neurons; no gradient flows through the reset spike.

    Args:
        alpha: Caputo order in (0, 1].
        tau: time constant :math:`tau_a`, in the unit of ``dt`` to the power of alpha.
        dt: time step.
        surrogate: name of the surrogate gradient.
        learn_threshold: whether the threshold, 1 at first, is a parameter.
    """

    tau: Tensor
    threshold: Tensor

    def __init__(self, alpha: float, tau: float, dt: float, surrogate: str, *, learn_threshold: bool) -> None:
        super().__init__()
        self.alpha, self.dt = alpha, dt
        parameters.register(self, "tau", torch.tensor(tau), None, learnable=False)
        parameters.register(self, "threshold", torch.tensor(1.0), parameters.Above(0.0), learn_threshold)
        self.derivative = surrogates.get(surrogate).derivative

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes for a current: ``(T, B, *) -> (T, B, *)``."""
        powers = torch.arange(len(current) + 1, dtype=torch.float64) ** self.alpha
        weights = (self.dt**self.alpha / math.gamma(1 + self.alpha) * powers.diff()).to(current)
        tau, threshold = self.tau.to(current), self.threshold.to(current)
        spikes: Tensor = _March.apply(current, tau, threshold, weights, self.derivative)  # type: ignore[no-untyped-call]
        return spikes


class _March(torch.autograd.Function):
    """All steps at once, with the adjoint written out: a graph of 100 steps would take ten times as long."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        tau: Tensor,
        threshold: Tensor,
        weights: Tensor,
        derivative: Callable[[Tensor], Tensor],
    ) -> Tensor:
        steps = len(current)
        leak, spikes, slope = (torch.empty_like(current) for _ in range(3))
        ahead = torch.empty_like(current)  # of the threshold, one unit of time later
        newest_last = weights.flip(0)
        v = torch.zeros_like(current[0])
        for n in range(steps):
            leak[n] = (current[n] - v) / tau
            ahead[n] = v + leak[n] - threshold
            spikes[n] = ahead[n] >= 0
            slope[n] = leak[n] - spikes[n] * (threshold / tau)
            v = torch.tensordot(newest_last[steps - 1 - n :], slope[: n + 1], 1)
        ctx.save_for_backward(leak, spikes, ahead, tau, threshold, weights)
        ctx.derivative = derivative
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        leak, spikes, ahead, tau, threshold, weights = ctx.saved_tensors
        steps = len(leak)
        through = grad * ctx.derivative(ahead)  # to the potential ahead
        of_v, of_slope = torch.zeros_like(leak), torch.zeros_like(leak)
        for n in reversed(range(steps)):
            if n + 1 < steps:  # v[n + 1], ..., v[steps - 1] have seen slope[n]
                of_slope[n] = torch.tensordot(weights[: steps - 1 - n], of_v[n + 1 :], 1)
            of_v[n] = through[n] - (through[n] + of_slope[n]) / tau
        of_leak = through + of_slope
        reset = (of_slope * spikes).sum() / tau
        of_tau = (reset * threshold - (of_leak * leak).sum()) / tau
        return of_leak / tau, of_tau, -through.sum() - reset, None, None
