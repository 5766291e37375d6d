r"""Relaxation as a sum of exponentials: a fractional membrane is a few ordinary ones.

The relaxation function :math:`E(t) = E_\alpha(-(t/\tau)^\alpha)` is completely monotone, a mixture of
exponentials, and a short sum of them meets it to any tolerance over any finite range of lags,

.. math:: E(m\,h) \approx \sum_k w_k(\alpha)\, d_k^m, \qquad d_k = e^{-\rho_k h/\tau}, \qquad \sum_k w_k = 1.

The rates :math:`\rho_k`, in units of :math:`1/\tau`, are a fixed logarithmic grid. Since E depends on time
through :math:`t/\tau` alone, the weights depend on alpha alone, for every time constant and step. One mode
has ``d = 0``: it closes the sum of the weights to 1, so that lag 0 is exact whatever the drop before lag 1.
For orders near 1, whose spectrum narrows to a line at :math:`\rho = 1`, a few rates cluster there.

**How it is fitted.** Least squares on log-spaced times, with the error of E relative to E and to 1 - E at
once: the first is what a decay from an initial value needs, the second what a rise from rest needs. On a
patch of orders the fit is one linear map of E, so the weights are interpolated between Chebyshev nodes in
alpha and differentiated there: thousands of orders cost one small matrix product.

**How it is differentiated.** In alpha through the weights. In tau two ways: through the decays, which is
exact for the sum; or with decays held fixed, by the same fit (`Grid.slopes`) of

.. math:: \partial E/\partial \log\tau = (t/\tau)^\alpha E_{\alpha,\alpha}(-(t/\tau)^\alpha),

exact for E to the tolerance, and then all that counts is what multiplies the weights of the modes.

References:
    I. Podlubny (1999), Fractional Differential Equations, section 4.1, for the solution; R. Gorenflo and
    F. Mainardi (1997), for complete monotonicity; C. Lubich and A. Schaedle (2002), SIAM J. Sci. Comput.
    24(1), for sums of exponentials in place of a history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .mittag_leffler import mittag_leffler

FLOOR = 1e-6  # E below this is met to tol * FLOOR, absolutely: alpha = 1 soon falls below any number
LEAST = 1e-13  # what tol * FLOOR is raised to, because float64 can hold no more; ...
ROUNDING = 3e-15  # ... and how closely 1 - E can be held
NARROW = 0.7  # orders above this have rates that crowd around 1 ...
CLUSTER = ((0.1, 0.3), (0.05, 0.15, 0.3, 0.5))  # ... at these distances in log rate: few, or many if ...
DENSE = 5.0  # ... there are more rates a decade than this
PATCHES = 10  # the orders (0, 1] are cut into so many patches
NODES = 14  # Chebyshev nodes of a patch
_DEGREES = np.arange(NODES, dtype=np.float64)
TIMES = 50  # times a decade at which a fit is made
CELL = 5.0  # steps are gathered into cells, so many to a decade, that share a grid
#: slowest rate over the whole time and fastest rate a step, tried in turn
ENDS = ((0.3, 8.0), (0.1, 8.0), (0.1, 16.0), (0.03, 32.0), (0.01, 32.0))
MOST_PER_DECADE = 12.0
MOST_AMPLIFICATION = 1e5  # largest allowed sum |w_k| d_k^m / E: rounding is multiplied by it


@dataclass(frozen=True)
class Grid:
    """Fixed rates, and the range of times over which they are fitted; times are in units of tau.

    Attributes:
        tol: largest relative error asked for.
        first: smallest time (one step).
        last: largest time (all steps of the horizon).
        density: rates per decade.
        slowest: slowest rate, times ``last``.
        fastest: fastest rate, times ``first``.
        narrow: whether rates crowd around 1, for orders near 1.
    """

    tol: float
    first: float
    last: float
    density: float
    slowest: float
    fastest: float
    narrow: bool

    @property
    def rates(self) -> Tensor:
        r"""Rates :math:`\rho_k`, slowest first, then the one of the mode that decays at once: ``(K,)``."""
        return _rates(self)

    @property
    def modes(self) -> int:
        """The number of exponentials."""
        return len(self.rates)

    def losses(self, step: Tensor) -> Tensor:
        """Return ``1 - d``, the part that a mode loses in a step (in units of tau): ``(K, *)``, float64.

        Not ``d`` itself: the slow modes lose so little that rounding ``d`` would change their rate.
        """
        rates = self.rates[:-1].to(step.device).reshape(-1, *([1] * step.dim()))
        lost = -torch.expm1(-rates * step.double())
        return torch.cat([lost, torch.ones_like(lost[:1])])

    def weights(self, alpha: Tensor) -> Tensor:
        """Return the weights of E for orders of any shape: ``(K, *)``, float64, differentiable."""
        return self._interpolate(alpha)[: self.modes]

    def slopes(self, alpha: Tensor) -> Tensor:
        """Return the weights of dE/dlog(tau) at fixed decays: ``(K, *)``, float64, sum 0."""
        return self._interpolate(alpha)[self.modes :]

    def tangents(self, alpha: Tensor) -> Tensor:
        """Return the derivatives of the weights of E in alpha: ``(K, *)``, float64, sum 0."""
        return self.directions(alpha)[1]

    def directions(self, alpha: Tensor) -> Tensor:
        """Return weights, tangents and slopes, ``(3, K, *)``, without a graph, for the price of one."""
        order = alpha.detach().double()
        found = _patches_of(order)
        if len(found) > 1 or order.device.type != "cpu":
            together = self._interpolate(order, tangents=True)
        else:  # NumPy takes a third of the time of torch for a few numbers
            together = torch.from_numpy(_evaluate(_table(self, found[0]), order.numpy(), True, np))
        return together.reshape(3, self.modes, *alpha.shape)

    def tables(self, low: float, high: float) -> tuple[int, list[_Table]]:
        """Return the index of the first patch of orders from ``low`` to ``high``, and the patches' tables."""
        patches = _patches_of(torch.tensor([low, high], dtype=torch.float64))
        first, last = min(patches), max(patches)
        return first, [_table(self, p) for p in range(first, last + 1)]

    def error(self, alpha: Tensor) -> float:
        """Return the certificate: the largest relative error of E (and 1 - E) on the patches of ``alpha``."""
        return max(_table(self, p).error for p in _patches_of(alpha))

    def amplification(self, alpha: Tensor) -> float:
        """Return what rounding errors of the modes are multiplied by, relative to E (and 1 - E)."""
        return max(_table(self, p).amplification for p in _patches_of(alpha))

    def _interpolate(self, alpha: Tensor, *, tangents: bool = False) -> Tensor:
        order = alpha.double()
        found = _patches_of(order)
        if len(found) == 1:
            evaluated: Tensor = _evaluate(_table(self, found[0]), order, tangents, torch)
            return evaluated
        flat, index = order.reshape(-1), _patch_index(order.detach().reshape(-1))
        rows = (2 + tangents) * self.modes
        result = torch.zeros(rows, len(flat), dtype=torch.float64, device=order.device)
        for patch in found:
            where = (index == patch).nonzero()[:, 0]
            result = result.index_copy(1, where, _evaluate(_table(self, patch), flat[where], tangents, torch))
        return result.reshape(-1, *order.shape)


