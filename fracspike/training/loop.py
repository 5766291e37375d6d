"""The training loop: what is done in each epoch and batch, and everything that must be kept for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fracspike.layers.silence import Silence

from . import checkpoint, gradients, randomness
from .gradients import Loss, Samples
from .machine import Machine
from .settings import Settings

Validate = Callable[[nn.Module], Mapping[str, float]]
Record = dict[str, float]
LOOKS = 8  # batches in which a layer must spike once, or a warning says that it does not


def parts_of(settings: Settings, machine: Machine) -> int:
    """Return in how many parts a batch is computed.

    Raises:
        ValueError: if the processes cannot share them.
    """
    parts = settings.accumulate if settings.accumulate > 1 else machine.world
    if parts % machine.world:
        raise ValueError(
            f"`accumulate` must be a multiple of the number of processes, got {settings.accumulate} "
            f"for {machine.world}"
        )
    return parts


class Keeper:
    """Writes checkpoints: when told, and when the last one is old."""

    def __init__(self, path: Path | None, config: dict[str, Any], every: float) -> None:
        self.path, self.config, self.every = path, config, every
        self._last = time.monotonic()

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint."""
        if self.path is not None:
            checkpoint.save(self.path, self.config, state())
            self._last = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether the last checkpoint is older than ``every`` seconds."""
        return self.path is not None and time.monotonic() - self._last >= self.every


class Training:
    """A model on its way: everything that must be kept to go on as if nothing had happened."""

    def __init__(
        self,
        model: nn.Module,
        data: Samples,
        loss: Loss,
        settings: Settings,
        validate: Validate,
        optimizer: Callable[[Any, Settings], Optimizer],
        machine: Machine,
    ) -> None:
        self.parts = parts_of(settings, machine)
        self.model = model.to(machine.device)
        self.data, self.loss, self.validate = data, loss, validate
        self.settings, self.machine = settings, machine
        machine.agree([*model.parameters(), *model.buffers()])
        self.optimizer = optimizer([p for p in model.parameters() if p.requires_grad], settings)
        self.shuffle = randomness.Shuffle(len(data), settings.seed)
        self.history: list[Record] = []
        self.best: dict[str, Tensor] = {}
        self.step = 0  # of the epoch that is under way
        self.losses = 0.0  # sum over its steps
        self.seconds = 0.0
        self._silence = Silence(model)
        self._looks = LOOKS  # batches in which silent layers are still looked for
        self._resumed = False
        self._trouble: Exception | None = None  # of this process, to be told to the others

    def run(
        self, keeper: Keeper, on_epoch: Callable[[Record], None], on_step: Callable[[float], None]
    ) -> None:
        """Train until the settings say stop, then take the best weights."""
        while not self.settings.stops(self.history):
            self._epoch(keeper, on_step if self.machine.leads else lambda done: None)
            self.machine.lead(lambda: keeper.keep(self.state))
            if self.machine.leads:
                on_epoch(self.history[-1])
        if 0 < self._looks < LOOKS and not self._resumed:  # the rest of a training may be too short to tell
            self._tell_silence(LOOKS - self._looks)
        self.model.load_state_dict(self.best)

    def _epoch(self, keeper: Keeper, on_step: Callable[[float], None]) -> None:
        start = time.perf_counter()
        self.model.train()
        rate = self.settings.rate(len(self.history))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = self.shuffle.order(len(self.history))
        batches = torch.split(order, self.settings.batch_size or len(order))
        for chosen in batches[self.step :]:
            self.losses += self._step(chosen)
            self.step += 1
            if self.step < len(batches):
                now = time.perf_counter()
                self.seconds, start = self.seconds + now - start, now
                if keeper.is_due():
                    self._keep_within_epoch(keeper)
            on_step(len(self.history) + self.step / len(batches))
        metrics = self._measure()
        score = self.settings.score(self.history, metrics)
        number = len(self.history) + 1
        self.history.append(
            {"epoch": number, "lr": rate, "loss": self.losses / self.step, **metrics, "score": score}
        )
        self.step, self.losses = 0, 0.0
        if self.settings.best(self.history) == number - 1:
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.seconds += time.perf_counter() - start

    def _keep_within_epoch(self, keeper: Keeper) -> None:
        """Write a checkpoint, but not of weights that the last step has spoilt: the next step will say so."""
        if self._spoilt():
            return
        try:
            keeper.keep(self.state)
        except Exception as error:
            if self.machine.world == 1:
                raise
            self._trouble = error  # told to the others with the next batch, as they do not wait now

    def _step(self, chosen: Tensor) -> float:
        """Learn from a batch; weights are changed only if loss and gradient are finite."""
        with self._silence.watching() if self._looks else nullcontext():
            value = self._gradient(chosen)
        if not _finite(value):
            raise self._diverged("the loss is not finite")
        wrong = gradients.not_finite(self.model)
        if wrong is not None:
            raise self._diverged(
                f"{wrong}, although the loss is ({value:.6g}); the step was not taken and the weights are "
                "kept. If a lower rate does not help, look for a root or a division of 0 in loss and layers"
            )
        if self.settings.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            if not _finite(norm.item()):  # clipping has made it 0, and nothing would be learnt any more
                raise self._diverged("the norm of the gradient is too large for its precision")
        self.optimizer.step()
        if self._looks:
            self._looks -= 1
            if not self._looks:
                self._tell_silence(LOOKS)
        return value

    def _gradient(self, chosen: Tensor) -> float:
        """Put the gradient of a batch into the model and return the loss."""
        try:
            if self.parts == 1:
                return gradients.whole(self.model, self.data, chosen, self.loss, self.machine)
            return gradients.in_parts(
                self.model,
                self.data,
                chosen,
                self.loss,
                self.machine,
                self.parts,
                self._seed,
                self._trouble,
            )
        except ValueError as error:  # neurons refuse a current that is not finite
            raise self._diverged(str(error)) if self._spoilt() else error from error

    def _tell_silence(self, batches: int) -> None:
        """Warn of layers that spiked in no process; all of them come here at the same batch."""
        flags = torch.stack(self.machine.gather(self._silence.flags().to(self.machine.device))).sum(0)
        if self.machine.leads:
            when = "in the first batch" if batches == 1 else f"in the first {batches} batches"
            self._silence.warn(self._silence.layers(flags), when, stacklevel=6)

    def _seed(self, part: int) -> int:
        """Return the seed, in a part of the present batch, of modules that draw by themselves."""
        numbers = (self.settings.seed, len(self.history), self.step, part)
        return randomness.mix(numbers)

    def _measure(self) -> Record:
        self.machine.agree(list(self.model.buffers()))
        self.model.eval()
        try:
            with torch.no_grad(), self.machine.autocast():
                metrics = {name: float(value) for name, value in self.validate(self.model).items()}
        except ValueError as error:
            raise self._diverged(str(error)) if self._spoilt() else error from error
        wrong = [name for name, value in metrics.items() if not _finite(value)]
        if wrong:
            raise self._diverged(f"{wrong[0]} is not finite")
        return metrics

    def _spoilt(self) -> bool:
        return not all(bool(torch.isfinite(p.detach()).all()) for p in self.model.parameters())

    def _diverged(self, reason: str) -> RuntimeError:
        return RuntimeError(
            f"training diverged in epoch {len(self.history) + 1}; lower the learning rate (--lr): {reason}"
        )

    def state(self) -> dict[str, Any]:
        """Return everything as tensors, numbers, texts, lists and dictionaries of such."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": randomness.state(),
            "history": self.history,
            "best": self.best,
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
        }

    def resume(self, path: Path, config: dict[str, Any]) -> None:
        """Go back to where the checkpoint at ``path`` was written, in this or another process.

        Raises:
            ValueError: if it is missing, damaged, or of another ``config``.
        """
        found = self.machine.lead(lambda: checkpoint.load(path, config))
        try:
            self._restore(found)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise checkpoint.damaged(path, type(error).__name__) from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        randomness.restore(state["random"])
        self.history = [dict(record) for record in state["history"]]
        self.best = dict(state["best"])
        self.step = int(state["step"])
        self.losses = float(state["losses"])
        self.seconds = float(state["seconds"])
        self._resumed = bool(self.history or self.step)


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
