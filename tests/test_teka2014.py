"""The published model, spike for spike: reference values are the authors' program's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fracspike.experiments.teka2014 import simulate, trace

# Further spikes printed by the authors' program (ModelDB 155856) under GNU Octave, on parameters of our
# choice: alpha, kind of current, amplitude, duration, refractory, v0, number of spikes, some spike times.
HELD_OUT = [
    (0.35, "constant", 2.7, 600.0, 8.0, -70.0, 22, {0: 50.8, 1: 83.1, 6: 220.5, 12: 371.0}),
    (0.73, "constant", 1.1, 800.0, 4.0, -62.0, 35, {0: 17.1, 5: 134.1, 11: 272.3}),
    (0.9, "sine", 2.0, 1000.0, 2.0, -70.0, 110, {0: 6.3, 7: 46.9, 15: 85.1}),
    (0.5, "sine", 3.0, 1000.0, 5.5, -75.0, 66, {0: 12.8, 4: 49.2, 14: 128.1}),
    (0.15, "constant", 6.0, 400.0, 10.0, -70.0, 18, {0: 33.5, 4: 127.5, 12: 291.5}),
    (1.0, "sine", 2.0, 700.0, 1.0, -45.0, 99, {0: 0.1, 1: 6.4, 16: 70.8}),
    (0.05, "constant", 20.0, 100.0, 8.0, -70.0, 13, {0: 0.2, 1: 8.2, 12: 96.2}),
]


@pytest.mark.parametrize("alpha", [1, 0.8, 0.6, 0.4, 0.2])
def test_every_spike_agrees_to_the_sample(reference: Path, alpha: float) -> None:
    published = np.loadtxt(reference / "teka2014" / f"c3_a{alpha:g}.csv", skiprows=2)
    np.testing.assert_array_equal(simulate(alpha, 3.0), published)


@pytest.mark.parametrize("case", HELD_OUT, ids=lambda c: f"{c[0]}-{c[1]}")
def test_other_parameters_agree_to_the_sample(case: tuple) -> None:
    alpha, kind, amplitude, duration, refractory, v0, count, some = case

    def sine(t: float) -> float:  # the drive of the paper's Figure 10: 3 cycles a second
        return (2 + 2 * math.sin(2 * math.pi * 0.003 * t)) * amplitude / 2

    spikes = simulate(alpha, sine if kind == "sine" else amplitude, duration, refractory, v0)
    assert len(spikes) == count
    assert {n: spikes[n] for n in some} == some


def test_last_potential_agrees(reference: Path) -> None:
    header = (reference / "teka2014" / "c3_a0.4.csv").read_text().splitlines()[0]
    published = float(header.split("vend")[1])
    assert trace(0.4, [3.0]).voltage[-1, 0] == pytest.approx(published, abs=1e-9)


def test_without_the_memory_adaptation_vanishes() -> None:
    kept, forgetful = (np.diff(trace(0.4, [3.0], 300.0, forget=f).spike_times()) for f in (False, True))
    assert kept[0] - kept[-1] > 2.0
    assert np.ptp(forgetful) == pytest.approx(0.0, abs=1e-9)


def test_currents_run_side_by_side_are_independent() -> None:
    together = trace(0.6, [1.5, 3.0], 100.0)
    np.testing.assert_array_equal(together.spike_times(1), simulate(0.6, 3.0, 100.0))


def test_constant_and_function_of_time_agree() -> None:
    np.testing.assert_array_equal(simulate(0.7, 2.0, 100.0), simulate(0.7, lambda t: 2.0, 100.0))


def test_refractory_period_that_is_no_exact_binary_number_of_steps() -> None:
    assert np.diff(simulate(1.0, 500.0, 30.0, refractory=3.3)).min() == pytest.approx(3.3, abs=0.11)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": 0.0}, r"`alpha` must lie in \(0, 1\], got 0"),
        ({"alpha": 1.3}, "for integer order pass alpha=1"),
        ({"current": math.nan}, "`current` must be finite, got nan"),
        ({"current": lambda t: math.inf}, "`current` must be finite"),
        ({"refractory": 0.25}, "`refractory` must be a multiple of 0.1 ms, got 0.25"),
        ({"refractory": -1.0}, "`refractory` must be >= 0"),
        ({"duration": 0.0}, "`duration` must be >= 0.1"),
        ({"v0": math.inf}, "`v0` must be finite"),
    ],
)
def test_bad_input_is_named(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**({"alpha": 0.5, "current": 3.0} | kwargs))
