"""The reservoir against its formula in plain loops, the readout against closed forms, the protocol."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from fracspike import FractionalLIF, cli
from fracspike.experiments import spoken_digits
from fracspike.experiments.reservoir import Products, Readout, Reservoir, Wiring, scale_free, streams
from fracspike.solvers import Window


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


SMALL = Wiring.draw(drawn(), neurons=24, inputs=3, degree=4)
INPUTS = 0.5 + 2 * drawn(1).standard_normal((9, 3, 3))


def in_plain_loops(reservoir: Reservoir, inputs: np.ndarray, hold: int) -> np.ndarray:
    """The formula of the module's docstring, one neuron at a time, over all values it remembers."""
    w = [1.0]
    for k in range(1, reservoir.samples):
        w.append(w[-1] * (1 - (1 + reservoir.alpha) / k))
    power, potentials = reservoir.gain * reservoir.dt**reservoir.alpha, []
    for sample in range(inputs.shape[1]):
        v, spikes = np.zeros((1, 24)), np.zeros(24)
        for frame in inputs[:, sample]:
            for _ in range(hold):
                now = np.empty(24)
                for i in range(24):
                    drive = reservoir.wiring.inputs[i] @ frame + reservoir.wiring.recurrent[i] @ spikes
                    now[i] = power * (-v[-1, i] / reservoir.tau + drive + reservoir.bias)
                    for k in range(1, min(len(v), reservoir.samples)):
                        now[i] -= w[k] * v[len(v) - k, i]
                spikes = (now >= 1).astype(float)
                v = np.vstack([v, now * (1 - spikes) if reservoir.hard else now - spikes])
            potentials.append(v[-1])
    return np.array(potentials).reshape(inputs.shape[1], len(inputs), 24).swapaxes(0, 1)


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0.5}, {"alpha": 1.0}, {"alpha": 0.2, "gain": 1.7}, {"alpha": 0.7, "hard": False}],
    ids=str,
)
def test_reservoir_is_its_formula(options: dict) -> None:
    reservoir = Reservoir(SMALL, bias=0.3, samples=12, **options)
    potentials, rate = reservoir.run(INPUTS, hold=4)
    assert 0.01 < rate < 0.9
    np.testing.assert_allclose(potentials, in_plain_loops(reservoir, INPUTS, 4), atol=1e-10)


def test_a_sample_does_not_know_of_the_others() -> None:
    reservoir = Reservoir(SMALL, 0.6, bias=0.3, samples=12)
    alone = [reservoir.run(INPUTS[:, i : i + 1]) for i in range(3)]
    together, rate = reservoir.run(INPUTS)
    parts = np.concatenate([potentials for potentials, _ in alone], axis=1)
    np.testing.assert_allclose(together, parts, atol=1e-12)
    assert rate == pytest.approx(np.mean([rate for _, rate in alone]))


def test_caputo_short_memory_is_that_of_the_librarys_neuron() -> None:
    unwired = Wiring(np.zeros((24, 24)), SMALL.inputs)
    potentials, _ = Reservoir(unwired, 0.5, bias=0.2, samples=12, forget="differences").run(INPUTS, hold=5)
    lif = FractionalLIF(
        alpha=0.5,
        tau=20.0**2,  # tau ** alpha = 20
        dt=0.1,
        resistance=20.0,
        reset="value",
        reset_memory="overwrite",
        method="gl_explicit",
        memory=Window(11),
    )
    current = torch.as_tensor(INPUTS @ SMALL.inputs.T + 0.2).repeat_interleave(5, dim=0)
    np.testing.assert_allclose(potentials, lif.simulate(current).voltage[4::5].numpy(), atol=1e-10)


def test_a_forgotten_constant_is_a_leak_only_where_values_are_forgotten() -> None:
    wired = Wiring(np.zeros((1, 1)), np.zeros((1, 1)))
    silence = np.zeros((60, 1, 1))

    def last(
        forget: str,
    ) -> float:  # no leak to speak of, a bias that ends at once would be needed: use a long one
        reservoir = Reservoir(wired, 0.5, bias=0.001, tau=1e12, samples=20, forget=forget)
        return float(reservoir.run(silence)[0][-1, 0, 0])

    assert last("values") < 0.5 * last("differences")


