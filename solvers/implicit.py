r"""The equation of an implicit step, :math:`y = \text{base} + g\, f(y)`, and its derivative.

The root is found by Newton's method with the diagonal of the Jacobian (exact for a right-hand side
that acts on each element alone, as neurons do), accelerated by Anderson mixing; if that fails, by
Newton's method with the whole Jacobian. It is differentiated by the implicit function theorem,
never through the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .trajectory import Room

Field = Callable[[Tensor], Tensor]

ITERATIONS = 30  # with the diagonal, before the whole Jacobian is formed
MIXING = 6  # how many earlier residuals Anderson mixing combines
NEWTON_STEPS = 30
LARGEST_JACOBIAN = 2048  # states for which the whole Jacobian is still formed
ROUNDING = 16  # a root is met when its residual is this many units of rounding ...
CLOSE = 2  # ... or so few where it was only foreseen: such misses are alike from step to step, and add up
SINGULAR = 1e-3  # entries of the diagonal of I - gJ that are smaller are not divided by
SELDOM = 8  # what has failed is tried again once in so many times


class ImplicitStep:
    """Solves the steps of one march, keeping what the slope gives from one to the next.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49(4) (Anderson mixing); Bai, Kolter and
    Koltun (2019), NeurIPS, theorem 1 (the backward pass).
    """

    def __init__(self) -> None:
        self._damping: Tensor | None = None
        self._forecast = _Forecast()

    def solve(
        self, field: Field, base: Tensor, gain: Tensor, guess: Tensor, room: Room | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the ``y`` with ``y = base + gain * field(y)``, and the rate ``field(y)``.

        Both are differentiable in all that enters.

        Args:
            field: the right-hand side at the new time, ``(*) -> (*)``.
            base: known part, ``(*)``.
            gain: broadcastable to ``base``.
            guess: where to start, ``(*)``.
            room: where both may be put.

        Raises:
            RuntimeError: if the iteration does not meet the root to rounding.
        """
        root, rate = self.root(field, base.detach(), gain.detach(), guess.detach(), room)
        if not torch.is_grad_enabled():
            return root.at, rate
        y, rate = _Root.apply(base, gain, rate, root, room)  # type: ignore[no-untyped-call]
        return y, rate

    def root(
        self, field: Field, base: Tensor, gain: Tensor, guess: Tensor, room: Room | None
    ) -> tuple[Root, Tensor]:
        """Return the root, and the field there with its graph; the arguments have none."""
        if self._damping is None:
            self._damping = _damping(_diagonal(field, guess, gain))
        mixing: _Mixing | None = None
        if (foreseen := self._forecast.rate()) is not None:
            first = torch.addcmul(base, gain, foreseen, out=None if room is None else room.y)
            at, rate = _evaluate(field, first, room)
            residual, size, met = _residual(base, torch.addcmul(base, gain, rate.detach()), first, CLOSE)
            if met:
                return self._met(at, rate, gain, foreseen=True)
            if math.isfinite(size):
                mixing = _Mixing(self._damping)
                y = mixing.next(first.clone(), residual)  # the room is needed again
        if mixing is None:
            mixing = _Mixing(self._damping)
            with torch.no_grad():  # the guess is rarely the root: no graph there, and no judgement
                y = mixing.next(guess, torch.addcmul(base, gain, field(guess)).sub_(guess))
        for iteration in range(ITERATIONS):
            at, rate = _evaluate(field, y, room)
            residual, size, met = _residual(base, torch.addcmul(base, gain, rate.detach()), y)
            if met:
                if iteration > 1:  # the slope has grown stale
                    self._damping = _damping(_diagonal(field, y, gain))
                return self._met(at, rate, gain)
            if not math.isfinite(size):
                break
            y = mixing.next(y, residual)
        at, rate = _newton(field, base, gain, guess)
        return self._met(at, rate, gain)

    def _met(self, at: Tensor, rate: Tensor, gain: Tensor, *, foreseen: bool = False) -> tuple[Root, Tensor]:
        self._forecast.learn(rate.detach(), right=foreseen)
        assert self._damping is not None
        return Root(at, _edge(rate), gain, self._damping), rate


