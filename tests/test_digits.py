"""``fracspike train digits``: the data, what a short training reaches, and every way to call it wrong."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import command
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from fracspike import training
from fracspike.training import checkpoint, digits, engine

QUICK = ("--epochs", "4", "--hidden", "32", "--lr", "0.01")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``fracspike train`` in this process and return its exit status."""
    return command.call(monkeypatch, "train", *arguments)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_parts_are_disjoint_complete_and_stratified(seed: int) -> None:
    data = digits.load(seed)
    images = [tuple(image.flatten().tolist()) for part in data for image in part.inputs.transpose(0, 1)]
    pixels, labels = load_digits(return_X_y=True)
    assert sorted(images) == sorted(map(tuple, (pixels / 16).tolist()))
    assert len(set(images)) == len(images) == 1797
    for part, share in zip(data, (0.7, 0.1, 0.2), strict=True):
        assert part.inputs.shape == (8, len(part.labels), 8)
        expected = share * torch.bincount(torch.as_tensor(labels))
        assert (torch.bincount(part.labels) - expected).abs().max() <= 1


def test_rows_come_in_order_with_their_labels() -> None:
    pixels, labels = load_digits(return_X_y=True)
    known = {tuple((image / 16).tolist()): int(label) for image, label in zip(pixels, labels, strict=True)}
    part = digits.load(0).validation
    for image, label in zip(part.inputs.transpose(0, 1), part.labels, strict=True):
        assert known[tuple(image.flatten().tolist())] == label


def test_the_seed_alone_decides_the_split() -> None:
    torch.rand(7)
    first, again, other = digits.load(3), digits.load(3), digits.load(4)
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert not torch.equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("alpha", [0.4, 0.7, 1.0])
def test_one_step_of_unit_current_reaches_the_threshold_for_any_alpha(alpha: float) -> None:
    neurons = next(
        module
        for module in digits.network(training.Options(alpha=alpha)).modules()
        if type(module).__name__ == "FractionalLIF"
    )
    run = neurons.simulate(torch.ones(1, 1, dtype=torch.float64))  # type: ignore[operator]
    assert run.pre_reset.item() == pytest.approx(1.0, abs=1e-12)


def test_train_learns_and_compares_with_the_control(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "digits", *QUICK, "--compare", "--out", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "memoryless control" in shown
    folder = tmp_path / "digits"
    for place, alpha in ((folder, 0.7), (folder / "control", 1.0)):
        results = json.loads((place / "results.json").read_text())
        assert results["config"]["alpha"] == alpha
        assert results["accuracy"]["test"] > 0.85  # chance is 0.1
        assert f"{100 * results['accuracy']['test']:.1f} %" in shown
        history = list(csv.DictReader((place / "history.csv").read_text().splitlines()))
        losses = [float(line["training_loss"]) for line in history]
        assert losses[-1] < losses[0] / 2
        assert (place / "confusion.png").stat().st_size > 5000
    assert (folder / "comparison.png").stat().st_size > 5000
    compared = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [line["alpha"] for line in compared] == ["0.7", "1.0"]


def test_ctrl_c_leaves_what_resume_goes_on_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("digits", "--epochs", "2", "--hidden", "8", "--out")
    assert call(monkeypatch, *options, str(tmp_path / "whole")) == 0
    real = engine.Training._step

    def interrupted(self: engine.Training, chosen: Tensor) -> float:
        if self.history and self.step == 3:
            raise KeyboardInterrupt
        return real(self, chosen)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Training, "_step", interrupted)
        assert call(monkeypatch, *options, str(tmp_path / "broken")) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error
    assert "--resume" in error
    assert call(monkeypatch, *options, str(tmp_path / "broken"), "--resume") == 0
    histories = [(tmp_path / name / "digits" / "history.csv").read_text() for name in ("whole", "broken")]
    assert histories[0] == histories[1]


