"""Adaptation: its pieces against closed forms and second methods, the whole against the papers' claims."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fracspike.experiments import adaptation
from fracspike.experiments.adaptation import by_library, index, per_cycle, product_rectangle, sign, within
from fracspike.experiments.report import Run
from fracspike.solvers import mittag_leffler


def test_index_and_sign() -> None:
    assert index(np.array([0.0, 20.0, 30.0])) == pytest.approx(1 / 3)
    assert index(np.array([0.0, 10.0, 30.0])) == pytest.approx(-1 / 3)
    assert index(np.array([0.0, 10.0])) == 0.0
    assert [sign(x) for x in (0.3, -0.3, 0.001, -0.001, 0.0)] == [1, -1, 0, 0, 0]


def test_spikes_are_counted_in_whole_cycles_and_half_waves() -> None:
    times = np.array([0.0, 300.0, 340.0, 600.0, 1010.0])
    assert per_cycle(times, 1000.0) == [2, 2, 0]
    assert within(times, 1).tolist() == [600.0]
    assert within(times, 2).tolist() == [1010.0]


def test_currents_are_those_published() -> None:
    assert adaptation.sinusoid(0.0) == 2.0
    assert adaptation.sinusoid(1000 / 12) == pytest.approx(4.0)
    assert [adaptation.square_wave(t) for t in (0.0, 499.9, 500.0, 1000.0)] == [3.4, 3.4, 4.0, 3.4]
    assert [adaptation.after_inhibition(t) for t in (0.0, 499.9, 500.0)] == [-3.0, -3.0, 3.0]


@pytest.mark.parametrize("alpha", [0.4, 0.8, 1.0])
def test_first_spike_of_the_rectangle_rule_is_that_of_the_equation(alpha: float) -> None:
    first = product_rectangle(alpha, 60.0)[0]
    order = torch.tensor(alpha, dtype=torch.float64)
    times = torch.arange(0.1, 60.0, 0.01, dtype=torch.float64)
    reached = 120.0 * (1 - mittag_leffler(-(times**order) / 20.0, order)) >= 20.0
    assert first == pytest.approx(float(times[reached][0]), abs=0.35)


def test_at_order_one_the_rectangle_rule_is_eulers() -> None:
    v, held, spikes = -70.0, 0, []
    for n in range(1, 1001):
        if held:
            held -= 1
            continue
        v += 0.1 / 20 * (-70 - v + 120)
        if v >= -50:
            v, held = -70.0, 80
            spikes.append(n * 0.1)
    np.testing.assert_allclose(product_rectangle(1.0, 100.0), spikes)


def test_left_out_of_the_memory_the_reset_does_the_same_in_every_scheme() -> None:
    rectangle, l1, exact = (
        product_rectangle(0.6, 300.0),
        by_library(0.6, "jump", "l1_explicit", 300.0),
        by_library(0.6, "jump", "exact", 300.0),
    )
    assert len(rectangle) > 5
    np.testing.assert_allclose(rectangle, l1, atol=0.5)
    np.testing.assert_allclose(rectangle, exact, atol=0.5)
    assert index(rectangle) < -0.1 < 0.01 < index(by_library(0.6, "overwrite", "l1_explicit", 300.0))


def test_the_count_grows_with_the_order() -> None:
    assert adaptation.decay_of_rate(0.8, 3000) == pytest.approx(0.8, abs=0.02)


def test_a_small_run_confirms_both_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = adaptation.Plan((1.0, 0.4), 1500.0, (0.4,), 360.0, 1500)
    monkeypatch.setattr(adaptation, "QUICK", plan)
    rows = adaptation.run(Run(tmp_path, quick=True))
    judged = [row for row in rows if row.tolerance is not None]
    assert len(judged) == 10
    by_name = {row.quantity: row for row in judged}
    assert by_name["direction of adaptation, product rectangle, alpha 0.4"].measured == -1
    assert by_name["direction of adaptation, L1, reset remembered, alpha 0.4"].measured == 1
    outside = [row.quantity for row in judged if not row.within]
    # the half wave after 1.5 s is not in so short a run
    assert outside == ["direction of adaptation, 4 nA after 3.4 nA, alpha 0.4"]
    assert json.dumps([row.measured for row in rows])
    for name in ("currents", "schemes"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    spikes = list(csv.DictReader((tmp_path / "spikes.csv").read_text().splitlines()))
    assert {row["current"] for row in spikes} == set(adaptation.CURRENTS)
