r"""Which root of an implicit step is the solution's: the one that the last value leads to.

An equation :math:`y = \text{base} + g\, f(y)` may have several roots. With a share s of the step,

.. math:: y(s) = y_{n-1} + s\, (\text{base} - y_{n-1}) + s\, g\, f(y(s))

begins at the last value and ends at a root. It can be followed as long as no real eigenvalue of
:math:`s\, g\, J` reaches 1, with the Jacobian J of f. There the path folds back, as where the solution blows
up within the step, and the other roots have nothing to do with the solution.

Source: Deuflhard (2011), Newton Methods for Nonlinear Problems, chapter 5, on continuation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .iterate import ROUNDING, largest, met
from .jacobian import LARGEST_JACOBIAN, Field, edge_of, evaluate, matrix, transposed

NEWTON_STEPS = 30
SHRINKS = 0.5  # a residual that shrinks by less at a move tells that the root is not near
SHORTEST = 2.0**-12  # share of a step
TRIES = 60  # shares of a step, before it is given up
STIFF = 256  # units of rounding in a move that tell that the residual is nothing but rounding
WHOLE = 64  # states for which all eigenvalues are looked at


class Found(NamedTuple):
    """A root, the field there, and how many moves led to it.

    Attributes:
        at: the root, where the graph of the field begins.
        rate: the field there.
        steps: moves.
        sure: whether nothing on the way told of another branch.
    """

    at: Tensor
    rate: Tensor
    steps: int
    sure: bool = True


class Equation(NamedTuple):
    """y = base + gain * field(y).

    Attributes:
        field: the right-hand side.
        base: the known part.
        gain: what multiplies the field.
        room: where the root goes, if there is a place for it.
    """

    field: Field
    base: Tensor
    gain: Tensor
    room: Tensor | None

    def residual(self, y: Tensor, rate: Tensor) -> Tensor:
        """Return what is missing at ``y``, where the field is ``rate``."""
        return torch.addcmul(self.base, self.gain, rate.detach()).sub_(y)

    def part(self, last: Tensor, share: float) -> Equation:
        """Return the equation of a share of the step from ``last``."""
        if share == 1:
            return self._replace(room=None)
        return Equation(self.field, torch.lerp(last, self.base, share), share * self.gain, None)


def astray(equation: Equation, found: Found, last: Tensor) -> bool:
    """Return whether a root, found with a Jacobian that is not diagonal, may be one of another branch."""
    with torch.enable_grad():
        at, rate = evaluate(equation.field, found.at.detach().clone())
    product = transposed(edge_of(rate), at, equation.gain)
    if at.numel() <= WHOLE:
        return _folds(matrix(product, at.detach()))
    move = found.at.detach() - last
    return float((move * product(move)).sum()) >= float((move * move).sum()) > 0


def follow(equation: Equation, last: Tensor, *, diagonal: bool) -> Found | None:
    """Return the root that ``last`` leads to; None if there is none."""
    y, reached, stride, moves = last.clone(), 0.0, 1.0, 0
    for _ in range(TRIES):
        share = min(1.0, reached + stride)
        found = _newton(equation.part(last, share), y, last, diagonal=diagonal)
        if found is None:
            stride /= 4
            if stride < SHORTEST:
                break
            continue
        moves += found.steps
        if share == 1:
            return found._replace(steps=moves)
        y, reached, stride = found.at.detach().clone(), share, 2 * stride
    return None


def _newton(equation: Equation, y: Tensor, last: Tensor, *, diagonal: bool) -> Found | None:
    """Return the root near ``y`` by Newton's method; None unless it is clear that there is no other."""
    before = math.inf
    for step in range(NEWTON_STEPS):
        with torch.enable_grad():
            at, rate = evaluate(equation.field, y)
        residual = equation.residual(y, rate)
        size = largest(residual)
        if not math.isfinite(size):
            return None
        product = transposed(edge_of(rate), at, equation.gain)
        if diagonal:
            slopes = 1 - product(torch.ones_like(y))
            resting = (residual == 0) & (y == last)
            if not bool(((slopes > 0) | resting).all()):
                return None
            move = residual / torch.where(resting, 1.0, slopes)
        else:
            whole = matrix(product, y)
            if _folds(whole):
                return None
            whole = torch.eye(len(whole)).to(whole) - whole
            move = torch.linalg.solve(whole, residual.reshape(-1)).reshape(y.shape)
        # in a stiff system the residual is rounding long before it is small
        unit, shrinks = torch.finfo(y.dtype).eps * largest(y), size <= SHRINKS * before
        still = largest(move) <= unit * (ROUNDING if shrinks else STIFF)
        if still or met(size, equation.base, y, before=before):
            return Found(*evaluate(equation.field, y), step)
        if not shrinks and largest(move) > STIFF**2 * unit:
            return None
        y, before = y + move, size
    return None


def _folds(jacobian: Tensor) -> bool:
    """Return whether a real eigenvalue of gJ is 1 or more; of a large one, whether an odd number is."""
    if len(jacobian) > WHOLE:
        sign, _ = torch.linalg.slogdet(torch.eye(len(jacobian)).to(jacobian) - jacobian)
        return float(sign) <= 0
    values = torch.linalg.eigvals(jacobian.double())
    real = values.imag.abs() <= 1e-9 * values.abs()
    return bool((real & (values.real >= 1)).any())


def has_true_slope(equation: Equation, y: Tensor) -> bool:
    """Return whether the graph of the field tells its slope at ``y``; a surrogate gradient does not."""
    with torch.enable_grad():
        at, rate = evaluate(equation.field, y.clone())
    reach = torch.finfo(y.dtype).eps ** (1 / 3) * (1 + y.abs())
    told = float((transposed(edge_of(rate), at, equation.gain)(torch.ones_like(y)) * reach).sum())
    with torch.no_grad():
        rise = equation.gain * (equation.field(y + reach) - equation.field(y - reach)) / 2
    return abs(told - float(rise.sum())) <= 1e-2 * (abs(told) + float(rise.abs().sum()))


def too_large(equation: Equation, last: Tensor) -> str:
    """Return why a step failed, and what to do."""
    with torch.no_grad():
        finite = bool(torch.isfinite(equation.field(last)).all())
    size = last.numel()
    if not finite:
        return "the implicit step did not converge: `rhs` is not finite at the last state; check it there"
    if size > LARGEST_JACOBIAN:
        return (
            f"the implicit step did not converge, and {size} states are too many for the whole Jacobian; "
            "use a smaller time step or an explicit method"
        )
    return (
        "the implicit step did not converge to a root that continues the last value: the step is too large, "
        "or the solution ends there; use a smaller time step, an explicit method, or check that `rhs` is "
        "finite and continuous"
    )
