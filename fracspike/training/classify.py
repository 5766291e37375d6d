"""Learning to name images: the loss, and what is measured of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .machine import Machine
from .task import Data, Images

#: share of the newest epoch in the smoothed validation accuracy: so small that a lucky epoch hardly
#: counts and the last ones, polished by a falling learning rate, win unless training has gone wrong
SMOOTHING = 0.1
PIECE = 2048  # images that are measured at once
LOOK = 10000  # images of the training part, at most, that are measured after an epoch


@dataclass(frozen=True)
class Epoch:
    """What was measured after an epoch, with the noise off; accuracies are shares of 1."""

    epoch: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float

    smoothed_accuracy: float

    @classmethod
    def of(cls, record: Mapping[str, float]) -> Epoch:
        """Return the epoch of a record of the engine's history."""
        return cls(
            int(record["epoch"]),
            record["training_loss"],
            record["training_accuracy"],
            record["validation_loss"],
            record["validation_accuracy"],
            record["score"],
        )


def best_of(history: Sequence[Epoch]) -> Epoch:
    """Return the best epoch: the highest smoothed validation accuracy, and among equals the latest.

    On a few hundred images the accuracy of one epoch moves by luck, and the highest of forty is
    the luckiest; a running mean is not so easily deceived.
    """
    return max(reversed(history), key=lambda epoch: epoch.smoothed_accuracy)


class Batches:
    """Images as the engine wants its data: batches by indices, of inputs ``(T, B, F)`` and labels."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: Any) -> Images:
        return Images(self.images.inputs[:, index], self.images.labels[index])


def loss(network: nn.Module, batch: Images) -> Tensor:
    """Return the mean cross entropy of a batch."""
    return cross_entropy(network(batch.inputs).float(), batch.labels)


class Measure:
    """Loss and accuracy on the training and validation parts.

    Args:
        data: of the training part a fixed choice is measured, if it is large.
        machine: its processes share the work.
    """

    def __init__(self, data: Data, machine: Machine) -> None:
        every = -(-len(data.training.labels) // LOOK)
        self.parts = {
            "training": data.training if every == 1 else Batches(data.training)[slice(None, None, every)],
            "validation": data.validation,
        }
        self.machine = machine

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Return ``training_loss``, ``training_accuracy``, ``validation_loss``, ``validation_accuracy``."""
        measured = {}
        for name, images in self.parts.items():
            measured[f"{name}_loss"], measured[f"{name}_accuracy"] = self._of(network, images)
        return measured

    def _of(self, network: nn.Module, images: Images) -> tuple[float, float]:
        count = len(images.labels)
        if count <= PIECE:
            mean, right = self._piece(network, images)
            return mean, right / count
        starts = range(0, count, PIECE)

        def own() -> Tensor:
            sums = torch.zeros(len(starts), 2, dtype=torch.float64)
            for i in range(self.machine.rank, len(starts), self.machine.world):
                piece = Batches(images)[slice(starts[i], starts[i] + PIECE)]
                mean, right = self._piece(network, piece)
                sums[i] = torch.tensor([mean * len(piece.labels), right])
            return sums

        sums = self.machine.together(own)
        everyone = self.machine.gather(sums.to(self.machine.device))
        # each line is that of the process that measured it, and the sum is in the order of the pieces
        lines = [everyone[i % self.machine.world][i].tolist() for i in range(len(starts))]
        total, hits = (sum(column) for column in zip(*lines, strict=True))
        return total / count, hits / count

    def _piece(self, network: nn.Module, images: Images) -> tuple[float, int]:
        inputs, labels = self.machine.to_device(images)
        scores = network(inputs).float()
        return cross_entropy(scores, labels).item(), int((scores.argmax(1) == labels).sum())


def _pieces(images: Images) -> Iterator[Images]:
    for start in range(0, len(images.labels), PIECE):
        yield Batches(images)[slice(start, start + PIECE)]


@torch.no_grad()
def confusion(network: nn.Module, images: Images, classes: int, machine: Machine) -> Tensor:
    """Count how often each class was taken for each.

    Args:
        network: trained.
        images: the ones to name.
        classes: how many classes there are.
        machine: where the network is.

    Returns:
        ``(classes, classes)`` counts; rows are true classes, columns are answers.
    """
    network.eval()
    with machine.autocast():
        answers = torch.cat([network(machine.to_device(p.inputs)).argmax(1).cpu() for p in _pieces(images)])
    return torch.bincount(classes * images.labels + answers, minlength=classes**2).reshape(classes, classes)
