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
from typing import Any

import numba
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
        certain: sparse ``(M, F)``, what spikes at every step.
        uncertain: sparse ``(M, F)``, probabilities between 0 and 1; what is in neither never spikes.
        papers: which of the M papers, ``(N,)``.
    """

    certain: sparse.csr_matrix
    uncertain: sparse.csr_matrix
    papers: NDArray[np.int64]

    @classmethod
    def of(cls, probability: NDArray[np.float64]) -> Words:
        """Return the words of all papers, given their probabilities ``(M, F)``."""
        certain, uncertain = probability >= 1.0, np.where(probability < 1.0, probability, 0.0)
        papers = np.arange(len(probability))
        return cls(sparse.csr_matrix(certain), sparse.csr_matrix(uncertain, dtype=np.float32), papers)

    @property
    def columns(self) -> int:
        """How many words there are."""
        return int(self.certain.shape[1])

    @property
    def share(self) -> float:
        """The share of the words that can spike which spike at every step."""
        return float(self.certain.nnz / (self.certain.nnz + self.uncertain.nnz))

    def __getitem__(self, chosen: NDArray[np.int64]) -> Words:
        return Words(self.certain, self.uncertain, self.papers[chosen])

    def currents(self, weight: Tensor, steps: int) -> Tensor:
        r"""Return :math:`W s_t` for spikes drawn afresh at each step, by torch's random state.

        Args:
            weight: ``(F, C)``.
            steps: how many steps T.

        Returns:
            ``(T, N, C)``; a gradient flows to ``weight``.
        """
        ends = np.diff(self.uncertain.indptr)[self.papers].cumsum()
        fast = np.random.default_rng(int(torch.randint(2**62, ())))  # torch's own takes five times as long
        draws = fast.random((steps, ends[-1]), dtype=np.float32)
        product: Tensor = _Product.apply(weight, self, draws)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """Drawn words times a weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, words: Words, draws: NDArray[np.float32]) -> Tensor:
        ctx.words, ctx.draws = words, draws
        found = np.zeros((len(draws), len(words.papers), weight.shape[1]), np.float32)
        rows = np.ascontiguousarray(weight.detach().numpy())
        _add(found, rows, *_arrays(words), draws, False)  # type: ignore[call-arg]
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        of_weight = np.zeros((ctx.words.columns, grad.shape[-1]), np.float32)
        arriving = np.ascontiguousarray(grad.numpy())
        _add(arriving, of_weight, *_arrays(ctx.words), ctx.draws, True)  # type: ignore[call-arg]
        return torch.from_numpy(of_weight), None, None


def _arrays(words: Words) -> tuple[NDArray[Any], ...]:
    certain, uncertain = words.certain, words.uncertain
    both = (certain.indptr, certain.indices, uncertain.indptr, uncertain.indices, uncertain.data)
    return (words.papers, *both)


@numba.njit(cache=True)
def _add(  # type: ignore[no-untyped-def]
    current, weight, papers, certain_rows, certain, uncertain_rows, uncertain, probability, draws, back
):
    """Add the rows of ``weight`` that spike to ``current``, or, going back, ``current`` to those rows."""
    steps, _, classes = current.shape
    first = 0  # draw of the paper
    for n in range(len(papers)):
        total = np.zeros(classes, current.dtype)
        rows = certain[certain_rows[papers[n]] : certain_rows[papers[n] + 1]]
        if back:
            for t in range(steps):
                total += current[t, n]
            for row in rows:
                weight[row] += total
        else:
            for row in rows:
                total += weight[row]
            for t in range(steps):
                current[t, n] += total
        begin, end = uncertain_rows[papers[n]], uncertain_rows[papers[n] + 1]
        for t in range(steps):
            for k in range(end - begin):
                if draws[t, first + k] <= probability[begin + k]:
                    row = uncertain[begin + k]
                    for c in range(classes):
                        if back:
                            weight[row, c] += current[t, n, c]
                        else:
                            current[t, n, c] += weight[row, c]
        first += end - begin


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
    return Words.of(scores.clip(0.0, 1.0))


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