torch.serialization.add_safe_globals([Grid])  # plain data, which torch.load takes with weights_only


def choose(alpha: Tensor, step: Tensor, horizon: int, tol: float) -> Grid:
    """Return the smallest grid found whose error is at most ``tol`` at every lag up to ``horizon``.

    Args:
        alpha: orders in (0, 1].
        step: time steps in units of tau, > 0.
        horizon: the largest lag.
        tol: largest relative error.

    Raises:
        ValueError: if no grid meets the tolerance.

    >>> import torch
    >>> grid = choose(torch.tensor(0.6), torch.tensor(0.5), horizon=10_000, tol=1e-6)
    >>> grid.modes < 30, grid.error(torch.tensor(0.6)) < 1e-6
    (True, True)
    """
    low, high = (float(v) for v in torch.aminmax(step.detach().double()))
    cells = math.floor(CELL * math.log10(low) + 1e-9), math.ceil(CELL * math.log10(high) - 1e-9)
    found = _choose(_patches_of(alpha), cells[0], max(cells[1], cells[0] + 1), horizon, tol)
    if found is None:
        raise ValueError(
            f"`tol` must be within reach of float64, got {tol:g} for {horizon} steps; "
            "use a larger tol or Full()"
        )
    return found


@lru_cache(maxsize=256)
def _choose(patches: tuple[int, ...], low: int, high: int, horizon: int, tol: float) -> Grid | None:
    first, last = 10 ** (low / CELL), 10 ** (high / CELL) * horizon
    narrow = (max(patches) + 1) / PATCHES > NARROW + 1e-9
    density = 0.5 * math.log10(1 / tol)
    while density < MOST_PER_DECADE:
        for slowest, fastest in ENDS:
            grid = Grid(tol, first, last, density, slowest, fastest, narrow)
            if all(_meets(grid, p) for p in sorted(patches, reverse=True)):
                return grid
        density += 0.25
    return None


