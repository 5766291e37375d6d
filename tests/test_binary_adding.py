"""Counting marked bits: the samples, the neurons that are compared, and what is reported."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from command import call
from torch import nn

from fracspike.experiments import binary_adding, counting
from fracspike.experiments.report import Row, Run


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSamples:
    def test_the_class_is_the_count_of_marked_ones(self) -> None:
        inputs, labels = binary_adding.draw(500, seeded())
        assert inputs.shape == (500, 100, 2)
        assert set(inputs.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(inputs[..., 1].sum(1), torch.full((500,), 9.0))
        assert torch.equal(inputs.prod(-1).sum(1).long(), labels)
        assert torch.equal(labels.bincount(), torch.full((10,), 50))

    def test_unmarked_bits_and_places_tell_nothing(self) -> None:
        inputs, labels = binary_adding.draw(20_000, seeded())
        bits, marks = inputs.unbind(-1)
        assert (marks.mean(0) - 0.09).abs().max() < 0.01
        for label in (0, 4, 9):
            some = labels == label
            unmarked = (bits[some] * (1 - marks[some])).sum() / (1 - marks[some]).sum()
            assert unmarked == pytest.approx(0.5, abs=0.005)
            ones = (bits[some] * marks[some]).mean(0)  # at every place alike
            assert (ones - 0.01 * label).abs().max() < 0.015

    def test_reproducible_from_the_generator(self) -> None:
        first, again, other = (binary_adding.draw(20, seeded(s))[0] for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("count", [0, -10, 15])
    def test_a_count_must_be_a_multiple_of_ten(self, count: int) -> None:
        with pytest.raises(ValueError, match="`count` must be"):
            binary_adding.draw(count, seeded())


class Box(torch.autograd.Function):
    """A spike at 0, whose derivative is 1 within 0.2."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 0.2)


def published(current: torch.Tensor) -> torch.Tensor:
    """v <- 0.98 v (1 - s) + x, a spike where v reaches 0.5."""
    v, spikes = torch.zeros_like(current[0]), []
    for drive in current:
        v = 0.98 * v + drive
        spikes.append(Box.apply(v - 0.5))
        v = v * (1 - spikes[-1])
    return torch.stack(spikes)


def test_the_ordinary_neuron_is_the_published_one() -> None:
    torch.manual_seed(0)
    neurons = counting.fractional(1.0)(False)
    current = (0.2 * torch.randn(100, 4, 8, dtype=torch.float64)).requires_grad_()
    wanted = torch.randn(100, 4, 8, dtype=torch.float64)
    expected = published(current)
    found = neurons(current)
    assert 0.01 < expected.mean() < 0.3
    assert torch.equal(found, expected)
    (one,) = torch.autograd.grad((wanted * found).sum(), current)
    (other,) = torch.autograd.grad((wanted * expected).sum(), current)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_first_steps_of_a_training_are_the_published_ones() -> None:
    """In double precision; in single, rounding moves a spike after a few steps, and the two go apart."""
    torch.manual_seed(0)
    ours = counting.Network(counting.fractional(1.0)).double()
    first, second, readout = (copy.deepcopy(m) for m in (ours.first, ours.second, ours.readout))

    def theirs(inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = readout(published(second(published(first(inputs.transpose(0, 1)))))[-1])
        return scores

    own = [p for m in (first, second, readout) for p in m.parameters()]
    inputs, labels = binary_adding.draw(200, seeded())
    losses: list[list[float]] = []
    for model, parameters in ((ours, list(ours.parameters())), (theirs, own)):
        optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.0)
        losses.append([])
        for some in torch.arange(200).split(50):  # all classes in each
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(inputs[some].double()), labels[some], label_smoothing=binary_adding.SMOOTHING
            )
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    assert len(set(losses[0])) == 4


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.3])
def test_a_unit_weight_raises_the_potential_by_one(alpha: float) -> None:
    neurons = counting.fractional(alpha)(False)
    assert neurons.simulate(torch.ones(1, 1)).pre_reset.item() == pytest.approx(1.0, abs=1e-6)


def test_only_the_last_step_is_read() -> None:
    network = counting.Network(counting.fractional(0.5))
    seen = []
    network.readout.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    assert network(torch.ones(3, 100, 2)).shape == (3, 10)
    assert seen == [(3, 128)]


def test_learnable_orders_are_one_for_each_neuron_and_get_a_gradient() -> None:
    torch.manual_seed(0)
    network = counting.Network(counting.fractional(0.7, learn=True))
    inputs, labels = binary_adding.draw(20, seeded())
    nn.functional.cross_entropy(network(inputs), labels).backward()
    learnt = [(name, p) for name, p in network.named_parameters() if "alpha" in name]
    assert [tuple(p.shape) for _, p in learnt] == [(128,), (128,)]
    for _, p in learnt:
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert p.grad.abs().max() > 0


