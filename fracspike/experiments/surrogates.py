"""Zenke and Vogels (2021): does the shape of a surrogate gradient matter, or its scale?

Networks of one hidden layer learn random manifolds (see :mod:`.manifolds`) with each of three
shapes at each of three steepnesses beta. All shapes have peak 1, so that only beta sets the scale:

- SuperSpike, ``1 / (1 + beta |x|)**2``;
- Sigmoid', ``4 s (1 - s)`` with ``s = sigmoid(beta x)``; the paper's own peaks at 1/4;
- Triangle, ``max(0, 1 - beta |x|)``.

Every network is ``Linear -> FractionalLIF -> Linear -> leaky integrator -> maximum over time``. As in
the paper the reset carries no gradient. A unit weight takes a hidden neuron from rest to the
threshold in one step, for any alpha, and the integrator is the same for all: orders are compared
at equal drive and equal readout. Less than the paper has: the neurons take currents without a synaptic
time constant, and nothing regularises their activity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fracspike import surrogate
from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.solvers import mittag_leffler
from fracspike.threads import one_thread
from fracspike.training import gradients
from fracspike.training.task import Data, Images

from . import manifolds
from .report import Experiment, Row, Run

CLASSES, INPUTS = 10, 20
TAU, TAU_READOUT = 10.0, 20.0  # ms; a step is 1 ms
SHAPES = {
    "SuperSpike": lambda beta: f"fast_sigmoid:slope={beta}",
    "Sigmoid'": lambda beta: f"sigmoid:alpha={beta},normalize=peak",
    "Triangle": lambda beta: f"triangle:width={1 / beta}",
}
BATCH, PIECE = 32, 256


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        seeds: repetitions; each has its own manifolds, samples, and initial weights.
        rates: learning rates; the one best in validation counts.
        samples: of each class, to learn from; a quarter as many more to validate, and as many to test.
        epochs: passes through the samples.
        hidden: neurons of the hidden layer.
        orders: Caputo orders.
        betas: steepnesses.
    """

    seeds: int = 2
    rates: Sequence[float] = (0.05,)
    samples: int = 200
    epochs: int = 12
    hidden: int = 64
    orders: Sequence[float] = (1.0, 0.7)
    betas: Sequence[int] = (1, 10, 100)


DEFAULT = Plan()
QUICK = Plan(seeds=1, samples=64, epochs=4, hidden=32)
FULL = Plan(seeds=5, rates=(0.01, 0.03, 0.1), samples=800, epochs=20, hidden=100)


@dataclass(frozen=True)
class Result:
    """What one network reached after its last epoch, as shares of 1."""

    alpha: float
    shape: str
    beta: int
    rate: float
    seed: int
    validation: float
    test: float


class SideBySide(nn.Module):
    """Networks that differ in their surrogate alone, computed together, which takes a third of the time.

    No weight and no loss is shared and Adam goes weight by weight, so each learns as it would alone.
    All start from the same weights, drawn from torch's random state.

    Args:
        alpha: Caputo order of the hidden neurons.
        surrogates: their surrogates, by name, one for each network.
        hidden: hidden neurons of each network.
        steps: length of a sample.
    """

    kernel: Tensor

    def __init__(self, alpha: float, surrogates: Sequence[str], hidden: int, steps: int) -> None:
        super().__init__()
        members = [surrogate.get(name) for name in surrogates]

        def derivative(x: Tensor) -> Tensor:
            parts = zip(members, x.unbind(-2), strict=True)
            return torch.stack([member.derivative(part) for member, part in parts], dim=-2)

        def spike(x: Tensor) -> Tensor:
            spikes: Tensor = surrogate.SpikeFunction.apply(x, derivative)  # type: ignore[no-untyped-call]
            return spikes

        order = torch.tensor(alpha, dtype=torch.float64)
        decay = mittag_leffler(-((1.0 / TAU) ** order), order)
        self.neurons = FractionalLIF(
            alpha=alpha,
            tau=TAU,
            resistance=1.0 / (1.0 - decay),
            surrogate=spike,
            detach_reset=True,
        )
        first = torch.randn(INPUTS, hidden) * 2.0 / math.sqrt(INPUTS)
        second = torch.randn(hidden, CLASSES) / math.sqrt(hidden)
        self.first = nn.Parameter(first.repeat(len(members), 1, 1))
        self.second = nn.Parameter(second.repeat(len(members), 1, 1))
        lag = torch.arange(steps)[:, None] - torch.arange(steps)
        self.register_buffer("kernel", torch.exp(-lag.clamp(min=0) / TAU_READOUT) * (lag >= 0))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scores of each network: ``(T, N, I) -> (N, C, networks)``."""
        current = torch.einsum("tni,gih->tngh", inputs, self.first)
        readout = torch.einsum("tngh,ghc->tncg", self.neurons(current), self.second)
        return torch.einsum("ts,sncg->tncg", self.kernel, readout).amax(0)


def data(seed: int, samples: int) -> Data:
    """Return fresh manifolds and samples of them in three parts.

    Args:
        seed: decides both.
        samples: of each class, to learn from; at least 4.
    """
    generator = torch.Generator().manual_seed(seed)
    curves = manifolds.draw(generator, CLASSES, INPUTS)
    sizes = (samples, samples // 4, samples // 4)
    return Data(*(curves.samples(each, generator) for each in sizes))


def learn(alpha: float, rate: float, seed: int, samples: Data, plan: Plan) -> list[Result]:
    """Train one network for each shape and scale.

    Args:
        alpha: Caputo order of the hidden neurons.
        rate: learning rate at the start; it falls to 0 along half a cosine.
        seed: of the initial weights and the order of the batches.
        samples: what they learn, and are measured on.
        plan: for how long.
    """
    torch.manual_seed(seed)
    members = list(product(SHAPES, plan.betas))
    names = [SHAPES[shape](beta) for shape, beta in members]
    model = SideBySide(alpha, names, plan.hidden, len(samples.training.inputs))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for epoch in range(plan.epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * epoch / plan.epochs))
        order = torch.randperm(len(samples.training.labels))
        for chosen in torch.split(order, BATCH):
            optimizer.zero_grad()
            loss = _loss(model(samples.training.inputs[:, chosen]), samples.training.labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            wrong = gradients.not_finite(model)
            if wrong is not None:
                which = f"alpha {alpha:g}, rate {rate:g}, seed {seed}"
                raise RuntimeError(f"training diverged in epoch {epoch + 1} ({which}): {wrong}")
            optimizer.step()
    validation, test = _accuracy(model, samples.validation), _accuracy(model, samples.test)
    return [
        Result(alpha, shape, beta, rate, seed, validation[i], test[i])
        for i, (shape, beta) in enumerate(members)
    ]


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the networks of each one's mean cross entropy."""
    networks = scores.shape[-1]
    return networks * cross_entropy(scores, labels[:, None].expand(-1, networks))


