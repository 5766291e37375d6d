"""The modes of a layer as the kernels want them: flat, padded, with the directions in which they can move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fracspike.solvers.modes import Grid, choose


def pack(grid: Grid | None) -> list[float]:
    """Return a grid as numbers, which an operator can take; none as no numbers."""
    if grid is None:
        return []
    return [grid.tol, grid.first, grid.last, grid.density, grid.slowest, grid.fastest, float(grid.narrow)]


def unpack(numbers: Sequence[float], alpha: Tensor, step: Tensor, horizon: int, tol: float) -> Grid:
    """Return the grid of :func:`pack`; without numbers, the one that serves these orders and steps."""
    if not numbers:
        return choose(alpha, step, horizon, tol)
    tol, first, last, density, slowest, fastest, narrow = numbers
    return Grid(tol, first, last, density, slowest, fastest, bool(narrow))


def modes(
    grid: Grid, alpha: Tensor, step: Tensor, shape: Sequence[int], *, tangents: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return decays and weights ``(K, 1)``, or ``(K, M)`` for neurons of their own, K a multiple of 4.

    Third, the derivatives of the weights in alpha and in log tau at fixed decays, ``(2, K, *)``; or none.
    """
    shared = alpha.numel() == 1 and step.numel() == 1

    def flat(value: Tensor) -> Tensor:
        count = len(value)
        if shared:
            return padded(value.reshape(count, 1))
        missing = len(shape) - (value.dim() - 1)
        value = value.reshape(count, *([1] * missing), *value.shape[1:])
        return padded(value.expand(count, *shape).reshape(count, -1))

    with torch.no_grad():
        decay, weight = flat(1 - grid.losses(step)), flat(grid.weights(alpha))
        if not tangents:
            return decay, weight, weight.new_empty((0, *weight.shape))
        return decay, weight, torch.stack([flat(grid.tangents(alpha)), flat(grid.slopes(alpha))])


def padded(value: Tensor) -> Tensor:
    """Return rows with zeros added up to a multiple of 4: the kernels take modes four at once."""
    return functional.pad(value, (0, 0, 0, -len(value) % 4)).contiguous()


# -- for the quick kernels: modes in two groups -------------------------------------------------------------

QUAD = 4  # steps over which fast modes are taken at once
STRETCH = 16  # steps over which slow modes are taken at once ...
MOMENTS = 4  # ... with so many terms of (1 - loss)^steps


@dataclass(frozen=True)
class Split:
    r"""Coefficients of the two groups; ``*`` is nothing, or one column per neuron, filled up to LANES.

    Attributes:
        fast: ``(F, 12, *)``: :math:`1 - d^j`, :math:`w d^j` and :math:`d^j` for j = 1, ..., 4.
        slow: ``(S, 4, *)``: the loss :math:`\lambda`, then :math:`w (-\lambda)^p` for p = 1, 2, 3.
        losses: ``(S, 3, *)`` float64: the loss of one step, and of a stretch, and the weight.
        sums: ``(1, 12, *)``: kernel of the fast modes at lags 1 to 4, how it falls from 0 to 1, 1 to 2, ...,
            moments of the weights of the slow ones.
        binomials: ``(STRETCH, MOMENTS)``, of i + 1.
        lost: loss of each mode ``(K, 1)``, or ``(K, M)``, float64.
        weights: ``(1 + P, K, 1)``, or ``(1 + P, K, M)``, float64.
    """

    fast: Tensor
    slow: Tensor
    losses: Tensor
    sums: Tensor
    binomials: Tensor
    lost: Tensor
    weights: Tensor

    @property
    def loop(self) -> tuple[Tensor, ...]:
        """What both kernels take."""
        return self.fast, self.slow, self.losses, self.sums, self.binomials


def split(
    grid: Grid, alpha: Tensor, step: Tensor, shape: Sequence[int], dtype: torch.dtype, *, tangents: bool
) -> Split:
    """Return modes in two groups; those are slow that MOMENTS terms describe to a tenth of the tolerance."""
    shared = alpha.numel() == 1 and step.numel() == 1
    size = math.prod(shape)

    def flat(value: Tensor) -> Tensor:
        count = len(value)
        if shared:
            return value.reshape(count)
        missing = len(shape) - (value.dim() - 1)
        value = value.reshape(count, *([1] * missing), *value.shape[1:]).expand(count, *shape)
        return functional.pad(value.reshape(count, -1), (0, -size % 32))

    with torch.no_grad():
        loss = flat(grid.losses(step))[:-1]
        rows = [grid.weights(alpha)]
        if tangents:
            rows += [grid.tangents(alpha), grid.slopes(alpha)]
        weights = torch.stack([flat(row)[:-1] for row in rows])
        term = math.comb(STRETCH, MOMENTS)
        most = (0.1 * grid.tol / term) ** (1 / MOMENTS)
        largest = loss.reshape(len(loss), -1).amax(1)
        slow = int((largest <= most).sum())
        lost, w = loss[slow:], weights[:, slow:]
        kept = [1 - lost]
        gone = [lost]
        for _ in range(QUAD - 1):
            kept.append(kept[-1] * (1 - lost))
            gone.append(gone[-1] + lost * (1 - gone[-1]))
        fast = torch.stack([*gone, *(w[0] * d for d in kept), *kept], 1)
        kernel = torch.stack([(w[0] * d).sum(0) for d in kept])
        lost_fast, w_fast = lost, w
        lost, w = loss[:slow], weights[:, :slow]
        powers = [torch.ones_like(lost)]
        for _ in range(MOMENTS - 1):
            powers.append(-lost * powers[-1])
        slowly = torch.stack([lost, *(w[0] * power for power in powers[1:])], 1)
        moments = torch.stack([(w[0] * power).sum(0) for power in powers])
        rise = torch.stack([(w_fast[0] * lost_fast * d).sum(0) for d in [1, *kept[:-1]]])
        rise[0] += 1 - weights[0].sum(0)  # the mode that decays at once
        sums = torch.cat([kernel, rise, moments]).unsqueeze(0)
        losses = torch.stack([lost, -torch.expm1(STRETCH * torch.log1p(-lost)), w[0]], 1)
        binomials = torch.tensor([[math.comb(i + 1, p) for p in range(MOMENTS)] for i in range(STRETCH)])
        return Split(
            fast.to(dtype).contiguous(),
            slowly.to(dtype).contiguous(),
            losses.contiguous(),
            sums.to(dtype).contiguous(),
            binomials.to(dtype),
            loss.reshape(len(loss), -1),
            weights.reshape(*weights.shape[:2], -1),
        )
