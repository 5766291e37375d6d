r"""f-SNN on citation graphs: is it the fractional order that helps?

Ge et al. (2026), Table 2: a single layer, Linear without bias -> LIF, reads 100 steps of Poisson spikes of a
paper's words, smoothed over its neighbours (:mod:`.citations`), and names the paper's field by the mean
of its spikes. DRSGNN has 32 further columns for the place in the graph, and learns its threshold.

The protocol is that of the authors' released program: Adam 1e-3, weight decay 1e-4, gradients clipped at 1,
100 epochs, the model that is best in validation; batches of 32 papers, as in their logs. The time step is
0.1, tau is :math:`\tau_0(1 + e^p)`, p = 0 at first, its power of alpha absorbed (``tau_a = tau**alpha``).

Each seed has its own split, initial weights and spikes; all variants of a seed share them, so differences
between variants are differences within pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from fracspike.data import planetoid
from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.solvers import checks
from fracspike.threads import one_thread
from fracspike.training import Settings, checkpoint, fit

from . import citations
from .cells import TIME, Cell, measure
from .citations import Words
from .released import CurrentReset
from .report import Experiment, Row, Run, Value

STEPS, DT, TAU_0, BATCH = 100, 0.1, 2.0, 32
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
        self.neurons: FractionalLIF | CurrentReset
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

    def forward(self, words: Words) -> Tensor:
        """Return the scores: ``(N, classes)``."""
        spikes: Tensor = self.neurons(words.currents(self.linear.weight.T, STEPS))
        return spikes.mean(0)


@dataclass(frozen=True)
class Papers:
    """Some papers with their classes, to be taken in batches."""

    words: Words
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Papers:
        return Papers(self.words[index.numpy()], self.labels[index])


@cache
def _graph(data: Path | None, dataset: str) -> planetoid.Graph:
    return planetoid.load(data, dataset)


@cache
def _words(data: Path | None, dataset: str, positions: int) -> Words:
    return citations.words(_graph(data, dataset), positions)


def papers(data: Path | None, dataset: str, model: str, seed: int) -> tuple[Papers, Papers, Papers]:
    """Return the papers to learn from, to validate and to test."""
    labels = _graph(data, dataset).labels
    everything = Papers(_words(data, dataset, POSITIONS[model]), torch.from_numpy(labels))
    learn, validation, test = (
        everything[torch.from_numpy(part)] for part in citations.split(labels, SHARES, seed)
    )
    return learn, validation, test


def train(cell: Cell, data: Path | None, folder: Path | None) -> dict[str, float]:
    """Train one network and measure it.

    Args:
        cell: ``dataset``, ``seed``, ``epochs``, and what :class:`Network` needs.
        data: folder of the data set; None to find it.
        folder: for checkpoints.

    Returns:
        ``test`` (mean accuracy over drawings of the spikes), ``drawings`` (its standard deviation over
        them), ``validation`` and ``epoch`` of the model that was taken, its ``tau_a``, its ``rate``
        of spikes per step, and ``seconds``.
    """
    learn, validation, test = papers(data, cell["dataset"], cell["model"], cell["seed"])
    settings = Settings(
        epochs=cell["epochs"], lr=1e-3, batch_size=BATCH, weight_decay=1e-4, clip=1.0, seed=cell["seed"]
    )
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell["seed"])
        network = Network(test.words.columns, _graph(data, cell["dataset"]).classes, cell)
        done = fit(
            network,
            learn,
            lambda model, batch: cross_entropy(model(batch.words), batch.labels),
            settings,
            folder,
            validate=lambda model: {"validation_accuracy": _accuracy(model(validation.words), validation)},
            config=dict(cell),
            resume=folder is not None and checkpoint.exists(folder / checkpoint.NAME),
        )
        with torch.no_grad():
            scores = [network(test.words) for _ in range(DRAWS)]
    hits = [_accuracy(each, test) for each in scores]
    tau = network.neurons.tau.item()
    return {
        "test": mean(hits),
        "drawings": stdev(hits),
        "validation": done.best["validation_accuracy"],
        "epoch": done.best["epoch"],
        "tau_a": tau if cell["neuron"] == "current" else tau ** cell["alpha"],
        "rate": torch.stack(scores).mean().item(),
        "seconds": round(done.seconds, 1),
    }


def _accuracy(scores: Tensor, part: Papers) -> float:
    return (scores.argmax(1) == part.labels).double().mean().item()


# ---------------------------------------------------------------------------------------------
# The experiment


@dataclass(frozen=True)
class Variant:
    """A neuron to compare.

    Attributes:
        title: what tables call it.
        neuron: ``"current"`` for the released one, else a reset memory of :class:`FractionalLIF`.
        alpha: Caputo order.
        tau: ``"learned"`` or ``"fixed"``.
    """

    title: str
    neuron: str
    alpha: float
    tau: str = "learned"


ORDER = 0.3  # of the published logs
FRACTIONAL = Variant("released neuron, alpha 0.3", "current", ORDER)
ORDINARY = Variant("released neuron, alpha 1", "current", 1.0)
CONVERGENT = (
    Variant("jump neuron, alpha 0.3", "jump", ORDER),
    Variant("jump neuron, alpha 1", "jump", 1.0),
)
FIXED = (
    Variant("released neuron, alpha 0.3, tau fixed", "current", ORDER, "fixed"),
    Variant("released neuron, alpha 1, tau fixed", "current", 1.0, "fixed"),
)
VARIANTS = (FRACTIONAL, ORDINARY, *CONVERGENT, *FIXED)


@dataclass(frozen=True)
class Column:
    """A column of the published table, and what is trained for it.

    Attributes:
        model: ``"SGCN"`` or ``"DRSGNN"``.
        dataset: a graph.
        variants: neurons, and for how many seeds of split, initial weights and spikes.
    """

    model: str
    dataset: str
    variants: Mapping[Variant, int]

    @property
    def title(self) -> str:
        """What tables call it."""
        return f"{self.model} on {self.dataset.capitalize()}"


@dataclass(frozen=True)
class Plan:
    """How much is done: ``epochs`` are passes through the papers."""

    epochs: int
    columns: Sequence[Column]


PAIR = (FRACTIONAL, ORDINARY)
DEFAULT = Plan(
    100,
    (
        Column("SGCN", "cora", dict.fromkeys((*PAIR, *CONVERGENT, FIXED[0]), 3)),
        Column("SGCN", "citeseer", dict.fromkeys((*PAIR, FIXED[0]), 3)),
        Column("DRSGNN", "cora", dict.fromkeys((*PAIR, FIXED[0]), 3)),
        Column("DRSGNN", "citeseer", dict.fromkeys((*PAIR, FIXED[0]), 3)),
    ),
)
QUICK = Plan(2, (Column("SGCN", "cora", dict.fromkeys((*PAIR, *CONVERGENT), 2)),))
FULL = Plan(100, tuple(Column(*c, dict.fromkeys(VARIANTS, 10)) for c in product(POSITIONS, planetoid.GRAPHS)))

SOURCE = "Ge et al. 2026, Table 2"
TWIN = "the authors' log of the integer-order twin"
#: accuracy in percent of f-SNN, and of the same network of integer order
PUBLISHED = {
    ("SGCN", "cora"): (88.08, 87.69),
    ("SGCN", "citeseer"): (73.80, 72.13),
    ("DRSGNN", "cora"): (88.51, 87.07),
    ("DRSGNN", "citeseer"): (75.11, 73.75),
}
#: what they call its standard deviation: over 20 drawings of the test spikes, for one training
PUBLISHED_SPREAD = {
    ("SGCN", "cora"): 0.58,
    ("SGCN", "citeseer"): 0.51,
    ("DRSGNN", "cora"): 0.62,
    ("DRSGNN", "citeseer"): 0.45,
}
TESTED = {"cora": 271, "citeseer": 333}  # papers in a tenth


def tolerance(accuracy: float, dataset: str) -> float:
    """Return twice the standard error of one split's accuracy, in percent: about 4 (Cora) or 5 (Citeseer).

    The published figures are of one split, and another split of as many papers differs by that much.
    """
    share = accuracy / 100
    return round(200 * math.sqrt(share * (1 - share) / TESTED[dataset]), 1)


Results = Sequence[Mapping[str, Any]]


def cells(plan: Plan, first: int) -> list[dict[str, Any]]:
    """Return the networks to train, those of one seed after the other, from seed ``first`` on."""
    return [
        {
            "dataset": column.dataset,
            "model": column.model,
            "seed": first + more,
            "neuron": variant.neuron,
            "alpha": variant.alpha,
            "tau": variant.tau,
            "epochs": plan.epochs,
            "surrogate": SURROGATE,
        }
        for more in range(max(n for column in plan.columns for n in column.variants.values()))
        for column in plan.columns
        for variant, seeds in column.variants.items()
        if more < seeds
    ]


def run(out: Run) -> list[Row]:
    """Train every variant on the same splits, and compare."""
    plan = QUICK if out.quick else FULL if out.full else DEFAULT
    results = measure(
        out, cells(plan, out.seed), lambda cell, folder: train(cell, out.data, folder), "networks"
    )
    out.save_table("trainings", list(results[0]), (list(each.values()) for each in results))
    _draw(out, plan, results)
    rows = [row for column in plan.columns for row in _rows(column, results, judge=not out.quick)]
    for dataset in dict.fromkeys(column.dataset for column in plan.columns):
        share = round(100 * _words(out.data, dataset, 0).share, 1)
        rows.append(Row(f"share of the words that spike which always do (%), {dataset}", None, "", share))
    seconds = sum(each["seconds"] for each in results)
    return [*rows, Row(TIME, None, "", round(seconds))]


def _of(results: Results, column: Column, variant: Variant, name: str = "test") -> list[float]:
    """Return a result of every seed, in percent."""
    wanted = (column.model, column.dataset, variant.neuron, variant.alpha, variant.tau)
    names = ("model", "dataset", "neuron", "alpha", "tau")
    return [100 * each[name] for each in results if tuple(each[n] for n in names) == wanted]


def _rows(column: Column, results: Results, *, judge: bool) -> list[Row]:
    published, twin = PUBLISHED[column.model, column.dataset]
    known = {FRACTIONAL: (published, SOURCE), ORDINARY: (twin, TWIN)}
    rows = []
    for variant, seeds in column.variants.items():
        accuracy = round(mean(_of(results, column, variant)), 2)
        number, source = known.get(variant, (None, "not published"))
        allowed = tolerance(number, column.dataset) if judge and number is not None else None
        count = f"{seeds} seeds" if seeds > 1 else "1 seed"
        rows.append(
            Row(f"accuracy (%), {column.title}, {variant.title}, {count}", number, source, accuracy, allowed)
        )
    for variant in (v for v, seeds in column.variants.items() if seeds > 1):
        spread = round(stdev(_of(results, column, variant)), 2)
        what = f"spread over training seeds (points), {column.title}, {variant.title}"
        rows.append(Row(what, None, "not published", spread))
    drawings = round(mean(_of(results, column, FRACTIONAL, "drawings")), 2)
    what = f"spread over drawings of the spikes (points), {column.title}, {FRACTIONAL.title}"
    rows.append(Row(what, PUBLISHED_SPREAD[column.model, column.dataset], SOURCE, drawings))
    rows += _gain(results, column, PAIR, "released neuron", round(published - twin, 2))
    if set(CONVERGENT) <= set(column.variants):
        rows += _gain(results, column, CONVERGENT, "jump neuron", None)
    return rows


def _gain(
    results: Results, column: Column, pair: Sequence[Variant], neuron: str, published: float | None
) -> list[Row]:
    """Return the mean difference of two variants over their seeds, and its standard error."""
    one, other = (_of(results, column, variant) for variant in pair)
    gains = [a - b for a, b in zip(one, other, strict=True)]
    what = f"gain of alpha 0.3 over alpha 1 (points), {column.title}, {neuron}"
    source = "not published" if published is None else f"{SOURCE} and {TWIN}"
    rows = [Row(what, published, source, round(mean(gains), 2))]
    if len(gains) > 1:
        error = round(stdev(gains) / math.sqrt(len(gains)), 2)
        rows.append(
            Row(
                f"standard error of that gain (points), {column.title}, {neuron}",
                None,
                "not published",
                error,
            )
        )
    return rows


def _draw(out: Run, plan: Plan, results: Results) -> None:
    shown = [v for v in VARIANTS if any(v in column.variants for column in plan.columns)]
    figure, axes = blank(1, len(plan.columns), "Citation graphs: each dot is a training seed")
    figure.set_size_inches(3.4 * len(plan.columns) + 2.5, 4.0)
    for ax, column in zip(axes, plan.columns, strict=True):
        for height, variant in enumerate(shown):
            values = _of(results, column, variant)
            ax.plot(values, [height] * len(values), "o", color=f"C{height}", ms=5, alpha=0.6)
            if values:
                ax.plot([mean(values)] * 2, [height - 0.3, height + 0.3], color=f"C{height}")
        for number, label, style in zip(
            PUBLISHED[column.model, column.dataset],
            ("published f-SNN", "published integer order"),
            ("-", "--"),
            strict=True,
        ):
            ax.axvline(number, ls=style, lw=0.8, color="grey", label=label)
        ax.set_yticks(range(len(shown)), [v.title for v in shown] if ax is axes[0] else [""] * len(shown))
        ax.set(xlabel="test accuracy (%)", title=column.title, ylim=(len(shown) - 0.5, -0.5))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    out.save_figure("accuracy", figure)


def check(params: Mapping[str, Value]) -> None:
    """Refuse parameters of a sweep that cannot be measured."""
    checks.one_of("dataset", params["dataset"], planetoid.GRAPHS)
    checks.one_of("model", params["model"], POSITIONS)
    checks.one_of("tau", params["tau"], ("learned", "fixed"))
    checks.positive_int("epochs", params["epochs"])
    Network(4, 2, params)  # as small as can be: it looks at all that is left


def trial(params: Mapping[str, Value], seed: int) -> dict[str, float]:
    """Train one network for a sweep."""
    cell = {**params, "seed": seed}
    result = train(cell, None, None)
    return {name: result[name] for name in ("test", "validation", "tau_a", "rate")}


EXPERIMENT = Experiment(
    name="fsnn-graph",
    title="Is it the fractional order that helps f-SNN on citation graphs?",
    source="Ge et al. (2026), Fractional-order spiking neural network, arXiv:2507.16937, Table 2",
    duration="20 min; with --full, 2 hours",
    run=run,
    parameters={
        "dataset": "cora",
        "model": "SGCN",
        "neuron": "jump",
        "alpha": ORDER,
        "tau": "learned",
        "surrogate": SURROGATE,
        "epochs": 100,
    },
    trial=trial,
    check=check,
)
