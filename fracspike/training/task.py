"""What a task is: data in three parts, a network, and the options that both depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fracspike.solvers import checks


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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "hidden"):
            checks.positive_int(name, getattr(self, name))
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
        load: returns the data, split by the seed it is given.
        network: returns a network that maps inputs ``(T, N, F)`` to class scores ``(N, classes)``,
            initialised from torch's random state.
    """

    name: str
    title: str
    source: str
    classes: Sequence[str]
    load: Callable[[int], Data]
    network: Callable[[Options], nn.Module]


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
