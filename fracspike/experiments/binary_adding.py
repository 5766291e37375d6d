r"""Counting ones a hundred steps apart: does a power-law memory help a spiking network add?

Ma et al. (2025), section on temporal processing tasks: two channels of 100 steps, the first of random bits,
the second marking nine of them; the class is how many marked bits are 1, from 0 to 9. A network
2-128-128-10 reads out the spikes of the last step alone, so the count must be held in the potentials.

The protocol is that of the authors' configurations: 50 000 samples, classes balanced, batches of 250,
AdamW without decay, times 0.8 after every 10 of 50 epochs, cross entropy with labels smoothed by 0.2; a
rectangle of half-width 0.2 and height 1 as surrogate; learning rate, threshold and decay row by row, 5e-4,
0.5 and 0.98 for the feed-forward LIF. They report the best epoch on the 2000 test samples; so it is here,
beside the last epoch.

The LIF of alpha 1 is theirs to rounding. At other orders tau stays, and a unit weight raises the
potential by 1 in one step as theirs does, so orders are compared at equal drive. The neurons that adapt are
in ``adapting``. Of a recurrent network only the first layer is recurrent, as in the authors' program.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fracspike import surrogate as surrogates
from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.solvers import checks
from fracspike.threads import one_thread
from fracspike.training import Settings, checkpoint, fit

from .cells import TIME, Cell, measure
from .counting import ADAPTING, CLASSES, NAMES, STEPS, SURROGATE, TABLE, TAU, Network, layers
from .report import Experiment, Row, Run, Value

MARKED = 9
START = 0.7  # of a learnable order
SMOOTHING = 0.2  # of the labels
PIECE = 250  # samples that are measured at once


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw samples of all classes alike.

    Given how many of the marked bits are ones, all arrangements are equally likely, which is what
    drawing at random and keeping as many samples of each class comes to.

    Args:
        count: how many samples, a multiple of 10.
        generator: decides them.

    Returns:
        Bits and marks ``(count, 100, 2)``, zeros and ones; classes ``(count,)``.

    Raises:
        ValueError: if ``count`` is not a positive multiple of 10.

    >>> inputs, labels = draw(20, torch.Generator().manual_seed(0))
    >>> bool((inputs.prod(-1).sum(1) == labels).all())
    True
    """
    checks.positive_int("count", count)
    if count % CLASSES:
        raise ValueError(f"`count` must be a multiple of {CLASSES}, got {count}")
    labels = torch.arange(CLASSES).repeat(count // CLASSES)
    places = torch.rand(count, STEPS, generator=generator).argsort(1)[:, :MARKED]
    bits = (torch.rand(count, STEPS, generator=generator) < 0.5).float()
    bits.scatter_(1, places, (torch.arange(MARKED) < labels[:, None]).float())
    marks = torch.zeros(count, STEPS).scatter_(1, places, 1.0)
    return torch.stack((bits, marks), dim=-1), labels


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        epochs: passes through the samples.
        samples: to learn from.
        batch: of how many samples.
        lr: learning rate at first, of rows whose own is not larger.
        tests: to measure on.
        orders: of the networks; one more learns its orders.
        table: whether the other published rows are trained too.
    """

    epochs: int
    samples: int = 50_000
    batch: int = 250
    lr: float = 5e-4
    tests: int = 2_000
    orders: tuple[float, ...] = (1.0, 0.9, 0.7, 0.5, 0.3)
    table: bool = True


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train one network and measure it.

    Args:
        cell: ``neuron``, ``recurrent``, ``surrogate``, ``seed``, ``epochs``, ``samples``, ``batch``, ``lr``,
            ``tests``; of a fractional LIF ``alpha``, ``learn`` and ``tau`` as well.
        folder: for checkpoints.

    Returns:
        Test accuracy of the ``best`` and the ``last`` epoch and of every one (``curve``), the range of
        the fractional orders in the end, and ``seconds``.
    """
    generator = torch.Generator().manual_seed(cell["seed"])
    data, test = (TensorDataset(*draw(cell[part], generator)) for part in ("samples", "tests"))
    settings = Settings(
        epochs=cell["epochs"],
        lr=cell["lr"],
        batch_size=cell["batch"],
        monitor="test",
        schedule="staircase",
        seed=cell["seed"],
    )
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell["seed"])
        network = Network(layers(cell), recurrent=cell["recurrent"])
        done = fit(
            network,
            data,
            lambda model, batch: cross_entropy(model(batch[0]), batch[1], label_smoothing=SMOOTHING),
            settings,
            folder,
            validate=lambda model: {"test": accuracy(model, test)},
            optimizer=lambda p, s: torch.optim.AdamW(p, lr=s.lr, weight_decay=0.0),
            config=dict(cell),
            resume=checkpoint.exists(folder / checkpoint.NAME),
        )
    fractions = [n for n in (network.early, network.late) if isinstance(n, FractionalLIF)]
    orders = [order for neurons in fractions for order in neurons.alpha.detach().flatten().tolist()]
    return {
        "best": done.best["test"],
        "last": done.history[-1]["test"],
        "curve": [round(record["test"], 5) for record in done.history],
        "orders": [round(extreme(orders), 4) for extreme in (min, max)] if orders else [],
        "seconds": round(done.seconds, 1),
    }