class _Forecast:
    """The next rate, extrapolated: where the solution is smooth, the root is met at the first evaluation.

    With steps of h it misses by O(h^3), in the root by O(h^(3 + alpha)): in single precision rounding, soon
    after the start. As the first evaluation is then made with its graph, it is seldom tried till it is right.
    """

    TERMS = 3

    def __init__(self) -> None:
        self._rates: list[Tensor] = []
        self._right, self._steps = False, 0

    def rate(self) -> Tensor | None:
        """Return the forecast; None if nothing good is to be expected."""
        if len(self._rates) < self.TERMS or not (self._right or self._steps % SELDOM == 0):
            return None
        third, second, first = self._rates
        return torch.add(third, first - second, alpha=3)

    def learn(self, rate: Tensor, *, right: bool) -> None:
        """Take note of the rate as it was, and whether it had been foreseen."""
        self._rates = [*self._rates, rate][-self.TERMS :]
        self._right, self._steps = right, self._steps + 1


class Root(NamedTuple):
    """A root, and the graph of the field there, which is its Jacobian J.

    Attributes:
        at: the root, where the graph begins.
        edge: where the graph ends; None if there is none.
        gain: what multiplies the field.
        damping: an approximate inverse of the diagonal of I - gain J.
    """

    at: Tensor
    edge: GradientEdge | None
    gain: Tensor
    damping: Tensor

    def pull_back(self, upstream: Tensor) -> Tensor:
        r"""Return the gradient in the known part, :math:`\mu` with :math:`(I - gJ)^T \mu` = upstream.

        That is itself an equation of the form y = base + g f(y).
        """
        with _awake([self.at]):
            return _solve_transposed(_transposed(self.edge, self.at, self.gain), upstream, self.damping)


class Roots(NamedTuple):
    """The roots of successive steps, whose Jacobians are looked at together.

    Attributes:
        each: the roots, oldest first.
        edge: where the graph of all rates, stacked, ends; None if there is none.
    """

    each: Sequence[Root]
    edge: GradientEdge | None

    def products(self, direction: Tensor) -> Tensor:
        """Return the product of ``direction`` with each Jacobian transposed, ``(n, *)``."""
        at = [root.at for root in self.each]
        if self.edge is None:
            return torch.zeros_like(torch.stack(at))
        with _awake(at):
            upstream = direction.expand(len(at), *at[0].shape)
            found = torch.autograd.grad(self.edge, at, upstream, retain_graph=True, allow_unused=True)
        return torch.stack([torch.zeros_like(x) if f is None else f for f, x in zip(found, at, strict=True)])


class Slopes:
    r"""The diagonals of the Jacobians of many steps, found without a look at each.

    A Jacobian J is diagonal if what it does to a vector r without any pattern is r times what it does to
    ones. Then :math:`(I - gJ)^T \mu = u` is solved by a division, and no step waits for another's Jacobian.
    """

    def __init__(self) -> None:
        self._probe: Tensor | None = None
        self._last: Tensor | None = None
        self._wait = 0

    def inverses(self, roots: Roots) -> Tensor | None:
        """Return the diagonal of the inverse of I - gJ of each step, ``(n, *)``; None if J is not diagonal."""
        self._wait -= 1
        if self._wait > 0:
            return None
        at, gain = roots.each[0].at, roots.each[0].gain
        probe = self._pattern(at)
        images = roots.products(gain * probe)
        slopes = self._last
        if slopes is None or not _alike(images, slopes * probe, CLOSE):
            slopes = roots.products(gain.expand(at.shape))
            if not _alike(images, slopes * probe, ROUNDING):
                self._wait = SELDOM
                return None
            self._last = slopes[0]  # the nearest to the steps that are asked for next, which are earlier
        inverse = 1 - slopes
        if not _smallest(inverse) > SINGULAR:
            return None
        return inverse.reciprocal_().expand(len(roots.each), *at.shape)

    def _pattern(self, like: Tensor) -> Tensor:
        if self._probe is None:
            generator = torch.Generator().manual_seed(0)
            signs = torch.rand(like.shape, generator=generator).to(like) - 0.5
            self._probe = signs + signs.sign() / 2
        return self._probe


