"""What a fit depends on, besides the model, the data and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fracspike.solvers import checks

#: name -> factor of the learning rate, by the share of the epochs that is done
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "staircase": lambda done: 0.8 ** int(5 * done),  # five levels
}


@dataclass(frozen=True)
class Settings:
    """How a model is fitted; two fits with equal settings on one machine agree bit for bit.

    Attributes:
        epochs: passes through the data.
        lr: learning rate.
        batch_size: samples per step, over all processes; None for all at once.
        weight_decay: of Adam.
        clip: largest norm of the whole gradient; None for no limit.
        accumulate: parts in which each batch is computed, over all processes, to save memory; a
            batch in parts gives the same gradient to the last bit on any number of processes that
            divides it. With 1, each process takes one part.
        schedule: of the learning rate: a key of ``SCHEDULES``.
        monitor: the metric that says which epoch is best.
        mode: ``"max"`` or ``"min"``: which is better.
        smoothing: share of the newest epoch in the running mean of the metric that decides; 1 for the metric
            itself. A small share keeps a lucky epoch on few samples from winning.
        patience: epochs without a better one after which to stop; None never to.
        seed: of the order of the samples.

    Raises:
        TypeError: if a value is of the wrong kind.
        ValueError: if one is out of range.
    """

    epochs: int
    lr: float = 1e-3
    batch_size: int | None = None
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    schedule: str = "constant"
    monitor: str = "validation_accuracy"
    mode: str = "max"
    smoothing: float = 1.0
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate"):
            checks.positive_int(name, getattr(self, name))
        for name in ("batch_size", "patience"):
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name))
        checks.positive_int("seed", self.seed, at_least=0)
        checks.real("lr", self.lr, above=0.0, at_most=100.0, remedy="0.005 is a good start")
        checks.real("weight_decay", self.weight_decay, at_least=0.0)
        if self.clip is not None:
            checks.real("clip", self.clip, above=0.0)
        checks.real("smoothing", self.smoothing, above=0.0, at_most=1.0)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.one_of("mode", self.mode, ("max", "min"))

    def rate(self, epoch: int) -> float:
        """Return the learning rate of epoch ``epoch``, from 0."""
        return self.lr * SCHEDULES[self.schedule](epoch / self.epochs)

    def score(self, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]) -> float:
        """Return the score of a new epoch: the monitored metric, smoothed over the epochs before.

        Raises:
            ValueError: if the metric is not among ``metrics``.
        """
        checks.one_of("monitor", self.monitor, metrics)
        newest = metrics[self.monitor]
        before = history[-1]["score"] if history else newest
        return newest if self.smoothing == 1 else (1 - self.smoothing) * before + self.smoothing * newest

    def best(self, history: Sequence[Mapping[str, float]]) -> int:
        """Return the index of the epoch with the best score, and among equals the latest."""
        sign = 1 if self.mode == "max" else -1
        return max(range(len(history)), key=lambda i: (sign * history[i]["score"], i))

    def stops(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Tell whether training is over: all epochs done, or patience at its end."""
        if len(history) >= self.epochs:
            return True
        if self.patience is None or not history:
            return False
        return len(history) - 1 - self.best(history) >= self.patience