class TestWiring:
    def test_graph_is_simple_and_has_the_edges_it_grew(self) -> None:
        linked = scale_free(drawn(), 100, 7)
        assert np.array_equal(linked, linked.T)
        assert not linked.diagonal().any()
        assert linked.sum() == 2 * (21 + 93 * 7)

    def test_graph_has_hubs(self) -> None:
        degrees = scale_free(drawn(), 400, 15).sum(1)
        assert degrees.max() > 4 * np.median(degrees)

    def test_weights_are_as_published(self) -> None:
        wired = Wiring.draw(drawn())
        nonzero = wired.recurrent[wired.recurrent != 0]
        assert len(nonzero) / 400 == pytest.approx(15, abs=0.5)
        assert not ((wired.recurrent != 0) & (wired.recurrent.T != 0)).any()
        assert (nonzero > 0).mean() == pytest.approx(0.8, abs=0.03)
        assert np.abs(np.linalg.eigvals(wired.recurrent)).max() == pytest.approx(0.99)
        assert wired.inputs.shape == (400, 13)
        assert np.abs(wired.inputs).max() <= 1

    def test_seed_decides(self) -> None:
        assert np.array_equal(Wiring.draw(drawn(3)).recurrent, Wiring.draw(drawn(3)).recurrent)
        assert not np.array_equal(Wiring.draw(drawn(3)).inputs, Wiring.draw(drawn(4)).inputs)


class TestReadout:
    def test_least_squares(self) -> None:
        x, y = drawn().standard_normal((7, 5, 4)), drawn(1).standard_normal((7, 5, 2))
        expected = np.linalg.lstsq(x.reshape(-1, 4), y.reshape(-1, 2), rcond=None)[0]
        np.testing.assert_allclose(Readout.fit(Products.of(x, y), 0.0).weights, expected, atol=1e-10)

    def test_penalty_is_that_of_ridge_regression(self) -> None:
        x, y = drawn().standard_normal((35, 4)), drawn(1).standard_normal((35, 2))
        penalty = 0.3 * np.trace(x.T @ x) / 4
        stacked = np.vstack([x, math.sqrt(penalty) * np.eye(4)])
        expected = np.linalg.lstsq(stacked, np.vstack([y, np.zeros((4, 2))]), rcond=None)[0]
        np.testing.assert_allclose(Readout.fit(Products.of(x, y), 0.3).weights, expected, atol=1e-10)

    def test_a_singular_problem_learns_nothing(self) -> None:
        fitted = Readout.fit(Products(np.zeros((3, 3)), np.ones((3, 2))), 0.0)
        assert not fitted.weights.any()

    def test_products_add_up(self) -> None:
        x, y = drawn().standard_normal((9, 4)), drawn(1).standard_normal((9, 2))
        parts, whole = Products.of(x[:5], y[:5]) + Products.of(x[5:], y[5:]), Products.of(x, y)
        np.testing.assert_allclose(parts.gram, whole.gram)
        np.testing.assert_allclose(parts.moment, whole.moment)


def test_streams_keep_the_order_of_samples_and_frames() -> None:
    samples = np.arange(6)[:, None] * 100 + np.arange(3)
    laid = streams(samples[..., None], 2)[..., 0]
    assert laid[:, 0].tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202]
    assert laid[:, 1].tolist() == [300, 301, 302, 400, 401, 402, 500, 501, 502]
    with pytest.raises(ValueError, match="`count` must divide the number of samples, 6, got 4"):
        streams(samples, 4)


def test_matched_reservoirs_have_the_drive_and_the_leak_of_the_reference() -> None:
    for alpha in (0.1, 0.5, 1.0):
        matched = spoken_digits.matched(SMALL, alpha)
        assert matched.gain * matched.dt**alpha == pytest.approx(0.1**0.5)
        assert matched.bias == pytest.approx(0.057 + 0.986 * math.exp(-7.083 / 2))
        assert matched.tau == 20.0
    assert spoken_digits.published(SMALL, 1.0).gain == 1.0
    assert spoken_digits.published(SMALL, 1.0).bias == pytest.approx(0.0578, abs=1e-4)