@pytest.mark.filterwarnings("default:an earlier training")
def test_ctrl_c_before_the_first_checkpoint_does_not_claim_that_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = tmp_path / "digits" / checkpoint.NAME  # of another training
    for there in (False, True):
        if there:
            earlier.write_bytes(b"a week of training")
        with monkeypatch.context() as patch:
            patch.setattr(engine.Training, "__init__", interrupted)
            assert call(monkeypatch, "digits", "--epochs", "2", "--out", str(tmp_path)) == 130
        said = capsys.readouterr().err
        assert "there is no checkpoint of this training yet: start it again" in said
        assert "is kept:" not in said
    assert (tmp_path / "digits" / "previous" / checkpoint.NAME).read_bytes() == b"a week of training"


@pytest.mark.filterwarnings("default:an earlier training")
def test_other_options_in_the_same_folder_keep_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "digits"
    common = ("digits", "--hidden", "8", "--out", str(tmp_path))
    assert call(monkeypatch, *common, "--epochs", "1") == 0
    names = (
        "checkpoint.pt",
        "checkpoint.before.pt",
        "begun.json",
        "results.json",
        "history.csv",
        "confusion.png",
    )
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / "notes.txt").write_text("mine")
    assert call(monkeypatch, *common, "--epochs", "2", "--processes", "0") == 1
    assert {name: (folder / name).read_bytes() for name in names} == before
    capsys.readouterr()
    assert call(monkeypatch, *common, "--epochs", "2") == 0
    assert f"is now in {folder / 'previous'}" in capsys.readouterr().err
    assert {name: (folder / "previous" / name).read_bytes() for name in names} == before
    assert json.loads((folder / "results.json").read_text())["config"]["epochs"] == 2
    assert (folder / "notes.txt").read_text() == "mine"


test_bad_input_is_one_line = command.refusals(
    call,
    [
        (("numerals",), "`task` must be one of 'digits', 'fashion-mnist'; got 'numerals'"),
        (("digits", "--lr", "nan"), "`lr` must lie in (0, 100], got nan"),
        (("digits", "--lr", "fast"), "'fast' is not a valid float"),
        (("digits", "--epochs", "-1"), "`epochs` must be >= 1, got -1"),
        (("digits", "--alpha", "0"), "`alpha` must lie in (0, 1], got 0"),
        (("digits", "--alpha", "1.5"), "`alpha` must lie in (0, 1], got 1.5"),
        (("digits", "--surrogate", "nonesuch"), "`surrogate` must be one of"),
        (("digits", "--seed", "-1"), "`seed` must be >= 0, got -1"),
        (
            ("digits", "--seed", str(2**70)),
            "`seed` must be <= 2^63 - 1, the largest number of 64 bits, got 118",
        ),
        (("digits", "--batch-size", str(10**30)), "`batch_size` must be <= 2^63 - 1"),
        (("digits", "--hidden", str(10**12)), "`hidden` must be so small that the network fits into memory"),
        (("digits", "--threads", "100000"), "`threads` must be <= 1024, got 100000"),
        (("digits", "--processes", "100000"), "`processes` must be <= "),
        (("digits", "--save-every", "nan"), "`save_every` must be >= 0"),
        (("digits", "--alpha", "1", "--compare"), "`--compare` needs `alpha` below 1"),
        (("digits", "--resume"), "no checkpoint to resume from"),
        ((), "Missing argument 'TASK'"),
    ],
)


def test_an_unwritable_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert call(monkeypatch, "digits", "--out", str(tmp_path / "file")) != 0
    error = capsys.readouterr().err
    assert "must be a folder that can be written to" in error
    assert len(error.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_damaged_checkpoint_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "digits" / checkpoint.NAME
    path.parent.mkdir()
    path.write_bytes(b"PK damaged")
    assert call(monkeypatch, "digits", "--resume", "--out", str(tmp_path)) != 0
    error = capsys.readouterr().err
    assert "is damaged" in error
    assert len(error.splitlines()) == 1
    assert path.read_bytes() == b"PK damaged"


def test_missing_scikit_learn_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert call(monkeypatch, "digits", "--out", str(tmp_path)) != 0
    error = capsys.readouterr().err
    assert 'pip install "fracspike[experiments]"' in error
    assert len(error.splitlines()) == 1