@contextmanager
def _awake(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Let ``leaves`` have gradients here, and afterwards forget what the engine's own pass brings to them."""
    for leaf in leaves:
        leaf.requires_grad_(True)
    yield
    for leaf in leaves:
        leaf.requires_grad_(False)


class _Root(torch.autograd.Function):
    """The root, and the rate there, as functions of base, gain and the field's own parameters."""

    @staticmethod
    def forward(
        ctx: Any, base: Tensor, gain: Tensor, rate: Tensor, root: Root, room: Room | None
    ) -> tuple[Tensor, Tensor]:
        value = rate.data if room is None or room.rate is None else room.rate.copy_(rate)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gain, value if ctx.needs_input_grad[1] else None)
        ctx.root = root
        return root.at.data, value.data  # aliases, not copies

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, in_rate: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "implicit steps give first derivatives only; use an explicit method with gradient='autograd' "
                "to differentiate twice"
            )
        gain, rate = ctx.saved_tensors
        if in_rate is not None:  # the rate is (y - base) / gain
            direct = in_rate / gain
            upstream = direct if upstream is None else upstream + direct
        if upstream is None:
            return (None,) * 5
        mu = ctx.root.pull_back(upstream)
        in_base = mu if in_rate is None else mu - direct
        in_gain = (in_base * rate).sum_to_size(gain.shape) if ctx.needs_input_grad[1] else None
        return in_base, in_gain, gain * mu if ctx.needs_input_grad[2] else None, None, None


def _evaluate(field: Field, y: Tensor, room: Room | None = None) -> tuple[Tensor, Tensor]:
    """Return ``y`` as the start of a graph, and the field there; no graph where none is wanted."""
    if not torch.is_grad_enabled():
        return y, field(y)
    at = (y if room is None else room.y.copy_(y)).detach().requires_grad_()
    return at, field(at)


def _residual(base: Tensor, image: Tensor, y: Tensor, units: int = ROUNDING) -> tuple[Tensor, float, bool]:
    """Return the residual of ``y = image``, its largest entry, and whether that is but rounding.

    ``image`` is ``base`` and what depends on ``y``; the residual takes its place.
    """
    residual = image.sub_(y)
    size, info = _largest(residual), torch.finfo(base.dtype)
    unit = units * info.eps
    met = size <= unit * (_largest(base) + info.tiny) or size <= unit * (_largest(y) + info.tiny)
    return residual, size, met


def _largest(x: Tensor) -> float:
    """Return the largest size of an entry, NaN if one is; ten times faster than the norm of that name."""
    least, most = torch.aminmax(x)
    return max(-float(least), float(most))


def _smallest(x: Tensor) -> float:
    """Return the smallest size of an entry, NaN if one is."""
    return float(torch.aminmax(x.abs())[0])


def _alike(x: Tensor, y: Tensor, units: int) -> bool:
    """Return whether no entry of x differs from y by more than rounding of 1 + y."""
    unit = units * torch.finfo(x.dtype).eps
    return float(torch.aminmax((x - y).abs_().sub_(unit * y.abs()))[1]) <= unit


def _transposed(rate: GradientEdge | None, at: Tensor, gain: Tensor) -> Field:
    """Return ``mu -> (gain J)^T mu``."""

    def product(mu: Tensor) -> Tensor:
        if rate is None:
            return torch.zeros_like(mu)
        (found,) = torch.autograd.grad(rate, at, gain * mu, retain_graph=True, allow_unused=True)
        result: Tensor = torch.zeros_like(mu) if found is None else found  # the field may not depend on y
        return result

    return product


def _edge(rate: Tensor) -> GradientEdge | None:
    return get_gradient_edge(rate) if rate.requires_grad else None


def _diagonal(field: Field, y: Tensor, gain: Tensor) -> Tensor:
    """Return the column sums of ``gain J``, which are its diagonal if it is diagonal; else zero."""
    with torch.enable_grad():
        at, rate = _evaluate(field, y)
    product = _transposed(_edge(rate), at, gain)
    sums = product(torch.ones_like(y))
    signs = torch.where(torch.arange(y.numel(), device=y.device) % 2 == 0, 1.0, -1.0).to(y).reshape(y.shape)
    diagonal = torch.allclose(product(signs), signs * sums, rtol=1e-3, atol=1e-6)
    return sums if diagonal else torch.zeros_like(sums)


