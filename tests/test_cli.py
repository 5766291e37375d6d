"""The command line: what it writes, and that every failure is one line and a non-zero status."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command import call, refusals

from fracspike import experiments, training
from fracspike.experiments import Experiment, Row, report
from fracspike.files import output_folder, replacing, write_json


def test_reproduce_writes_results_tables_and_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "reproduce", "teka2014", "--quick", "--out", str(tmp_path)) == 0
    folder = tmp_path / "teka2014"
    results = json.loads((folder / "results.json").read_text())
    assert set(results) >= {"experiment", "rows", "seed", "seconds", "versions"}
    assert set(results["rows"][0]) == {"quantity", "published", "source", "measured", "tolerance", "within"}
    assert sum(row["within"] is True for row in results["rows"]) == 16
    assert not any(row["within"] is False for row in results["rows"])
    spikes = list(csv.DictReader((folder / "spikes.csv").read_text().splitlines()))
    assert len(spikes) == 86 + 80 + 71 + 53 + 5
    for figure in ("voltage", "latency_and_intervals", "rate", "memory_reset"):
        assert (folder / f"{figure}.png").stat().st_size > 5000
    assert not list(folder.glob(".*")), "temporary files are left behind"
    assert "spikes in 1 s, alpha 0.6" in capsys.readouterr().out


def test_a_row_outside_its_tolerance_fails_the_command_but_writes_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [Row("x", 1.0, "paper", 1.5, 0.1), Row("y", 1.0, "paper", 1.05, 0.1), Row("z", None, "-", 3.0)]
    wrong = Experiment("wrong", "a title", "a source", "1 s", lambda run: rows)
    monkeypatch.setattr(experiments, "get", lambda name: wrong)
    assert call(monkeypatch, "reproduce", "wrong", "--out", str(tmp_path)) == 1
    captured = capsys.readouterr()
    assert captured.err == "fracspike: 1 of 3 rows lie outside their tolerance\n"
    assert "OUTSIDE" in captured.out
    written = json.loads((tmp_path / "wrong" / "results.json").read_text())
    assert [row["within"] for row in written["rows"]] == [False, True, None]


def test_without_arguments_the_help_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("Usage:")
    for name in ("reproduce", "simulate", "sweep", "train"):
        assert f"\n  {name} " in captured.out


def test_the_help_of_train_lists_its_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "train", "--help") == 0
    printed = capsys.readouterr().out
    for name in training.TASKS:
        assert f"\n  {name} " in printed
    assert "--network dense, rows, conv" in " ".join(printed.split())


def test_a_full_disk_is_said_wherever_it_is_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(run: report.Run) -> list[Row]:
        raise OSError(28, "No space left on device", "/data/a.bin")

    monkeypatch.setattr(experiments, "get", lambda name: Experiment("e", "t", "s", "1 s", full))
    assert call(monkeypatch, "reproduce", "e", "--out", str(tmp_path)) == 1
    assert capsys.readouterr().err == "fracspike: disk full: /data/a.bin\n"


def test_list_names_every_experiment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "reproduce", "--list") == 0
    printed = capsys.readouterr().out
    for name in experiments.MODULES:
        assert name in printed


def test_simulate_writes_trace_spikes_and_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ("--duration", "60", "--alpha", "1", "--tau", "20", "--current", "2", "--out", str(tmp_path))
    assert call(monkeypatch, "simulate", *arguments) == 0
    folder = tmp_path / "simulate"
    times = [
        float(row["spike_time_ms"])
        for row in csv.DictReader((folder / "spikes.csv").read_text().splitlines())
    ]
    assert times[0] == pytest.approx(13.863, abs=0.1)  # 20 ln 2
    assert len((folder / "trace.csv").read_text().splitlines()) == 601
    assert (folder / "trace.png").stat().st_size > 5000


test_failure_is_one_line_and_a_status = refusals(
    call,
    [
        (("reproduce", "nosuch"), "`experiment` must be one of"),
        (("reproduce", "teka2104"), "did you mean 'teka2014'?"),
        (("reproduce",), "name an experiment, or pass --list"),
        (("reproduce", "teka2014", "--out", "/dev/null/x"), "`out` must be a folder that can be written to"),
        (("reproduce", "teka2014", "--quick", "--full"), "`quick` and `full` must not both be set"),
        (("reproduce", "teka2014", "--seed", "x"), "'x' is not a valid integer"),
        (("reproduce", "teka2014", "--seed", str(2**70)), "`seed` must be <= 2^63 - 1"),
        (("reproduce", "teka2014", "--seed", "-1"), "`seed` must be >= 0, got -1"),
        (
            ("simulate", "--duration", "1e300"),
            "`duration` must be at most 100000000 steps of `dt`, got 1e+300",
        ),
        (("simulate", "--dt", "1e-9"), "`duration` must be at most 100000000 steps of `dt`"),
        (("simulate", "--dt", "1e-300"), "`tau` must be within reach of dt=1e-300"),
        (("reproduce", "teka2014", "--only", "fig1"), "`only` must be left out for 'teka2014'"),
        (("reproduce", "binary-adding", "--only", "alf"), "did you mean 'alif'?"),
        (("reproduce", "binary-adding", "--quick", "--only", "alpha-0.9"), "`only` must be one of"),
        (
            ("simulate", "--alpha", "1.3"),
            "`alpha` must lie in (0, 1], got 1.3; for integer order pass alpha=1",
        ),
        (("simulate", "--current", "nan", "--duration", "1"), "`current` must be finite, got nan"),
        (("simulate", "--reset", "hard"), "`reset` must be one of 'none', 'subtract', 'value'"),
        (("simulate", "--surrogate", "atn"), "did you mean 'atan'"),
        (("simulate", "--surrogate", "atan:beta=2"), "beta"),
        (("simulate", "--method", "rk4"), "`method` must be one of"),
        (("simulate", "--out", "/dev/null"), "`out` must be a folder that can be written to"),
        (("nosuch",), "No such command 'nosuch'"),
    ],
)


def test_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(run: report.Run) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "get", lambda name: Experiment("e", "t", "s", "1 s", interrupted))
    assert call(monkeypatch, "reproduce", "e", "--out", str(tmp_path)) == 130
    assert capsys.readouterr().err.strip() == "fracspike: interrupted"


class TestFiles:
    def test_an_older_file_survives_a_failure_while_writing(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
            temporary.write_text("half" * (1 // 0))
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_json_refuses_what_json_cannot_say(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "a.json", {"x": float("nan")})
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_no_output_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="`out` must be a folder"):
            output_folder(tmp_path / "file")
