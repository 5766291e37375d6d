"""The training loop and its checkpoints, on a toy task: nothing is lost, nothing is left to chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor, nn

from fracspike.files import DiskFullError
from fracspike.neurons import FractionalLIF
from fracspike.training import Data, Options, Task, checkpoint, run
from fracspike.training.classify import Epoch
from fracspike.training.run import Outcome, train
from fracspike.training.task import split

OPTIONS = Options(epochs=4, hidden=8, batch_size=16, lr=0.02)


def load(seed: int, folder: Path | None = None) -> Data:
    """Two classes that differ in when the input comes, not in how much."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(120) % 2
    early = torch.linspace(2.0, 0.0, 6)
    wave = torch.where(labels == 0, early[:, None], early.flip(0)[:, None])
    inputs = wave[..., None] + 0.5 * torch.randn(6, 120, 3, generator=generator)
    return split(inputs, labels, (0.2, 0.2), seed)


class Raster(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1)


def network(options: Options) -> nn.Module:
    neurons = FractionalLIF(alpha=options.alpha, surrogate=options.surrogate)
    h = options.hidden
    return nn.Sequential(nn.Linear(3, h), neurons, nn.Dropout(0.3), Raster(), nn.Linear(6 * h, 2))


TOY = Task("toy", "Early or late", "made up", ("early", "late"), load, network)


def kept(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / checkpoint.NAME, weights_only=True)["state"]
    return state


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, however deep."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def stop_after(epoch: int) -> Callable[[Epoch], None]:
    def stop(done: Epoch) -> None:
        if done.epoch == epoch:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(TOY, OPTIONS, folder)


