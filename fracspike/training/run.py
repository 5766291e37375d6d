"""One training from start to results on disk: data, network, loop, checkpoint, figures."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.experiments.report import Run, versions
from fracspike.files import locked, move_aside, output_folder, replacing, write_json
from fracspike.threads import threads

from . import board, checkpoint, figures, randomness
from .classify import SMOOTHING, Batches, Epoch, Measure, confusion, loss
from .engine import check_save_every, fit, say_moved
from .loop import parts_of
from .machine import Machine
from .settings import Settings
from .task import Options, Task

BEGUN = "begun.json"  # the options of the training in a folder
CONTROL = "control"  # folder of the control beside a training
RESULTS = ("results.json", "history.csv", "learning_curve.png", "confusion.png")
COMPARISON = ("comparison.csv", "comparison.png")
#: all that trainings write, in an order in which a kill between two moves does no harm: checkpoints last
OWN = (*COMPARISON, *RESULTS, board.NAME, CONTROL, *checkpoint.OWN)


@dataclass(frozen=True)
class Outcome:
    """What a training came to; accuracies are shares of 1.

    Attributes:
        options: what it was trained with.
        history: every epoch.
        best: the epoch whose weights were taken, by the validation part alone.
        confusion: counts on the test part; rows are true classes, columns are answers.
        seconds: time spent training, over all runs that it took.
        weights: SHA-256 of the weights.
    """

    options: Options
    history: Sequence[Epoch]
    best: Epoch
    confusion: Tensor
    seconds: float
    weights: str

    @property
    def test_accuracy(self) -> float:
        """Share of the test images that were named rightly."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())


def train(
    task: Task,
    options: Options,
    folder: Path,
    *,
    resume: bool = False,
    data: Path | None = None,
    machine: Machine | None = None,
    tensorboard: bool = False,
    save_every: float = 60.0,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[float], None] = lambda done: None,
) -> Outcome:
    """Train a network and write checkpoint, history, results and figures to ``folder``.

    Neither reads nor changes the random states and torch's number of threads: the outcome depends on
    the options alone, also when the training was interrupted and resumed.

    Args:
        task: data and network.
        options: see :class:`Options`.
        folder: made if need be.
        resume: go on from the checkpoint in ``folder``; otherwise an earlier training, begun or finished, is
            moved to a folder of its own in it, ``previous``, ``previous-2`` and so on.
        data: folder of the data set; by default it is found or fetched.
        machine: processes and device, of the options' precision; by default the processor alone.
        tensorboard: write curves for TensorBoard too.
        save_every: seconds between checkpoints within an epoch.
        on_epoch: told of each epoch, after it has been kept on disk.
        on_step: told how many epochs are done, with the share of the present one.

    Returns:
        The outcome of the best epoch.

    Raises:
        ValueError: if an option does not fit, the folder cannot be written to, or the checkpoint is
            missing, damaged or of other options.
        RuntimeError: if the training diverges or another process died; what was kept until then stays.
        DiskFullError: if there is no space for a file; the one before stays.

    Warns:
        UserWarning: as :func:`fracspike.training.fit`.
    """
    options = task.options(**asdict(options))
    with threads(options.threads), randomness.preserved(), ExitStack() as stack:
        machine = Machine("cpu", options.precision) if machine is None else machine
        # what can be wrong with the arguments is found before anything is moved
        check_save_every(save_every)
        parts_of(settings(options), machine)
        if tensorboard:
            board.writer()
        config = {"task": task.name, **asdict(options)}
        randomness.seed_everything(options.seed)
        network = _network(task, options)
        resume = machine.lead(lambda: _announce(folder, config, resume))
        images = machine.together(lambda: task.load(options.seed, data))
        if not resume:
            say_moved(machine.lead(lambda: _make_way(folder, config)), machine)
        show = stack.enter_context(board.board(folder)) if tensorboard and machine.leads else None

        def tell(record: Mapping[str, float]) -> None:
            if show is not None:
                show(record)
            on_epoch(Epoch.of(record))

        fitted = fit(
            network,
            Batches(images.training),
            loss,
            settings(options),
            folder,
            validate=Measure(images, machine),
            config=config,
            resume=resume,
            machine=machine,
            save_every=save_every,
            on_epoch=tell,
            on_step=on_step,
        )
        counts = confusion(network, images.test, len(task.classes), machine)
        history = [Epoch.of(record) for record in fitted.history]
        outcome = Outcome(options, history, Epoch.of(fitted.best), counts, fitted.seconds, digest(network))
        machine.lead(lambda: _write(task, outcome, folder, machine))
    return outcome


def settings(options: Options) -> Settings:
    """Return the engine's settings for the options of a training."""
    return Settings(
        epochs=options.epochs,
        lr=options.lr,
        batch_size=options.batch_size,
        clip=options.clip,
        accumulate=options.accumulate,
        schedule="cosine",  # the last epochs only polish
        smoothing=SMOOTHING,
        patience=options.patience,
        seed=options.seed,
    )


def digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights: equal if and only if they agree to the last bit."""
    summed = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        summed.update(f"{name} {array.dtype} {tuple(array.shape)};".encode())
        summed.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


def can_resume(folder: Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint."""
    return checkpoint.exists(folder / checkpoint.NAME)


def kept(task: Task, options: Options, folder: Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint of a training with these options."""
    return can_resume(folder) and _begun(folder, {"task": task.name, **asdict(options)})


def _network(task: Task, options: Options) -> nn.Module:
    try:
        return task.network(options)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error) or "overflow" in str(error):
            raise ValueError(
                f"`hidden` must be so small that the network fits into memory, got {options.hidden}"
            ) from error
        raise


def _begun(folder: Path, config: dict[str, Any]) -> bool:
    try:
        return (folder / BEGUN).read_text(encoding="utf-8") == json.dumps(config)
    except (OSError, ValueError):
        return False


def _say_begun(folder: Path, config: dict[str, Any]) -> None:
    with replacing(folder / BEGUN) as temporary:
        temporary.write_text(json.dumps(config), encoding="utf-8")


def _announce(folder: Path, config: dict[str, Any], resume: bool) -> bool:
    """Say on disk what is begun, unless there is an earlier training; return whether there is one to resume.

    Done before the data are loaded, which may take a while: --resume works from here on.
    """
    with locked(output_folder(folder)):
        if resume:  # unless it was killed before the first checkpoint: the beginning is where it was
            return can_resume(folder) or not _begun(folder, config)
        if not any(os.path.lexists(folder / name) for name in OWN):
            _say_begun(folder, config)
        return False


def _make_way(folder: Path, config: dict[str, Any]) -> Path | None:
    """Move an earlier training aside, and say what is begun; return where the earlier one is."""
    with ExitStack() as stack:
        for place in (folder, folder / CONTROL):
            if place.is_dir():
                stack.enter_context(locked(place))
        aside = move_aside(folder, OWN)
        begun = folder / BEGUN
        if aside is not None and begun.exists():
            shutil.copyfile(begun, aside / BEGUN)
        _say_begun(folder, config)
    return aside


def _write(task: Task, outcome: Outcome, folder: Path, machine: Machine) -> None:
    options, best = outcome.options, outcome.best
    content = {
        "task": task.name,
        "title": task.title,
        "source": task.source,
        "config": asdict(options),
        "seed": options.seed,
        "best_epoch": best.epoch,
        "accuracy": {
            "training": best.training_accuracy,
            "validation": best.validation_accuracy,
            "test": outcome.test_accuracy,
        },
        "confusion": outcome.confusion.tolist(),
        "weights_sha256": outcome.weights,
        "seconds": round(outcome.seconds, 2),
        "machine": {"device": machine.device.type, "processes": machine.world},
        "versions": versions(),
    }
    with locked(folder):
        _write_all(task, outcome, folder, content)


def _write_all(task: Task, outcome: Outcome, folder: Path, content: Mapping[str, Any]) -> None:
    options = outcome.options
    run = Run(folder, seed=options.seed)
    run.save_table("history", [field.name for field in fields(Epoch)], map(astuple, outcome.history))
    label = f"{task.name}, alpha {options.alpha:g}, seed {options.seed}"
    accuracy = f"{outcome.test_accuracy:.1%} of {int(outcome.confusion.sum())} test images right"
    curves = figures.learning_curves(f"{label}: {accuracy}", {"": outcome.history})
    run.save_figure("learning_curve", curves)
    matrix = figures.confusion_matrix(f"{label}\n{accuracy}", outcome.confusion, task.classes)
    run.save_figure("confusion", matrix)
    write_json(folder / "results.json", content)


def compare(task: Task, outcomes: Mapping[str, Outcome], folder: Path) -> None:
    """Write ``comparison.csv`` and ``comparison.png``: several trainings side by side.

    Args:
        task: what they were trained for.
        outcomes: by name.
        folder: exists.
    """
    run = Run(folder)
    header = ("alpha", "seed", "best_epoch", "validation_accuracy", "test_accuracy")
    lines = (
        (o.options.alpha, o.options.seed, o.best.epoch, o.best.validation_accuracy, o.test_accuracy)
        for o in outcomes.values()
    )
    run.save_table("comparison", header, lines)
    title = f"{task.name}: " + ", ".join(
        f"{name} {outcome.test_accuracy:.1%}" for name, outcome in outcomes.items()
    )
    histories = {f"{name}, ": outcome.history for name, outcome in outcomes.items()}
    run.save_figure("comparison", figures.learning_curves(f"{title} of the test images right", histories))
