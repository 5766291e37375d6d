"""Fitting a model: the loop, its folder and its checkpoints; knows nothing of tasks or figures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fracspike.files import locked, move_aside, output_folder, remove_leftovers
from fracspike.solvers import checks

from . import checkpoint, randomness
from .gradients import Loss, Samples
from .loop import Keeper, Record, Training, Validate, parts_of
from .machine import Machine
from .settings import Settings


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
        resume: go on from the checkpoint in ``folder``; otherwise an earlier one is moved to a folder of its
            own in it, ``previous``, ``previous-2`` and so on.
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
        RuntimeError: if the training diverges: the step that would have spoilt the weights is not taken, and
            what was kept until then stays. Also if another process died.
        DiskFullError: if there is no space for a checkpoint; the one before stays.

    Warns:
        UserWarning: if an earlier checkpoint was moved, if the one before a damaged or missing one was taken,
            and if spiking layers were silent in the first batches.

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
    started = time.time()
    check_save_every(save_every)
    machine = Machine("cpu") if machine is None else machine
    parts_of(settings, machine)
    if resume and folder is None:
        raise ValueError("`resume` needs a `folder` with a checkpoint, got none")
    depends = {**asdict(settings), **(config or {})}
    with ExitStack() as stack:
        path = None if folder is None else Path(folder) / checkpoint.NAME

        def enter(path: Path) -> None:
            stack.enter_context(locked(output_folder(path.parent)))
            remove_leftovers(path.parent, started)

        def begin(path: Path) -> Path | None:
            aside = move_aside(path.parent, checkpoint.OWN)
            checkpoint.save(path, depends, training.state())
            return aside

        if path is not None:
            machine.lead(partial(enter, path))
        stack.enter_context(randomness.preserved())
        training = Training(model, data, loss, settings, validate, optimizer, machine)
        if path is not None and resume:
            training.resume(path, depends)
        elif path is not None:
            say_moved(machine.lead(partial(begin, path)), machine)
        training.run(Keeper(path if machine.leads else None, depends, save_every), on_epoch, on_step)
    return Fitted(training.history, training.history[settings.best(training.history)], training.seconds)


def check_save_every(seconds: float) -> None:
    """Check ``save_every`` of :func:`fit`, before anything is written."""
    checks.real("save_every", seconds, at_least=0.0, remedy="60 is a good interval")


def say_moved(aside: Path | None, machine: Machine) -> None:
    """Warn that an earlier training is elsewhere now, if one is; in the leading process."""
    if aside is not None and machine.leads:
        warnings.warn(
            f"an earlier training in {aside.parent} is kept, and is now in {aside}; "
            "to go on with it, move it to a folder of its own and resume it there",
            stacklevel=3,
        )


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
