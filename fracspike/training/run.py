"""One training from start to results on disk: data, network, loop, checkpoint, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from fracspike.experiments.report import Run, versions
from fracspike.files import output_folder, write_json
from fracspike.threads import one_thread

from . import checkpoint, figures
from .loop import Epoch, Training, confusion, fit
from .task import Options, Task


@dataclass(frozen=True)
class Outcome:
    """What a training came to; accuracies are shares of 1.

    Attributes:
        options: what it was trained with.
        history: every epoch.
        best: the epoch whose weights were taken, by the validation part alone.
        confusion: counts on the test part; rows are true classes, columns are answers.
        seconds: time spent training, over all runs that it took.
    """

    options: Options
    history: Sequence[Epoch]
    best: Epoch
    confusion: Tensor
    seconds: float

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
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Outcome:
    """Train a network and write checkpoint, history, results and figures to ``folder``.

    Neither reads nor changes torch's random state and number of threads: the outcome depends on
    the options alone, also when the training was interrupted and resumed.

    Args:
        task: data and network.
        options: see :class:`Options`.
        folder: made if need be.
        resume: go on from the checkpoint in ``folder``; otherwise an earlier one is set aside.
        on_epoch: told of each epoch, after it has been kept on disk.

    Returns:
        The outcome of the best epoch.

    Raises:
        ValueError: if an option does not fit, the folder cannot be written to, or the checkpoint is
            missing, damaged or of other options.
        RuntimeError: if the training diverges; what was kept until then stays.
    """
    path = folder / checkpoint.NAME
    config = {"task": task.name, **asdict(options)}
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        training = Training(task.network(options), options)
        output_folder(folder)
        if resume:
            _restore(training, path, config)
        else:  # before the data are loaded, which may take a while: --resume works from here on
            set_aside(folder)
            checkpoint.save(path, config, training.state())
        data = task.load(options.seed)
        fit(training, data, lambda state: checkpoint.save(path, config, state), on_epoch)
        counts = confusion(training.network, data.test, len(task.classes))
    outcome = Outcome(options, training.history, training.best_epoch, counts, training.seconds)
    _write(task, outcome, folder)
    return outcome


def can_resume(folder: Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint."""
    return (folder / checkpoint.NAME).exists()


def set_aside(folder: Path) -> None:
    """Rename the checkpoint in ``folder``, if there is one, so that a new training cannot replace it."""
    checkpoint.set_aside(folder / checkpoint.NAME)


def _restore(training: Training, path: Path, config: dict[str, object]) -> None:
    state = checkpoint.load(path, config)
    try:
        training.restore(state)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise checkpoint.damaged(path, type(error).__name__) from error


def _write(task: Task, outcome: Outcome, folder: Path) -> None:
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
        "seconds": round(outcome.seconds, 2),
        "versions": versions(),
    }
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
