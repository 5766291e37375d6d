"""What must not be lost or pass in silence: gradients, silent layers, earlier trainings, the user's files."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import fracspike as fs
from fracspike.experiments import surrogates as surrogates_experiment
from fracspike.files import UNFINISHED, DiskFullError, move_aside, remove_leftovers, replacing
from fracspike.training import Fitted, Machine, Settings, checkpoint, fit, gradients, others
from fracspike.training.others import ProcessDiedError

X = torch.linspace(-1, 1, 24, dtype=torch.float64)[:, None]
LINE = TensorDataset(X, 3 * X)


def error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return mse_loss(model(batch[0]), batch[1])


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1).double()


def settings(**more: Any) -> Settings:
    return Settings(**{"epochs": 2, "lr": 0.1, "batch_size": 8, "monitor": "error", "mode": "min", **more})


def learn(model: nn.Module, folder: Path | None = None, *, loss: Any = error, **more: Any) -> Fitted:
    own = {name: more.pop(name) for name in ("resume", "config", "save_every") if name in more}
    return fit(model, LINE, loss, settings(**more), folder, validate=lambda m: {"error": 0.0}, **own)


class TestGradients:
    """A gradient that is not finite, of a loss that is."""

    @pytest.mark.parametrize("parts", [1, 2])
    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_the_step_is_not_taken_and_the_parameter_is_named(
        self, tmp_path: Path, parts: int, clip: float | None
    ) -> None:
        model, steps, good = line(), 0, {}

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            nonlocal steps
            steps += 1
            if steps <= 2 * parts:
                return error(model, batch)
            good.update({name: value.clone() for name, value in model.state_dict().items()})
            return error(model, batch) + (0 * model.bias).sqrt().sum()  # 0, but its slope is 0 / 0

        with pytest.raises(
            RuntimeError, match=r"epoch 1;.*gradient of `bias` is not finite \(1 of 1 entries\)"
        ):
            learn(model, tmp_path, loss=loss, accumulate=parts, clip=clip, save_every=0.0)
        assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())
        kept = torch.load(tmp_path / checkpoint.NAME, weights_only=True)["state"]
        assert kept["step"] == 2
        assert torch.equal(kept["model"]["weight"], good["weight"])

    def test_a_norm_beyond_all_numbers_is_not_clipped_to_nothing(self) -> None:
        model = nn.Linear(1, 2).double()
        before = model.weight.detach().clone()
        with pytest.raises(RuntimeError, match="the norm of the gradient is too large"):
            learn(
                model, loss=lambda m, b: (m(b[0]) * 1e308).tanh().sum() * 0 + 1e300 * m.weight.sum(), clip=1.0
            )
        assert torch.equal(model.weight, before)

    def test_a_large_finite_gradient_is_no_mistake(self) -> None:
        model = nn.Linear(1, 2).double()
        (model.weight.sum() * 1.7e308).backward()  # the sum of the gradient overflows, its entries do not
        assert gradients.not_finite(model) is None

    def test_an_experiment_with_a_loop_of_its_own_checks_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = surrogates_experiment.Plan(samples=8, epochs=1, hidden=4, betas=(1,))
        data = surrogates_experiment.data(0, plan.samples)
        monkeypatch.setattr(surrogates_experiment, "_loss", lambda scores, labels: (0 * scores).sqrt().sum())
        with pytest.raises(RuntimeError, match=r"epoch 1 .*the gradient of `second` is not finite|`first`"):
            surrogates_experiment.learn(0.7, 0.05, 0, data, plan)

    def test_spoilt_weights_are_not_kept_within_an_epoch(self, tmp_path: Path) -> None:
        class Wild(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(torch.inf)

        with pytest.raises(RuntimeError, match="diverged in epoch 1"):
            fit(
                line(),
                LINE,
                error,
                settings(),
                tmp_path,
                validate=lambda m: {"error": 0.0},
                optimizer=lambda p, s: Wild(p, lr=s.lr),
                save_every=0.0,
            )
        kept = torch.load(tmp_path / checkpoint.NAME, weights_only=True)["state"]
        assert torch.isfinite(kept["model"]["weight"]).all()


class Spiking(nn.Module):
    """Two spiking layers, the second of which is asked through ``simulate``."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first = fs.FractionalLIF(0.7, resistance=first, surrogate="atan").double()
        self.second = fs.FractionalLIF(0.7, resistance=second, surrogate="atan").double()
        self.last = nn.Linear(1, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(x.abs().expand(6, *x.shape) + 0.1)
        return self.last(self.second.simulate(spikes + 0.1).spikes.mean(0))


class TestSilence:
    """Layers that never spike."""

    @pytest.mark.parametrize(
        ("first", "second", "said"),
        [
            (
                50.0,
                0.1,
                r"never spiked in the first 6 batches: second \(FractionalLIF, resistance 0.1, threshold 1",
            ),
            (0.1, 50.0, r"first \(FractionalLIF, resistance 0.1, threshold 1, largest input 1.1\)"),
            (0.1, 0.1, r"these layers .*first .*second .*raise its `resistance` .* lower its `threshold`"),
        ],
    )
    @pytest.mark.parametrize("parts", [1, 2])
    def test_fit_names_them_once(self, first: float, second: float, said: str, parts: int) -> None:
        with pytest.warns(UserWarning, match=said) as caught:
            learn(Spiking(first, second), accumulate=parts)
        assert len(caught) == 1

    def test_a_spike_in_any_of_the_first_batches_is_enough(self) -> None:
        model, calls = Spiking(50.0, 50.0), 0

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            nonlocal calls
            calls += 1
            return error(model, (batch[0] if calls == 8 else torch.full_like(batch[0], -0.09999), batch[1]))

        with torch.no_grad():
            model.first.threshold.fill_(40.0)
        learn(model, loss=loss, epochs=5)
        assert calls == 15
        assert not vars(model.first).keys() & {"simulate", "forward"}
        assert not model.first._forward_hooks

    def test_the_rest_of_a_training_is_too_short_to_tell(self, tmp_path: Path) -> None:
        def stop(record: dict[str, float]) -> None:
            raise KeyboardInterrupt

        model = Spiking(0.1, 0.1)
        with pytest.raises(KeyboardInterrupt):
            fit(model, LINE, error, settings(), tmp_path, validate=lambda m: {"error": 0.0}, on_epoch=stop)
        learn(model, tmp_path, resume=True)

    def test_a_layer_that_never_spikes_by_its_nature_or_is_not_used_is_passed_over(self) -> None:
        class Readout(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.read, self.unused = fs.FractionalLI(0.7).double(), fs.FractionalLIF(0.7)
                self.last = nn.Linear(1, 1).double()

            def forward(self, x: Tensor) -> Tensor:
                return self.last(self.read(x.expand(3, *x.shape)).mean(0))

        learn(Readout())

    def test_watching_changes_no_weight(self) -> None:
        results = []
        for epochs in (2, 2):
            torch.manual_seed(1)
            model = Spiking(50.0, 50.0)
            learn(model, epochs=epochs)
            results.append(model.last.weight.item())
        assert results[0] == results[1]

    def test_a_recording_names_them(self) -> None:
        net = nn.Sequential(fs.FractionalLIF(0.7, threshold=9.0), fs.FractionalLI(0.7))
        said = r"this layer never spiked .*: 0 \(FractionalLIF, resistance 1, threshold 9, "
        with pytest.warns(UserWarning, match=said) as caught, fs.record(net):
            net(torch.ones(5, 1, 2))
        assert len(caught) == 1
        assert caught[0].filename == __file__
        with fs.record(net):  # not used: nothing to say
            pass
        with fs.record(net):
            net(torch.ones(5, 1, 2))
            net(torch.full((5, 1, 2), 100.0))


class TestEarlier:
    """A folder in which there is a training already."""

    def test_each_training_before_is_kept_whole(self, tmp_path: Path) -> None:
        learn(line(), tmp_path, epochs=3)
        contents = [(tmp_path / name).read_bytes() for name in (checkpoint.NAME, checkpoint.BEFORE)]
        for epochs in (1, 2, 1):
            with pytest.warns(UserWarning, match="an earlier training"):
                learn(line(), tmp_path, epochs=epochs)
        first = tmp_path / "previous"
        assert [(first / name).read_bytes() for name in (checkpoint.NAME, checkpoint.BEFORE)] == contents
        epochs = [
            torch.load(tmp_path / name / checkpoint.NAME, weights_only=True)["config"]["epochs"]
            for name in ("previous", "previous-2", "previous-3", "")
        ]
        assert epochs == [3, 1, 2, 1]
        assert len(learn(line(), first, epochs=3, resume=True).history) == 3

    def test_what_is_not_ours_stays_where_it_is(self, tmp_path: Path) -> None:
        for name in ("results.json", "notes.txt", "previous"):
            (tmp_path / name).write_text("mine")
        learn(line(), tmp_path)
        with pytest.warns(UserWarning, match="previous-2"):
            learn(line(), tmp_path)
        assert all(
            (tmp_path / name).read_text() == "mine" for name in ("results.json", "notes.txt", "previous")
        )

    @pytest.mark.parametrize("moves", [0, 1])
    def test_killed_while_it_is_moved_nothing_is_lost(self, tmp_path: Path, moves: int) -> None:
        learn(line(), tmp_path)
        newest = (tmp_path / checkpoint.NAME).read_bytes()
        move_aside(tmp_path, checkpoint.OWN[:moves])
        assert len(learn(line(), tmp_path, resume=True).history) == 2
        assert (tmp_path / checkpoint.NAME).read_bytes() == newest

    @pytest.mark.parametrize("wrong", [{"save_every": math.nan}, {"accumulate": 0}, {"seed": 2**70}])
    def test_a_mistake_moves_nothing(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        learn(line(), tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises((ValueError, TypeError)):
            learn(line(), tmp_path, **wrong)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    def test_without_the_newest_the_one_before_is_taken_and_said(self, tmp_path: Path) -> None:
        learn(line(), tmp_path)
        path = tmp_path / checkpoint.NAME
        whole = path.read_bytes()
        path.unlink()
        with pytest.warns(
            UserWarning, match=r"there is no newest checkpoint .*; going on from the one before"
        ):
            learn(line(), tmp_path, resume=True)
        states = [torch.load(one, weights_only=True)["state"]["model"]["weight"] for one in (path,)]
        path.write_bytes(whole)
        assert torch.equal(states[0], torch.load(path, weights_only=True)["state"]["model"]["weight"])

    def test_damaged_ones_are_all_kept(self, tmp_path: Path) -> None:
        learn(line(), tmp_path)
        for content in (b"first", b"second"):
            (tmp_path / checkpoint.NAME).write_bytes(content)
            with pytest.warns(UserWarning, match="was damaged and is now"):
                learn(line(), tmp_path, resume=True)
        names = ("checkpoint.damaged.pt", "checkpoint.damaged-2.pt")
        assert [(tmp_path / name).read_bytes() for name in names] == [b"first", b"second"]


class TestFiles:
    """Files of the user, and a disk that is full."""

    MINE = (
        ".env-20260101.bak",
        ".checkpoint-abcdefgh.pt",
        ".results-20260101.json",
        ".fracspike-notes-20260101.txt",
        f"{UNFINISHED}notes.txt",
        "notes-abcdefgh.txt",
    )

    def test_hidden_files_of_the_user_are_left_alone(self, tmp_path: Path) -> None:
        for name in self.MINE:
            (tmp_path / name).write_text("mine")
            os.utime(tmp_path / name, (0, 0))
        learn(line(), tmp_path)
        learn(line(), tmp_path, resume=True)
        assert all((tmp_path / name).read_text() == "mine" for name in self.MINE)

    def test_only_what_an_earlier_run_left_half_written_is_removed(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "checkpoint.pt") as path:
            name = path.name
        old, young, folder, link = (tmp_path / name.replace("checkpoint", k) for k in ("a", "b", "c", "d"))
        old.write_text("half")
        young.write_text("half")
        folder.mkdir()
        link.symlink_to(tmp_path / "elsewhere")
        now = time.time()
        os.utime(old, (now - 60, now - 60))
        os.utime(young, (now + 60, now + 60))
        remove_leftovers(tmp_path, now)
        assert not old.exists()
        assert young.exists()
        assert folder.exists()
        assert link.is_symlink()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    def test_torch_on_a_full_disk_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        learn(line(), tmp_path)
        before = (tmp_path / checkpoint.NAME).read_bytes()
        real = Path.open

        def full(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
            return real(Path("/dev/full") if mode == "wb" else self, mode, *args, **more)

        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(DiskFullError) as caught:
            learn(line(), tmp_path / "new")
        assert str(caught.value).startswith(f"disk full: {tmp_path / 'new' / checkpoint.NAME} ")
        with pytest.raises(DiskFullError, match="--resume"):
            checkpoint.save(tmp_path / checkpoint.NAME, {}, {})
        assert (tmp_path / checkpoint.NAME).read_bytes() == before
        assert not list(tmp_path.glob(".*"))

    def test_other_failures_keep_their_own_words(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "nowhere" / "a.txt"):
            pass
        with pytest.raises(RuntimeError, match="by the way"), replacing(tmp_path / "a.txt"):
            raise RuntimeError("by the way")


class TestProcesses:
    """One process of several that dies, or cannot go on."""

    def test_an_exchange_that_fails_names_who_is_gone(self) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])  # not waited for: it stays as a zombie
        there = object.__new__(others.Others)
        host = others.socket.gethostname()
        there.own, there.where = 0, [(host, os.getpid()), (host, gone.pid), (host, os.getppid()), ("else", 1)]
        try:
            found = there.explain(RuntimeError("Connection closed by peer [127.0.0.1]:4242"))
            assert str(found) == "process 1 died; go on with --resume"
            assert there.explain(RuntimeError("shapes differ")) is None
        finally:
            gone.wait()

    def test_the_launcher_says_who_died(self) -> None:
        said: list[str] = []
        logger = logging.getLogger(others.LAUNCHER)
        before = logger.filters[:], logger.level
        try:
            logger.filters.clear()
            others.announce_deaths(said.append)
            logger.info("[rank: 2] Child process with PID 7 terminated with code -9. Forcefully terminating")
        finally:
            logger.filters[:], level = before
            logger.setLevel(level)
        assert said == ["fracspike: process 2 died; go on with --resume"]

    def test_it_can_be_told_to_the_others(self) -> None:
        import pickle

        for one in (ProcessDiedError([2]), DiskFullError(Path("/a/b"))):
            assert str(pickle.loads(pickle.dumps(one))) == str(one)

    def test_alone_an_error_is_its_own(self) -> None:
        machine = Machine("cpu")

        def fails() -> int:
            raise KeyError("here")

        for do in (machine.lead, machine.together):
            with pytest.raises(KeyError):
                do(fails)
            assert do(lambda: 3) == 3


def test_nothing_is_said_of_a_training_that_goes_well(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(Spiking(50.0, 50.0), tmp_path)