@torch.no_grad()
def accuracy(model: nn.Module, part: TensorDataset) -> float:
    """Return the share of samples that are named right."""
    inputs, labels = part.tensors
    hits = [
        model(some).argmax(1) == right
        for some, right in zip(torch.split(inputs, PIECE), torch.split(labels, PIECE), strict=True)
    ]
    return float(torch.cat(hits).double().mean())


# ---------------------------------------------------------------------------------------------
# The experiment

# 1200 steps of 50 samples where the whole has 10 000 of 250
DEFAULT = Plan(epochs=6, samples=10_000, batch=50, lr=2e-3)
QUICK = Plan(epochs=2, samples=1_000, batch=50, lr=2e-3, tests=200, orders=(1.0, 0.5))
FULL = Plan(epochs=50)

SOURCE = "Ma et al. 2025, table of neuron models"


def cells(plan: Plan, seed: int) -> dict[str, dict[str, Any]]:
    """Return the networks to train, by the name that ``--only`` takes."""
    amount = {name: getattr(plan, name) for name in ("epochs", "samples", "batch", "tests")}

    def cell(neuron: str, recurrent: bool, **own: Any) -> dict[str, Any]:
        lr = max(plan.lr, TABLE[neuron, recurrent].lr)
        common = {"neuron": neuron, "recurrent": recurrent, "surrogate": SURROGATE, "seed": seed, "lr": lr}
        return {**common, **amount, **own}

    def lif(alpha: float, *, learn: bool = False, recurrent: bool = False) -> dict[str, Any]:
        return cell("lif", recurrent, alpha=alpha, learn=learn, tau=TABLE["lif", recurrent].tau)

    found = {"lif" if alpha == 1 else f"alpha-{alpha:g}": lif(alpha) for alpha in plan.orders}
    found["learnable"] = lif(START, learn=True)
    if plan.table:
        found["recurrent-lif"] = lif(1.0, recurrent=True)
        for neuron in ADAPTING:
            found |= {neuron: cell(neuron, False), f"recurrent-{neuron}": cell(neuron, True)}
    return found


def run(out: Run) -> list[Row]:
    """Train a network for each order, one that learns its orders, and those of the published table."""
    plan = QUICK if out.quick else FULL if out.full else DEFAULT
    results = measure(out, out.chosen(cells(plan, out.seed)).values(), train, "networks")
    out.save_table(
        "curves",
        ("network", "epoch", "test_accuracy"),
        ((_title(each), epoch + 1, value) for each in results for epoch, value in enumerate(each["curve"])),
    )
    _draw(out, results)
    rows = [_row(out, plan, each) for each in results]
    for each in results:
        if each.get("learn"):
            rows += [
                Row(f"{which} order that was learnt", None, "", order)
                for which, order in zip(("smallest", "largest"), each["orders"], strict=True)
            ]
    return [
        *rows,
        *(
            Row(f"last instead of best epoch (%), {_title(each)}", None, "", round(100 * each["last"], 2))
            for each in results
        ),
        Row(TIME, None, "", round(sum(each["seconds"] for each in results))),
    ]


