r"""Memory as a sum of exponentials: constant memory per state, linear time.

Beyond its first lag a power-law kernel is, to any tolerance, a short sum of exponentials,
:math:`k_m \approx \sum_k w_k d_k^m`, and an exponential needs no history: one number per state and
mode holds all of it, :math:`V_k \leftarrow d_k V_k + q`. The first lag, where kernels of low order
drop sharply, is kept exact by weighing the newest item itself.

The decay factors are fixed, log-uniform in the rate, so the weights are a fixed linear map of the
kernel: whatever is differentiable in the kernel is so in the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .. import checks
from .base import Memory, Past, sum_to, weigh

AMPLIFICATION = 12.0  # largest allowed sum |w_k| d_k^m / k_m: what rounding is multiplied by ...
HARMLESS = 1000.0  # ... unless rounding is far below the tolerance; then up to this
SAMPLES = 400  # lags on which the fit is made, beyond the first 64
MOST_MODES = 120
#: fastest rate a step, and slowest rate over the whole time, of the modes; tried in turn
RANGES = ((4.0, 0.3), (4.0, 0.1), (8.0, 0.1), (16.0, 0.1), (32.0, 0.1), (8.0, 0.01), (32.0, 0.01))


@dataclass(frozen=True)
class Fit:
    """A kernel as a sum of exponentials.

    Attributes:
        decays: ``d_k``, ``(K,)`` float64, each a number of the dtype of the run.
        weights: ``w_k``, ``(K, *)`` float64, differentiable in the kernel.
        head: what lag 1 has beside the sum, ``(*)``: the newest item is weighed exactly.
        error: largest relative error over all lags: the certificate.
        amplification: what rounding errors of the modes are multiplied by, relative to the kernel.
    """

    decays: Tensor
    weights: Tensor
    head: Tensor
    error: float
    amplification: float

    @property
    def modes(self) -> int:
        """The number of exponentials."""
        return len(self.decays)


@dataclass(frozen=True)
class Exponentials(Memory):
    r"""Keep a sum of exponentials: memory constant in time, cost linear, kernel met to ``tol``.

    Decay factors are rounded to the dtype of the run *before* the weights are fitted, and fits whose
    alternating weights would amplify rounding are refused.

    Args:
        tol: largest relative error of the kernel, at any lag.
        horizon: for the exact method of a neuron, which may go on from call to call: the number of steps over
            which the tolerance holds. A solve of known length fits that length.

    Source: Lubich and Schaedle (2002), SIAM J. Sci. Comput. 24(1), for the idea; Jiang, Zhang, Zhang and
    Zhang (2017), Commun. Comput. Phys. 21(3), for the L1 scheme with a sum of exponentials.

    >>> from fracspike.solvers.weights import l1_weights
    >>> fit = Exponentials(1e-6).fit(l1_weights(torch.tensor(0.6), 1000), torch.float32)
    >>> fit.modes < 25, fit.error < 1e-6
    (True, True)
    """

    tol: float = 1e-6
    horizon: int = 1 << 17

    def __post_init__(self) -> None:
        checks.real("tol", self.tol, at_least=1e-13, below=1.0)
        checks.positive_int("horizon", self.horizon)

    def fit(self, kernel: Tensor, dtype: torch.dtype = torch.float64) -> Fit:
        """Return the smallest fit found that meets the tolerance.

        Args:
            kernel: ``(count, *)`` float64; entry 0 (lag 0) is not fitted.
            dtype: in which the run computes.

        Raises:
            ValueError: if no fit meets the tolerance in this dtype.
        """
        lags = len(kernel) - 1
        columns = kernel.detach().cpu().reshape(len(kernel), -1)
        rows = _sampled_lags(lags)
        wanted = columns[rows]
        for modes in _mode_counts(lags, self.tol):
            for fastest, slowest in RANGES:
                rates = torch.logspace(
                    math.log10(slowest / lags), math.log10(fastest), modes, dtype=torch.float64
                )
                decays = torch.exp(-rates).to(dtype).double()
                powers = decays ** rows.double().unsqueeze(1)
                for solve in _least_squares(powers, wanted):
                    at_lag_one = decays.unsqueeze(1) * solve(wanted)
                    weights = at_lag_one.to(dtype).double() / decays.unsqueeze(1)  # rounded as in the run
                    if not self._acceptable(*_quality(powers, weights, wanted), dtype):
                        continue
                    error, amplification = _certificate(decays, weights, columns)
                    if self._acceptable(error, amplification, dtype):
                        smooth = solve(kernel.cpu().reshape(len(kernel), -1)[rows])
                        smooth = smooth.reshape(modes, *kernel.shape[1:])
                        decays, smooth = decays.to(kernel.device), smooth.to(kernel.device)
                        head = kernel[1] - (decays.reshape(-1, *([1] * (kernel.dim() - 1))) * smooth).sum(0)
                        return Fit(decays, smooth, head, error, amplification)
        raise ValueError(
            f"`tol` must be within reach of {dtype}, got {self.tol:g} for {lags} steps; use a larger tol, "
            "float64, or Full()"
        )

    def _acceptable(self, error: float, amplification: float, dtype: torch.dtype) -> bool:
        harmless = min(HARMLESS, 0.1 * self.tol / torch.finfo(dtype).eps)
        return error <= self.tol and amplification <= max(AMPLIFICATION, harmless)

    def weights(self, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the decays and what weighs each mode at lag 1, stacked: ``(2 K + 2, *)``.

        The newest item itself is one mode more, which decays at once.
        """
        fit = self.fit(kernel, dtype)
        decays = fit.decays.reshape(-1, *([1] * (kernel.dim() - 1))).expand_as(fit.weights)
        none = torch.zeros_like(fit.head).unsqueeze(0)
        return torch.cat([decays, none, decays * fit.weights, fit.head.unsqueeze(0)]).to(dtype)

    def effective_kernel(self, weights: Tensor, count: int) -> Tensor:
        """Return the sum of exponentials at every lag from 1 on; no sum uses lag 0."""
        decays, factors = weights.chunk(2)
        lag = torch.arange(count - 1, dtype=weights.dtype, device=weights.device)
        lag = lag.reshape(-1, *([1] * weights.dim()))
        kernel = (factors * decays.detach() ** lag).sum(1)
        return torch.cat([torch.zeros_like(factors[:1]), kernel])

    def begin(self, weights: Tensor, count: int) -> Past:
        """Start a run; see :class:`Memory`."""
        return _ModesPast(weights)


