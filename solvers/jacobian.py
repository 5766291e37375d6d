r"""The derivative of a root of :math:`y = \text{base} + g\, f(y)`, by the implicit function theorem.

With the Jacobian J of the field f at the root, the gradient :math:`\mu` in the base follows from the gradient
u in the root by :math:`(I - gJ)^T \mu = u`. J is never formed: the graph of the field at the root gives
its products. Where J is diagonal, as with neurons, two of them show all of it.

Source: Bai, Kolter and Koltun (2019), NeurIPS, theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .gradient import Passes
from .iterate import CLOSE, ROUNDING, SELDOM, SINGULAR, Forecast, Guide, Mixing, alike, damping, largest, met

Field = Callable[[Tensor], Tensor]

PRODUCTS = 5  # with a diagonal Jacobian, before mixing is tried
MIXED = 30  # products, before the whole Jacobian is formed
LARGEST_JACOBIAN = 2048  # states for which the whole Jacobian is still formed


class Hints:
    """What helps from one step of a backward pass to the next.

    Attributes:
        forecast: of the product with the Jacobian.
        slopes: where Jacobians are diagonal.
    """

    def __init__(self) -> None:
        self._passes = Passes()

    def now(self) -> Hints:
        """Return itself; in a new pass it has forgotten all, so that each gives the same."""
        if self._passes.begins():
            self.forecast, self.slopes = Forecast(), Slopes()
        return self


class Root(NamedTuple):
    """A root, and the graph of the field there, which is its Jacobian J.

    Attributes:
        at: the root, where the graph begins.
        edge: where the graph ends; None if there is none.
        gain: what multiplies the field.
        guide: of the way to it.
        hints: from the steps after it in the same backward pass.
    """

    at: Tensor
    edge: GradientEdge | None
    gain: Tensor
    guide: Guide
    hints: Hints

    def pull_back(self, upstream: Tensor) -> Tensor:
        r"""Return the gradient in the known part, :math:`\mu` with :math:`(I - gJ)^T \mu` = upstream.

        That is itself an equation of the form y = base + g f(y).
        """
        inverse, diagonal = self.guide
        solution = _by_slopes(self.product, upstream, inverse) if diagonal else None
        if solution is None:
            solution = _by_mixing(self.product, upstream, inverse, self.hints.now().forecast)
        return _by_matrix(self.product, upstream) if solution is None else solution

    def product(self, mu: Tensor) -> Tensor:
        r"""Return :math:`(gJ)^T \mu`."""
        with _awake([self.at]):
            return transposed(self.edge, self.at, self.gain)(mu)


class Roots(NamedTuple):
    """The roots of successive steps, whose Jacobians are looked at together.

    Attributes:
        at: the roots, oldest first.
        edge: where the graph of all rates, stacked, ends; None if there is none.
        gain: what multiplies the field.
        guide: of the way to them.
        hints: from the steps after them in the same backward pass.
    """

    at: Sequence[Tensor]
    edge: GradientEdge | None
    gain: Tensor
    guide: Guide
    hints: Hints

    def one(self, i: int) -> Root:
        """Return the root of one step."""
        node, number = (None, 0) if self.edge is None else self.edge.node.next_functions[i]
        edge = None if node is None else GradientEdge(node, number)
        return Root(self.at[i], edge, self.gain, self.guide, self.hints)

    def slopes(self) -> tuple[Tensor, Tensor] | None:
        """See :meth:`Slopes.of`."""
        return self.hints.now().slopes.of(self)

    def products(self, direction: Tensor) -> Tensor:
        """Return the product of ``direction`` with each Jacobian transposed, ``(n, *)``."""
        if self.edge is None:
            return torch.zeros_like(torch.stack(list(self.at)))
        with _awake(self.at):
            upstream = direction.expand(len(self.at), *self.at[0].shape)
            found = torch.autograd.grad(self.edge, self.at, upstream, retain_graph=True, allow_unused=True)
        pairs = zip(found, self.at, strict=True)
        return torch.stack([torch.zeros_like(at) if product is None else product for product, at in pairs])


class Slopes:
    r"""The diagonals of the Jacobians of many steps, found without a look at each.

    J is diagonal if what it does to a vector r without any pattern is r times what it does to ones. Then
    :math:`(I - gJ)^T \mu = u` is solved by a division, and no step waits for another's Jacobian.
    """

    def __init__(self) -> None:
        self._probe: Tensor | None = None
        self._last: Tensor | None = None
        self._wait = 0

    def of(self, roots: Roots) -> tuple[Tensor, Tensor] | None:
        """Return the diagonals of gJ and of the inverse of I - gJ, ``(n, *)``; None if J is not diagonal."""
        self._wait -= 1
        if self._wait > 0:
            return None
        at, gain = roots.at[0], roots.gain
        probe = self._pattern(at)
        images = roots.products(gain * probe)
        slopes = self._last
        if slopes is None or not alike(images, slopes * probe, CLOSE):
            slopes = roots.products(gain.expand(at.shape))
            if not alike(images, slopes * probe, ROUNDING):
                self._wait = SELDOM
                return None
            self._last = slopes[0]  # the nearest to the steps that are asked for next, which are earlier
        inverse = 1 - slopes
        if not float(torch.aminmax(inverse.abs())[0]) > SINGULAR:
            return None
        shape = (len(roots.at), *at.shape)
        return slopes.expand(shape), inverse.reciprocal_().expand(shape)

    def _pattern(self, like: Tensor) -> Tensor:
        if self._probe is None:
            generator = torch.Generator().manual_seed(0)
            signs = torch.rand(like.shape, generator=generator).to(like) - 0.5
            self._probe = signs + signs.sign() / 2
        return self._probe


@contextmanager
def _awake(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Let ``leaves`` have gradients; what the engine's own pass brings to them later is not kept."""
    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)


