"""The tables of the modes that both kernels read, made once from losses and weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

STILL = 1e-9  # what a mode loses in a step that is as good as constant
SLOW = 0.003  # what a mode may lose in a step at most for single precision to need compensated sums


class Coefficients(NamedTuple):
    """Modes in tiles of a power of two rows, the slow ones in the first; what is left over is padded.

    Attributes:
        loss: what a mode loses in a step, ``(rows, 1)`` or ``(rows, n)``.
        seen: what the next step sees of a mode, of the same shape.
        fresh: what the potential takes of the drive in a step, ``(1,)`` or ``(n,)``.
        kept: the sum of ``seen``, what a step leaves of a reset.
        tiles: rows of each tile.
        modes: how many modes there are, K.
        outside: whether the last of them, which loses everything in a step, is in no tile.
        compensated: whether the first tile needs compensated sums in single precision.
    """

    loss: Tensor
    seen: Tensor
    fresh: Tensor
    kept: Tensor
    tiles: tuple[int, ...]
    modes: int
    outside: bool
    compensated: bool

    @property
    def columns(self) -> int:
        """How many neurons have coefficients of their own; 1 if all share them."""
        return self.loss.shape[1]


def tabulate(
    loss: Tensor, weight: Tensor, dtype: torch.dtype, *, leaky: bool = True, slow: int | None = None
) -> Coefficients:
    """Return the tables for modes.

    Args:
        loss: what each mode loses in a step, slowest first, ``(K,)`` or ``(K, n)`` float64; with a leak, the
            last one loses everything.
        weight: of each mode, of the same shape.
        dtype: what the run is computed in.
        leaky: whether the membrane leaks.
        slow: how many modes lose less than SLOW; None to look, for which a GPU is waited for.
    """
    loss, weight = (x.detach().double().reshape(len(x), -1) for x in (loss, weight))
    columns = max(loss.shape[1], weight.shape[1])
    loss, weight = loss.expand(-1, columns), weight.expand(-1, columns)
    outside = int(leaky)
    count = len(loss) - outside
    if slow is None:
        slow = int((loss[:count] < SLOW).any(1).sum())
    compensated = dtype == torch.float32 and slow > 0
    sizes = tiles(count, slow if compensated else 0)
    seen = weight * (1 - loss) if leaky else -weight * loss
    fresh = (weight * loss).sum(0)
    rows = (0, 0, 0, sum(sizes) - count)

    def table(values: Tensor) -> Tensor:
        return values.to(dtype).contiguous()

    return Coefficients(
        loss=table(functional.pad(loss[:count], rows, value=1.0)),
        seen=table(functional.pad(seen[:count], rows)),
        fresh=table(fresh),
        kept=table(seen.sum(0)),
        tiles=sizes,
        modes=len(loss),
        outside=bool(outside),
        compensated=compensated,
    )


def without_leak(decays: Tensor, weights: Tensor, head: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return losses and weights of modes for a membrane without a leak.

    .. math:: v_n = v^+_{n-1} + g \Big( u_n + h\, u_{n-1} + \sum_{m \ge 1} \sum_k c_k d_k^m u_{n-m} \Big)

    As differentiable as its arguments. A mode that hardly loses anything makes up the sum of what the
    potential takes of the drive to g, which a fit over finitely many lags leaves open.

    Args:
        decays: d, ``(K,)``, such as those of `Exponentials.fit` to the kernel of the fractional integral.
        weights: c, ``(K,)``.
        head: h, a number: what the kernel has at the first lag beside the sum.
        gain: g, a number.
    """
    loss = 1 - decays
    weight = -gain * weights * decays / loss**2
    last = -gain * head
    rest = gain - (weight * loss).sum() - last
    ends = loss.new_tensor([STILL]), loss.new_tensor([1.0])
    return (
        torch.cat([ends[0], loss, ends[1]]),
        torch.cat([rest.reshape(1) / STILL, weight, last.reshape(1)]),
    )


def tiles(modes: int, slow: int) -> tuple[int, ...]:
    """Return rows of the fewest tiles that hold the modes at the least cost.

    All slow modes are in the first, of which a row costs about twice as much as another.
    """
    powers = [1 << n for n in range(max(modes - 1, 1).bit_length() + 1)]
    found = []
    for first in powers:
        if first < slow:
            continue
        for second in (0, *powers):
            for third in (0, *powers):
                sizes = tuple(size for size in (first, second, third) if size)
                if sum(sizes) >= modes and second >= third:
                    cost = sum(sizes) + (first if slow else 0)
                    found.append((cost + 2 * len(sizes), -first, sizes))
    return min(found)[2]
