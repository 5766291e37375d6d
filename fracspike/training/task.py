"""What a task is: data in three parts, a network, and the options that both depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fracspike.solvers import checks

from .machine import PRECISIONS

MOST_THREADS = 1024  # of a process; the system gives no more, and ends a process that asks for them


@dataclass(frozen=True)
class Options:
    """What a training depends on, besides the task; two runs with equal options agree bit for bit.

    Attributes:
        epochs: passes through the training part.
        alpha: Caputo order of every neuron; 1 is the memoryless control.
        lr: learning rate of Adam.
        batch_size: images per step.
        hidden: neurons per hidden layer.
        surrogate: name of the surrogate gradient.
        seed: of the split, the initial weights, the order of the batches and the noise.
        network: which of the task's networks; empty for its first.
        patience: epochs without a better one after which to stop; None never to.
        clip: largest norm of the gradient; None for no limit.
        accumulate: parts in which each batch is computed, over all processes.
        precision: ``"32"``, or ``"bf16"`` for autocast.
        threads: that torch may use in each process.

    Raises:
        TypeError: if a value is of the wrong kind.
        ValueError: if one is out of range.
    """

    epochs: int = 40
    alpha: float = 0.7
    lr: float = 5e-3
    batch_size: int = 64
    hidden: int = 256
    surrogate: str = "atan"
    seed: int = 0
    network: str = ""
    patience: int | None = None
    clip: float | None = None
    accumulate: int = 1
    precision: str = "32"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "hidden", "accumulate"):
            checks.positive_int(name, getattr(self, name))
        checks.positive_int("threads", self.threads, at_most=MOST_THREADS)
        if self.patience is not None:
            checks.positive_int("patience", self.patience)
        if self.clip is not None:
            checks.real("clip", self.clip, above=0.0)
        checks.one_of("precision", self.precision, PRECISIONS)
        checks.positive_int("seed", self.seed, at_least=0)
        checks.order("alpha", self.alpha)
        checks.real("lr", self.lr, above=0.0, at_most=100.0, remedy="0.005 is a good start")


class Images(NamedTuple):
    """Inputs ``(T, N, F)``, time first as the neurons want it, and their classes ``(N,)``."""

    inputs: Tensor
    labels: Tensor


class Data(NamedTuple):
    """The three parts: learnt from, chosen by, and measured on once."""

    training: Images
    validation: Images
    test: Images


@dataclass(frozen=True)
class Task:
    """Real data and a network for it.

    Attributes:
        name: what the command line calls it.
        title: one line.
        source: where the data come from.
        classes: names of the classes, in the order of the labels.
        load: returns the data, split by the seed it is given, from the folder it is given; of None it is
            to find the data by itself.
        network: returns a network that maps inputs ``(T, N, F)`` to class scores ``(N, classes)``,
            initialised from torch's random state.
        networks: what ``Options.network`` may be; the first is the default. Empty if there is one only.
        defaults: options that differ from those of :class:`Options`, by name.
    """

    name: str
    title: str
    source: str
    classes: Sequence[str]
    load: Callable[[int, Path | None], Data]
    network: Callable[[Options], nn.Module]
    networks: Sequence[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def options(self, **chosen: Any) -> Options:
        """Return the options of a training: those chosen, otherwise the task's, otherwise the common.

        Args:
            chosen: options by name; None stands for the default.

        Raises:
            TypeError: if a value is of the wrong kind, or there is no such option.
            ValueError: if one is out of range, or the task has no such network.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        options = Options(**{**self.defaults, **given})
        if self.networks:
            network = checks.one_of("network", options.network or self.networks[0], self.networks)
            return replace(options, network=network)
        if options.network:
            raise ValueError(
                f"`network` must be left out, as {self.name!r} has one only; got {options.network!r}"
            )
        return options


def split(inputs: Tensor, labels: Tensor, fractions: tuple[float, float], seed: int) -> Data:
    """Split images at random, every class in the same proportions.

    Args:
        inputs: ``(T, N, F)``.
        labels: ``(N,)``.
        fractions: the shares of validation and test; the rest is for training.
        seed: decides the split, whatever was drawn before.

    Returns:
        Three parts without an image in common.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        validation, test = (round(share * len(members)) for share in fractions)
        sizes = [len(members) - validation - test, validation, test]
        for part, chosen in zip(parts, members.split(sizes), strict=True):
            part.append(chosen)
    chosen_parts = (torch.cat(part) for part in parts)
    return Data(*(Images(inputs[:, index], labels[index]) for index in chosen_parts))
