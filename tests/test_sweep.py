"""Sweeps: grids, claims, two workers of which one is killed, and every way to call it wrong."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
import toy_sweep

from fracspike.sweep import kept, owner, results
from fracspike.sweep.grid import Grid
from fracspike.sweep.owner import Watch
from fracspike.sweep.store import Store
from fracspike.sweep.target import find
from fracspike.sweep.worker import work

KINDS = {"alpha": float, "seed": int, "surrogate": str, "x": float}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``fracspike sweep`` in this process and return its exit status."""
    return command.call(monkeypatch, "sweep", *arguments)


class TestGrid:
    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("alpha=0.3:1.0:0.1", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
            ("alpha=1.0:0.5:-0.25", [1.0, 0.75, 0.5]),
            ("alpha=0.1:0.45:0.1", [0.1, 0.2, 0.3, 0.4]),
            ("alpha=0.5,1", [0.5, 1.0]),
            ("seed=0:5", [0, 1, 2, 3, 4]),
            ("seed=0:10:4", [0, 4, 8]),
            ("seed=7", [7]),
            ("surrogate=atan,sigmoid", ["atan", "sigmoid"]),
            ("surrogate=atan:alpha=2", ["atan:alpha=2"]),
            ("surrogate=sigmoid:alpha=1,normalize=peak;atan", ["sigmoid:alpha=1,normalize=peak", "atan"]),
        ],
    )
    def test_values(self, text: str, values: list[Any]) -> None:
        grid = Grid.parse([text], KINDS)
        assert grid.axes == {text.partition("=")[0]: values}
        assert [type(v) for v in next(iter(grid.axes.values()))] == [type(v) for v in values]

    def test_points_are_the_product(self) -> None:
        grid = Grid.parse(["alpha=0.3:1.0:0.1", "surrogate=atan,sigmoid", "seed=0:5"], KINDS)
        points = {tuple(point.values()) for point in grid.points()}
        assert len(points) == len(grid) == 8 * 2 * 5

    @pytest.mark.parametrize(
        ("texts", "said"),
        [
            ([], "must hold an axis"),
            (["alpha"], "must hold axes such as"),
            (["beta=1"], "`axis of the grid` must be one of"),
            (["alpha=0.1", "alpha=0.2"], "name each axis once"),
            (["alpha=0.1,0.1"], "must not repeat a value"),
            (["alpha="], "must give values"),
            (["alpha=0.1,,0.2"], "must give values"),
            (["alpha=0.1:1.0"], "must have ranges START:STOP:STEP"),
            (["alpha=0.1:1.0:0"], "at most 100000 values"),
            (["alpha=0.1:1.0:1e-9"], "at most 100000 values"),
            (["alpha=0.5:0.1:0.1"], "not empty"),
            (["alpha=a:b:c"], "must have ranges"),
            (["alpha=nan:1.0:0.1"], "must have ranges"),
            (["seed=5:0"], "not empty"),
            (["seed=0.5"], "`seed` must have whole numbers"),
            (["seed=-1"], "`seed` must have whole numbers from 0"),
            (["seed=0,9223372036854775808"], "`seed` must have whole numbers from 0"),
            (["alpha=0.5,nan"], "`alpha` must have finite numbers"),
            (["alpha=inf"], "`alpha` must have finite numbers"),
            (["alpha=x"], "`alpha` must have finite numbers"),
            (["seed=0:1000", "alpha=0.001:1.0:0.001"], "at most 100000 points"),
        ],
    )
    def test_bad_axes_are_named(self, texts: list[str], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Grid.parse(texts, KINDS)


def address(kind: str, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sweep.db" if kind == "sqlite" else str(tmp_path / "journal.log")


GRID = Grid.parse(["x=0:12"], {"x": int})


class Gone(Watch):
    """Takes every worker for dead."""

    def alive(self, number: int, owner: Any, beat: object) -> bool:
        return False


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
class TestStore:
    def test_of_many_at_once_each_point_is_claimed_by_one(self, kind: str, tmp_path: Path) -> None:
        storage = address(kind, tmp_path)
        Store(storage, "s", GRID)
        claimed: list[int] = []

        def claim_all() -> None:
            store = Store(storage, "s", GRID)
            while claim := store.claim():
                claimed.append(claim.index)

        threads = [threading.Thread(target=claim_all) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == list(range(12))

    def test_the_point_of_a_dead_worker_is_free_and_it_cannot_complete_it(
        self, kind: str, tmp_path: Path
    ) -> None:
        storage = address(kind, tmp_path)
        slow = Store(storage, "s", Grid.parse(["x=7"], {"x": int}))
        first = slow.claim()
        assert first is not None
        assert slow.claim() is None
        other = Store(storage, "s", slow.grid, watch=Gone())
        second = other.claim()
        assert second is not None
        assert second.index == first.index
        assert not slow.complete(first, {"m": 1.0}, 0.1)
        assert other.complete(second, {"m": 2.0}, 0.1)
        assert [done.metrics for done in slow.view().done.values()] == [{"m": 2.0}]
        assert other.claim() is None

    def test_what_failed_is_tried_again_on_resumption_only(self, kind: str, tmp_path: Path) -> None:
        storage = address(kind, tmp_path)
        store = Store(storage, "s", Grid.parse(["x=7"], {"x": int}))
        claim = store.claim()
        assert claim is not None
        store.give_up(claim, "bad luck", 0.1)
        again = Store(storage, "s", store.grid)
        assert again.claim() is None
        assert again.view().failed[0].error == "bad luck"
        assert Store(storage, "s", store.grid, join=True).claim() is not None

    def test_what_was_interrupted_is_free_at_once(self, kind: str, tmp_path: Path) -> None:
        store = Store(address(kind, tmp_path), "s", Grid.parse(["x=7"], {"x": int}))
        claim = store.claim()
        assert claim is not None
        store.release(claim)
        assert store.claim() is not None

    def test_a_grid_grows_and_is_corrected_but_loses_nothing(self, kind: str, tmp_path: Path) -> None:
        kinds, defaults = {"x": int, "shape": str, "y": float}, {"x": 0, "shape": "round", "y": 0.5}

        def opened(*axes: str) -> Store:
            return Store(address(kind, tmp_path), "s", Grid.parse(axes, kinds), defaults=defaults)

        first = opened("x=0:2", "shape=round,wrong")
        for _ in range(4):
            claim = first.claim()
            assert claim is not None
            if claim.point["shape"] == "round":
                assert first.complete(claim, {"m": float(claim.point["x"])}, 0.1)
            else:
                assert first.give_up(claim, "no such shape", 0.1)
        corrected = opened("x=0:3", "shape=round,flat", "y=0.5,1.5")
        assert corrected.grown
        done = corrected.view().done
        assert sorted((d.point["x"], d.point["shape"], d.point["y"]) for d in done.values()) == [
            (0, "round", 0.5),
            (1, "round", 0.5),
        ]
        left = [claim for _ in range(10) if (claim := corrected.claim())]
        assert len(left) == 10
        assert corrected.claim() is None
        assert all(corrected.complete(claim, {"m": 1.0}, 0.1) for claim in left)
        with pytest.raises(ValueError, match=r"has 6 measured points that this grid lacks, the first is"):
            opened("x=0:3", "shape=round,flat")
        assert opened("y=0.5,1.5", "shape=round,flat", "x=0:3").view().settled == 12  # in another order

    def test_a_sweep_of_something_else_is_refused(self, kind: str, tmp_path: Path) -> None:
        Store(address(kind, tmp_path), "s", GRID, target="one")
        with pytest.raises(ValueError, match=r"is one of 'one', not of 'two'; choose another --name"):
            Store(address(kind, tmp_path), "s", GRID, target="two")
        Store(address(kind, tmp_path), "another", GRID, target="two")

    def test_nothing_to_resume_is_said(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no sweep 's' to resume"):
            Store(address(kind, tmp_path), "s", GRID, join=True)


class TestWatch:
    def test_this_process_is_alive_and_one_that_ended_is_not(self) -> None:
        me = owner.me()
        assert Watch().alive(0, me, 0)
        if not me["started"]:
            pytest.skip("this system does not tell when a process started")
        assert not Watch().alive(0, {**me, "started": "12"}, 0)  # another process had the number before
        child = os.fork() if hasattr(os, "fork") else pytest.skip("needs fork")
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert not Watch().alive(0, {**me, "pid": child}, 0)

    def test_on_another_machine_a_counter_that_stands_still_is_death(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1000.0
        monkeypatch.setattr(owner.time, "monotonic", lambda: now)
        elsewhere = {"machine": "elsewhere", "pid": 1, "started": "1"}
        watch = Watch(grace=60)
        assert watch.alive(3, elsewhere, 0)
        now += 59
        assert watch.alive(3, elsewhere, 0)
        now += 2
        assert not watch.alive(3, elsewhere, 0)
        assert watch.alive(3, elsewhere, 1)  # it was only slow
        now += 59
        assert watch.alive(3, elsewhere, 1)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_workers_of_which_one_is_killed_measure_each_point_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("TOY_DIARY", str(tmp_path / "diary"))
    monkeypatch.setenv("TOY_FATAL", str(tmp_path / "fatal"))
    grid = ("--grid", "x=0.1:0.5:0.1", "shape=round,flat", "seed=0:2")
    arguments = ("toy_sweep:TOY", *grid, "--out", str(tmp_path), "--storage", address(kind, tmp_path))
    assert call(monkeypatch, *arguments, "--workers", "2") == 0
    assert "ended with status -9; the others take up what it was at" in capfd.readouterr().err
    lines = list(csv.DictReader((tmp_path / "toy" / "sweep.csv").read_text().splitlines()))
    assert [int(line["point"]) for line in lines] == list(range(20))
    for line in lines:
        assert float(line["square"]) == pytest.approx(float(line["x"]) ** 2 + int(line["seed"]))
    counts = Counter((tmp_path / "diary").read_text().splitlines())
    assert sorted(counts.values()) == [1] * 19 + [2]  # the killed one, a second time
    # the same command again finds all done
    assert call(monkeypatch, *arguments) == 0
    assert Counter((tmp_path / "diary").read_text().splitlines()) == counts


class TestResults:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        arguments = (
            "toy_sweep:TOY",
            "--grid",
            "x=0.1,0.2",
            "shape=round",
            "seed=0:3",
            "--out",
            str(tmp_path),
        )
        assert call(monkeypatch, *arguments) == 0
        return tmp_path / "toy"

    def test_means_and_spreads_are_over_the_seeds(self, folder: Path) -> None:
        content = json.loads((folder / "results.json").read_text())
        squares = [row for row in content["rows"] if row["metric"] == "square"]
        assert [row["point"]["x"] for row in squares] == [0.1, 0.2]
        assert squares[1]["mean"] == pytest.approx(0.04 + 1)
        assert squares[1]["spread"] == pytest.approx(1.0)  # of 0, 1, 2
        assert squares[1]["seeds"] == 3
        assert content["points"] == content["done"] == 6
        assert set(content["versions"]) >= {"fracspike", "torch"}

    def test_the_figure_shows_them(self, folder: Path) -> None:
        assert (folder / "sweep.png").stat().st_size > 5000
        grid = Grid.parse(
            ["x=0.1,0.2", "shape=round,flat", "seed=0:3"], {"x": float, "shape": str, "seed": int}
        )
        found = [
            results.Mean({"x": x, "shape": shape}, "m", x, 0.5, 3)
            for x in (0.1, 0.2)
            for shape in ("round", "flat")
        ]
        figure = results.draw("toy", grid, found)
        (panel,) = figure.axes
        labels = panel.get_legend_handles_labels()[1]
        assert labels == ["shape=round", "shape=flat"]
        assert panel.containers[0].lines[0].get_xydata().tolist() == [[0.1, 0.1], [0.2, 0.2]]

    def test_the_storage_is_an_optuna_study(self, folder: Path) -> None:
        with sqlite3.connect(folder / "sweep.db") as database:
            states = database.execute("select state, count(*) from trials group by state").fetchall()
        database.close()
        assert states == [("COMPLETE", 6)]


def test_interrupted_it_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_DIARY", str(tmp_path / "diary"))
    real = toy_sweep.trial

    def interrupted(parameters: Any, seed: int) -> dict[str, float]:
        if len((tmp_path / "diary").read_text().splitlines() if (tmp_path / "diary").exists() else []) == 3:
            raise KeyboardInterrupt
        return real(parameters, seed)

    arguments = ("toy_sweep:TOY", "--grid", "x=0.1:0.5:0.1", "--out", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(toy_sweep, "TOY", replace(toy_sweep.TOY, trial=interrupted))
        assert call(patch, *arguments) == 130
    assert "interrupted; 3 of 5 points are done and kept" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "--resume") == 0
    assert sorted(Counter((tmp_path / "diary").read_text().splitlines()).values()) == [1] * 5


def test_a_point_that_fails_is_told_and_does_not_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("toy_sweep:TOY", "--grid", "shape=wrong,round", "--out", str(tmp_path))
    assert call(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert "1 of 2 points failed" in error
    assert "ValueError: no such shape" in error
    lines = list(csv.DictReader((tmp_path / "toy" / "sweep.csv").read_text().splitlines()))
    assert [line["error"] for line in lines] == ["ValueError: no such shape", ""]


def test_a_training_task_is_swept_and_resumes_its_trials(tmp_path: Path) -> None:
    target = find("digits")
    grid = Grid.parse(["epochs=1", "hidden=8", "alpha=0.5,1", "seed=3"], target.kinds)
    store = Store(address("sqlite", tmp_path), "digits", grid)
    work(store, target, tmp_path)
    view = store.view()
    assert len(view.done) == 2
    assert set(view.done[0].metrics) == {"test_accuracy", "validation_accuracy", "training_accuracy"}
    places = [kept.place(tmp_path, store.full(point)) for point in grid.points()]
    config = json.loads((places[1] / "results.json").read_text())["config"]
    assert (config["alpha"], config["hidden"], config["seed"]) == (1.0, 8, 3)
    again = target.measure(grid.points()[0], places[0])
    assert again == view.done[0].metrics


test_bad_input_is_one_line = command.refusals(
    call,
    [
        (("nosuch", "--grid", "seed=0:5"), "`experiment to sweep` must be one of"),
        (("teka2014", "--grid", "seed=0:5"), "must publish parameters, which 'teka2014' does not"),
        (("nowhere:X", "--grid", "seed=0:5"), "must be importable, got 'nowhere:X'"),
        (("toy_sweep:trial", "--grid", "seed=0:5"), "must be an Experiment or a Task, got function"),
        (("toy_sweep:TOY", "--grid", "x=0.5", "--data", "."), "`data` must be left out for the experiment"),
        (("toy_sweep:TOY",), "must hold an axis"),
        (("toy_sweep:TOY", "--grid", "y=1"), "`axis of the grid` must be one of"),
        (("digits", "--grid", "alfa=0.5"), "did you mean 'alpha'?"),
        (("toy_sweep:TOY", "--grid", "x=0.5", "--workers", "0"), "`workers` must be >= 1"),
        (
            ("toy_sweep:TOY", "--grid", "x=0.5", "--storage", "no://where"),
            "`storage` must be a database or the path",
        ),
        (("toy_sweep:TOY", "--grid", "x=0.5", "--resume"), "no sweep 'toy' to resume"),
    ],
)