def test_full_is_the_published_protocol() -> None:
    full = binary_adding.cells(binary_adding.FULL, 3)
    amounts = {(c["epochs"], c["samples"], c["batch"], c["seed"]) for c in full.values()}
    assert amounts == {(50, 50_000, 250, 3)}
    fractions = ("lif", "alpha-0.9", "alpha-0.7", "alpha-0.5", "alpha-0.3", "learnable")
    assert [full[name]["alpha"] for name in fractions] == [1.0, 0.9, 0.7, 0.5, 0.3, 0.7]
    assert [name for name, c in full.items() if c.get("learn")] == ["learnable"]
    rates = {name: c["lr"] for name, c in full.items() if name not in fractions[1:]}
    assert rates == {
        "lif": 5e-4,
        "recurrent-lif": 5e-4,
        "alif": 5e-3,
        "recurrent-alif": 1e-3,
        "adlif": 5e-3,
        "recurrent-adlif": 1e-3,
    }
    assert full["recurrent-lif"]["tau"] == pytest.approx(1 / math.log(2))  # a decay of 0.5


def test_of_a_recurrent_network_the_first_layer_is_recurrent() -> None:
    for name, cell in binary_adding.cells(binary_adding.FULL, 0).items():
        network = counting.Network(counting.layers(cell), recurrent=cell["recurrent"])
        wired = [getattr(layer, "recurrent", None) is not None for layer in (network.early, network.late)]
        assert wired == [name.startswith("recurrent"), False], name


def test_the_recurrent_neuron_is_the_published_one() -> None:
    """v <- 0.5 v (1 - s) + x + W s + c, a spike where v reaches 0.5."""
    torch.manual_seed(0)
    layer = counting.layers(binary_adding.cells(binary_adding.FULL, 0)["recurrent-lif"])(True).double()
    current = 0.4 * torch.randn(30, 4, 128, dtype=torch.float64)
    weight, bias = (p.detach() for p in layer.recurrent.parameters())
    v, s, spikes = torch.zeros(4, 128), torch.zeros(4, 128), []
    for drive in current:
        v = 0.5 * v * (1 - s) + drive + s.double() @ weight.T + bias
        s = (v >= 0.5).double()
        spikes.append(s)
    expected = torch.stack(spikes)
    assert 0.05 < expected.mean() < 0.4
    assert torch.equal(layer(current), expected)


def test_only_the_full_run_of_the_lif_is_held_against_the_published_figure(tmp_path: Path) -> None:
    def row(name: str, full: bool) -> Row:
        plan = binary_adding.FULL if full else binary_adding.DEFAULT
        result = {**binary_adding.cells(plan, 0)[name], "best": 0.31, "last": 0.30}
        return binary_adding._row(Run(tmp_path, full=full), plan, result)

    full, cut, other, new = row("lif", True), row("lif", False), row("alif", True), row("alpha-0.9", True)
    assert (full.published, full.tolerance, full.within) == (29.6, 4.0, True)
    assert (cut.published, cut.tolerance, cut.within) == (29.6, None, None)
    assert (other.published, other.tolerance) == (40.3, None)
    assert new.published is None


TINY = binary_adding.Plan(epochs=1, samples=250, tests=50, orders=(1.0, 0.5))


def test_a_quick_run_writes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary_adding, "QUICK", TINY)
    only = ("lif", "learnable", "adlif")
    words = [word for part in only for word in ("--only", part)]
    assert call(monkeypatch, "reproduce", "binary-adding", "--quick", "--out", str(tmp_path), *words) == 0
    folder = tmp_path / "binary-adding"
    curves = list(csv.DictReader((folder / "curves.csv").read_text().splitlines()))
    titles = ["LIF (alpha 1)", "learnable orders, from 0.7", "adLIF"]
    assert [line["network"] for line in curves] == titles
    assert (folder / "learning.png").stat().st_size > 5000
    results = json.loads((folder / "results.json").read_text())
    rows = {row["quantity"]: row for row in results["rows"]}
    assert 0 < rows["smallest order that was learnt"]["measured"] < 1
    wanted = "fracspike reproduce binary-adding --quick --only lif --only learnable --only adlif"
    assert results["command"] == wanted


def test_two_trainings_of_one_seed_agree(tmp_path: Path) -> None:
    for name in ("alpha-0.5", "recurrent-adlif"):
        cell = binary_adding.cells(TINY, 0)[name]
        first, again = (binary_adding.train(cell, tmp_path / name / place) for place in ("one", "two"))
        assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_a_trial_returns_numbers() -> None:
    experiment = binary_adding.EXPERIMENT
    assert experiment.trial is not None
    params = {**experiment.parameters, "samples": 250, "tests": 50, "recurrent": 1}
    assert set(experiment.trial(params, 0)) == {"best", "last"}
