"""The training loop: knows nothing of the task, the command line or figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fracspike.files import locked, output_folder, remove_leftovers
from fracspike.solvers import checks

from . import checkpoint, gradients, randomness
from .gradients import Loss, Samples
from .machine import Machine
from .settings import Settings

Validate = Callable[[nn.Module], Mapping[str, float]]
Record = dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """What a fit came to.

    Attributes:
        history: for each epoch ``epoch`` (from 1), ``lr``, ``loss`` (mean over the steps), what ``validate``
            measured, and ``score``, which decides.
        best: the record of the epoch whose weights the model now has.
        seconds: spent training, over all runs that it took.
    """

    history: Sequence[Record]
    best: Record
    seconds: float


def adam(parameters: Any, settings: Settings) -> Optimizer:
    """Return the default optimiser: Adam, with the settings' rate and weight decay."""
    return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def fit(
    model: nn.Module,
    data: Samples,
    loss: Loss,
    settings: Settings,
    folder: str | Path | None = None,
    *,
    validate: Validate,
    optimizer: Callable[[Any, Settings], Optimizer] = adam,
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    machine: Machine | None = None,
    save_every: float = 60.0,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_step: Callable[[float], None] = lambda done: None,
) -> Fitted:
    """Train ``model`` in place, and give it the weights of the best epoch.

    Draws noise from torch's global random state and gives that back afterwards; seed it before the model is
    made, as usual. With ``folder``, a checkpoint is kept there, from which ``resume`` goes on to the
    bit-identical result, wherever the training was stopped.

    Args:
        model: called by ``loss`` and ``validate``; in training and evaluation mode respectively.
        data: a data set that takes a tensor of indices, such as ``torch.utils.data.TensorDataset``; what
            is always taken whole, such as a graph, goes into :class:`Whole`.
        loss: ``loss(model, batch)``, a mean over the samples of ``data[indices]``.
        settings: see :class:`Settings`.
        folder: for the checkpoint; made if need be. None keeps nothing.
        validate: ``validate(model)``, numbers by name, measured without gradients after each epoch by every
            process alike; ``settings.monitor`` is one of them.
        optimizer: makes the optimiser of the parameters and settings.
        config: what the outcome depends on besides the settings, as numbers, texts and None; a
            checkpoint of other settings or ``config`` is refused.
        resume: go on from the checkpoint in ``folder``; otherwise an earlier one is set aside.
        machine: processes, device and precision; by default one process on the processor, unless a launcher
            has made several.
        save_every: seconds between checkpoints within an epoch.
        on_epoch: told of each epoch, after it has been kept, in the leading process.
        on_step: told how many epochs are done, with the share of the present one, in the leading process.

    Returns:
        The history and the best epoch.

    Raises:
        ValueError: if a setting does not fit, the folder cannot be written to, or the checkpoint is
            missing, damaged or of other settings.
        RuntimeError: if the training diverges; what was kept until then stays.

    >>> import torch
    >>> from torch.nn.functional import mse_loss
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> data = torch.utils.data.TensorDataset(x, 3 * x)
    >>> done = fit(
    ...     torch.nn.Linear(1, 1), data, lambda model, batch: mse_loss(model(batch[0]), batch[1]),
    ...     Settings(epochs=60, lr=0.1, batch_size=8, monitor="error", mode="min"),
    ...     validate=lambda model: {"error": mse_loss(model(x), 3 * x).item()})
    >>> done.best["error"] < 1e-3
    True
    """
    checks.real("save_every", save_every, at_least=0.0)
    machine = Machine("cpu") if machine is None else machine
    path = None if folder is None else output_folder(folder) / checkpoint.NAME
    depends = {**asdict(settings), **(config or {})}
    lock = locked(path.parent) if path is not None and machine.leads else contextlib.nullcontext()
    with lock, randomness.preserved():
        if path is not None and machine.leads:
            remove_leftovers(path.parent)
        training = Training(model, data, loss, settings, validate, optimizer, machine)
        if resume:
            if path is None:
                raise ValueError("`resume` needs a `folder` with a checkpoint, got none")
            training.resume(path, depends)
        elif path is not None and machine.leads:
            checkpoint.set_aside(path)
            checkpoint.save(path, depends, training.state())
        training.run(Keeper(path if machine.leads else None, depends, save_every), on_epoch, on_step)
    return Fitted(training.history, training.history[settings.best(training.history)], training.seconds)


class Whole:
    """Data of one sample that is always taken whole, such as a graph.

    Args:
        thing: what ``loss`` is given as the batch.
    """

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return self.thing


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

    def keep_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint if the last one is older than ``every`` seconds."""
        if self.path is not None and time.monotonic() - self._last >= self.every:
            self.keep(state)


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
        self.parts = settings.accumulate if settings.accumulate > 1 else machine.world
        if self.parts % machine.world:
            raise ValueError(
                f"`accumulate` must be a multiple of the number of processes, got {settings.accumulate} "
                f"for {machine.world}"
            )
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

    def run(
        self, keeper: Keeper, on_epoch: Callable[[Record], None], on_step: Callable[[float], None]
    ) -> None:
        """Train until the settings say stop, then take the best weights."""
        while not self.settings.stops(self.history):
            self._epoch(keeper, on_step if self.machine.leads else lambda done: None)
            keeper.keep(self.state)
            if self.machine.leads:
                on_epoch(self.history[-1])
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
                keeper.keep_if_due(self.state)
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

    def _step(self, chosen: Tensor) -> float:
        try:
            if self.parts == 1:
                value = gradients.whole(self.model, self.data, chosen, self.loss, self.machine)
            else:
                value = gradients.in_parts(
                    self.model, self.data, chosen, self.loss, self.machine, self.parts, self._seed
                )
        except ValueError as error:  # neurons refuse a current that is not finite
            raise self._diverged(str(error)) if self._spoilt() else error from error
        if not _finite(value):
            raise self._diverged("the loss is not finite")
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        return value

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
        return not all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

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
        found: Any = None
        if self.machine.leads:
            try:
                found = checkpoint.load(path, config)
            except ValueError as error:
                found = error
        found = self.machine.broadcast(found)
        if isinstance(found, ValueError):
            raise found
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


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
