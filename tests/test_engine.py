"""The engine: parts, processes, kills, stopping early, and what ``fit`` refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from fracspike.files import InUseError, locked
from fracspike.training import Dropout, Machine, Noise, Settings, Whole, checkpoint, fit, randomness
from fracspike.training.noise import Rows, rows

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def forked() -> dict[str, Any]:
    """What tests/forked.py found: trainings killed, and trainings shared by processes."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    done = subprocess.run(
        [sys.executable, HERE / "forked.py"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("every", [23, 31, 37])
def test_killed_again_and_again_it_comes_to_the_same_result(forked: dict[str, Any], every: int) -> None:
    found = forked["killed"][f"every {every}"]
    assert found["kills"] >= 10
    assert found["status"] == 0
    assert found["digest"] == forked["killed"]["whole"]  # weights, optimiser, generators, history
    assert found["left"] == [], "half-written files are left behind"


class TestProcesses:
    def test_two_processes_agree_and_one_of_them_writes(self, forked: dict[str, Any]) -> None:
        assert forked["shared"]["two"]["agree"]
        assert forked["shared"]["two"]["kept"] == [True, False]

    @pytest.mark.parametrize("name", ["parts", "two", "four parts", "two of four"])
    def test_a_batch_in_parts_teaches_the_same_to_rounding(self, forked: dict[str, Any], name: str) -> None:
        one, other = forked["shared"]["one"]["weights"], forked["shared"][name]["weights"]
        assert other == pytest.approx(one, rel=0, abs=1e-13)

    @pytest.mark.parametrize(("name", "parts"), [("two", "parts"), ("two of four", "four parts")])
    def test_whoever_computes_the_parts_the_sum_is_the_same_bit_for_bit(
        self, forked: dict[str, Any], name: str, parts: str
    ) -> None:
        assert forked["shared"][name]["weights"] == forked["shared"][parts]["weights"]
        assert (
            forked["shared"][parts]["weights"] != forked["shared"]["one"]["weights"]
        )  # so that it says something


@pytest.mark.parametrize("module", [Noise(0.5), Dropout(0.4)], ids=lambda m: type(m).__name__)
def test_noise_of_a_part_is_that_of_its_rows_in_the_whole_batch(module: nn.Module) -> None:
    x = torch.randn(3, 10, 4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole = module(x)
    parts = []
    for start, stop in ((0, 4), (4, 10)):
        generator = torch.Generator()
        generator.set_state(state)
        with rows(Rows(start, stop, 10, generator)):
            parts.append(module(x[:, start:stop]))
    assert torch.equal(torch.cat(parts, 1), whole)
    assert not torch.equal(whole, x)
    assert torch.equal(generator.get_state(), torch.get_rng_state())
    assert torch.equal(module.eval()(x), x)
    module.train()


def test_dropout_is_torchs() -> None:
    x = torch.randn(3, 10, 4)
    torch.manual_seed(5)
    ours = Dropout(0.4)(x)
    torch.manual_seed(5)
    assert torch.equal(ours, nn.Dropout(0.4)(x))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    ahead = randomness.Shuffle(50, seed=2)
    third = ahead.order(3)
    assert sorted(third.tolist()) == list(range(50))
    first = ahead.order(0)
    torch.rand(3)
    for epoch, expected in ((0, first), (3, third)):
        assert torch.equal(randomness.Shuffle(50, seed=2).order(epoch), expected)
    assert not torch.equal(first, third)
    assert not torch.equal(first, randomness.Shuffle(50, seed=3).order(0))


X = torch.linspace(-1, 1, 24, dtype=torch.float64)[:, None]
LINE = TensorDataset(X, 3 * X)


def error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return mse_loss(model(batch[0]), batch[1])


def line(*, weight: float = 0.0) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, weight)
    return model


def measure(model: nn.Module) -> dict[str, float]:
    return {"error": error(model, (X, 3 * X)).item()}


def settings(**more: Any) -> Settings:
    return Settings(**{"epochs": 5, "lr": 0.1, "batch_size": 7, "monitor": "error", "mode": "min", **more})


def descent(parameters: Any, chosen: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=chosen.lr)


def test_one_step_is_gradient_descent_on_the_whole() -> None:
    model = line()
    done = fit(model, LINE, error, settings(epochs=1, batch_size=None), validate=measure, optimizer=descent)
    gradient = -6 * (X**2).mean()
    assert model.weight.item() == pytest.approx(-0.1 * gradient.item(), rel=1e-12)
    assert done.history[0]["loss"] == pytest.approx(9 * (X**2).mean().item(), rel=1e-12)


def test_clip_limits_the_norm() -> None:
    model = line()
    fit(
        model,
        LINE,
        error,
        settings(epochs=1, batch_size=None, clip=0.01),
        validate=measure,
        optimizer=descent,
    )
    assert model.weight.item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_whole_graph_is_one_sample() -> None:
    seen = []

    def loss(model: nn.Module, graph: dict[str, Tensor]) -> Tensor:
        seen.append(graph)
        return mse_loss(model(graph["x"]), graph["y"])

    graph = {"x": X, "y": 3 * X}
    fit(line(), Whole(graph), loss, settings(batch_size=None), validate=measure)
    assert len(seen) == 5
    assert seen[0] is graph


def series(*values: float) -> Any:
    """Measure these, one after another."""
    left = list(values)
    return lambda model: {"error": left.pop(0)}


class TestBest:
    def test_patience_stops_and_the_best_weights_are_taken(self) -> None:
        model = line()
        weights = []
        done = fit(
            model,
            LINE,
            error,
            settings(epochs=9, patience=2),
            validate=series(5.0, 3.0, 4.0, 3.5, 1.0),
            on_epoch=lambda record: weights.append(model.weight.item()),
        )
        assert len(done.history) == 4
        assert done.best["epoch"] == 2
        assert model.weight.item() == weights[1]

    @pytest.mark.parametrize(
        ("mode", "smoothing", "best"), [("min", 1.0, 2), ("max", 1.0, 1), ("min", 0.1, 5), ("max", 0.1, 1)]
    )
    def test_mode_and_smoothing_decide(self, mode: str, smoothing: float, best: int) -> None:
        done = fit(
            line(),
            LINE,
            error,
            settings(mode=mode, smoothing=smoothing),
            validate=series(5.0, 1.0, 4.0, 2.0, 2.0),
        )
        assert done.best["epoch"] == best

    def test_among_equals_the_latest_is_best(self) -> None:
        assert fit(line(), LINE, error, settings(), validate=series(*[2.0] * 5)).best["epoch"] == 5

    def test_cosine_ends_near_zero(self) -> None:
        done = fit(line(), LINE, error, settings(schedule="cosine"), validate=measure)
        rates = [record["lr"] for record in done.history]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == 0.1
        assert 0 < rates[-1] < 0.011


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("lr", 0.0),
            ("lr", float("inf")),
            ("batch_size", 0),
            ("clip", 0.0),
            ("clip", float("nan")),
            ("accumulate", 0),
            ("patience", 0),
            ("smoothing", 0.0),
            ("weight_decay", -1.0),
            ("schedule", "linear"),
            ("mode", "best"),
            ("seed", -1),
        ],
    )
    def test_settings_out_of_range_are_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises((ValueError, TypeError), match=f"`{name}` must"):
            settings(**{name: value})

    def test_an_unknown_metric_is_named(self) -> None:
        with pytest.raises(ValueError, match="`monitor` must be one of 'error'; got 'eror'"):
            fit(line(), LINE, error, settings(monitor="eror"), validate=measure)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"device": "tpu"}, "`device` must be one of"),
            ({"precision": "16"}, "`precision` must be one of"),
            ({"processes": 0}, "`processes` must be >= 1"),
        ],
    )
    def test_machines_that_are_not_are_refused(self, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Machine(**arguments)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_missing_gpu_is_said(self) -> None:
        with pytest.raises(ValueError, match="pass --device cpu"):
            Machine("cuda")

    def test_resume_needs_a_folder(self) -> None:
        with pytest.raises(ValueError, match="`resume` needs a `folder`"):
            fit(line(), LINE, error, settings(), validate=measure, resume=True)

    def test_a_loss_that_is_not_finite_is_divergence(self) -> None:
        with pytest.raises(RuntimeError, match="diverged in epoch 1; lower the learning rate"):
            fit(line(weight=float("inf")), LINE, error, settings(), validate=measure)

    def test_an_error_of_the_users_own_is_not_called_divergence(self) -> None:
        def wrong(model: nn.Module, batch: object) -> Tensor:
            raise ValueError("no such thing")

        with pytest.raises(ValueError, match="no such thing"):
            fit(line(), LINE, wrong, settings(), validate=measure)

    def test_a_folder_in_use_is_said(self, tmp_path: Path) -> None:
        with locked(tmp_path), pytest.raises(InUseError, match="something is writing to"):
            fit(line(), LINE, error, settings(), tmp_path, validate=measure)
        fit(line(), LINE, error, settings(), tmp_path, validate=measure)


def test_the_callers_random_states_are_given_back() -> None:
    model, before = line(), randomness.state()

    def noisy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return error(model, batch) + torch.rand(())

    fit(model, LINE, noisy, settings(), validate=measure)
    after = randomness.state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]


