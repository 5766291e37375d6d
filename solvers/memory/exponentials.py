r"""Memory as a sum of exponentials: constant memory per state, linear time.

Beyond its first lag a power-law kernel is, to any tolerance, a short sum of exponentials,
:math:`k_m \approx \sum_k w_k d_k^m`, and an exponential needs no history: one number per state and
mode holds all of it, :math:`V_k \leftarrow d_k V_k + q`. Items of the newest block are weighed by the very
sum of exponentials, so the modes need only be touched once a block. The first lag, where kernels of low
order drop sharply, is kept exact by weighing the newest item itself.

The decay factors are fixed, log-uniform in the rate, so the weights are a fixed linear map of the
kernel: whatever is differentiable in the kernel is so in the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from .. import checks, transforms
from .base import Memory, Past, per_element, put, sum_to
from .blocks import BLOCK, BlockPast
from .correlate import short_correlation

AMPLIFICATION = 12.0  # largest allowed sum |w_k| d_k^m / k_m: what rounding is multiplied by ...
HARMLESS = 1000.0  # ... unless rounding is far below the tolerance; then up to this
SAMPLES = 150  # lags on which the fit is made, beyond the first 64
MOST_MODES = 120
#: fastest rate a step, and slowest rate over the whole time, of the modes; tried in turn
RANGES = ((4.0, 0.3), (4.0, 0.1), (8.0, 0.1), (16.0, 0.1), (32.0, 0.1), (8.0, 0.01), (32.0, 0.01))


@dataclass(frozen=True)
class Fit:
    """A kernel as a sum of exponentials.

    Attributes:
        decays: ``d_k``, ``(K,)`` float64; over a block of 32 steps each decays by a number of the dtype of
            the run, so that no rounding builds up.
        weights: ``w_k``, ``(K, *)`` float64, differentiable in the kernel.
        head: what lag 1 has beside the sum, ``(*)``: the newest item is weighed exactly.
        error: largest relative error over all lags, rounding of the weights included: the certificate.
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

    The decays of a block are rounded to the dtype of the run *before* the weights are fitted, and fits
    whose alternating weights would amplify rounding are refused.

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
        columns = transforms.values(kernel).cpu().reshape(len(kernel), -1)  # of a whole batch inside vmap
        rows = _sampled_lags(lags)
        with transforms.Outside():
            decays, solve, error, amplification = self._search(lags, columns, columns[rows], dtype)
        smooth = solve(kernel.cpu().reshape(len(kernel), -1)[rows])
        smooth = smooth.reshape(len(decays), *kernel.shape[1:])
        decays, smooth = decays.to(kernel.device, copy=True), smooth.to(kernel.device)
        head = kernel[1] - (decays.reshape(-1, *([1] * (kernel.dim() - 1))) * smooth).sum(0)
        return Fit(decays, smooth, head, error, amplification)

    def _search(
        self, lags: int, columns: Tensor, wanted: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Callable[[Tensor], Tensor], float, float]:
        """Return decays, the linear map from a sampled kernel to weights, error and amplification."""
        for modes in _mode_counts(lags, self.tol):
            for fastest, slowest in RANGES:
                decays, powers = _powers(lags, modes, fastest, slowest, dtype)
                for solve in _least_squares(powers, wanted):
                    weights = solve(wanted)
                    error, amplification = _quality(powers, weights, wanted, dtype)
                    if error - 0.5 * torch.finfo(dtype).eps * amplification > self.tol:
                        break  # damping can only make it worse
                    if not self._acceptable(error, amplification, dtype):
                        continue
                    error, amplification = _certificate(decays, weights, columns, dtype)
                    if self._acceptable(error, amplification, dtype):
                        return decays, solve, error, amplification
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
        return torch.cat([decays, none, decays * fit.weights, fit.head.unsqueeze(0)])

    def effective_kernel(self, weights: Tensor, count: int) -> Tensor:
        """Return the sum of exponentials at every lag from 1 on; no sum uses lag 0."""
        decays, factors = weights.chunk(2)
        lag = torch.arange(count, dtype=weights.dtype, device=weights.device).unsqueeze(1)
        kernel = _near(decays.detach().reshape(len(decays), -1)[:-1, 0] ** lag, factors)
        return torch.cat([torch.zeros_like(factors[:1]), kernel])

    def begin(self, weights: Tensor, count: int, dtype: torch.dtype) -> Past:
        """Start a run; see :class:`Memory`."""
        return _ModesPast(weights, dtype)