class _ModesPast(Past):
    """The modes ``V``, with ``V <- d V + q``."""

    def __init__(self, weights: Tensor) -> None:
        decays, self._weights = weights.chunk(2)
        self._decays = decays.reshape(len(decays), -1)[:, 0]
        self._modes: Tensor | None = None
        self._pairs: Tensor | None = None

    def append(self, item: Tensor) -> None:
        if self._modes is None:
            self._modes = item.expand(len(self._decays), *item.shape).clone()
            self._decays = self._decays.reshape(-1, *([1] * item.dim()))
        else:
            torch.addcmul(item, self._modes, self._decays, out=self._modes)

    def weighted_sum(self) -> Tensor:
        assert self._modes is not None
        return weigh(self._weights, self._modes)

    def forget(self, where: Tensor) -> None:
        assert self._modes is not None
        self._modes.masked_fill_(where, 0.0)

    def pair(self, item: Tensor) -> None:
        assert self._modes is not None
        if self._pairs is None:
            self._pairs = torch.zeros_like(self._weights, dtype=torch.float64)
        if self._weights.dim() == 1:
            self._pairs += torch.mv(self._modes.reshape(len(self._modes), -1), item.reshape(-1))
        else:
            self._pairs += sum_to(self._modes * item, self._weights.shape)

    def paired(self) -> Tensor:
        assert self._pairs is not None
        pairs = self._pairs.to(self._weights.dtype)
        return torch.cat([torch.zeros_like(pairs), pairs])  # the decays are fixed


def _mode_counts(lags: int, tol: float) -> list[int]:
    """Return the numbers of modes to try, from what the tolerance will surely need."""
    count = max(4, int(0.5 * math.log10(1 / tol) * (1 + 0.6 * math.log10(lags + 1))))
    counts = []
    while count < MOST_MODES:
        counts.append(count)
        count += max(1, count // 10)
    return counts


def _sampled_lags(lags: int) -> Tensor:
    late = torch.logspace(math.log10(min(64, lags)), math.log10(lags), SAMPLES, dtype=torch.float64)
    rows = torch.cat([torch.arange(min(2, lags), min(64, lags) + 1), late.round().long()])
    distinct: Tensor = torch.unique_consecutive(rows)
    return distinct.clamp(max=lags)


def _scale(columns: Tensor) -> Tensor:
    """Return what an error is relative to: the kernel, or almost nothing where it vanishes."""
    return columns.abs().clamp(min=1e-280)


def _least_squares(powers: Tensor, columns: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give linear maps from sampled kernels to weights, for the smallest relative error.

    Small singular values are damped, more and more, since they are paid for with large alternating
    weights. The maps are applied factor by factor: as one matrix they would cancel catastrophically.
    """
    shape = columns / _scale(columns[:1])  # each kernel by its first lag; one that vanishes has no say
    shape = shape[:, shape[0].abs() > 0.5]
    none = torch.ones(len(columns), 1, dtype=torch.float64)
    emphasis = (1 / _scale(shape)).mean(1, keepdim=True) if shape.shape[1] else none
    u, s, vh = torch.linalg.svd(powers * emphasis, full_matrices=False)
    for damping in (1e-15, 1e-13, 1e-11, 1e-9):
        inverse = (s / (s**2 + (damping * s[0]) ** 2)).unsqueeze(1)
        yield partial(_apply, u, inverse, vh, emphasis)


def _apply(u: Tensor, inverse: Tensor, vh: Tensor, emphasis: Tensor, columns: Tensor) -> Tensor:
    return vh.T @ (inverse * (u.T @ (emphasis * columns)))


def _quality(powers: Tensor, weights: Tensor, columns: Tensor) -> tuple[float, float]:
    """Return the largest relative error, and the largest amplification of rounding."""
    error = ((powers @ weights - columns).abs() / _scale(columns)).max()
    amplification = (powers @ weights.abs() / _scale(columns)).max()
    return float(error), float(amplification)


def _certificate(decays: Tensor, weights: Tensor, columns: Tensor) -> tuple[float, float]:
    """Return the same over every lag."""
    error = amplification = 0.0
    for start in range(min(2, len(columns) - 1), len(columns), 4096):
        part = columns[start : start + 4096]
        lag = torch.arange(start, start + len(part), dtype=torch.float64)
        here = _quality(decays ** lag.unsqueeze(1), weights, part)
        error, amplification = max(error, here[0]), max(amplification, here[1])
    return error, amplification
