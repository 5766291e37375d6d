"""Tasks beside digits, and what the command line adds to any of them."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import command
import idx_files
import pytest
import torch

from fracspike import training
from fracspike.training import fashion_mnist
from fracspike.training.blocks import Single


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``fracspike train`` in this process and return its exit status."""
    return command.call(monkeypatch, "train", *arguments)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idx_files.write(tmp_path_factory.mktemp("data") / "fashion-mnist", training=200, test=20)


class TestFashionMnist:
    def test_the_parts_are_whole_and_apart(self, fashion: Path) -> None:
        data = fashion_mnist.load(0, fashion)
        assert [len(part.labels) for part in data] == [180, 20, 20]
        assert torch.bincount(data.validation.labels).tolist() == [2] * 10
        seen = {tuple(image.flatten().tolist()) for part in data[:2] for image in part.inputs.transpose(0, 1)}
        known = (torch.arange(200 * 784).reshape(200, 784) % 251 / 255).tolist()
        assert seen == set(map(tuple, known))

    def test_rows_come_in_order(self, fashion: Path) -> None:
        first = fashion_mnist.load(0, fashion).test.inputs[:, 0]
        assert torch.equal(first, torch.arange(784).reshape(28, 28) % 251 / 255)

    @pytest.mark.parametrize("network", fashion_mnist.TASK.networks)
    def test_every_network_answers_and_all_its_weights_learn(self, network: str) -> None:
        torch.manual_seed(0)
        built = fashion_mnist.network(fashion_mnist.TASK.options(network=network, hidden=16))
        scores = built(torch.rand(28, 5, 28))
        assert scores.shape == (5, 10)
        scores.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.parameters())

    def test_the_command_trains_from_a_folder(
        self, fashion: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        options = ("--hidden", "8", "--epochs", "2", "--data", str(fashion), "--out", str(tmp_path))
        assert call(monkeypatch, "fashion-mnist", *options, "--network", "rows") == 0
        results = json.loads((tmp_path / "fashion-mnist" / "results.json").read_text())
        assert results["config"]["network"] == "rows"
        assert results["config"]["batch_size"] == fashion_mnist.TASK.defaults["batch_size"]
        assert len(results["weights_sha256"]) == 64
        assert sum(map(sum, results["confusion"])) == 20


test_bad_input_is_one_line = command.refusals(
    call,
    [
        (
            ("fashion-mnist", "--network", "deep"),
            "`network` must be one of 'conv', 'dense', 'rows'; got 'deep'",
        ),
        (("digits", "--network", "conv"), "`network` must be left out, as 'digits' has one only"),
        (("fashion-mnist", "--data", "nowhere"), "`data` must be a folder with Fashion-MNIST, got 'nowhere'"),
        (("digits", "--data", "."), "`data` must not be given for 'digits'"),
        (("digits", "--processes", "0"), "`processes` must be >= 1"),
        (("digits", "--patience", "0"), "`patience` must be >= 1"),
        (("digits", "--clip", "nan"), "`clip` must be > 0"),
        (("digits", "--precision", "8"), "'8' is not one of"),
    ],
)


QUICK = ("digits", "--epochs", "2", "--hidden", "8")


def test_a_training_killed_before_its_first_checkpoint_resumes_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(seed: int, folder: Path | None) -> training.Data:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        task = training.get("digits")
        patch.setattr(training, "get", lambda name: replace(task, load=killed))
        assert call(patch, *QUICK, "--out", str(tmp_path)) == 130
    assert (
        call(monkeypatch, *QUICK, "--epochs", "3", "--out", str(tmp_path), "--resume") != 0
    )  # other options
    assert call(monkeypatch, *QUICK, "--out", str(tmp_path), "--resume") == 0
    assert (tmp_path / "digits" / "results.json").exists()


def test_tensorboard_has_the_curves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call(monkeypatch, *QUICK, "--tensorboard", "--out", str(tmp_path)) == 0
    events = EventAccumulator(str(tmp_path / "digits" / "tensorboard"))
    events.Reload()
    curve = events.Scalars("validation/accuracy")
    lines = (tmp_path / "digits" / "history.csv").read_text().splitlines()[1:]
    assert [event.step for event in curve] == [1, 2]
    assert [event.value for event in curve] == pytest.approx([float(line.split(",")[4]) for line in lines])


@pytest.mark.parametrize(
    ("missing", "option", "remedy"),
    [
        ("torch.utils.tensorboard.writer", "--tensorboard", 'pip install "fracspike[logging]"'),
        ("lightning_fabric", "--resume", 'pip install "fracspike[experiments]"'),
    ],
)
def test_a_missing_package_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    missing: str,
    option: str,
    remedy: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert call(monkeypatch, *QUICK, option, "--out", str(tmp_path)) != 0
    error = capsys.readouterr().err
    assert remedy in error
    assert len(error.splitlines()) == 1


def test_the_extras_name_what_is_asked_for() -> None:
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    named = str(extras["optional-dependencies"])
    for package in ("lightning-fabric", "optuna", "pooch", "tensorboard", "scikit-learn"):
        assert package in named


def test_halves_become_single_and_others_stay() -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert Single()(torch.ones(2, dtype=dtype)).dtype == expected