class _ModesPast(BlockPast):
    r"""The modes :math:`V_k \leftarrow d_k V_k + q` of all older blocks, advanced a whole block at once."""

    def __init__(self, weights: Tensor, dtype: torch.dtype) -> None:
        decays, factors = weights.chunk(2)
        decays = decays.reshape(len(decays), -1)[:-1, 0]  # the head ends with lag 1: it has no mode
        steps = torch.arange(BLOCK + 1, dtype=weights.dtype, device=weights.device).unsqueeze(1)
        powers = decays**steps  # (BLOCK + 1, K)
        super().__init__(_near(powers, factors).to(dtype))
        self._shape, self._powers = weights.shape, powers
        self._factors = factors[:-1].to(dtype)
        self._readout, self._decay = powers[1:].to(dtype), powers[-1].to(dtype).unsqueeze(1)
        self._intake = powers[:-1].flip(0).T.to(dtype).contiguous()
        self._modes: Tensor | None = None  # (K, states)
        self._partners: Tensor | None = (
            None  # (BLOCK, states), what the sums of this block were multiplied by
        )
        self._in_near = factors.new_zeros((BLOCK, *factors.shape[1:]))
        self._in_factors = torch.zeros_like(factors[:-1])

    def _finish(self, block: Tensor) -> Tensor:
        self._settle()
        arrived = self._intake @ block
        self._modes = arrived if self._modes is None else arrived.addcmul_(self._decay, self._modes)
        return self._readout @ (self._spread(self._factors) * self._modes)

    def _spread(self, weights: Tensor) -> Tensor:
        """Give weights ``(K, *)`` one column, or one for each state."""
        if weights.dim() == 1:
            return weights.unsqueeze(1)
        return per_element(weights, len(self._state) + 1).expand(-1, *self._state).flatten(1)

    def _erase(self, where: Tensor) -> None:
        self._settle()
        if self._modes is not None:
            self._modes.masked_fill_(where, 0.0)

    def pair(self, item: Tensor, less: Tensor | None = None) -> None:
        assert self._block is not None
        if self._partners is None:
            self._partners = torch.zeros_like(self._block)
        put(item, less, self._partners[self._filled - 1].reshape(self._state))

    def _settle(self) -> None:
        """Add what the pairs of this block give for the gradients in the near kernel and in the factors."""
        if self._partners is None:
            return
        assert self._block is not None
        n = self._filled
        items, partners = (x[:n].reshape(n, *self._state) for x in (self._block, self._partners))
        self._in_near[:n] += short_correlation(items, partners, self._in_near[:n].shape)
        if self._modes is not None:
            far = (self._readout.T @ self._partners) * self._modes
            self._in_factors += sum_to(far.reshape(-1, *self._state), self._in_factors.shape)
        self._partners.zero_()

    def paired(self) -> Tensor:
        self._settle()
        near = self._in_near.reshape(BLOCK, -1)
        in_factors = self._in_factors.reshape(-1, near.shape[1]) + self._powers[:-1].T @ near
        pairs = torch.cat([in_factors, near[:1]]).reshape(-1, *self._shape[1:])
        return torch.cat([torch.zeros_like(pairs), pairs])  # the decays are fixed


def _near(powers: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of exponentials at lags 1, 2, ..., ``(len(powers) - 1, *)``."""
    near = (powers[:-1] @ factors[:-1].reshape(powers.shape[1], -1)).reshape(-1, *factors.shape[1:])
    return torch.cat([near[:1] + factors[-1:], near[1:]])


def _decays(rates: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``exp(-rates)``, such that the decay of a whole block, which acts again and again, is exact."""
    block = torch.exp(-BLOCK * rates).to(dtype).double()
    return torch.where(block > torch.finfo(dtype).tiny, block ** (1 / BLOCK), torch.exp(-rates))


@lru_cache(maxsize=128)
def _powers(
    lags: int, modes: int, fastest: float, slowest: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return log-uniform decays ``(K,)`` and what is left of each at the sampled lags, for any kernel."""
    with torch.inference_mode(False):  # what is kept must serve a later training too
        rates = torch.logspace(math.log10(slowest / lags), math.log10(fastest), modes, dtype=torch.float64)
        decays = _decays(rates, dtype)
        return decays, decays ** _sampled_lags(lags).double().unsqueeze(1)


def _mode_counts(lags: int, tol: float) -> list[int]:
    """Return the numbers of modes to try, from what the tolerance will surely need."""
    count = max(4, min(lags, int(0.75 * math.log10(1 / tol) * (1 + 0.6 * math.log10(lags + 1)))))
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


def _quality(powers: Tensor, weights: Tensor, columns: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest relative error, with rounding to ``dtype``, and the amplification of rounding."""
    scale = _scale(columns)
    sizes = powers @ weights.abs()
    rounding = 0.5 * torch.finfo(dtype).eps * sizes
    error = (((powers @ weights - columns).abs() + rounding) / scale).max()
    return float(error), float((sizes / scale).max())


def _certificate(decays: Tensor, weights: Tensor, columns: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Return the same over every lag."""
    error = amplification = 0.0
    for start in range(min(2, len(columns) - 1), len(columns), 4096):
        part = columns[start : start + 4096]
        lag = torch.arange(start, start + len(part), dtype=torch.float64)
        here = _quality(decays ** lag.unsqueeze(1), weights, part, dtype)
        error, amplification = max(error, here[0]), max(amplification, here[1])
    return error, amplification
