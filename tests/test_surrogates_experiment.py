"""Random manifolds, and the comparison of surrogates on them."""

from __future__ import annotations

import csv
import json
import math
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fracspike import cli
from fracspike.experiments import manifolds, surrogates
from fracspike.experiments.manifolds import Manifolds
from fracspike.experiments.report import Run
from fracspike.neurons import FractionalLIF


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curves(smoothness: float = 1.0, seed: int = 0) -> Manifolds:
    return manifolds.draw(seeded(seed), smoothness=smoothness)


def along(points: int = 1001) -> torch.Tensor:
    return torch.linspace(0, 1, points, dtype=torch.float64)[None]


class TestManifolds:
    def test_every_input_spikes_once_within_the_duration(self) -> None:
        spikes, labels = curves().samples(30, seeded())
        assert spikes.shape == (50, 300, 20)
        assert torch.equal(spikes.sum(0), torch.ones(300, 20))
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(labels.bincount(), torch.full((10,), 30))

    def test_times_fill_the_duration(self) -> None:
        times = curves().times(along(4001))
        assert times.shape == (10, 4001, 20)
        assert times.min() >= 0.0
        assert times.max() < 50.0
        assert times.amin(1).max() < 0.5
        assert times.amax(1).min() > 49.5

    def test_a_spike_is_in_the_step_of_its_time(self) -> None:
        generator = seeded(3)
        spikes, _ = curves().samples(4, generator)
        points = torch.rand(10, 4, generator=seeded(3), dtype=torch.float64)
        assert torch.equal(spikes.argmax(0), curves().times(points).flatten(0, 1).long())

    def test_reproducible_from_the_generator(self) -> None:
        first, again = (manifolds.draw(g).samples(5, g).inputs for g in (seeded(1), seeded(1)))
        other = manifolds.draw(g := seeded(2)).samples(5, g).inputs
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_torchs_random_state_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        curves().samples(2, seeded())
        assert torch.equal(before, torch.get_rng_state())

    def test_values_are_the_series(self) -> None:
        weights = torch.tensor([[0.5, 1.0], [0.25, 0.75], [0.0, 0.5]], dtype=torch.float64)[:, None, None]
        x = along(5)
        raw = 0.5 * torch.sin(2 * math.pi * 0.25 * x)
        raw = raw + 2**-1.5 * torch.sin(2 * math.pi * (2 * 0.75 * x + 0.5))
        times = Manifolds(weights, 1.5, 50).times(x)[0, :, 0]
        scale = (raw[0] - raw[0, 0]) / (raw[0, 1] - raw[0, 0])  # moved and stretched, nothing else
        torch.testing.assert_close((times - times[0]) / (times[1] - times[0]), scale)

    def test_the_length_of_a_curve_falls_with_its_smoothness(self) -> None:
        lengths = [curves(s).times(along()).diff(dim=1).abs().sum(1).mean() for s in (0.5, 1.0, 2.0)]
        assert all(rough > 1.5 * smooth for rough, smooth in pairwise(lengths))

    def test_a_curve_has_no_jumps(self) -> None:
        coarse, fine = (curves().times(along(n)).diff(dim=1).abs().max() for n in (4001, 8001))
        assert fine < 0.6 * coarse

    def test_classes_are_apart(self) -> None:
        times = curves().times(along(201))
        step = times.diff(dim=1).square().sum(-1).sqrt().mean()
        nearest = torch.cdist(times[0], times[1:].flatten(0, 1)).amin()
        assert nearest > 2 * step

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"classes": 0}, "`classes` must be"),
            ({"inputs": 0}, "`inputs` must be"),
            ({"duration": -1}, "`duration` must be"),
            ({"terms": 0}, "`terms` must be"),
            ({"smoothness": math.nan}, "`smoothness` must be"),
            ({"smoothness": -1.0}, "`smoothness` must be >= 0"),
        ],
    )
    def test_bad_parameters_are_named(self, kwargs: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            manifolds.draw(seeded(), **kwargs)


NAMES = [surrogates.SHAPES[shape](beta) for shape in surrogates.SHAPES for beta in (1, 10)]


def test_all_shapes_have_peak_one_and_the_same_scale() -> None:
    from fracspike import surrogate

    x = torch.tensor([0.0, 0.05], dtype=torch.float64)
    expected = {
        "SuperSpike": 1 / 1.5**2,
        "Sigmoid'": 4 * math.exp(0.5) / (1 + math.exp(0.5)) ** 2,
        "Triangle": 0.5,
    }
    for shape, value in expected.items():
        derivative = surrogate.get(surrogates.SHAPES[shape](10)).derivative(x)
        assert derivative.tolist() == pytest.approx([1.0, value])


def test_networks_side_by_side_are_those_computed_alone() -> None:
    torch.manual_seed(0)
    model = surrogates.SideBySide(0.7, NAMES, 16, 50)
    images = curves().samples(2, seeded())
    scores = model(images.inputs)
    surrogates._loss(scores, images.labels).backward()
    for i, name in enumerate(NAMES):
        first, second = (nn.Parameter(p.detach()[i].clone()) for p in (model.first, model.second))
        alone = FractionalLIF(
            0.7, surrogates.TAU, resistance=model.neurons.resistance, surrogate=name, detach_reset=True
        )
        readout = alone(images.inputs @ first) @ second
        leaky, values = torch.zeros_like(readout[0]), []
        for step in readout:
            leaky = leaky * math.exp(-1 / surrogates.TAU_READOUT) + step
            values.append(leaky)
        expected = torch.stack(values).amax(0)
        torch.testing.assert_close(scores[..., i], expected)
        cross_entropy(expected, images.labels).backward()
        assert first.grad is not None
        assert first.grad.abs().max() > 1e-4
        torch.testing.assert_close(model.first.grad[i], first.grad, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(model.second.grad[i], second.grad, atol=1e-6, rtol=1e-4)


def test_a_unit_weight_reaches_the_threshold_in_one_step() -> None:
    for alpha in (1.0, 0.7):
        neurons = surrogates.SideBySide(alpha, NAMES, 4, 50).neurons
        assert neurons.simulate(torch.ones(1, 1)).pre_reset.item() == pytest.approx(1.0, abs=1e-6)


def test_the_best_learning_rate_is_chosen_by_validation_alone() -> None:
    plan = surrogates.Plan(seeds=2, rates=(0.1, 0.2), orders=(1.0,), betas=(1,))
    results = [
        surrogates.Result(1.0, shape, 1, rate, seed, validation, test)
        for shape in surrogates.SHAPES
        for rate, validation, test in ((0.1, 0.6, 0.3), (0.2, 0.5, 0.9))
        for seed in (0, 1)
    ]
    assert surrogates._scores(plan, results) == {(1.0, s, 1): [0.3, 0.3] for s in surrogates.SHAPES}


def test_rows_compare_the_best_over_beta() -> None:
    plan = surrogates.Plan(orders=(1.0,), betas=(1, 10))
    values = dict(zip(surrogates.SHAPES, ((0.5, 0.9), (0.93, 0.4), (0.88, 0.8)), strict=True))
    scores = {(1.0, s, b): [v] for s, pair in values.items() for b, v in zip((1, 10), pair, strict=True)}
    rows = {row.quantity: row for row in surrogates._rows(1.0, plan, scores)}
    spread = rows["spread over shapes of the best accuracy, alpha 1"]
    assert spread.measured == pytest.approx(0.05)
    assert spread.tolerance == 0.05
    assert rows["spread over beta of the accuracy, Sigmoid', alpha 1"].measured == pytest.approx(0.53)
    assert rows["best accuracy, Triangle, alpha 1"].measured == pytest.approx(0.88)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a quick run of the command has written."""
    folder = tmp_path_factory.mktemp("quick")
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert _status(folder) in (
        0,
        1,
    )  # the claim may fail in so small a run; the results are there all the same
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    return folder / "surrogates"


def _status(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fracspike", "reproduce", "surrogates", "--quick", "--out", str(folder)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def test_a_quick_run_writes_everything_and_learns(quick: Path) -> None:
    results = json.loads((quick / "results.json").read_text())
    assert results["quick"] is True
    assert results["full"] is False
    assert sum(row["tolerance"] is not None for row in results["rows"]) == 2
    runs = list(csv.DictReader((quick / "runs.csv").read_text().splitlines()))
    assert len(runs) == 18
    best = {a: max(float(r["test"]) for r in runs if r["alpha"] == a) for a in ("1.0", "0.7")}
    assert min(best.values()) > 0.3  # chance is 0.1
    assert (quick / "accuracy.png").stat().st_size > 5000


def test_two_runs_with_one_seed_agree_bit_for_bit() -> None:
    plan = surrogates.Plan(samples=8, epochs=1, hidden=8)
    with torch.random.fork_rng(devices=[]):
        first, again = (surrogates.learn(0.7, 0.05, 0, surrogates.data(0, 8), plan) for _ in range(2))
    assert first == again


def test_quick_and_full_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`quick` and `full` must not both be set"):
        Run(tmp_path, quick=True, full=True)


def test_full_is_the_whole_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = []

    def learn(alpha: float, rate: float, seed: int, *_: object) -> list[surrogates.Result]:
        done.append((alpha, rate, seed))
        cells = product(surrogates.SHAPES, (1, 10, 100))
        return [surrogates.Result(alpha, shape, beta, rate, seed, 0.9, 0.8) for shape, beta in cells]

    monkeypatch.setattr(surrogates, "learn", learn)
    monkeypatch.setattr(surrogates, "data", lambda seed, samples: None)
    rows = surrogates.run(Run(tmp_path, full=True, seed=3))
    assert len(set(done)) == 2 * 3 * 5
    assert {seed for *_, seed in done} == {3, 4, 5, 6, 7}
    assert [row.measured for row in rows if row.tolerance is not None] == [0.0, 0.0]
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 270
