r"""f-SNN on citation graphs: is it the fractional order that helps?

Ge et al. (2026), Table 2: a single layer, Linear without bias -> LIF, reads 100 steps of Poisson spikes of a
paper's words, smoothed over its neighbours (:mod:`.citations`), and names the paper's field by the mean
of its spikes. DRSGNN has 32 further columns for the place in the graph, and learns its threshold.

The protocol is that of the authors' released program: Adam 1e-3, weight decay 1e-4, gradients clipped at 1,
rate halved after 25 epochs without a better validation loss, batches of 512 in fixed order, 100 epochs, the
model that is best in validation. tau is :math:`\tau_0(1 + e^p)` with p = 0 at first, its power of
alpha absorbed as everywhere in this library (``tau_a = tau**alpha``).

Each seed has its own split, initial weights and spikes; all variants of a seed share them, so differences
between variants are differences within pairs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from fracspike.data import planetoid
from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.threads import one_thread

from . import citations
from .cells import Cell, measure
from .citations import Words
from .released import CurrentReset
from .report import Experiment, Row, Run, Value

STEPS, DT, TAU_0, BATCH = 100, 0.1, 2.0, 512
POSITIONS = {"SGCN": 0, "DRSGNN": 32}
SHARES = (0.7, 0.2)  # to learn from, to validate
DRAWS = 20  # of the test spikes, as in the released program
SURROGATE = "spikede.arctan:scale=5"


class Released(nn.Module):
    r"""Maps a number p to the time constant :math:`(\tau_0(1 + e^p))^{1/\alpha}`."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.power = 1.0 / alpha

    def forward(self, p: Tensor) -> Tensor:
        """Return the time constant."""
        return (TAU_0 * (1.0 + torch.exp(p))) ** self.power


class Network(nn.Module):
    """Linear without bias -> LIF; the scores are the means of the spikes.

    Args:
        columns: words of a paper.
        classes: as many neurons.
        cell: ``alpha``, ``neuron`` (a reset memory, or ``"current"``), ``tau`` (``"learned"`` or
            ``"fixed"``), ``model``, ``surrogate``.
    """

    def __init__(self, columns: int, classes: int, cell: Cell) -> None:
        super().__init__()
        self.linear = nn.Linear(columns, classes, bias=False)
        alpha, learned = cell["alpha"], cell["model"] == "DRSGNN"
        self.neurons: nn.Module
        if cell["neuron"] == "current":
            power = 1.0  # this one's tau is tau_a
            self.neurons = CurrentReset(alpha, 2 * TAU_0, DT, cell["surrogate"], learn_threshold=learned)
        else:
            power = alpha
            self.neurons = FractionalLIF(
                alpha=alpha,
                tau=(2 * TAU_0) ** (1.0 / alpha),
                dt=DT,
                surrogate=cell["surrogate"],
                reset_memory=cell["neuron"],
                detach_reset=True,
                learn=("threshold",) if learned else (),
            )
        if cell["tau"] == "learned":
            del self.neurons.tau
            self.neurons.register_parameter("tau", nn.Parameter(torch.zeros((), dtype=torch.float64)))
            parametrize.register_parametrization(self.neurons, "tau", Released(power))

    def forward(self, words: Words, generator: np.random.Generator) -> Tensor:
        """Return the scores: ``(N, classes)``."""
        scores: Tensor = self.neurons(words.currents(self.linear.weight.T, STEPS, generator)).mean(0)
        return scores


@dataclass(frozen=True)
class Part:
    """Some papers with their classes."""

    words: Words
    labels: Tensor


@dataclass(frozen=True)
class Papers:
    """The papers of a split; those to learn from in batches."""

    batches: Sequence[Part]
    validation: Part
    test: Part


@cache
def _graph(data: Path | None, dataset: str) -> planetoid.Graph:
    return planetoid.load(data, dataset)


@cache
def _words(data: Path | None, dataset: str, positions: int) -> Words:
    return citations.words(_graph(data, dataset), positions)


def papers(data: Path | None, dataset: str, model: str, seed: int) -> Papers:
    """Return the papers of a graph, split by the seed."""
    everything, labels = _words(data, dataset, POSITIONS[model]), _graph(data, dataset).labels
    learn, validation, test = citations.split(labels, SHARES, seed)

    def part(chosen: NDArray[np.int64]) -> Part:
        return Part(everything.of(chosen), torch.from_numpy(labels[chosen]))

    cuts = range(BATCH, len(learn), BATCH)
    return Papers([part(batch) for batch in np.split(learn, cuts)], part(validation), part(test))


def train(cell: Cell, data: Path | None) -> dict[str, float]:
    """Train one network and measure it.

    Args:
        cell: ``dataset``, ``model``, ``seed``, ``epochs``, and what :class:`Network` needs.
        data: folder of the data set; None to find it.

    Returns:
        ``test`` (mean accuracy over drawings of the spikes), ``test_spread`` (its standard deviation over
        them), ``validation`` and ``epoch`` of the model that was taken, its ``tau_a`` and its ``rate``
        of spikes per step.
    """
    split = papers(data, cell["dataset"], cell["model"], cell["seed"])
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell["seed"])
        spikes = np.random.default_rng(cell["seed"])
        classes = _graph(data, cell["dataset"]).classes
        network = Network(split.test.words.probability.shape[1], classes, cell)
        best, epoch, accuracy = _fit(network, split, cell["epochs"], spikes)
        network.load_state_dict(best)
        with torch.no_grad():
            scores = [network(split.test.words, spikes) for _ in range(DRAWS)]
    hits = [_accuracy(each, split.test.labels) for each in scores]
    tau = network.neurons.tau.item()
    return {
        "test": mean(hits),
        "test_spread": stdev(hits),
        "validation": accuracy,
        "epoch": epoch,
        "tau_a": tau if cell["neuron"] == "current" else tau ** cell["alpha"],
        "rate": float(torch.stack(scores).mean()),
    }


def _fit(
    network: Network, split: Papers, epochs: int, spikes: np.random.Generator
) -> tuple[dict[str, Tensor], int, float]:
    """Return the weights that were best in validation, their epoch and accuracy."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=25, min_lr=1e-6)
    best, at, highest = copy.deepcopy(network.state_dict()), 0, 0.0
    for epoch in range(1, epochs + 1):
        for batch in split.batches:
            optimizer.zero_grad()
            loss = cross_entropy(network(batch.words, spikes), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            scores = network(split.validation.words, spikes)
        schedule.step(cross_entropy(scores, split.validation.labels))
        accuracy = _accuracy(scores, split.validation.labels)
        if accuracy > highest:
            best, at, highest = copy.deepcopy(network.state_dict()), epoch, accuracy
    return best, at, highest


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).double().mean())
