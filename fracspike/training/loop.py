"""The training loop: knows nothing of the task, the command line or files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .task import Data, Images, Options


@dataclass(frozen=True)
class Epoch:
    """What was measured after an epoch, with the noise off; accuracies are shares of 1."""

    epoch: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float

    smoothed_accuracy: float


#: share of the newest epoch in the smoothed validation accuracy: so small that a lucky epoch hardly
#: counts and the last ones, polished by a falling learning rate, win unless training has gone wrong
SMOOTHING = 0.1


def best_of(history: Sequence[Epoch]) -> Epoch:
    """Return the best epoch: the highest smoothed validation accuracy, and among equals the latest.

    On a few hundred images the accuracy of one epoch moves by luck, and the highest of forty is
    the luckiest; a running mean is not so easily deceived.
    """
    return max(reversed(history), key=lambda epoch: epoch.smoothed_accuracy)


class Training:
    """A network on its way: everything that must be kept to go on as if nothing had happened.

    Draws the noise from torch's global random state, which it keeps and restores too, but the
    order of the batches from a generator of its own, so that two networks that draw differently
    still see the same batches.

    Args:
        network: to be trained, in place.
        options: epochs, learning rate, batch size and seed are used.
    """

    def __init__(self, network: nn.Module, options: Options) -> None:
        self.network = network
        self.options = options
        self.optimizer = torch.optim.Adam(network.parameters(), lr=options.lr)
        self.shuffling = torch.Generator().manual_seed(options.seed)
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0

    def run_epoch(self, data: Data) -> None:
        """Go through the training part once, then measure; keep the weights if they are the best.

        Args:
            data: the training and validation parts are used.

        Raises:
            RuntimeError: if the training diverges.
        """
        start = time.perf_counter()
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        order = torch.randperm(len(data.training.labels), generator=self.shuffling)
        for chosen in torch.split(order, self.options.batch_size):
            self._step(Images(data.training.inputs[:, chosen], data.training.labels[chosen]))
        training, validation = self._measure(data.training), self._measure(data.validation)
        before = self.history[-1].smoothed_accuracy if self.history else validation[1]
        smoothed = (1 - SMOOTHING) * before + SMOOTHING * validation[1]
        self.history.append(Epoch(len(self.history) + 1, *training, *validation, smoothed))
        if self.best_epoch is self.history[-1]:
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.seconds += time.perf_counter() - start

    def _rate(self) -> float:
        """Return the learning rate, which falls to 0 along half a cosine: the last epochs only polish."""
        done = len(self.history) / self.options.epochs
        return self.options.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _step(self, batch: Images) -> None:
        self.optimizer.zero_grad()
        loss = cross_entropy(self._scores(batch.inputs), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _measure(self, images: Images) -> tuple[float, float]:
        self.network.eval()
        with torch.no_grad():
            scores = self._scores(images.inputs)
            loss = cross_entropy(scores, images.labels).item()
        return loss, (scores.argmax(1) == images.labels).double().mean().item()

    def _scores(self, inputs: Tensor) -> Tensor:
        advice = f"training diverged in epoch {len(self.history) + 1}; lower the learning rate (--lr)"
        try:
            scores: Tensor = self.network(inputs)
        except ValueError as error:  # neurons refuse a current that is not finite; the images are
            raise RuntimeError(f"{advice}: {error}") from error
        if not bool(torch.isfinite(scores).all()):
            raise RuntimeError(f"{advice}: a score is not finite")
        return scores

    @property
    def best_epoch(self) -> Epoch:
        """The epoch whose weights are in ``best``."""
        return best_of(self.history)

    def state(self) -> dict[str, Any]:
        """Return everything as tensors, numbers, texts, lists and dictionaries of such."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "shuffling": self.shuffling.get_state(),
            "noise": torch.get_rng_state(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where :meth:`state` was called, in this or another process.

        Args:
            state: what :meth:`state` returned, for an equal network and equal options.

        Raises:
            KeyError: if something is missing.
            RuntimeError: if the weights do not fit the network.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.shuffling.set_state(state["shuffling"])
        torch.set_rng_state(state["noise"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best = dict(state["best"])
        self.seconds = float(state["seconds"])


def fit(
    training: Training,
    data: Data,
    save: Callable[[dict[str, Any]], None],
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train until as many epochs are done as the options say, then take the best weights.

    Args:
        training: fresh, or restored.
        data: the training and validation parts are used.
        save: keeps the state it is given; called after each epoch.
        on_epoch: told of each epoch, after it has been kept.

    Raises:
        RuntimeError: if the training diverges.
    """
    while len(training.history) < training.options.epochs:
        training.run_epoch(data)
        save(training.state())
        on_epoch(training.history[-1])
    training.network.load_state_dict(training.best)


@torch.no_grad()
def confusion(network: nn.Module, images: Images, classes: int) -> Tensor:
    """Count how often each class was taken for each.

    Args:
        network: trained.
        images: the ones to name.
        classes: how many classes there are.

    Returns:
        ``(classes, classes)`` counts; rows are true classes, columns are answers.
    """
    network.eval()
    answers = network(images.inputs).argmax(1)
    return torch.bincount(classes * images.labels + answers, minlength=classes**2).reshape(classes, classes)