def evaluate(field: Field, y: Tensor, room: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return ``y`` as the start of a graph, and the field there; no graph where none is wanted."""
    if not torch.is_grad_enabled():
        return y, field(y)
    at = (y if room is None else room.copy_(y)).detach().requires_grad_()
    return at, field(at)


def edge_of(rate: Tensor) -> GradientEdge | None:
    """Return where the graph of ``rate`` ends; None if there is none."""
    return get_gradient_edge(rate) if rate.requires_grad else None


def depends_on_more(rate: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Return whether the graph of ``rate`` begins elsewhere than at ``leaves``: with parameters, say."""
    own = {id(leaf) for leaf in leaves}
    nodes, seen = [rate.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in own:
            return True
        nodes.extend(following for following, _ in node.next_functions)
    return rate.is_leaf and rate.requires_grad and id(rate) not in own


def transposed(rate: GradientEdge | None, at: Tensor, gain: Tensor) -> Field:
    """Return ``mu -> (gain J)^T mu``."""

    def product(mu: Tensor) -> Tensor:
        if rate is None:
            return torch.zeros_like(mu)
        (found,) = torch.autograd.grad(rate, at, gain * mu, retain_graph=True, allow_unused=True)
        result: Tensor = torch.zeros_like(mu) if found is None else found  # the field may not depend on y
        return result

    return product


def look(field: Field, y: Tensor, gain: Tensor) -> Guide:
    """Return what the slope at ``y`` says."""
    with torch.enable_grad():
        at, rate = evaluate(field, y)
    product = transposed(edge_of(rate), at, gain)
    sums = product(torch.ones_like(y))  # of columns
    signs = torch.where(torch.arange(y.numel(), device=y.device) % 2 == 0, 1.0, -1.0).to(y).reshape(y.shape)
    diagonal = torch.allclose(product(signs), signs * sums, rtol=1e-3, atol=1e-6)
    return Guide(damping(sums) if diagonal else torch.ones_like(y), diagonal)


def matrix(product: Field, like: Tensor) -> Tensor:
    """Return the matrix whose rows are the products with the unit vectors: ``gain J``."""
    size = like.numel()
    if size > LARGEST_JACOBIAN:
        raise RuntimeError(
            f"the implicit step did not converge, and {size} states are too many for the whole Jacobian; "
            "use a smaller time step or an explicit method"
        )
    units = torch.eye(size, dtype=like.dtype, device=like.device)
    return torch.stack([product(unit.reshape(like.shape)).reshape(-1) for unit in units])


def _by_slopes(product: Field, upstream: Tensor, inverse: Tensor) -> Tensor | None:
    mu, before = inverse * upstream, math.inf
    for _ in range(PRODUCTS):
        residual = (product(mu) + upstream).sub_(mu)
        size = largest(residual)
        if met(size, upstream, mu, before=before):
            return mu
        if size > math.sqrt(torch.finfo(mu.dtype).eps) * largest(upstream):  # the slope has grown stale
            inverse = damping(product(torch.ones_like(mu)))
            mu = inverse * upstream
        else:
            mu, before = torch.addcmul(mu, inverse, residual), size
    return None


def _by_mixing(product: Field, upstream: Tensor, inverse: Tensor, forecast: Forecast) -> Tensor | None:
    mixing, foreseen, before = Mixing(inverse), forecast.rate(), math.inf
    mu = upstream if foreseen is None else upstream + foreseen
    for step in range(MIXED):
        image = product(mu)
        residual = (image + upstream).sub_(mu)
        size = largest(residual)
        if met(size, upstream, mu, before=before):
            forecast.learn(image, foreseen, right=foreseen is not None and step == 0)
            return mu
        mu, before = mixing.next(mu, residual), size
    return None


def _by_matrix(product: Field, upstream: Tensor) -> Tensor:
    size = upstream.numel()
    rows = matrix(product, upstream)
    solution: Tensor = torch.linalg.solve(torch.eye(size).to(rows) - rows.T, upstream.reshape(size))
    return solution.reshape(upstream.shape)
