"""Who measures which point, agreed upon through an Optuna storage.

A point is claimed by creating a trial that is already running and names the point. Storages number trials in
one order, so of several claims of a point the one with the lowest number holds and the others are
withdrawn. A trial whose worker is gone is marked as failed and its point is free again; a worker that
was only slow then cannot complete its trial any more. So each point is completed once, whatever stops.

A point is known by the values of everything that may be varied, those that the grid leaves at their defaults
included, not by its place in the grid: a grid can be corrected and extended without losing what was measured.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .address import Address
from .grid import Grid, Point, label
from .opening import open_storage
from .owner import Watch, me
from .patience import LONGEST, Patient, StoreError
from .study import key, parameters

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

T = TypeVar("T")
BIRTH = 5.0  # seconds within which the maker of a study has described it
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
        storage: its address: ``sqlite:///PATH``, ``postgresql://...`` or another of a database, or the path
            of a journal file.
        name: of the study; a storage holds any number of them.
        grid: its points. A study of the same name may have had another grid, if every point that was measured
            is in this one too.
        target: what is measured, as the command line calls it; must be the same for all who join.
        defaults: values of what the grid leaves alone, by name.
        about: what is recorded with a new sweep.
        join: if true, there must be one already, and points that failed are tried again.
        watch: tells whether workers are alive.
        patience: seconds for which a storage that does not answer is asked again.

    Raises:
        ValueError: if the storage cannot be used, or holds a sweep of this name of something else or with
            points that the grid lacks.
        ImportError: if Optuna, or the driver of the database, is not installed.
        StoreError: if the storage stops answering, then and in every other method.
    """

    def __init__(
        self,
        storage: str | Address,
        name: str,
        grid: Grid,
        *,
        target: str = "",
        defaults: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        join: bool = False,
        watch: Watch | None = None,
        patience: float = LONGEST,
    ) -> None:
        self.address = storage if isinstance(storage, Address) else Address(storage)
        self.grid, self.points, self.defaults = grid, grid.points(), dict(defaults or {})
        self._index = {key(self.full(point)): index for index, point in enumerate(self.points)}
        self.watch = Watch() if watch is None else watch
        self.storage = open_storage(self.address)
        self.patient = Patient(self.address, patience, self.watch.forget)
        self.last = View({}, {}, {})
        self.study = self._join(name) if join else self._make(name, about or {})
        self._described(name, target)
        self.grown = self._check_grid(name)
        if join:
            count = len(self._trials())
            self._ask(lambda: self.storage.set_study_user_attr(self.study, "retried", count))

    def full(self, point: Mapping[str, Any]) -> Point:
        """Return a point with the values of what the grid leaves alone."""
        return {**self.defaults, **point}

    def _join(self, name: str) -> int:
        try:
            return self._ask(lambda: self.storage.get_study_id_from_name(name))
        except KeyError:
            missing = f"no sweep {name!r} to resume in {self.address}; start without --resume"
        raise ValueError(missing)

    def _make(self, name: str, about: Mapping[str, Any]) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        made = -1
        try:
            made = self._ask(lambda: self.storage.create_new_study([StudyDirection.MAXIMIZE], name))
        except DuplicatedStudyError:
            return self._ask(lambda: self.storage.get_study_id_from_name(name))
        for text, value in about.items():
            self._note(made, text, value)
        self._note(made, "id", uuid.uuid4().hex)
        return made

    def _note(self, study: int, text: str, value: Any) -> None:
        self._ask(lambda: self.storage.set_study_user_attr(study, text, value))

    def _notes(self) -> dict[str, Any]:
        return self._ask(lambda: self.storage.get_study_user_attrs(self.study))

    def _described(self, name: str, target: str) -> None:
        """Read who the study is; only its maker says so, unless it was stopped right there."""
        start = time.monotonic()
        while "id" not in (notes := self._notes()) and time.monotonic() - start < BIRTH:
            if "grid" in notes:  # of a version that gave none
                break
            time.sleep(0.1)
        if "id" not in notes:
            self._note(self.study, "id", uuid.uuid4().hex)
            notes = self._notes()
        if "target" not in notes:
            self._note(self.study, "target", target)
        elif notes["target"] != target:
            raise ValueError(
                f"the sweep {name!r} in {self.address} is one of {notes['target']!r}, not of {target!r}; "
                "choose another --name"
            )
        self.identity = str(notes["id"])

    def _check_grid(self, name: str) -> bool:
        """Record the grid; return whether there was another before.

        Raises:
            ValueError: if a point that was measured is not in it.
        """
        from optuna.trial import TrialState

        ours = [[axis, list(values)] for axis, values in self.grid.axes.items()]
        theirs = self._notes().get("grid")
        if theirs == ours:
            return False
        done = [t for t in self._trials() if t.state == TrialState.COMPLETE]
        lost = [t for t in done if self._place(t) is None]
        if lost:
            raise ValueError(
                f"the sweep {name!r} in {self.address} has {len(lost)} measured points that this grid lacks, "
                f"the first is {label(lost[0].params)}; its grid was {Grid(dict(theirs or []))}; "
                "give one that holds them too, or another --name"
            )
        self._note(self.study, "grid", ours)
        return theirs is not None

    def _ask(self, question: Callable[[], T], *, once: bool = False) -> T:
        return self.patient.ask(question, once=once)

    def _trials(self) -> list[FrozenTrial]:
        return self._ask(lambda: self.storage.get_all_trials(self.study, deepcopy=False))

    def _place(self, trial: FrozenTrial) -> int | None:
        """Return where the point of a trial is in the grid, if it is there."""
        point = trial.user_attrs.get("point")
        values = point if isinstance(point, dict) else self.full(trial.params)  # a number in old studies
        return self._index.get(key(values))

    def view(self) -> View:
        """Return how things stand; kept as ``last`` for when the storage does not answer any more."""
        from optuna.trial import TrialState

        retried = self._notes().get("retried", 0)
        done: dict[int, Done] = {}
        failed: dict[int, Done] = {}
        running: dict[int, list[FrozenTrial]] = {}
        for trial in self._trials():
            notes, index = trial.user_attrs, self._place(trial)
            if index is None:
                continue  # a point that the grid had before it was corrected
            if trial.state == TrialState.RUNNING:
                running.setdefault(index, []).append(trial)
            elif trial.state == TrialState.COMPLETE and index not in done:
                done[index] = Done(index, self.points[index], notes["metrics"], notes["seconds"])
            elif "error" in notes and trial.number >= retried:
                failed[index] = Done(index, self.points[index], {}, notes["seconds"], notes["error"])
        self.last = View(done, {i: d for i, d in failed.items() if i not in done}, running)
        return self.last

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
        point, mark = self.points[index], uuid.uuid4().hex
        notes = {"point": self.full(point), "owner": me(), "beat": 0, "claim": mark}
        tried = False

        def create() -> int:
            nonlocal tried
            if tried:  # the answer was lost, but the claim may be there
                trials = self.storage.get_all_trials(self.study)
                if mine := [t for t in trials if t.user_attrs.get("claim") == mark]:
                    return int(mine[0]._trial_id)
            tried = True
            template = parameters(self.storage, self.study, self.grid, point, notes)
            return self.storage.create_new_trial(self.study, template_trial=template)

        mine: int = self._ask(create)
        number = self._ask(lambda: self.storage.get_trial(mine)).number
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
        from optuna.trial import TrialState

        return self._end(trial, notes, TrialState.FAIL, None)

    def _end(self, trial: int, notes: Mapping[str, Any], state: Any, values: list[float] | None) -> bool:
        """End a trial; return false if it had ended otherwise before."""
        from optuna.exceptions import UpdateFinishedTrialError

        def end() -> None:
            for text, value in notes.items():
                self.storage.set_trial_user_attr(trial, text, value)
            self.storage.set_trial_state_values(trial, state, values)

        try:
            self._ask(end)
        except UpdateFinishedTrialError:  # by another, or by ourselves and the answer was lost
            found = self._ask(lambda: self.storage.get_trial(trial))
            return bool(found.state == state and all(found.user_attrs.get(t) == v for t, v in notes.items()))
        return True

    def beat(self, claim: Claim, count: int) -> None:
        """Show that the worker of ``claim`` is alive; if the storage does not answer, the next one will."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._ask(lambda: self.storage.set_trial_user_attr(claim.trial, "beat", count), once=True)
        except (UpdateFinishedTrialError, StoreError):
            return

    def complete(self, claim: Claim, metrics: Mapping[str, float], seconds: float) -> bool:
        """Keep what was measured; return false if the point was taken from this worker meanwhile."""
        from optuna.trial import TrialState

        notes = {"metrics": dict(metrics), "seconds": round(seconds, 3)}
        return self._end(claim.trial, notes, TrialState.COMPLETE, [next(iter(metrics.values()))])

    def give_up(self, claim: Claim, error: str, seconds: float) -> bool:
        """Keep that a point could not be measured, and why."""
        return self._fail(claim.trial, error=self.address.hide(error)[:1000], seconds=round(seconds, 3))

    def release(self, claim: Claim) -> bool:
        """Give a point back that was not measured to the end; in haste, as the program is being stopped."""
        self.patient.longest = 0.0
        try:
            return self._fail(claim.trial, interrupted=True)
        except StoreError:  # others see that this process is gone
            return False
