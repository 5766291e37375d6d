"""f-SNN on citation graphs: the input spikes, the released neuron, and what is reported."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from fracspike import cli, surrogate
from fracspike.data.planetoid import Graph
from fracspike.experiments import citations, fsnn_graph
from fracspike.experiments.citations import Words
from fracspike.experiments.released import CurrentReset
from fracspike.experiments.report import Run

SURROGATE = fsnn_graph.SURROGATE


def path_graph() -> Graph:
    """Four papers that cite each other in a row, and one alone."""
    edges = np.array([(0, 1), (1, 2), (2, 3)])
    both = np.vstack((edges, edges[:, ::-1]))
    adjacency = sparse.csr_matrix((np.ones(6, np.float32), both.T), shape=(5, 5))
    words = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], np.float32)
    return Graph(sparse.csr_matrix(words), adjacency, np.array([0, 1, 0, 1, -1]), 2)


def _dense(words: Words) -> np.ndarray:
    return words.certain.toarray() + words.uncertain.toarray()


class TestWords:
    def test_a_hop_by_hand(self) -> None:
        graph = path_graph()
        degree = np.array([2, 3, 3, 2, 1])  # with the loops
        smooth = np.zeros((5, 2))
        for i in range(5):
            for j in range(5):
                if i == j or graph.adjacency[i, j]:
                    smooth[i] += graph.features.toarray()[j] / math.sqrt(degree[i] * degree[j])
        scores = (smooth - smooth.mean(0)) / smooth.std(0, ddof=1)
        found = _dense(citations.words(graph))
        np.testing.assert_allclose(found, scores.clip(0, 1), atol=1e-7)

    def test_the_walk_returns_as_often_as_on_paper(self) -> None:
        back = citations.walk(path_graph(), 4)
        assert back[:, [0, 2]].max() == 0.0  # never after an odd number of steps
        np.testing.assert_allclose(back[:, 1], [1 / 2, 3 / 4, 3 / 4, 1 / 2, 0])

    def test_the_eigenvectors_are_the_laplacians(self) -> None:
        graph = path_graph()
        vectors = citations.laplacian(graph, 3)
        full = np.eye(5) - citations.normalised(graph.adjacency).toarray()
        values = np.linalg.eigvalsh(full)[1:4]
        np.testing.assert_allclose(full @ vectors, vectors * values, atol=1e-10)

    def test_positions_add_columns(self) -> None:
        assert citations.words(path_graph(), positions=4).columns == 6

    def test_currents_are_those_of_independent_coins(self) -> None:
        probability = np.array([[0.3, 1.0, 0.0, 0.6], [0.0, 0.0, 0.0, 0.0], [0.9, 0.0, 0.2, 1.0]])
        words = Words.of(probability)
        torch.manual_seed(0)
        weight = torch.eye(4)  # the currents are the spikes themselves
        spikes = words.currents(weight, 20_000)
        assert spikes.shape == (20_000, 3, 4)
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
        error = (spikes.mean(0) - torch.from_numpy(probability)).abs()
        assert error.max() < 4 * 0.5 / math.sqrt(20_000)
        assert error[torch.from_numpy(probability).frac() == 0].max() == 0.0
        columns = spikes.flatten(1)[:, [0, 3, 8, 10]]
        assert (torch.corrcoef(columns.T) - torch.eye(4)).abs().max() < 0.03
        assert torch.corrcoef(torch.stack((columns[1:, 0], columns[:-1, 0])))[0, 1].abs() < 0.03

    def test_the_gradient_of_the_currents_is_that_of_the_product(self) -> None:
        words = Words.of(np.array([[0.5, 1.0, 0.2], [0.7, 0.0, 0.4]]))
        weight = torch.randn(3, 2, requires_grad=True)
        torch.manual_seed(1)
        spikes = words.currents(torch.eye(3), 7)
        torch.manual_seed(1)
        currents = words.currents(weight, 7)
        torch.testing.assert_close(currents, spikes @ weight)
        (found,) = torch.autograd.grad(currents.square().sum(), weight)
        (expected,) = torch.autograd.grad((spikes @ weight).square().sum(), weight)
        torch.testing.assert_close(found, expected)

    def test_some_papers_are_drawn_like_all(self) -> None:
        everything = Words.of(np.array([[0.5, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.25]]))
        some = everything[np.array([3, 1, 0])]
        torch.manual_seed(0)
        means = some.currents(torch.eye(2), 20_000).mean(0)
        expected = torch.tensor([[1.0, 0.25], [0.0, 0.0], [0.5, 1.0]])
        assert (means - expected).abs().max() < 0.015

    def test_torchs_random_state_decides_the_spikes(self) -> None:
        words = Words.of(np.full((3, 5), 0.5))

        def drawn(seed: int) -> torch.Tensor:
            torch.manual_seed(seed)
            return words.currents(torch.eye(5), 4)

        assert torch.equal(drawn(3), drawn(3))
        assert not torch.equal(drawn(3), drawn(4))


def test_the_split_has_every_class_in_the_same_shares() -> None:
    labels = np.repeat([0, 1, 2, -1], [100, 50, 30, 20])
    parts = citations.split(labels, (0.7, 0.2), seed=0)
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together) == 180
    assert np.bincount(labels[parts[0]]).tolist() == [70, 35, 21]
    assert np.bincount(labels[parts[1]]).tolist() == [20, 10, 6]
    again, other = (citations.split(labels, (0.7, 0.2), seed=s)[0] for s in (0, 1))
    assert np.array_equal(again, parts[0])
    assert not np.array_equal(other, parts[0])


class TestReleased:
    @pytest.mark.parametrize("alpha", ["0.3", "0.7", "1.0"])
    def test_spikes_are_those_of_the_released_code(self, reference: Path, alpha: str) -> None:
        """Made by spikeDE (fcd743b), LIFNeuron in an SNNWrapper, method "pred", time step 0.1."""
        expected = json.loads((reference / "spikede_current.json").read_text())[alpha]
        currents = np.random.default_rng(5).uniform(0, 3, (40, 2, 3)).round(3)
        neurons = CurrentReset(float(alpha), expected["tau_a"], 0.1, SURROGATE, learn_threshold=False)
        spikes = neurons(torch.tensor(currents, dtype=torch.float32)).flatten(1).int()
        assert ["".join(map(str, train.tolist())) for train in spikes.T] == expected["spikes"]

    def test_the_written_adjoint_is_autograds(self) -> None:
        torch.manual_seed(0)
        current = (3 * torch.rand(25, 2, 3, dtype=torch.float64)).requires_grad_()
        neurons = CurrentReset(0.4, 1.5, 0.2, SURROGATE, learn_threshold=True)
        del neurons.tau
        neurons.tau = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        wanted = torch.randn(25, 2, 3, dtype=torch.float64)
        leaves = (current, *neurons.parameters())
        found = torch.autograd.grad((wanted * neurons(current)).sum(), leaves)
        expected = torch.autograd.grad((wanted * _step_by_step(neurons, current)).sum(), leaves)
        for one, other in zip(found, expected, strict=True):
            assert one.abs().max() > 1e-3
            torch.testing.assert_close(one, other)


def _step_by_step(neurons: CurrentReset, current: torch.Tensor) -> torch.Tensor:
    spike_of = surrogate.get(SURROGATE)
    tau, threshold = neurons.tau, neurons.threshold
    v, slopes, spikes = torch.zeros_like(current[0]), [], []
    for n, drive in enumerate(current):
        leak = (drive - v) / tau
        spikes.append(spike_of(v + leak - threshold))
        slopes.append(leak - spikes[-1].detach() * threshold / tau)
        v = torch.zeros_like(v)
        for m, slope in enumerate(slopes):
            power = (n + 1 - m) ** neurons.alpha - (n - m) ** neurons.alpha
            v = v + neurons.dt**neurons.alpha / math.gamma(1 + neurons.alpha) * power * slope
    return torch.stack(spikes)


def cell(**changes: Any) -> dict[str, Any]:
    usual = {"dataset": "cora", "model": "SGCN", "seed": 0, "neuron": "jump", "alpha": 0.3, "tau": "learned"}
    return {**usual, "epochs": 1, "surrogate": SURROGATE, **changes}


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("neuron", ["jump", "current"])
def test_tau_starts_where_the_released_code_starts_it(neuron: str, alpha: float) -> None:
    networks = [
        fsnn_graph.Network(5, 2, cell(neuron=neuron, alpha=alpha, tau=tau)) for tau in ("learned", "fixed")
    ]
    power = 1.0 if neuron == "current" else alpha
    for network in networks:
        assert network.neurons.tau.item() ** power == pytest.approx(4.0)
    names = [{name.split(".")[-1] for name, _ in network.named_parameters()} for network in networks]
    assert names == [{"weight", "original"}, {"weight"}]


def test_drsgnn_learns_its_threshold() -> None:
    for neuron in ("jump", "current"):
        network = fsnn_graph.Network(5, 2, cell(model="DRSGNN", neuron=neuron, tau="fixed"))
        assert len(list(network.parameters())) == 2
        assert network.neurons.threshold.item() == pytest.approx(1.0)


def test_the_tolerance_is_two_standard_errors_of_a_split() -> None:
    assert fsnn_graph.tolerance(88.08, "cora") == pytest.approx(3.9)
    assert fsnn_graph.tolerance(73.80, "citeseer") == pytest.approx(4.8)


def test_rows_pair_the_seeds() -> None:
    tested = {(0.3, 0): 0.90, (0.3, 1): 0.86, (1.0, 0): 0.88, (1.0, 1): 0.88}
    results = [
        {**cell(neuron="current", alpha=alpha, seed=seed), "test": value, "drawings": 0.004}
        for (alpha, seed), value in tested.items()
    ]
    column = fsnn_graph.Column("SGCN", "cora", dict.fromkeys(fsnn_graph.PAIR, 2))
    rows = {row.quantity: row for row in fsnn_graph._rows(column, results, judge=True)}
    first = rows["accuracy (%), SGCN on Cora, released neuron, alpha 0.3, 2 seeds"]
    assert (first.published, first.measured, first.within) == (88.08, 88.0, True)
    gain = rows["gain of alpha 0.3 over alpha 1 (points), SGCN on Cora, released neuron"]
    assert (gain.published, gain.measured) == (0.39, 0.0)
    assert rows["standard error of that gain (points), SGCN on Cora, released neuron"].measured == 2.0
    spread = rows["spread over training seeds (points), SGCN on Cora, released neuron, alpha 0.3"]
    assert spread.measured == pytest.approx(2.83)


def test_full_is_the_whole_grid() -> None:
    full = fsnn_graph.cells(fsnn_graph.FULL, 5)
    assert len(full) == 10 * 2 * 2 * 6
    assert {each["seed"] for each in full} == set(range(5, 15))
    default = fsnn_graph.cells(fsnn_graph.DEFAULT, 5)
    assert len(default) == sum(n for c in fsnn_graph.DEFAULT.columns for n in c.variants.values())
    assert all(each in full for each in default)


def test_a_training_learns_and_can_be_repeated(shared_data: Path) -> None:
    shown = cell(neuron="current", epochs=2)
    first, again = (fsnn_graph.train(shown, shared_data, None) for _ in range(2))
    assert first["test"] > 0.45  # the largest class is 0.3 of the papers
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_a_quick_run_writes_everything_and_keeps_its_trainings(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = fsnn_graph.Column("SGCN", "cora", dict.fromkeys(fsnn_graph.PAIR, 2))
    monkeypatch.setattr(fsnn_graph, "QUICK", fsnn_graph.Plan(1, (column,)))
    arguments = ["fracspike", "reproduce", "fsnn-graph", "--quick", "--data", str(shared_data)]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    folder = tmp_path / "fsnn-graph"
    assert len(list(csv.DictReader((folder / "trainings.csv").read_text().splitlines()))) == 4
    assert (folder / "accuracy.png").stat().st_size > 5000

    def never(*_: object) -> Mapping[str, float]:
        raise AssertionError("trained again")

    before = json.loads((folder / "results.json").read_text())["rows"]
    monkeypatch.setattr(fsnn_graph, "train", never)
    rows = fsnn_graph.run(Run(folder, quick=True, data=shared_data))
    assert [row.measured for row in rows] == [row["measured"] for row in before]


def test_a_trial_returns_numbers(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACSPIKE_DATA", str(shared_data))
    experiment = fsnn_graph.EXPERIMENT
    assert experiment.trial is not None
    params = {**experiment.parameters, "neuron": "current", "epochs": 1}
    assert set(experiment.trial(params, 0)) == {"test", "validation", "tau_a", "rate"}
