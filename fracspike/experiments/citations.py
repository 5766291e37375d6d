r"""Citation graphs as spike trains: one hop of convolution, then a coin for each word and step.

.. math:: H = D^{-1/2}(A + I)D^{-1/2}X, \qquad P[\text{spike}] = \min(\max(z(H), 0), 1)

with z the score of each column. Most words of most papers have z < 0 and never spike, and most of the rest
have z > 1 and always do. So a spike train is kept as its certain and its uncertain words, and only the
latter are drawn: 8 of 1000 entries for Cora, 4 for Citeseer.

Source: Zhu et al. (2022), Spiking graph convolutional networks, IJCAI; the protocol of Ge et al. (2026),
arXiv:2507.16937.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse
from torch import Tensor

from fracspike.data.planetoid import Graph
from fracspike.solvers import checks

Split = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Words:
    """The words of some papers, to be drawn as spikes.

    Attributes:
        probability: sparse ``(N, F)``; what is not stored never spikes, 1 always does.
    """

    probability: sparse.csr_matrix

    def of(self, papers: NDArray[np.int64]) -> Words:
        """Return the words of some of the papers."""
        return Words(self.probability[papers])

    @property
    def certain(self) -> float:
        """The share of the words that can spike which spike at every step."""
        return float((self.probability.data >= 1.0).mean())

    def currents(self, weight: Tensor, steps: int) -> Tensor:
        r"""Return :math:`W s_t` for spikes drawn afresh at each step, by torch's random state.

        Args:
            weight: ``(F, C)``.
            steps: how many steps T.

        Returns:
            ``(T, N, C)``; a gradient flows to ``weight``.
        """
        constant = _product(self._always, weight)
        sometimes = self._sometimes
        papers = sometimes.shape[0]
        fast = np.random.default_rng(int(torch.randint(2**62, ())))  # torch's own takes five times as long
        draws = fast.random((steps, sometimes.nnz), dtype=np.float32) <= sometimes.data
        before = np.pad(draws.cumsum(dtype=np.int64), (1, 0))  # spikes before each draw, for where rows start
        starts = np.append(np.arange(steps)[:, None] * sometimes.nnz + sometimes.indptr[:-1], draws.size)
        entry = np.flatnonzero(draws) % max(sometimes.nnz, 1)
        drawn = (np.ones(len(entry), np.float32), sometimes.indices[entry], before[starts])
        spikes = sparse.csr_matrix(drawn, shape=(steps * papers, sometimes.shape[1]))
        return constant + _product(spikes, weight).view(steps, papers, -1)

    @cached_property
    def _always(self) -> sparse.csr_matrix:
        return sparse.csr_matrix(self.probability >= 1.0, dtype=np.float32)

    @cached_property
    def _sometimes(self) -> sparse.csr_matrix:
        rest = self.probability.astype(np.float32)
        rest.data[rest.data >= 1.0] = 0.0
        rest.eliminate_zeros()
        return rest


def _product(matrix: sparse.csr_matrix, weight: Tensor) -> Tensor:
    product: Tensor = _Product.apply(weight, matrix)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """A sparse matrix times a weight: SciPy's, ten times as fast here as torch's own."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, matrix: sparse.csr_matrix) -> Tensor:
        ctx.matrix = matrix
        return torch.from_numpy(matrix @ weight.detach().numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.matrix.T @ grad.numpy()), None


def words(graph: Graph, positions: int = 0, seed: int = 0) -> Words:
    """Return the words of every paper, smoothed over its neighbours and scored.

    Args:
        graph: papers and citations.
        positions: further columns that say where in the graph a paper is, half of them eigenvectors
            of its Laplacian, half probabilities of return of a random walk; an even number.
        seed: of the signs of the eigenvectors, which are arbitrary.
    """
    scaled = normalised(graph.adjacency + sparse.identity(len(graph.labels), format="csr"))
    smooth = (scaled @ graph.features.astype(np.float64)).toarray()
    scores = (smooth - smooth.mean(0)) / (smooth.std(0, ddof=1) + 1e-8)
    if positions:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), positions // 2)
        where = (laplacian(graph, positions // 2) * signs, walk(graph, positions // 2))
        scores = np.hstack((scores, *where))
    return Words(sparse.csr_matrix(scores.clip(0.0, 1.0)))


def normalised(adjacency: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return :math:`D^{-1/2} A D^{-1/2}`; papers without neighbours keep zeros."""
    degree = np.asarray(adjacency.sum(1), dtype=np.float64).ravel()
    scale = sparse.diags(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    return sparse.csr_matrix(scale @ adjacency @ scale)


def laplacian(graph: Graph, columns: int) -> NDArray[np.float64]:
    """Return eigenvectors of the normalised Laplacian, ``(N, columns)``, the smallest eigenvalue left out."""
    full = np.eye(len(graph.labels)) - normalised(graph.adjacency).toarray()
    _, vectors = linalg.eigh(full, subset_by_index=(1, columns))
    found: NDArray[np.float64] = vectors
    return found


def walk(graph: Graph, columns: int) -> NDArray[np.float64]:
    """Return the probabilities that a random walk is back after 1, 2, ... steps: ``(N, columns)``."""
    degree = np.asarray(graph.adjacency.sum(0), dtype=np.float64).ravel()
    inverse = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    step = (graph.adjacency.astype(np.float64) @ sparse.diags(inverse)).tocsr()
    power, back = step.toarray(), []
    for _ in range(columns):
        back.append(power.diagonal())
        power = step @ power
    return np.stack(back, axis=1)


def split(labels: NDArray[np.int64], shares: tuple[float, float], seed: int) -> Split:
    """Return the papers to learn from, to validate and to test, every class in the same shares.

    Args:
        labels: ``(N,)``; papers labelled -1 are in no part.
        shares: to learn from, to validate; the rest is for testing.
        seed: decides the split.
    """
    checks.real("shares", sum(shares), above=0.0, at_most=1.0)
    random = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for label in np.unique(labels[labels >= 0]):
        members = random.permutation(np.flatnonzero(labels == label))
        first = int(shares[0] * len(members))
        second = first + int(shares[1] * len(members))
        for part, chosen in zip(parts, np.split(members, (first, second)), strict=True):
            part.append(chosen)
    learn, validate, test = (np.sort(np.concatenate(part)) for part in parts)
    return learn, validate, test