def _meets(grid: Grid, patch: int) -> bool:
    """Return whether the fit is good enough on a patch: first, and quickly, at two of its orders."""
    few = _nodes(patch)[2][[0, NODES // 2]]
    return _good(grid, *_fit(grid, few, slope=False)[1:]) and _good(
        grid, _table(grid, patch).error, _table(grid, patch).amplification
    )


def _good(grid: Grid, error: float, amplification: float) -> bool:
    return error <= grid.tol and amplification <= MOST_AMPLIFICATION


# -- the fit on one patch of orders ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Chebyshev coefficients in alpha of the weights of E and of its slope, each ``(NODES, K)``."""

    centre: float
    half: float
    coefficients: tuple[NDArray[np.float64], NDArray[np.float64]]
    error: float
    amplification: float

    @property
    def both(self) -> NDArray[np.float64]:
        """Coefficients of E and of its slope side by side, ``(NODES, 2 K)``."""
        return np.concatenate(self.coefficients, 1)


@lru_cache(maxsize=64)
def _rates(grid: Grid) -> Tensor:
    gap = math.log(10) / grid.density
    lowest = math.ceil(math.log(grid.slowest / grid.last) / gap)
    highest = math.floor(math.log(grid.fastest / grid.first) / gap)
    places = [gap * k for k in range(lowest, highest + 1)]
    if grid.narrow:
        places += [0.0] * (not lowest <= 0 <= highest)
        places += [s * c for c in CLUSTER[grid.density > DENSE] for s in (-1, 1)]
    return torch.exp(torch.tensor([*sorted(places), math.inf], dtype=torch.float64))


@lru_cache(maxsize=512)
def _table(grid: Grid, patch: int) -> _Table:
    centre, half, orders = _nodes(patch)
    fitted, error, amplification = _fit(grid, orders, slope=True)
    closed = [
        torch.cat([w, total - w.sum(0, keepdim=True)]) for w, total in zip(fitted, (1.0, 0.0), strict=True)
    ]
    transform = _chebyshev()
    coefficients = (transform @ closed[0].T).numpy(), (transform @ closed[1].T).numpy()
    return _Table(centre, half, coefficients, error, amplification)


def _fit(grid: Grid, alpha: Tensor, *, slope: bool) -> tuple[list[Tensor], float, float]:
    """Return the weights of E (and of its slope) for a few orders, ``(K - 1, len(alpha))``, and how good."""
    t = _times(grid.first, grid.last)
    values = [_relaxation(grid.first, grid.last, tuple(alpha.tolist()))]
    fallen, risen = max(FLOOR, min(LEAST / grid.tol, 0.1)), min(ROUNDING / grid.tol, 0.1)
    exact = torch.minimum(values[0].clamp(min=fallen), (1 - values[0]).clamp(min=risen))
    scale = exact.log().mean(1, keepdim=True).exp()
    powers = torch.exp(-grid.rates[:-1] * t.unsqueeze(1))
    u, s, vh = torch.linalg.svd(powers / scale, full_matrices=False)
    inverse = (s / (s**2 + (1e-15 * s[0]) ** 2)).unsqueeze(1)
    if slope:
        power = t.unsqueeze(1) ** alpha
        values.append(power * mittag_leffler(-power, alpha, alpha))
    fitted = [vh.T @ (inverse * (u.T @ (v / scale))) for v in values]
    error = ((powers @ fitted[0] - values[0]).abs() / exact).max()
    amplification = ((powers @ fitted[0].abs()) / exact).max()
    return fitted, float(error), float(amplification)


@lru_cache(maxsize=64)
def _times(first: float, last: float) -> Tensor:
    count = round(TIMES * math.log10(last / first))
    return torch.logspace(math.log10(first), math.log10(last), count, dtype=torch.float64)


@lru_cache(maxsize=64)
def _relaxation(first: float, last: float, alpha: tuple[float, ...]) -> Tensor:
    orders = torch.tensor(alpha, dtype=torch.float64)
    return mittag_leffler(-(_times(first, last).unsqueeze(1) ** orders), orders)


def _nodes(patch: int) -> tuple[float, float, Tensor]:
    """Return centre, half width and Chebyshev nodes; the patch itself lies inside, ends included."""
    angles = math.pi * (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
    outermost = math.cos(0.5 * math.pi / NODES)
    low, high = patch / PATCHES, (patch + 1) / PATCHES
    half = 0.5 * (high - low) / outermost
    centre = 0.5 * (low + high)
    if patch == 0:  # no order is 0
        low, half = 0.0, 0.5 * high / (0.5 + 0.5 * outermost)
        centre = half
    return centre, half, (centre + half * torch.cos(angles)).clamp(max=1.0)


@lru_cache(maxsize=1)
def _chebyshev() -> Tensor:
    """Return the matrix from values at the nodes to Chebyshev coefficients."""
    angles = math.pi * (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
    matrix = torch.cos(torch.arange(NODES, dtype=torch.float64).unsqueeze(1) * angles) * (2 / NODES)
    matrix[0] /= 2
    return matrix


def _evaluate(table: _Table, alpha: Any, tangents: bool, xp: Any) -> Any:
    """Evaluate Chebyshev series at ``alpha``: weights, their tangents if wanted, and slopes: ``(n K, *)``.

    By ``xp``, torch or NumPy, in whose arrays ``alpha`` and the result are.
    """
    angle = xp.arccos(xp.clip((alpha - table.centre) / table.half, -1.0, 1.0))[..., None]
    constants: Any = (_DEGREES, *table.coefficients)
    if xp is torch:
        constants = (torch.from_numpy(x).to(alpha.device) for x in constants)
    degree, weights, slopes = constants
    steps = angle * degree
    values = xp.cos(steps)
    found = [values @ weights, values @ slopes]
    if tangents:  # the derivative of cos(n arccos x)
        found.insert(1, degree * xp.sin(steps) / (xp.sin(angle) * table.half) @ weights)
    return xp.moveaxis(xp.concatenate(found, -1), -1, 0)


def _patch_index(alpha: Tensor) -> Tensor:
    return (alpha * PATCHES).ceil().long().sub(1).clamp(0, PATCHES - 1)


def _patches_of(alpha: Tensor) -> tuple[int, ...]:
    if alpha.numel() == 1:  # as the next lines would find, without a tensor
        return (min(max(math.ceil(alpha.item() * PATCHES) - 1, 0), PATCHES - 1),)
    return tuple(torch.unique(_patch_index(alpha.detach().double().reshape(-1))).tolist())
