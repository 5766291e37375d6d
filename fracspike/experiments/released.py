r"""The neuron of f-SNN's released code, to be compared with: its reset is a current.

.. math:: \tau_a D^\alpha v = -v + I - \theta S, \qquad S = H\bigl(v + (I - v)/\tau_a - \theta\bigr)

stepped by the product rectangle rule. The reset is a negative input, so how much it takes off depends on the
step; the spike is decided on the potential one unit of time ahead, whatever the step. As the step
falls the count of spikes grows without bound (``docs/neurons.md``): for comparisons only. The same
reset is that of ``FractionalLIF`` with ``reset_memory="current"``; here it is in the released program's
scheme, spike for spike.

Source: Ge et al. (2026), Fractional-order spiking neural network, arXiv:2507.16937, and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
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
    """All steps at once, compiled, the adjoint written out: a graph of 100 steps takes 20 times as long."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        tau: Tensor,
        threshold: Tensor,
        weights: Tensor,
        derivative: Callable[[Tensor], Tensor],
    ) -> Tensor:
        numbers = [float(tau), float(threshold)]
        leak, spikes, ahead = _forward(current.flatten(1).numpy(), weights.numpy(), *numbers)
        shaped = [torch.from_numpy(each).view_as(current) for each in (leak, spikes, ahead)]
        ctx.save_for_backward(*shaped, tau, threshold, weights)
        ctx.derivative = derivative
        return shaped[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        leak, spikes, ahead, tau, threshold, weights = ctx.saved_tensors
        through = grad * ctx.derivative(ahead)  # to the potential ahead
        slopes = _backward(through.flatten(1).numpy(), weights.numpy(), float(tau))
        of_slope = torch.from_numpy(slopes).view_as(through)
        of_leak = through + of_slope
        reset = (of_slope * spikes).sum() / tau
        of_tau = (reset * threshold - (of_leak * leak).sum()) / tau
        return of_leak / tau, of_tau, -through.sum() - reset, None, None


@numba.njit(cache=True)
def _forward(current, weights, tau, threshold):  # type: ignore[no-untyped-def]
    """Return the leak, the spikes and the distance ahead from the threshold, each ``(T, N)``."""
    steps, neurons = current.shape
    leak, spikes, ahead, slope = (
        np.empty_like(current),
        np.empty_like(current),
        np.empty_like(current),
        np.empty_like(current),
    )
    v = np.zeros_like(current[0])
    for n in range(steps):
        for i in range(neurons):
            leak[n, i] = (current[n, i] - v[i]) / tau
            ahead[n, i] = v[i] + leak[n, i] - threshold
            spikes[n, i] = 1.0 if ahead[n, i] >= 0 else 0.0
            slope[n, i] = leak[n, i] - spikes[n, i] * (threshold / tau)
            v[i] = 0.0
        for m in range(n + 1):
            for i in range(neurons):
                v[i] += weights[n - m] * slope[m, i]
    return leak, spikes, ahead


@numba.njit(cache=True)
def _backward(through, weights, tau):  # type: ignore[no-untyped-def]
    """Return the gradient with respect to each slope, ``(T, N)``."""
    steps, neurons = through.shape
    of_v, of_slope = np.zeros_like(through), np.zeros_like(through)
    for n in range(steps - 1, -1, -1):
        for m in range(n + 1, steps):  # the potentials that have seen this slope
            for i in range(neurons):
                of_slope[n, i] += weights[m - 1 - n] * of_v[m, i]
        for i in range(neurons):
            of_v[n, i] = through[n, i] - (through[n, i] + of_slope[n, i]) / tau
    return of_slope