@torch.no_grad()
def _accuracy(model: nn.Module, part: Images) -> list[float]:
    hits = [  # in pieces: a whole part would fill the memory
        model(inputs).argmax(1) == labels[:, None]
        for inputs, labels in zip(
            torch.split(part.inputs, PIECE, dim=1), torch.split(part.labels, PIECE), strict=True
        )
    ]
    shares: list[float] = torch.cat(hits).double().mean(0).tolist()
    return shares


def run(out: Run) -> list[Row]:
    """Train every network of the plan, and compare."""
    plan = QUICK if out.quick else FULL if out.full else DEFAULT
    seeds = range(out.seed, out.seed + plan.seeds)
    results: list[Result] = []
    with one_thread(), torch.random.fork_rng(devices=[]):
        parts = {seed: data(seed, plan.samples) for seed in seeds}
        jobs = list(product(plan.orders, plan.rates, seeds))
        for alpha, rate, seed in out.progress(jobs, "networks"):
            results += learn(alpha, rate, seed, parts[seed], plan)
    out.save_table("runs", [field.name for field in fields(Result)], map(astuple, results))
    scores = _scores(plan, results)
    _draw(out, plan, scores)
    return [row for alpha in plan.orders for row in _rows(alpha, plan, scores)]


Scores = dict[tuple[float, str, int], list[float]]


def _scores(plan: Plan, results: Sequence[Result]) -> Scores:
    """Return the test accuracies of all seeds at the learning rate that was best in validation."""
    scores: Scores = {}
    for key in product(plan.orders, SHAPES, plan.betas):
        ours = [r for r in results if (r.alpha, r.shape, r.beta) == key]
        by_rate = [[r for r in ours if r.rate == rate] for rate in plan.rates]
        best = max(by_rate, key=lambda runs: mean(r.validation for r in runs))
        scores[key] = [r.test for r in best]
    return scores


SOURCE = "Zenke and Vogels 2021, Figure 3"


def _rows(alpha: float, plan: Plan, scores: Scores) -> list[Row]:
    at = {s: {b: mean(scores[alpha, s, b]) for b in plan.betas} for s in SHAPES}
    best = [max(by_beta.values()) for by_beta in at.values()]
    rows = [
        Row(f"best accuracy, {shape}, alpha {alpha:g}", None, SOURCE, round(value, 4))
        for shape, value in zip(at, best, strict=True)
    ]
    rows.append(
        Row(
            f"spread over shapes of the best accuracy, alpha {alpha:g}",
            0.0,
            f"{SOURCE}: nearly equal",
            round(max(best) - min(best), 4),
            0.05,
        )
    )
    rows += [
        Row(
            f"spread over beta of the accuracy, {shape}, alpha {alpha:g}",
            None,
            f"{SOURCE}: the scale matters",
            round(max(by_beta.values()) - min(by_beta.values()), 4),
        )
        for shape, by_beta in at.items()
    ]
    return rows


def _draw(out: Run, plan: Plan, scores: Scores) -> None:
    figure, axes = blank(1, len(plan.orders), "Random manifolds: shape and scale of the surrogate")
    for ax, alpha in zip(axes, plan.orders, strict=True):
        for i, shape in enumerate(SHAPES):
            values = [scores[alpha, shape, beta] for beta in plan.betas]
            ax.semilogx(plan.betas, [100 * mean(v) for v in values], "o-", color=f"C{i}", label=shape)
            for beta, each in zip(plan.betas, values, strict=True):
                ax.plot([beta] * len(each), [100 * v for v in each], ".", color=f"C{i}", ms=4, alpha=0.5)
        ax.axhline(100 / CLASSES, ls="--", lw=0.7, color="grey", label="chance")
        ax.set(xlabel="steepness beta", ylabel="test accuracy (%)", ylim=(0, 102), title=f"alpha = {alpha:g}")
    axes[0].legend(fontsize=8)
    out.save_figure("accuracy", figure)


EXPERIMENT = Experiment(
    name="surrogates",
    title="Does the shape of a surrogate gradient matter, or its scale? Random manifolds",
    source="Zenke and Vogels (2021), Neural Computation 33(4), 899-925",
    duration="8 min; with --full, 8 hours",
    run=run,
)
