"""What befalls a sweep: a storage that goes away, passwords, folders and grids that do not fit."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
import toy_sweep
from matplotlib.figure import Figure

from fracspike.sweep import command as sweep_command
from fracspike.sweep import kept, opening, patience, results
from fracspike.sweep import store as stores
from fracspike.sweep.address import Address
from fracspike.sweep.owner import Watch
from fracspike.sweep.patience import Patient, StoreError

PASSWORD = "pa:55/w@rd%3Fz"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``fracspike sweep`` in this process and return its exit status."""
    return command.call(monkeypatch, "sweep", *arguments)


class OperationalError(Exception):
    """As drivers and SQLAlchemy call it."""


class Faulty:
    """A storage that goes away for a while after so many calls, now and then after doing what it was told."""

    def __init__(self, storage: Any, every: int, away: int) -> None:
        self.storage, self.every, self.away, self.calls = storage, every, away, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.storage, name)

        def asked(*given: Any, **more: Any) -> Any:
            self.calls += 1
            phase = self.calls % self.every
            if phase == 0:
                method(*given, **more)  # done, but the answer gets lost
            if phase < self.away and self.calls >= self.every:
                raise OperationalError("server closed the connection unexpectedly")
            return method(*given, **more)

        return asked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait, nor draw what nobody looks at."""
    monkeypatch.setattr(patience, "FIRST", 0.0)
    monkeypatch.setattr(results, "draw", lambda *_: Figure())


def faulty(monkeypatch: pytest.MonkeyPatch, every: int, away: int) -> None:
    def opened(address: Address) -> Any:
        return Faulty(opening.open_storage(address), every, away)

    monkeypatch.setattr(stores, "open_storage", opened)


@pytest.mark.parametrize("every", [7, 11])
def test_a_storage_that_comes_back_loses_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: None,
    capsys: pytest.CaptureFixture[str],
    every: int,
) -> None:
    monkeypatch.setenv("TOY_DIARY", str(tmp_path / "diary"))
    faulty(monkeypatch, every, 3)
    assert call(monkeypatch, "toy_sweep:TOY", "--grid", "seed=0:4", "--out", str(tmp_path)) == 0
    assert set(Counter((tmp_path / "diary").read_text().splitlines()).values()) == {1}
    assert json.loads((tmp_path / "toy" / "results.json").read_text())["done"] == 4
    said = capsys.readouterr().err.splitlines()
    assert any("does not answer (server closed the connection" in line for line in said)
    assert any("answers again" in line for line in said)


def test_a_storage_that_stays_away_leaves_results_and_nothing_is_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_DIARY", str(tmp_path / "diary"))
    real = toy_sweep.trial
    arguments = ("toy_sweep:TOY", "--grid", "x=0.1:0.5:0.1", "--out", str(tmp_path), "--wait", "0")
    storage: Any = None

    def opened(address: Address) -> Any:
        nonlocal storage
        storage = Faulty(opening.open_storage(address), 10**9, 0)
        return storage

    def last(parameters: Any, seed: int) -> dict[str, float]:
        if len(list((tmp_path / "toy" / "trials").glob("*/measured.json"))) == 2:
            storage.every, storage.away = 1, 10**9  # gone while the third is measured
        return real(parameters, seed)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "open_storage", opened)
        patch.setattr(toy_sweep, "TOY", replace(toy_sweep.TOY, trial=last))
        assert call(patch, *arguments) == 1
    error = capsys.readouterr().err
    assert "server closed the connection unexpectedly; what was measured is kept" in error
    assert "Traceback" not in error
    content = json.loads((tmp_path / "toy" / "results.json").read_text())
    assert (content["points"], content["done"]) == (5, 3)
    if content["done"]:
        monkeypatch.setattr(Watch, "alive", lambda *_: False)  # this process lives on, its claim does not
        assert call(monkeypatch, *arguments) == 0
    assert Counter((tmp_path / "diary").read_text().splitlines()) == {
        f"{x} round 0": 1 for x in (0.1, 0.2, 0.3, 0.4, 0.5)
    }


def test_numbers_are_on_the_disk_before_the_figure_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no figure today")

    monkeypatch.setattr(results, "draw", fails)
    assert call(monkeypatch, "toy_sweep:TOY", "--grid", "x=0.1,0.2", "--out", str(tmp_path)) == 1
    assert json.loads((tmp_path / "toy" / "results.json").read_text())["done"] == 2
    assert len((tmp_path / "toy" / "sweep.csv").read_text().splitlines()) == 3


def test_a_worker_that_could_not_be_seen_for_an_outage_gets_its_grace_anew() -> None:
    watch = Watch(grace=-1.0)
    elsewhere = {"machine": "elsewhere", "pid": 1, "started": "1"}
    watch.alive(1, elsewhere, 5)
    assert not watch.alive(1, elsewhere, 5)
    answers = iter([OperationalError("away"), 3])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Patient(Address("x.log"), 1.0, watch.forget).ask(ask) == 3
    assert watch.alive(1, elsewhere, 5)


def test_an_error_that_does_not_pass_is_not_waited_out() -> None:
    for error in (ValueError("bad"), OperationalError("no such table: studies")):

        def ask(error: Exception = error) -> None:
            raise error

        with pytest.raises(StoreError, match=f"the storage x failed: {error}"):
            Patient(Address("x")).ask(ask)


# ---------------------------------------------------------------------------------------------
# Passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://ann:{PASSWORD}@host:5432/db", "postgresql://ann:***@host:5432/db"),
        (f"postgresql+psycopg://:{PASSWORD}@host/db", "postgresql+psycopg://:***@host/db"),
        ("mysql://host/db?user=ann&password=hunter22", "mysql://host/db?user=ann&password=***"),
        ("mysql://host/db?ssl_key=secret11&x=1", "mysql://host/db?ssl_key=***&x=1"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("journal.log", "journal.log"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    address = Address(url)
    assert str(address) == shown
    assert repr(address) == f"Address({shown!r})"
    assert address.url == url
    assert address.hide(f"cannot reach {url}") == f"cannot reach {shown}"


def test_pieces_and_decoded_forms_of_a_password_are_hidden() -> None:
    said = Address(f"postgresql://ann:{PASSWORD}@host/db").hide(
        "invalid port '55' in 'w', no host 'rd%3Fz', 'rd?z' or 'pa:55/w@rd?z'"
    )
    assert "rd?z" not in said
    assert "3Fz" not in said
    assert "pa:55" not in said


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+nosuch", "no", "mysql"])
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("password", ["hunter22", PASSWORD])
def test_no_password_is_shown_where_a_storage_cannot_be_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scheme: str,
    workers: str,
    password: str,
) -> None:
    monkeypatch.setattr(opening, "TRIES", 1)
    monkeypatch.setenv("FRACSPIKE_STORAGE", f"{scheme}://ann:{password}@127.0.0.1:1/db")
    arguments = ("toy_sweep:TOY", "--grid", "x=0.1", "--out", str(tmp_path), "--workers", workers)
    assert call(monkeypatch, *arguments) == 1
    out, error = capfd.readouterr()
    command.assert_one_line(error, "")
    secrets = (password, "hunter22", "w@rd", "rd%3Fz", "rd?z")
    assert not [secret for secret in secrets if secret in out + error]


def test_no_password_is_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "TRIES", 1)
    address = Address("no://ann:hunter22@host/db")
    with pytest.raises(ValueError, match="`storage` must be a database") as caught:
        opening.open_storage(address)
    error: BaseException | None = caught.value
    assert "hunter22" not in "".join(traceback.format_exception(error))
    while error is not None:  # nor behind it
        assert "hunter22" not in str(error)
        error = error.__cause__ or error.__context__

    def ask() -> None:
        raise OperationalError("password hunter22 is wrong")

    with pytest.raises(StoreError, match=r"password \*\*\* is wrong") as lost:
        Patient(address, 0.0).ask(ask)
    assert lost.value.__context__ is None


def test_workers_find_the_storage_in_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], quick: None
) -> None:
    """The address of the storage, password and all, is not among what ``ps`` shows, nor written down."""
    started: list[list[str]] = []
    environments: list[dict[str, str]] = []
    url = f"sqlite:///{tmp_path}/db?uri=true&password=hunter22"

    class Worker:
        """A worker that has ended; its command was run here, where it takes no time to start."""

        pid = returncode = 0

        def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
            started.append(arguments)
            environments.append(env)
            assert arguments[:3] == [sys.executable, "-m", "fracspike"]
            with monkeypatch.context() as patch:
                patch.setattr(os, "environ", env)
                assert command.call(patch, *arguments[3:]) == 0

        def poll(self) -> int:
            return self.returncode

        wait = terminate = poll

    def opened(address: Address) -> Any:
        assert address.url == url
        return opening.open_storage(Address(url.partition("?")[0]))  # SQLite knows no passwords

    monkeypatch.setattr(sweep_command.subprocess, "Popen", Worker)
    monkeypatch.setattr(stores, "open_storage", opened)
    arguments = ("toy_sweep:TOY", "--grid", "x=0.1,0.2", "--out", str(tmp_path / "out"), "--workers", "2")
    assert call(monkeypatch, *arguments, "--storage", url) == 0
    out, error = capfd.readouterr()
    assert "password=***" in out
    assert len(started) == 2
    assert all("--only-work" in one for one in started)
    assert all(one["FRACSPIKE_STORAGE"] == url for one in environments)
    written = [path.read_bytes().decode("latin1") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [text for text in (out, error, str(started), *written) if "hunter22" in text]


# ---------------------------------------------------------------------------------------------
# Folders, names, grids


def test_a_storage_holds_many_sweeps_and_a_folder_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def swept(grid: str, *more: str) -> int:
        return call(monkeypatch, "toy_sweep:TOY", "--grid", grid, "--out", str(tmp_path / "out"), *more)

    one, two = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two"))
    assert swept("x=0.1,0.2", "--storage", one) == 0
    before = (tmp_path / "out" / "toy" / "sweep.csv").read_bytes()
    assert swept("x=0.3,0.4,0.5", "--storage", two) == 1
    command.assert_one_line(
        capsys.readouterr().err, "toy holds the results of another sweep, kept in sqlite:///"
    )
    assert (tmp_path / "out" / "toy" / "sweep.csv").read_bytes() == before
    assert swept("x=0.3,0.4,0.5", "--storage", one, "--name", "second") == 0
    assert len((tmp_path / "out" / "second" / "sweep.csv").read_text().splitlines()) == 4
    assert swept("x=0.1,0.2,0.3", "--storage", one) == 0  # grown
    assert "the grid was another before" in capsys.readouterr().out
    assert len((tmp_path / "out" / "toy" / "sweep.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("target", "grid", "said"),
    [
        ("digits", ["alpha=0.5,1.5"], "`alpha` must lie"),
        ("digits", ["seed=0:3", "surrogate=atan,sigmiod"], "sigmiod"),
        ("digits", ["surrogate=atan;atan:nosuch=2"], "nosuch"),
        ("digits", ["network=nosuch"], "`network` must"),
        ("digits", ["epochs=5,0"], "`epochs` must be"),
        ("digits", ["lr=0.1,-1"], "`lr` must lie"),
        ("digits", ["precision=32,64"], "`precision` must be"),
        ("fashion-mnist", ["network=dense,sparse"], "`network` must be"),
        ("binary-adding", ["alpha=0.5,0"], "`alpha` must lie"),
        ("binary-adding", ["learn=0,2"], "`learn` must be"),
        ("binary-adding", ["samples=1000,1001"], "`samples` must be a multiple of 10"),
        ("fsnn-graph", ["neuron=jump,hop"], "hop"),
        ("fsnn-graph", ["model=SGCN,GCN"], "`model` must be"),
        ("spoken-digits", ["control=published,none"], "`control` must be"),
        ("toy_sweep:CHECKED", ["shape=round,wrong", "seed=0:3"], "no such shape"),
    ],
)
def test_a_wrong_value_is_found_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    grid: list[str],
    said: str,
) -> None:
    assert call(monkeypatch, target, "--grid", *grid, "--out", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    command.assert_one_line(error, said)
    assert "the grid's point" in error
    assert not (tmp_path / "out").exists()


def test_kept_measurements_are_read_with_suspicion(tmp_path: Path) -> None:
    point = {"x": 0.5, "seed": 1}
    kept.save(tmp_path, point, {"m": 2.0}, 1.5)
    assert kept.load(tmp_path, point) == ({"m": 2.0}, 1.5)
    assert kept.load(tmp_path, {**point, "seed": 2}) is None
    whole = (tmp_path / kept.MEASURED).read_text()
    for spoilt in (
        "",
        "[" * 50_000,
        whole[:-9],
        whole.replace("2.0", "NaN"),
        whole.replace("1.5", "true"),
        "3",
    ):
        (tmp_path / kept.MEASURED).write_text(spoilt)
        assert kept.load(tmp_path, point) is None
    assert kept.load(tmp_path / "nowhere", point) is None


def test_help_lists_what_can_be_swept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for word in ("digits", "fashion-mnist", "binary-adding", "fsnn-graph", "spoken-digits", "alpha"):
        assert word in text
    assert "teka2014" not in text
    assert "\\b" not in text
    assert "\b" not in text
    line = "fracspike sweep digits --grid alpha=0.3:1.0:0.1 surrogate=atan,sigmoid seed=0:5 --workers 2"
    assert line in text


test_bad_input_is_one_line = command.refusals(
    call,
    [
        (("toy_sweep:TOY", "--grid", "x=0.5", "--name", "a/b"), "`name` must hold letters"),
        (("toy_sweep:TOY", "--grid", "x=0.5", "--name", ".."), "`name` must hold letters"),
        (("toy_sweep:TOY", "--grid", "x=0.5", "--wait", "-1"), "`wait` must be"),
        (("toy_sweep:ODD", "--grid", "x=0.5"), "must be numbers or texts, got odd=None"),
    ],
)
