r"""Implicit steps inside the transforms of ``torch.func``, where autograd's own tools do not reach.

The root of :math:`F(y) = \text{base} + g f(y) - y = 0` is found by Newton's method, without derivatives. Then
two steps of it are made with them: from a root, whose residual is 0, one step

.. math:: y \leftarrow y + (I - g J)^{-1} F(y)

leaves the value and has the right first derivative, whatever that of the start; two have the right second
and third derivatives, too, since each step doubles the order. No rule of differentiation is written down, so
every transform, and every composition of them, finds its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .iterate import CLOSE, ROUNDING, damping
from .jacobian import LARGEST_JACOBIAN, Field
from .transforms import Outside, values
from .watch import StepError

NEWTON_STEPS = 50
CORRECTIONS = 2  # right derivatives up to the third


class TransformedStep:
    """Solves implicit steps inside a transform; see :class:`ImplicitStep`, whose interface it has."""

    def solve(self, field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`ImplicitStep.solve`; differentiable up to the third order.

        Raises:
            StepError: if the iteration does not meet the root to rounding.
        """
        y = self._root(field, base.detach(), gain.detach(), guess.detach())
        for _ in range(CORRECTIONS):
            y = y + _newton(field, base, gain, y)[1]
        return y, field(y)

    def _root(self, field: Field, base: Tensor, gain: Tensor, y: Tensor) -> Tensor:
        before = math.inf
        for _ in range(NEWTON_STEPS):
            residual, move = (x.detach() for x in _newton(field, base, gain, y))
            size = _size(residual, move, base, y)
            if size <= CLOSE or ROUNDING >= size >= before / 2:
                return y
            if not math.isfinite(size):
                break
            y, before = (y + move).detach(), size
        raise StepError(
            f"the implicit step did not converge: residual {size:.2g} units of rounding; use a smaller time "
            "step, an explicit method, or check that the right-hand side is finite and continuous"
        )


def _newton(field: Field, base: Tensor, gain: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the residual at ``y`` and the move that Newton's method makes."""
    found: Any = torch.func.vjp(field, y)
    rate, pull = found
    residual = base + gain * rate - y

    def product(mu: Tensor) -> Tensor:  # with gJ transposed
        product: Tensor = pull(gain * mu + torch.zeros_like(rate))[0]
        return product

    sums = product(torch.ones_like(y))
    with Outside():
        probe = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)).to(y.device, y.dtype) + 0.5
    if _alike(product(probe), probe * sums):
        return residual, residual * damping(sums)
    size = y.numel()
    if size > LARGEST_JACOBIAN:
        raise StepError(
            f"an implicit step inside a transform forms the Jacobian, and {size} states are too many; use an "
            "explicit method, or differentiate by autograd, not by torch.func"
        )
    units = torch.eye(size, dtype=y.dtype, device=y.device).reshape(size, *y.shape)
    rows = torch.func.vmap(product)(units).reshape(size, size)
    move = torch.linalg.solve(torch.eye(size).to(rows) - rows, residual.reshape(size))
    return residual, move.reshape(y.shape)


def _alike(x: Tensor, y: Tensor) -> bool:
    """Return whether two tensors differ by rounding alone, in every member of a batch."""
    pair = values(torch.stack([x, y]))
    with Outside():
        unit = ROUNDING * torch.finfo(pair.dtype).eps
        return bool(((pair[0] - pair[1]).abs() <= unit * (1 + pair[1].abs())).all())


def _size(residual: Tensor, move: Tensor, base: Tensor, y: Tensor) -> float:
    """Return the residual in units of rounding, of the worst member of a batch.

    In a stiff system the move is rounding long before the residual is; the smaller of the two counts.
    """
    all_four = values(torch.stack([residual, move, base, y]))  # together, lest one have a batch and one not
    with Outside():
        sizes = all_four.reshape(4, residual.numel(), -1).abs().amax(1)
        info = torch.finfo(sizes.dtype)
        scale = torch.maximum(sizes[2], sizes[3]) + info.tiny
        small = torch.minimum(sizes[0], sizes[1].nan_to_num(math.inf) / 2) / (info.eps * scale)
        worst = small.max()
        return float(worst) if bool(torch.isfinite(sizes).all()) else math.inf
