r"""A solution between the points of its grid, by the product integration that the schemes themselves use.

With the derivative of the highest order, :math:`q = D^\alpha y`, taken as linear between the grid points,

.. math:: Y(t) = y_0 + \frac{1}{\Gamma(\alpha)} \int_{t_0}^{t} (t-s)^{\alpha-1} q(s)\, ds

has the singular start :math:`t^\alpha` and the order of the product trapezoid rule. What it misses at the two
grid points beside t is taken off by a straight line, so that the solution goes through its grid points. Where
a step is too large for that, as in an unresolved stiff decay, only the straight line is left.

Source: Diethelm, Ford and Freed (2002), Nonlinear Dyn. 29, for the product trapezoid rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .memory.base import per_element, weigh
from .weights import gamma, l1_weights


@dataclass(frozen=True)
class Dense:
    """What a solution between its grid points is made from.

    Attributes:
        rhs: right-hand side, ``rhs(t, y)``.
        alphas: orders, each broadcastable to the state.
        factors: what multiplies the derivative of each.
        times: ``(T,)`` uniform grid of the solution, float64.
        h: its step.
        rates: rates before ``times[0]``, oldest first; of a method that remembers rates.
        increments: increments before ``times[0]``, likewise; of one that remembers increments.
    """

    rhs: Callable[[Tensor, Tensor], Tensor]
    alphas: list[Tensor]
    factors: list[Tensor]
    times: Tensor
    h: float | Tensor
    rates: list[Tensor]
    increments: list[Tensor]

    def at(self, solution: Tensor, t: Tensor) -> Tensor:
        """Return ``solution``, ``(T, *)``, at the times ``t``, ``(n,)``: ``(n, *)``."""
        wanted = t.double()
        right = torch.searchsorted(self.times.detach(), wanted.detach().contiguous()).clamp(
            1, len(self.times) - 1
        )
        share = ((wanted - self.times[right - 1]) / self.h).clamp(0, 1)
        line = torch.lerp(
            solution[right - 1], solution[right], per_element(share, solution.dim()).to(solution)
        )
        between = ((share > 1e-6) & (share < 1 - 1e-6)).nonzero().squeeze(1)
        if len(between) == 0:
            return line
        added = self._curved(solution, wanted[between], right[between], share[between])
        return line.index_add(0, between, added)

    def _curved(self, solution: Tensor, t: Tensor, right: Tensor, share: Tensor) -> Tensor:
        """Return what the solution has beyond the line through the grid points beside ``t``."""
        last = int(right.max())
        derivative, lead = self._derivative(solution, last)
        cells = (
            len(derivative) - 1 - last
        ) + right  # number of the right grid point, from where memory begins
        ends = [self._integral(derivative, x, lead) for x in (cells - 1.0, cells - 1.0 + share, 1.0 * cells)]
        part = per_element(share, solution.dim()).to(solution)
        added = ends[1] - torch.lerp(ends[0], ends[2], part)
        moves = solution.detach().diff(dim=0).abs()
        near = [moves[(right - 1 + i).clamp(0, len(moves) - 1)] for i in (-1, 0, 1)]
        most = torch.stack(near).amax(0)
        missed = (solution[right] - solution[right - 1] - (ends[2] - ends[0])).detach().abs()
        return torch.where(missed <= most, torch.minimum(torch.maximum(added, -most), most), 0.0)

    def _integral(self, derivative: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
        """Return the integral of order ``alpha`` at the times ``x``, in steps since the memory began."""
        parts = []
        for one in x:
            since = one - torch.arange(len(derivative), dtype=torch.float64, device=x.device)
            since = since.reshape(-1, *([1] * alpha.dim()))
            power = alpha + 1
            hats = (since + 1).clamp(min=0) ** power - 2 * since.clamp(min=0) ** power
            hats = hats + (since - 1).clamp(min=0) ** power
            first = power * since[:1] ** alpha - since[:1] ** power + (since[:1] - 1).clamp(min=0) ** power
            weights = torch.cat([first, hats[1:]]) * self.h**alpha / gamma(2 + alpha)
            parts.append(weigh(weights.to(derivative.dtype), derivative))
        return torch.stack(parts)

    def _derivative(self, solution: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """Return the derivative of the highest order at all grid points up to ``last``, and that order."""
        times = self.times.to(solution.dtype)
        rates = torch.stack([self.rhs(times[n], solution[n]) for n in range(last + 1)])
        parts = (*self.alphas, *self.factors)
        zero = sum((x.detach() * 0.0 for x in parts), start=parts[0].new_zeros(()))
        orders = torch.stack([zero + x for x in self.alphas])
        factors = torch.stack([zero + x for x in self.factors])
        highest = torch.where(factors > 0, orders, 0.0).detach().max(0)[1].unsqueeze(0)
        lead, factor = (x.gather(0, highest).squeeze(0) for x in (orders, factors))
        before, increments = len(self.increments), solution[: last + 1].diff(dim=0)
        if before:
            increments = torch.cat([torch.stack(self.increments), increments])
        if len(orders) > 1:
            for i in range(len(orders)):
                lower = torch.where(highest.squeeze(0) == i, 0.0, factors[i])
                rates = rates - lower.to(rates) * self._l1(increments, orders[i], before)
        rates = rates / factor.to(rates)
        if before:  # the derivative where the memory begins has next to no weight here
            earlier = self._l1(increments[:before], lead, 1)[:-1]
            rates = torch.cat([earlier[:1] if before > 1 else rates[:1], earlier, rates])
        elif self.rates:
            rates = torch.cat([torch.stack(self.rates), rates])
        return rates, lead

    def _l1(self, increments: Tensor, alpha: Tensor, first: int) -> Tensor:
        """Return the L1 derivative after so many increments as ``first`` and more; 0 after none."""
        kernel = l1_weights(alpha, len(increments) + 1).to(increments.dtype)
        scale = (self.h**-alpha / gamma(2 - alpha)).to(increments.dtype)
        found = [
            scale * weigh(kernel[:n].flip(0), increments[:n]) if n else torch.zeros_like(increments[0])
            for n in range(first, len(increments) + 1)
        ]
        return torch.stack(found)