def test_two_runs_with_one_seed_agree_bit_for_bit(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    torch.rand(3)  # what was drawn before must not matter
    again = train(TOY, OPTIONS, tmp_path)
    assert same(kept(whole[0]), kept(tmp_path))
    assert again.history == whole[1].history
    other = train(TOY, replace(OPTIONS, seed=1), tmp_path / "other")
    assert other.history != again.history


def test_torchs_random_state_and_threads_are_left_alone(tmp_path: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(TOY, replace(OPTIONS, epochs=1), tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_after_an_epoch_equals_uninterrupted(
    whole: tuple[Path, Outcome], tmp_path: Path, epoch: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(TOY, OPTIONS, tmp_path, on_epoch=stop_after(epoch))
    assert len(kept(tmp_path)["history"]) == epoch
    torch.rand(3)
    seen: list[int] = []
    outcome = train(TOY, OPTIONS, tmp_path, resume=True, on_epoch=lambda e: seen.append(e.epoch))
    assert seen == list(range(epoch + 1, 5))
    assert same(kept(tmp_path), kept(whole[0]))
    assert outcome.history == whole[1].history
    assert torch.equal(outcome.confusion, whole[1].confusion)


@pytest.mark.parametrize("call", [1, 3, 13])
def test_resumed_from_within_an_epoch_equals_uninterrupted(
    whole: tuple[Path, Outcome], tmp_path: Path, call: int
) -> None:
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt

    def interrupted(options: Options) -> nn.Module:
        built = network(options)
        built.register_forward_hook(interrupt)
        return built

    with pytest.raises(KeyboardInterrupt):
        train(replace(TOY, network=interrupted), OPTIONS, tmp_path)
    train(TOY, OPTIONS, tmp_path, resume=True)
    assert same(kept(tmp_path), kept(whole[0]))


def test_resuming_a_finished_training_changes_nothing(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    before = (folder / checkpoint.NAME).read_bytes()
    again = train(TOY, OPTIONS, folder, resume=True)
    assert again.history == outcome.history
    assert torch.equal(again.confusion, outcome.confusion)
    assert (folder / checkpoint.NAME).read_bytes() == before


def spoil(weights: Callable[[Tensor], Tensor], from_step: int) -> Callable[[torch.optim.Adam], None]:
    """A step of Adam that from some step on puts its own weights into the last layer."""
    real = torch.optim.Adam.step

    def step(self: torch.optim.Adam) -> None:
        real(self)
        if next(iter(self.state.values()))["step"] >= from_step:
            with torch.no_grad():
                last = self.param_groups[0]["params"][2]
                last.copy_(weights(last))

    return step


def test_the_epoch_best_in_validation_is_the_one_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.Adam, "step", spoil(torch.zeros_like, 11))  # five steps an epoch
    outcome = train(TOY, OPTIONS, tmp_path)
    assert outcome.best.epoch == 2
    assert outcome.best.validation_accuracy > 0.8 > outcome.history[-1].validation_accuracy
    built = network(OPTIONS)
    built.load_state_dict(kept(tmp_path)["best"])
    built.eval()
    test = load(OPTIONS.seed).test
    right = (built(test.inputs).argmax(1) == test.labels).double().mean().item()
    assert outcome.test_accuracy == pytest.approx(right, abs=1e-12)
    assert right > 0.8


def test_results_and_figures_are_written_whole(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    results = json.loads((folder / "results.json").read_text())
    assert results["config"]["alpha"] == OPTIONS.alpha
    assert results["accuracy"]["test"] == outcome.test_accuracy
    assert results["seed"] == 0
    assert set(results["versions"]) >= {"fracspike", "torch"}
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + OPTIONS.epochs
    for figure in ("learning_curve", "confusion"):
        assert (folder / f"{figure}.png").stat().st_size > 5000
    assert not list(folder.glob(".*")), "temporary files are left behind"


def test_other_options_are_refused_and_named(whole: tuple[Path, Outcome]) -> None:
    folder, _ = whole
    before = (folder / checkpoint.NAME).read_bytes()
    with pytest.raises(ValueError, match=r"made with alpha=0.7 \(now 1.0\), seed=0 \(now 3\)"):
        train(TOY, replace(OPTIONS, alpha=1.0, seed=3), folder, resume=True)
    assert (folder / checkpoint.NAME).read_bytes() == before


def test_nothing_to_resume_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        train(TOY, OPTIONS, tmp_path, resume=True)


def middle(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(byte ^ 0xFF for byte in content[half : half + 64]) + content[half + 64 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a checkpoint",
        lambda content: content[:1000],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        middle,
    ],
    ids=["empty", "text", "head", "byte-short", "half", "flipped"],
)
def test_a_damaged_checkpoint_is_named_and_left_alone(
    whole: tuple[Path, Outcome], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    content = damage((whole[0] / checkpoint.NAME).read_bytes())
    path = tmp_path / checkpoint.NAME
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or not one of fracspike's") as caught:
        train(TOY, OPTIONS, tmp_path, resume=True)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "part", ["model", "optimizer", "random", "history", "best", "step", "losses", "seconds"]
)
def test_a_checkpoint_that_lacks_a_part_is_damaged(
    whole: tuple[Path, Outcome], tmp_path: Path, part: str
) -> None:
    content = torch.load(whole[0] / checkpoint.NAME, weights_only=True)
    del content["state"][part]
    torch.save(content, tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match="is damaged"):
        train(TOY, OPTIONS, tmp_path, resume=True)


def test_other_files_of_torch_are_no_checkpoints(tmp_path: Path) -> None:
    for other in ([1, 2], {"weight": torch.ones(2)}, {"format": 1, "config": {}}):
        torch.save(other, tmp_path / checkpoint.NAME)
        with pytest.raises(ValueError, match="is damaged or not one"):
            train(TOY, OPTIONS, tmp_path, resume=True)


def test_a_new_training_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    precious = b"a week of training"
    (tmp_path / checkpoint.NAME).write_bytes(precious)
    with pytest.warns(UserWarning, match="an earlier training in .* is kept, and is now in .*previous;"):
        train(TOY, replace(OPTIONS, epochs=1), tmp_path)
    assert (tmp_path / "previous" / checkpoint.NAME).read_bytes() == precious
    assert len(kept(tmp_path)["history"]) == 1


def test_a_failed_write_loses_nothing(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, 0

    def fail(content: object, file: BinaryIO) -> None:
        nonlocal calls
        calls += 1
        real(content, file)
        if calls == 3:  # at the start, after epoch 1, after epoch 2
            file.truncate(99)
            try:
                raise OSError(28, "No space left on device")
            finally:
                raise RuntimeError("unexpected pos 704 vs 598")  # what torch makes of it

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskFullError, match=f"disk full: {tmp_path / checkpoint.NAME} cannot be written"):
        train(TOY, OPTIONS, tmp_path)
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.NAME, checkpoint.BEFORE, run.BEGUN}
    train(TOY, OPTIONS, tmp_path, resume=True)
    assert same(kept(tmp_path), kept(whole[0]))


@pytest.mark.parametrize("layer", ["first", "last"])
def test_divergence_is_said_with_a_remedy_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    def unbounded(options: Options) -> nn.Module:
        built = network(options)
        return built if layer == "last" else nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), *built)

    monkeypatch.setattr(torch.optim.Adam, "step", spoil(lambda w: torch.full_like(w, torch.inf), 7))
    with pytest.raises(RuntimeError, match="diverged in epoch 2; lower the learning rate"):
        train(replace(TOY, network=unbounded), OPTIONS, tmp_path)
    assert len(kept(tmp_path)["history"]) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -3),
        ("epochs", 2.5),
        ("alpha", 0.0),
        ("alpha", 1.1),
        ("alpha", float("nan")),
        ("lr", float("nan")),
        ("lr", 0.0),
        ("lr", 1e38),
        ("batch_size", 0),
        ("hidden", -1),
        ("seed", -1),
    ],
)
def test_options_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=f"`{name}` must"):
        Options(**{name: value})  # type: ignore[arg-type]