def _title(result: Mapping[str, Any]) -> str:
    if result.get("learn"):
        return f"learnable orders, from {result['alpha']:g}"
    if result.get("alpha", 1) != 1:
        return f"alpha {result['alpha']:g}"
    name = NAMES[result["neuron"]]
    if result["recurrent"]:
        return f"recurrent {name}"
    return f"{name} (alpha 1)" if result["neuron"] == "lif" else name


def _row(out: Run, plan: Plan, result: Mapping[str, Any]) -> Row:
    wired = "" if result["recurrent"] else "feed-forward, "
    quantity = f"test accuracy (%), {wired}{_title(result)}, best of {plan.epochs} epochs"
    measured = round(100 * result["best"], 2)
    if result.get("alpha", 1) != 1:
        return Row(quantity, None, "nobody has published it", measured)
    key = result["neuron"], result["recurrent"]
    tolerance = 4.0 if out.full and key == ("lif", False) else None  # it validates the harness
    return Row(quantity, TABLE[key].accuracy, f"{SOURCE}, after 50 epochs", measured, tolerance)


def _draw(out: Run, results: list[dict[str, Any]]) -> None:
    figure, (ax,) = blank(1, 1, "Counting nine marked bits over 100 steps")
    colors: dict[tuple[Any, ...], str] = {}  # one for each neuron; a recurrent network is dash-dotted
    for result in results:
        neuron = tuple(result.get(name) for name in ("neuron", "alpha", "learn"))
        color = colors.setdefault(neuron, f"C{len(colors)}")
        style = "--" if result.get("learn") else "-." if result["recurrent"] else "-"
        epochs = range(1, len(result["curve"]) + 1)
        accuracy = [100 * v for v in result["curve"]]
        ax.plot(epochs, accuracy, f"o{style}", color=color, ms=3, label=_title(result))
        if result.get("alpha", 1) == 1:
            level = TABLE[result["neuron"], result["recurrent"]].accuracy
            ax.axhline(level, ls="-." if result["recurrent"] else ":", lw=0.8, color=color)
    ax.plot([], [], ":", color="grey", lw=0.8, label="published, 50 epochs")
    ax.axhline(100 / CLASSES, ls="-", lw=0.5, color="grey", label="chance")
    ax.set(xlabel="epoch", ylabel="test accuracy (%)")
    figure.set_size_inches(8.0, 4.5)
    figure.legend(loc="outside right center", fontsize=8)
    out.save_figure("learning", figure)


def check(params: Mapping[str, Value]) -> None:
    """Refuse parameters of a sweep that cannot be measured."""
    for name in ("learn", "recurrent"):
        checks.one_of(name, str(params[name]), ("0", "1"))
    for name in ("epochs", "samples", "batch", "tests"):
        checks.positive_int(name, params[name])
    for name in ("samples", "tests"):
        if int(params[name]) % 10:
            raise ValueError(f"`{name}` must be a multiple of 10, the number of classes, got {params[name]}")
    checks.order("alpha", float(params["alpha"]))
    checks.real("tau", float(params["tau"]), above=0.0)
    checks.real("lr", float(params["lr"]), above=0.0, at_most=100.0)
    surrogates.get(str(params["surrogate"]))


def trial(params: Mapping[str, Value], seed: int) -> dict[str, float]:
    """Train one network of fractional LIF neurons for a sweep."""
    flags = {name: bool(params[name]) for name in ("learn", "recurrent")}
    with tempfile.TemporaryDirectory() as folder:
        result = train({"neuron": "lif", **params, **flags, "seed": seed}, Path(folder))
    return {name: result[name] for name in ("best", "last")}


EXPERIMENT = Experiment(
    name="binary-adding",
    title="Does a power-law memory help a spiking network count over a hundred steps?",
    source="Ma et al. (2025), Spiking neural networks for temporal processing, arXiv:2502.09449",
    duration="13 min; with --full, 7 hours",
    run=run,
    parts=tuple(cells(FULL, 0)),
    parameters={
        "alpha": START,
        "learn": 0,
        "recurrent": 0,
        "tau": TAU,
        "surrogate": SURROGATE,
        "epochs": 1,
        "samples": 50_000,
        "batch": 250,
        "lr": 5e-4,
        "tests": 2_000,
    },
    trial=trial,
    check=check,
)
