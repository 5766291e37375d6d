"""The theory of the fractional neuron: each measurement against a closed form of its own."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erfcx

from fracspike import cli
from fracspike.experiments import fsnn_theory as theory


@pytest.mark.parametrize("method", ["exact", "l1"])
def test_first_spike_of_an_ordinary_neuron_is_the_logarithm(method: str) -> None:
    currents = np.array([50.0, 400.0])
    expected = -np.log1p(-1 / currents)  # 1 = I (1 - exp(-t))
    np.testing.assert_allclose(theory.first_spikes(1.0, currents, method), expected, rtol=1e-4)


def test_first_spike_at_order_one_half_solves_the_closed_form() -> None:
    times = theory.first_spikes(0.5, np.array([5.0, 2000.0]), "exact")
    np.testing.assert_allclose(np.array([5.0, 2000.0]) * (1 - erfcx(np.sqrt(times))), 1.0, rtol=1e-4)


def test_currents_that_may_never_reach_the_threshold_are_refused() -> None:
    with pytest.raises(ValueError, match="`currents` must be at least 2"):
        theory.first_spikes(0.5, np.array([0.9, 10.0]), "exact")


def test_sensitivity_is_the_derivative_of_the_spike_time() -> None:
    found = theory.Sensitivity.measure(1.0, np.array([100.0]), "exact")
    assert found.shifts[0] == pytest.approx(1 / (100.0 * 99.0), rel=1e-3)  # d/dI of -log(1 - 1/I)


def test_integrator_is_disturbed_by_the_fractional_integral() -> None:
    grid = torch.linspace(0, 4, 101, dtype=torch.float64)
    times = grid[1:].numpy()
    moved = theory.disturbance(0.5, 0.3, grid, leak=False)
    np.testing.assert_allclose(moved, 0.3 * np.sqrt(times) / math.gamma(1.5), rtol=1e-9)
    leaky = theory.disturbance(0.5, 0.3, grid, leak=True)
    np.testing.assert_allclose(leaky[20:], 0.3 * (1 - erfcx(np.sqrt(times[20:]))), rtol=2e-3)


def test_slope_is_that_of_a_power() -> None:
    x = np.geomspace(1, 50, 7)
    assert theory.slope(x, 3 * x**-1.7) == pytest.approx(-1.7)


def test_a_quick_run_confirms_every_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["fracspike", "reproduce", "fsnn-theory", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    folder = tmp_path / "fsnn-theory"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert all(row["within"] for row in rows if row["tolerance"] is not None)
    assert sum(row["tolerance"] is not None for row in rows) == 26
    for name in ("relaxation", "disturbance", "spike_times"):
        assert (folder / f"{name}.png").stat().st_size > 5000
        assert len(list(csv.reader((folder / f"{name}.csv").read_text().splitlines()))) > 20