def _solve_transposed(product: Field, upstream: Tensor, damping: Tensor) -> Tensor:
    mixing = _Mixing(damping)
    mu = mixing.next(upstream.new_zeros(()), upstream)
    for _ in range(ITERATIONS):
        residual, _size, met = _residual(upstream, upstream + product(mu), mu)
        if met:
            return mu
        mu = mixing.next(mu, residual)
    size = upstream.numel()
    matrix = _rows(product, upstream)
    solution: Tensor = torch.linalg.solve(torch.eye(size).to(matrix) - matrix.T, upstream.reshape(size))
    return solution.reshape(upstream.shape)


def _newton(field: Field, base: Tensor, gain: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    y, best = guess, float("inf")
    for _ in range(NEWTON_STEPS):
        with torch.enable_grad():
            at, rate = _evaluate(field, y)
        residual, best, met = _residual(base, torch.addcmul(base, gain, rate.detach()), y)
        if met:
            return _evaluate(field, y)
        if not best < float("inf") or y.numel() > LARGEST_JACOBIAN:
            break
        matrix = torch.eye(y.numel()).to(y) - _rows(_transposed(_edge(rate), at, gain), y)
        move = torch.linalg.solve(matrix, residual.reshape(-1)).reshape(y.shape)
        if bool(move.abs().max() <= ROUNDING * torch.finfo(y.dtype).eps * y.abs().max()):
            return _evaluate(field, y)  # in a stiff system the residual is rounding long before it is small
        y = y + move
    raise RuntimeError(
        f"the implicit step did not converge: residual {best:.2g}; use a smaller time step, an explicit "
        "method, or check that the right-hand side is finite and continuous"
    )


def _rows(product: Field, like: Tensor) -> Tensor:
    """Return the matrix whose rows are the products with the unit vectors: ``gain J``."""
    size = like.numel()
    if size > LARGEST_JACOBIAN:
        raise RuntimeError(
            f"the implicit step did not converge, and {size} states are too many for the whole Jacobian; "
            "use a smaller time step or an explicit method"
        )
    units = torch.eye(size, dtype=like.dtype, device=like.device)
    return torch.stack([product(unit.reshape(like.shape)).reshape(-1) for unit in units])


def _damping(slope: Tensor) -> Tensor:
    """Return what a residual is multiplied by in Newton's method with this diagonal."""
    return 1 / torch.where((1 - slope).abs() < SINGULAR, torch.ones_like(slope), 1 - slope)


class _Mixing:
    """Newton's method with a given diagonal, and Anderson mixing over the last moves."""

    def __init__(self, damping: Tensor) -> None:
        self._damping = damping
        self._points: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def next(self, y: Tensor, residual: Tensor) -> Tensor:
        self._points.append(y)
        self._residuals.append(residual)
        newest = torch.addcmul(y, self._damping, residual)
        return self._mixed(newest) if len(self._points) > 2 else newest

    def _mixed(self, newest: Tensor) -> Tensor:
        """Combine the last points so that the linearised move is smallest."""
        del self._points[:-MIXING], self._residuals[:-MIXING]
        moves = self._damping * torch.stack(self._residuals)
        changes = (moves[-1] - moves[:-1]).flatten(1).T
        earlier = zip(self._points[:-1], moves[:-1].unbind(0), strict=True)
        steps = torch.stack([newest - (point + move) for point, move in earlier])
        target = moves[-1].reshape(-1, 1)
        # not the default driver of CPUs, gelsy: it gives other last digits at each call
        driver = "gelsd" if changes.device.type == "cpu" else None
        shares = torch.linalg.lstsq(changes.double(), target.double(), driver=driver).solution.squeeze(1)
        mixed = newest - torch.tensordot(shares.to(newest.dtype), steps, dims=1)
        return mixed if bool(torch.isfinite(mixed).all()) else newest
