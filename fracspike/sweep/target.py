"""What can be swept: a training task, or an experiment that publishes parameters and a trial."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fracspike import experiments, training
from fracspike.experiments import Experiment
from fracspike.files import InUseError
from fracspike.solvers import checks
from fracspike.threads import one_thread
from fracspike.training import Options, Task, randomness

from .grid import SEED, Grid, Point, Value, label

KINDS = {"patience": int, "clip": float}  # options without a default


@dataclass(frozen=True)
class Target:
    """Something to measure at the points of a grid.

    Attributes:
        name: of the results' folder.
        title: one line.
        kinds: the types of what may be varied, by name; ``seed`` is always among them.
        defaults: values of what is not varied, by name.
        check: raises ValueError or TypeError for parameters and a seed that cannot be measured; quick.
        try_out: the same, for what takes longer to see; called for each value of each axis.
        trial: measures a point: given parameters, seed, and a folder of its own, returns numbers by
            name. Called again with the same folder if the first call was cut short.
    """

    name: str
    title: str
    kinds: Mapping[str, type]
    defaults: Mapping[str, Any]
    check: Callable[[Mapping[str, Value], int], None]
    try_out: Callable[[Mapping[str, Value], int], None]
    trial: Callable[[Mapping[str, Value], int, Path], Mapping[str, float]]

    def measure(self, point: Point, folder: Path) -> dict[str, float]:
        """Return what was measured at a point, with the random states seeded and kept to one thread.

        Args:
            point: values by name.
            folder: for the trial alone.

        Raises:
            RuntimeError: if nothing was measured, or a number is not finite.
        """
        parameters, seed = _parted(point)
        with one_thread(), randomness.preserved():
            randomness.seed_everything(seed)
            measured = {name: float(v) for name, v in self.trial(parameters, seed, folder).items()}
        wrong = [name for name, value in measured.items() if not math.isfinite(value)]
        if wrong or not measured:
            raise RuntimeError(f"{wrong[0]} is not finite" if wrong else "nothing was measured")
        return measured

    def check_grid(self, grid: Grid) -> None:
        """Look at every point of a grid, before the first is measured.

        Raises:
            ValueError: if one cannot be measured; it names the point.
        """
        points = grid.points()
        first = points[0]
        single = [{**first, axis: value} for axis, values in grid.axes.items() for value in values]
        with randomness.preserved():
            for check, looked_at in ((self.check, points), (self.try_out, single)):
                for point in looked_at:
                    try:
                        check(*_parted(point))
                    except (ValueError, TypeError) as error:
                        raise ValueError(f"the grid's point {label(point)} is wrong: {error}") from error


def _parted(point: Point) -> tuple[dict[str, Value], int]:
    """Return parameters and seed."""
    return {name: value for name, value in point.items() if name != SEED}, int(point.get(SEED, 0))


def find(name: str, data: Path | None = None) -> Target:
    """Return what is called ``name``.

    Args:
        name: an experiment with a trial, a training task, or ``package.module:NAME`` for an
            ``Experiment`` or ``Task`` of your own.
        data: folder of the data set of a training task.

    Raises:
        ValueError: if there is none, or it cannot be swept.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        return _of(_own(name, module, attribute), data)
    if name in experiments.MODULES and experiments.get(name).trial is not None:
        return _of(experiments.get(name), data)
    if name in training.TASKS:
        return _of(training.get(name), data)
    if name in experiments.MODULES:
        return _of(experiments.get(name), data)
    checks.one_of("experiment to sweep", name, [*training.TASKS, *experiments.MODULES])
    raise AssertionError("unreachable")


def _own(name: str, module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"`experiment to sweep` must be importable, got {name!r}: {error}") from error


def _of(thing: Any, data: Path | None) -> Target:
    if isinstance(thing, Task):
        return _of_task(thing, data)
    if not isinstance(thing, Experiment):
        raise ValueError(f"`experiment to sweep` must be an Experiment or a Task, got {type(thing).__name__}")
    trial = thing.trial
    if trial is None:
        raise ValueError(
            f"`experiment to sweep` must publish parameters, which {thing.name!r} does not; "
            f"training tasks do: {', '.join(training.TASKS)}"
        )
    if data is not None:
        raise ValueError(
            f"`data` must be left out for the experiment {thing.name!r}; set FRACSPIKE_DATA to the folder "
            "that holds the data set's"
        )
    defaults = dict(thing.parameters)

    def measure(parameters: Mapping[str, Value], seed: int, folder: Path) -> Mapping[str, float]:
        return trial({**defaults, **parameters}, seed)

    def check(parameters: Mapping[str, Value], seed: int) -> None:
        if thing.check is not None:
            thing.check({**defaults, **parameters})

    kinds = {**{name: type(value) for name, value in defaults.items()}, SEED: int}
    odd = [name for name, kind in kinds.items() if kind not in (int, float, str)]
    if odd:
        raise ValueError(
            f"`parameters` of {thing.name!r} must be numbers or texts, got {odd[0]}={defaults[odd[0]]!r}; "
            "0 and 1 may stand for no and yes"
        )
    return Target(thing.name, thing.title, kinds, {**defaults, SEED: 0}, check, _nothing, measure)


def _nothing(parameters: Mapping[str, Value], seed: int) -> None:
    """Accept all."""


def _of_task(task: Task, data: Path | None) -> Target:
    def measure(parameters: Mapping[str, Value], seed: int, folder: Path) -> Mapping[str, float]:
        from fracspike.training import run

        options = task.options(**parameters, seed=seed)
        try:
            outcome = run.train(task, options, folder, resume=run.can_resume(folder), data=data)
        except InUseError:  # by a worker that was taken for dead
            folder = folder.with_name(f"{folder.name}-again")
            outcome = run.train(task, options, folder, resume=run.can_resume(folder), data=data)
        return {
            "test_accuracy": outcome.test_accuracy,
            "validation_accuracy": outcome.best.validation_accuracy,
            "training_accuracy": outcome.best.training_accuracy,
        }

    kinds = {field.name: KINDS.get(field.name, type(field.default)) for field in fields(Options)}
    defaults = {name: value for name, value in asdict(task.options()).items() if name in kinds}

    def check(parameters: Mapping[str, Value], seed: int) -> None:
        task.options(**parameters, seed=seed)

    def try_out(parameters: Mapping[str, Value], seed: int) -> None:
        task.network(task.options(**parameters, seed=seed))

    return Target(task.name, task.title, kinds, defaults, check, try_out, measure)


def known() -> dict[str, Target]:
    """Return all that can be swept by name: every training task, and the experiments with a trial."""
    swept = [name for name in experiments.MODULES if experiments.get(name).trial is not None]
    return {name: find(name) for name in (*training.TASKS, *swept)}
