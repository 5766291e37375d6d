"""Who measures which point, agreed upon through an Optuna storage.

A point is claimed by creating a trial that is already running and names the point. Storages number trials in
one order, so of several claims of a point the one with the lowest number holds and the others are
withdrawn. A trial whose worker is gone is marked as failed and its point is free again; a worker that
was only slow then cannot complete its trial any more. So each point is completed once, whatever stops.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .grid import Grid, Point
from .owner import Watch, me

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

AHEAD = 8  # a worker takes one of so many free points at random, so that few claims meet


@dataclass(frozen=True)
class Claim:
    """A point that this worker is to measure."""

    trial: int  # identity in the storage
    index: int
    point: Point


@dataclass(frozen=True)
class Done:
    """A point that was measured, or could not be."""

    index: int
    point: Point
    metrics: Mapping[str, float]
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class View:
    """The trials of a sweep at one moment, by point: done, failed for good, under way by whom."""

    done: Mapping[int, Done]
    failed: Mapping[int, Done]
    running: Mapping[int, list[FrozenTrial]]

    @property
    def settled(self) -> int:
        """How many points need no more work."""
        return len({*self.done, *self.failed})


class Store:
    """A sweep in a storage, made there or joined.

    Args:
        storage: ``sqlite:///PATH``, ``postgresql://...`` or another address of a database, or the
            path of a journal file.
        name: of the study.
        grid: its points.
        about: what is recorded with a new sweep.
        join: if true, there must be one already, and points that failed are tried again.
        watch: tells whether workers are alive.

    Raises:
        ValueError: if the storage cannot be used, or holds a sweep of this name over another grid.
        ImportError: if Optuna, or the driver of the database, is not installed.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        grid: Grid,
        *,
        about: Mapping[str, Any] | None = None,
        join: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.grid, self.points = grid, grid.points()
        self.watch = Watch() if watch is None else watch
        self.storage = _open(storage)
        import optuna

        try:
            self.study = self.storage.get_study_id_from_name(name)
        except KeyError:
            if join:
                raise ValueError(
                    f"no sweep {name!r} to resume in {storage}; start without --resume"
                ) from None
            optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
            )
            self.study = self.storage.get_study_id_from_name(name)
            for key, value in (about or {}).items():
                self.storage.set_study_user_attr(self.study, key, value)
        self._same_grid(name, storage)
        if join:
            self.storage.set_study_user_attr(self.study, "retried", len(self._trials()))

    def _same_grid(self, name: str, storage: str) -> None:
        ours = [[axis, list(values)] for axis, values in self.grid.axes.items()]
        theirs = self.storage.get_study_user_attrs(self.study).get("grid")
        if theirs is None:  # new, or its maker was stopped right here
            self.storage.set_study_user_attr(self.study, "grid", ours)
        elif theirs != ours:
            known = Grid(dict(theirs))
            raise ValueError(
                f"the sweep {name!r} in {storage} has another grid: {known}; give the same, or another --out"
            )

    def _trials(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self.study, deepcopy=False)

    def view(self) -> View:
        """Return how things stand."""
        from optuna.trial import TrialState

        retried = self.storage.get_study_user_attrs(self.study).get("retried", 0)
        done: dict[int, Done] = {}
        failed: dict[int, Done] = {}
        running: dict[int, list[FrozenTrial]] = {}
        for trial in self._trials():
            notes = trial.user_attrs
            index = int(notes["point"])
            if trial.state == TrialState.RUNNING:
                running.setdefault(index, []).append(trial)
            elif trial.state == TrialState.COMPLETE and index not in done:
                done[index] = Done(index, self.points[index], notes["metrics"], notes["seconds"])
            elif "error" in notes and trial.number >= retried:
                failed[index] = Done(index, self.points[index], {}, notes["seconds"], notes["error"])
        return View(done, {i: d for i, d in failed.items() if i not in done}, running)

    def claim(self) -> Claim | None:
        """Return a point to measure, or None if there is no free one now."""
        view = self.view()
        for trials in view.running.values():
            for trial in trials:
                if not self._alive(trial):
                    self._fail(trial._trial_id, abandoned=True)
        taken = {i for i, trials in view.running.items() if any(map(self._alive, trials))}
        free = [i for i in range(len(self.points)) if i not in {*view.done, *view.failed, *taken}]
        while free:
            index = free.pop(random.randrange(min(AHEAD, len(free))))
            if claim := self._try(index):
                return claim
        return None

    def _try(self, index: int) -> Claim | None:
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        point = self.points[index]
        trial = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions={name: CategoricalDistribution(values) for name, values in self.grid.axes.items()},
            user_attrs={"point": index, "owner": me(), "beat": 0},
        )
        mine = self.storage.create_new_trial(self.study, template_trial=trial)
        number = self.storage.get_trial(mine).number
        view = self.view()
        others = [t for t in view.running.get(index, []) if t.number < number and self._alive(t)]
        if index in view.done or others:
            self._fail(mine, withdrawn=True)
            return None
        return Claim(mine, index, point)

    def _alive(self, trial: FrozenTrial) -> bool:
        return self.watch.alive(trial.number, trial.user_attrs["owner"], trial.user_attrs["beat"])

    def _fail(self, trial: int, **notes: Any) -> bool:
        """Mark a trial as failed; return false if it had ended before."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            for key, value in notes.items():
                self.storage.set_trial_user_attr(trial, key, value)
            self.storage.set_trial_state_values(trial, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def beat(self, claim: Claim, count: int) -> None:
        """Show that the worker of ``claim`` is alive."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.storage.set_trial_user_attr(claim.trial, "beat", count)
        except UpdateFinishedTrialError:
            return

    def complete(self, claim: Claim, metrics: Mapping[str, float], seconds: float) -> bool:
        """Keep what was measured; return false if the point was taken from this worker meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self.storage.set_trial_user_attr(claim.trial, "metrics", dict(metrics))
            self.storage.set_trial_user_attr(claim.trial, "seconds", round(seconds, 3))
            values = [next(iter(metrics.values()))]
            self.storage.set_trial_state_values(claim.trial, TrialState.COMPLETE, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def give_up(self, claim: Claim, error: str, seconds: float) -> bool:
        """Keep that a point could not be measured, and why."""
        return self._fail(claim.trial, error=error[:1000], seconds=round(seconds, 3))

    def release(self, claim: Claim) -> bool:
        """Give a point back that was not measured to the end."""
        return self._fail(claim.trial, interrupted=True)


def _open(storage: str) -> BaseStorage:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            'sweeps need optuna, which is not installed; run: pip install "fracspike[experiments]"'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in storage:
        from optuna.storages.journal import JournalFileBackend

        path = str(Path(storage))
        return _again(lambda: optuna.storages.JournalStorage(JournalFileBackend(path)), storage)
    # one process writes to SQLite at a time: the others wait for it
    more = {"connect_args": {"timeout": 120}} if storage.startswith("sqlite") else {}
    return _again(
        lambda: optuna.storages.get_storage(optuna.storages.RDBStorage(storage, engine_kwargs=more)), storage
    )


def _again(make: Callable[[], BaseStorage], storage: str) -> BaseStorage:
    """Open a storage; once more if others, who do the same at this moment, are in the way."""
    for attempt in range(5):
        try:
            return make()
        except ImportError as error:
            raise ImportError(
                f"the driver of {storage.partition(':')[0]} is not installed: {error}"
            ) from error
        except Exception as error:  # drivers raise what they like
            if attempt == 4:
                raise ValueError(
                    f"`storage` must be a database or the path of a journal, got {storage!r}: "
                    f"{' '.join(str(error).split())[:200]}"
                ) from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")
