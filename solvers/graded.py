r"""Graded meshes: small steps where the solution is singular.

Solutions of fractional equations start like :math:`t^\alpha`, and on a uniform grid that costs order.
On the mesh :math:`t_n = T (n/N)^r` with :math:`r` large enough the order for smooth solutions comes back.
The weights are no convolution then, so every step forms its own row of them: full memory only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import checks
from .implicit import implicit_step
from .ringing import Ringing
from .watch import Watch
from .weights import gamma


def graded_mesh(
    start: float, end: float, steps: int, exponent: float, dtype: torch.dtype = torch.float64
) -> Tensor:
    r"""Return the mesh :math:`t_n = t_0 + (t_1 - t_0) (n/N)^r`, ``(steps + 1,)``.

    Args:
        start: initial time.
        end: final time, above ``start``.
        steps: number of steps ``N``.
        exponent: grading ``r >= 1``; ``1/alpha`` restores the order of ``trapezoid``, and
            ``(2 - alpha)/alpha`` that of ``l1``, for solutions that start like t^alpha.
        dtype: of the result.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if one is out of range.

    Source: Stynes, O'Riordan and Gracia (2017), SIAM J. Numer. Anal. 55(2), 1057-1079.

    >>> graded_mesh(0.0, 1.0, 4, 2.0)
    tensor([0.0000, 0.0625, 0.2500, 0.5625, 1.0000], dtype=torch.float64)
    """
    first = float(checks.real("start", start))
    last = float(checks.real("end", end, above=first))
    checks.real("exponent", exponent, at_least=1.0)
    n = torch.arange(checks.positive_int("steps", steps) + 1, dtype=torch.float64)
    return (first + (last - first) * (n / steps) ** exponent).to(dtype)


def l1_row(t: Tensor, n: int, alpha: Tensor) -> Tensor:
    """Return the weights of the increments 1, ..., n in the L1 derivative at ``t[n]``."""
    since = t[n] - t[: n + 1].reshape(-1, *([1] * alpha.dim()))
    powers = torch.cat([since[:-1] ** (1 - alpha), torch.zeros_like(alpha).unsqueeze(0)])
    return (powers[:-1] - powers[1:]) / (gamma(2 - alpha) * -since.diff(dim=0))


def trapezoid_row(t: Tensor, n: int, alpha: Tensor) -> Tensor:
    """Return the weights of the rates 0, ..., n in the product trapezoid integral at ``t[n]``."""
    since = t[n] - t[: n + 1].reshape(-1, *([1] * alpha.dim()))
    zero = torch.zeros_like(alpha).unsqueeze(0)
    flat = torch.cat([since[:-1] ** alpha, zero]) / alpha
    tilted = torch.cat([since[:-1] ** (alpha + 1), zero]) / (alpha + 1)
    cell = flat[:-1] - flat[1:]
    later = (since[:-1] * cell - (tilted[:-1] - tilted[1:])) / -since.diff(dim=0)
    return (torch.cat([cell - later, zero]) + torch.cat([zero, later])) / gamma(alpha)


ROWS = {"l1": l1_row, "trapezoid": trapezoid_row}


def march_on(
    mesh: Tensor,
    method: str,
    rhs: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    alpha: Tensor,
    times: Tensor,
) -> Tensor:
    """Return the states at all points of ``mesh`` (float64), ``(T, *)``; differentiated by plain autograd."""
    step, states = implicit_step(), [y0]
    remembered = [rhs(times[0], y0)] if method == "trapezoid" else []
    ringing = Ringing(y0, remembered[0]) if remembered else None

    def make(n: int) -> None:
        row = ROWS[method](mesh, n, alpha).to(y0.dtype)
        past = _dot(row[:-1], remembered)
        if method == "l1":
            base, gain = states[-1] - past / row[-1], 1 / row[-1]
        else:
            base, gain = y0 + past, row[-1]
        field = partial(rhs, times[n])
        y, rate = step.solve(field, base, gain, states[-1])
        if ringing is not None:
            ringing.look(field, gain, y, rate)
        remembered.append(rate if method == "trapezoid" else y - states[-1])
        states.append(y)

    def seen(first: int, last: int) -> Tensor:
        return torch.stack([y.detach() for y in states[first:last]])

    Watch(times, method, seen, implicit=True).run(make)
    return torch.stack(states)


def _dot(weights: Tensor, items: list[Tensor]) -> Tensor | float:
    if not items:
        return 0.0
    stacked = torch.stack(items)
    lead = [1] * (stacked.dim() - weights.dim())
    return (weights.reshape(len(weights), *lead, *weights.shape[1:]) * stacked).sum(0)