class TestBefore:
    """The checkpoint before the newest."""

    def kept(self, place: Path) -> Path:
        fit(line(), LINE, error, settings(), place, validate=measure)
        return place / checkpoint.NAME

    def test_it_is_one_epoch_older(self, tmp_path: Path) -> None:
        self.kept(tmp_path)
        epochs = [
            len(torch.load(tmp_path / name, weights_only=True)["state"]["history"])
            for name in (checkpoint.BEFORE, checkpoint.NAME)
        ]
        assert epochs == [4, 5]

    def test_it_stands_in_for_a_damaged_one_and_comes_to_the_same(self, tmp_path: Path) -> None:
        path = self.kept(tmp_path)
        whole = torch.load(path, weights_only=True)["state"]["model"]["weight"]
        damaged = path.read_bytes()[:-30]
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="was damaged and is now checkpoint.damaged.pt"):
            fit(line(), LINE, error, settings(), tmp_path, validate=measure, resume=True)
        assert torch.equal(torch.load(path, weights_only=True)["state"]["model"]["weight"], whole)
        assert (tmp_path / checkpoint.DAMAGED).read_bytes() == damaged

    def test_where_both_are_damaged_both_are_left_alone(self, tmp_path: Path) -> None:
        path = self.kept(tmp_path)
        for name in (checkpoint.NAME, checkpoint.BEFORE):
            (tmp_path / name).write_bytes(name.encode())
        with pytest.raises(ValueError, match="is damaged"):
            fit(line(), LINE, error, settings(), tmp_path, validate=measure, resume=True)
        assert path.read_bytes() == checkpoint.NAME.encode()
        assert (tmp_path / checkpoint.BEFORE).read_bytes() == checkpoint.BEFORE.encode()


def test_bf16_learns_and_says_so(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    y = (x[:, 0] > 0).long()
    seen = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = model(batch[0])
        seen.append(scores.dtype)
        return cross_entropy(scores.float(), batch[1])

    done = fit(
        nn.Linear(8, 2),
        TensorDataset(x, y),
        loss,
        Settings(epochs=20, lr=0.05, batch_size=16, monitor="right"),
        validate=lambda model: {"right": (model(x).argmax(1) == y).double().mean().item()},
        machine=Machine("cpu", "bf16"),
    )
    assert set(seen) == {torch.bfloat16}
    assert done.best["right"] > 0.9


def test_settings_are_plain() -> None:
    assert json.loads(json.dumps(asdict(settings()))) == asdict(settings())