def test_one_by_one_the_matched_parts_make_the_matched_reservoir() -> None:
    found, matched = spoken_digits.variants(SMALL, 1.0), spoken_digits.matched(SMALL, 1.0)
    leak, bias = found["leak alone matched"][0], found["bias alone matched"][0]
    assert 1 / leak.tau == pytest.approx(matched.gain / matched.tau)
    assert bias.bias == pytest.approx(matched.gain * matched.bias)
    assert "leak alone matched" not in spoken_digits.variants(SMALL, 0.5)


def spoken(folder: Path, takes: int = 2) -> Path:
    """Tiny recordings: each digit a tone of its own, of different lengths."""
    (folder / "recordings").mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "bob", "cid"):
            for take in range(takes):
                length = 1500 + 700 * (digit % 3) + 100 * take
                tone = np.sin(2 * np.pi * (300 + 250 * digit) / 8000 * np.arange(length))
                noise = drawn(digit + take).standard_normal(length)
                samples = (8000 * tone + 300 * noise).astype(np.int16)
                wavfile.write(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", 8000, samples)
    return folder


def test_features_end_with_the_word_and_are_zero_after(tmp_path: Path) -> None:
    heard = spoken_digits.features(spoken(tmp_path), 2)
    assert heard.frames.shape == (60, 25, 13)
    assert sorted(set(heard.digits.tolist())) == list(range(10))
    for frames, end in zip(heard.frames, heard.ends, strict=True):
        assert np.abs(frames[: end + 1]).max(1).min() > 0
        assert not frames[end + 1 :].any()
    assert heard.ends[0] == 1500 // 512


def test_tones_are_told_apart_and_rows_compare_with_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plan = spoken(tmp_path / "data"), spoken_digits.Plan(1, (0.5, 1.0), 2, 10, variants=False)
    monkeypatch.setattr(spoken_digits, "QUICK", plan)
    small = Wiring.draw(drawn(), neurons=30, degree=4)
    monkeypatch.setattr(spoken_digits, "wiring", lambda seed: small)
    argv = ["fracspike", "reproduce", "spoken-digits", "--quick", "--data", str(data), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    rows = json.loads((tmp_path / "spoken-digits" / "results.json").read_text())["rows"]
    by_name = {row["quantity"]: row for row in rows}
    assert by_name["accuracy (%), alpha 1"]["published"] == 53.1
    assert by_name["accuracy (%), validated penalty, alpha 0.5"]["measured"] > 50
    runs = list(csv.DictReader((tmp_path / "spoken-digits" / "runs.csv").read_text().splitlines()))
    assert {(r["alpha"], r["control"]) for r in runs} == {
        (a, c) for a in ("0.5", "1.0") for c in ("published", "rested", "matched")
    }
    assert (tmp_path / "spoken-digits" / "accuracy.png").stat().st_size > 5000


def test_two_measurements_with_one_seed_agree(tmp_path: Path) -> None:
    heard = spoken_digits.features(spoken(tmp_path), 2)
    reservoir = Reservoir(Wiring.draw(drawn(), neurons=30, degree=4), 0.5, bias=0.1)
    assert spoken_digits.measure(reservoir, heard, 1, "x", 10) == spoken_digits.measure(
        reservoir, heard, 1, "x", 10
    )


def test_variants_differ_in_one_thing() -> None:
    wired = Wiring.draw(drawn(), neurons=30, degree=4)
    found = spoken_digits.variants(wired, 0.5)
    assert not found["no recurrence"][0].wiring.recurrent.any()
    assert found["no recurrence, no bias"][0].bias == 0
    assert found["5 steps a frame"][0].dt * found["5 steps a frame"][1] == pytest.approx(1)
    assert found["5 steps a frame"][0].dt * found["5 steps a frame"][0].samples == pytest.approx(10)
