"""How a reset enters the memory: spike counts, closed forms, and the spike trains of other programs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from fracspike import FractionalCubaLIF, FractionalIF, FractionalLIF, RecurrentFractionalLIF
from fracspike.solvers import Exponentials, mittag_leffler

F64 = torch.float64
MEMORIES = ("jump", "overwrite", "current", "restart")
REFERENCE = Path(__file__).parent / "reference"


def constant(value: float, steps: int) -> Tensor:
    return torch.full((steps, 1), value, dtype=F64)


def wavy(steps: int) -> Tensor:
    """The current that was given to the other programs."""
    k = np.arange(steps)
    return torch.tensor(np.round(1.2 + 0.9 * np.sin(0.37 * k) + 0.5 * np.sin(0.11 * k * k), 6)).unsqueeze(1)


def spike_times(lif: FractionalLIF, current: Tensor) -> np.ndarray:
    with torch.no_grad():
        return (lif(current)[:, 0].nonzero()[:, 0].numpy() + 1) * lif.dt


def first_spike(alpha: float, tau: float, drive: float, threshold: float = 1.0) -> float:
    """When drive * (1 - E_alpha(-(t / tau)^alpha)) reaches the threshold."""

    def missing(log_t: float) -> float:
        z = -((math.exp(log_t) / tau) ** alpha)
        return drive * (1 - mittag_leffler(torch.tensor(z, dtype=F64), alpha).item()) - threshold

    return math.exp(brentq(missing, -20.0, 20.0, xtol=1e-12))


# dt = 0.2, 0.1, 0.05, 0.0025, at alpha 0.5 and 0.8; constant drive 1.5, threshold 1, T = 20
COUNTS = {
    "jump": {"tau": 1.0, "reset": "value", 0.5: (3, 3, 3), 0.8: (8, 9, 9)},
    "restart": {"tau": 1.0, "reset": "value", 0.5: (9, 9, 9), 0.8: (14, 16, 16)},
    "overwrite": {"tau": 1.0, "reset": "subtract", 0.5: (18, 35, 133), 0.8: (17, 23, 38)},
    "current": {"tau": 2.0, "reset": "subtract", 0.5: (69, 288, 5964), 0.8: (87, 358, 7259)},
}


class TestCounts:
    """Constant drive 1.5, threshold 1, for 20 time units."""

    @pytest.mark.parametrize("memory", MEMORIES)
    def test_count_against_the_time_step(self, memory: str) -> None:
        case: dict[Any, Any] = COUNTS[memory]
        alpha = torch.tensor([0.5, 0.8], dtype=F64)
        found = []
        for dt in (0.2, 0.05, 0.0025):
            lif = FractionalLIF(
                alpha,
                case["tau"] ** (1 / alpha),
                dt=dt,
                reset=case["reset"],
                reset_memory=memory,
                memory=Exponentials(1e-8) if dt < 0.01 else None,
            )
            with torch.no_grad():
                found.append(lif(constant(1.5, round(20 / dt)).expand(-1, 2)).sum(0).tolist())
        slack = 1 if memory in ("jump", "restart") else 0
        np.testing.assert_allclose(np.transpose(found), [case[0.5], case[0.8]], atol=slack)

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    def test_which_converge(self, reset: str) -> None:
        counts = {
            memory: [
                len(
                    spike_times(
                        FractionalLIF(0.6, 2.0, dt=dt, reset=reset, reset_memory=memory),
                        constant(1.5, round(30 / dt)),
                    )
                )
                for dt in (0.2, 0.1, 0.05)
            ]
            for memory in MEMORIES
        }
        assert max(counts["jump"]) - min(counts["jump"]) <= 1
        assert max(counts["restart"]) - min(counts["restart"]) <= 1
        assert counts["overwrite"][2] > 1.15 * counts["overwrite"][1] > 1.3 * counts["overwrite"][0]
        assert counts["current"][2] > 1.9 * counts["current"][1] > 3.6 * counts["current"][0]


class TestClosedForms:
    @pytest.mark.parametrize("drive", [1.3, 2.5])
    @pytest.mark.parametrize("alpha", [0.35, 0.6, 0.9, 1.0])
    @pytest.mark.parametrize("memory", ["jump", "overwrite", "restart"])
    def test_first_spike(self, memory: str, alpha: float, drive: float) -> None:
        tau = 1.7
        time = first_spike(alpha, tau, drive)
        dt = time / 200
        lif = FractionalLIF(alpha, tau, dt=dt, reset_memory=memory, resistance=0.5)
        found = spike_times(lif, constant(2 * drive, 230))
        slack = 4 if lif.method == "l1" else 1  # the scheme's own error; `exact` has none
        assert abs(found[0] - time) <= 1.001 * slack * dt

    @pytest.mark.parametrize("alpha", [0.4, 0.7, 0.95])
    @pytest.mark.parametrize("method", ["exact", "l1"])
    def test_restart_gives_equal_intervals(self, method: str, alpha: float) -> None:
        time = first_spike(alpha, 1.7, 1.8)
        dt = time / 150
        lif = FractionalLIF(alpha, 1.7, dt=dt, reset="value", reset_memory="restart", method=method)
        times = spike_times(lif, constant(1.8, 1000))
        assert len(times) >= 6
        np.testing.assert_allclose(np.diff(times, prepend=0.0), time, atol=2 * dt)
        assert len(set(np.round(np.diff(times) / dt))) == 1

    @pytest.mark.parametrize("memory", ["jump", "overwrite", "restart"])
    def test_textbook_interval_at_order_one(self, memory: str) -> None:
        """tau log((R I - v_reset) / (R I - threshold))."""
        lif = FractionalLIF(1.0, 3.0, dt=0.01, reset="value", reset_memory=memory, v_reset=0.3)
        times = spike_times(lif, constant(1.6, 1500))
        assert len(times) == 6
        assert times[0] == pytest.approx(3.0 * math.log(1.6 / 0.6), abs=0.02)
        np.testing.assert_allclose(np.diff(times), 3.0 * math.log(1.3 / 0.6), atol=0.02)

    @pytest.mark.parametrize("memory", ["jump", "restart"])
    def test_integrator_spikes(self, memory: str) -> None:
        """R I (t / tau)^alpha = k height Gamma(1 + alpha) at spike k; k = 1 in each interval of restart."""
        alpha, tau, drive = 0.6, 1.4, 0.9
        lif = FractionalIF(alpha, tau, dt=0.01, reset="value", reset_memory=memory, v_rest=-1.0, v_reset=-1.0)
        times = spike_times(lif, constant(drive, 4000))
        k = np.arange(1, len(times) + 1)
        unit = tau * (2.0 * math.gamma(1 + alpha) / drive) ** (1 / alpha)
        assert len(times) >= 3
        expected = unit * k ** (1 / alpha) if memory == "jump" else unit * k
        # the hard reset takes off what the last step overshot, so each spike is late by up to a step more
        np.testing.assert_allclose(times, expected, rtol=0.01)


class TestCurrent:
    def test_it_is_an_input_over_the_step_decided_at_its_start(self) -> None:
        alpha, tau, dt, current = 0.6, 1.5, 0.5, wavy(80)
        lif = FractionalLIF(alpha, tau, dt=dt, reset_memory="current", method="l1_explicit", v_rest=0.1)
        gain, rate = dt**alpha * math.gamma(2 - alpha) / tau**alpha, tau**-alpha
        v, steps, spikes = [0.1], [], []
        for i in current[:, 0].tolist():
            lag = np.arange(len(steps), 0, -1.0)
            past = ((lag + 1) ** (1 - alpha) - lag ** (1 - alpha)) @ np.array(steps) if steps else 0.0
            spike = float(v[-1] + rate * (0.1 - v[-1] + i) >= 1.0)
            step = -past + gain * (0.1 - v[-1] + i - 0.9 * spike)
            steps.append(step)
            v.append(v[-1] + step)
            spikes.append(spike)
        run = lif.simulate(current)
        assert 10 < sum(spikes) < 70
        assert run.spikes[:, 0].tolist() == spikes
        torch.testing.assert_close(run.voltage[:, 0], torch.tensor(v[1:], dtype=F64), rtol=1e-10, atol=1e-12)

    def test_every_method_goes_to_the_same_limit_for_a_given_train(self) -> None:
        """The reset is an ordinary input, so the exact method has the solution of the input with it."""
        base = {"alpha": 0.7, "tau": 2.0, "reset_memory": "current", "dt": 0.1}
        run = FractionalLIF(method="exact", **base).simulate(wavy(60))
        plain = FractionalLIF(0.7, 2.0, dt=0.1, reset="none", method="exact")
        torch.testing.assert_close(run.voltage, plain.simulate(wavy(60) - run.spikes).voltage)

    def test_detach_reset_cuts_the_reset_alone(self) -> None:
        gradients = []
        for detach in (False, True):
            current = wavy(10).requires_grad_()
            lif = FractionalLIF(0.6, reset_memory="current", surrogate=torch.sigmoid, detach_reset=detach)
            lif(current).sum().backward()
            gradients.append(current.grad)
        assert not torch.allclose(gradients[0], gradients[1])
        torch.testing.assert_close(gradients[0][-1], gradients[1][-1])


class TestOrderOne:
    """At alpha = 1 every reset memory is the ordinary neuron, v <- decide(v + (I - v) / tau), for dt = 1."""

    @staticmethod
    def ordinary(tau: float, reset: str, current: Tensor) -> tuple[list[float], list[float]]:
        v, spikes, after = 0.0, [], []
        for i in current[:, 0].tolist():
            v += (i - v) / tau
            spikes.append(float(v >= 1.0))
            if v >= 1.0:
                v = v - 1.0 if reset == "subtract" else 0.1
            after.append(v)
        return spikes, after

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    @pytest.mark.parametrize("memory", ["jump", "overwrite", "restart"])
    def test_as_it_stands(self, memory: str, reset: str) -> None:
        own = {"v_reset": 0.1} if reset == "value" else {}
        lif = FractionalLIF(1.0, 2.5, reset=reset, reset_memory=memory, method="l1_explicit", **own)
        run = lif.simulate(wavy(120))
        spikes, after = self.ordinary(2.5, reset, wavy(120))
        assert run.spikes[:, 0].tolist() == spikes
        torch.testing.assert_close(run.voltage[:, 0], torch.tensor(after, dtype=F64), rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    def test_current_at_a_step_of_one_time_constant(self, reset: str) -> None:
        own = {"v_reset": 0.1} if reset == "value" else {}
        lif = FractionalLIF(1.0, 1.0, reset=reset, reset_memory="current", **own)
        run = lif.simulate(wavy(120))
        spikes, after = self.ordinary(1.0, reset, wavy(120))
        assert run.spikes[:, 0].tolist() == spikes
        torch.testing.assert_close(run.voltage[:, 0], torch.tensor(after, dtype=F64), rtol=1e-9, atol=1e-11)

    def test_current_with_the_rest_that_makes_its_reset_a_threshold_high(self) -> None:
        """The input of the reset is weighed by dt / tau; a rest of 1 - tau makes up for it."""
        tau = 2.5
        lif = FractionalLIF(1.0, tau, v_rest=1.0 - tau, reset_memory="current")
        start = lif.initial_state(torch.zeros(1, dtype=F64), v=0.0)
        run = lif.simulate(wavy(120) + tau - 1.0, start)
        spikes, after = self.ordinary(tau, "subtract", wavy(120))
        assert run.spikes[:, 0].tolist() == spikes
        torch.testing.assert_close(run.voltage[:, 0], torch.tensor(after, dtype=F64), rtol=1e-9, atol=1e-11)


def rows(name: str) -> Iterator[dict[str, str]]:
    with (REFERENCE / name).open(newline="") as file:
        yield from csv.DictReader(file)


def equal_to(row: dict[str, str]) -> tuple[FractionalLIF, Tensor]:
    """Our layer and current for a row of spike_trains.csv; see tests/reference/README.md."""
    alpha, tau, dt = (float(row[key]) for key in ("alpha", "tau", "dt"))
    kwargs: dict[str, Any] = {"reset": row["reset"], "method": row["method"], "dt": dt}
    current = wavy(len(row["spikes"]))
    if row["library"] == "spikeDE":
        neuron = {"LIFNeuron": FractionalLIF, "IFNeuron": FractionalIF}[row["neuron"]]
        return neuron(alpha, tau ** (1 / alpha), reset_memory="current", **kwargs), current
    if row["library"] == "spikingjelly":
        # its leak is towards v_reset, but it starts at 0
        level = 0.1 if row["reset"] == "value" else 0.0
        return FractionalLIF(alpha, tau, v_rest=level, v_reset=level, **kwargs), current
    if row["neuron"] == "RLeaky":
        layer = RecurrentFractionalLIF(alpha, tau, recurrent="one_to_one", size=(1,), **kwargs).double()
        torch.nn.init.constant_(layer.recurrent.weight, -0.7 / (1 - math.exp(-dt / tau)))
        return layer, current
    if row["neuron"] == "Synaptic":
        return FractionalCubaLIF(alpha, tau, tau_syn=1.5, **kwargs), 1.6 * current
    return FractionalLIF(alpha, tau, **kwargs), current


@pytest.mark.parametrize(
    "row",
    list(rows("spike_trains.csv")),
    ids=lambda row: "-".join(row[key] for key in ("library", "neuron", "reset", "method", "alpha")),
)
def test_spike_trains_of_other_libraries(row: dict[str, str]) -> None:
    layer, current = equal_to(row)
    with torch.no_grad():
        run = layer.simulate(current, layer.initial_state(current[0], v=0.0))
    assert "".join(str(int(s)) for s in run.spikes[:, 0]) == row["spikes"]
    # spikeDE holds alpha in float32
    assert run.voltage[-1, 0].item() == pytest.approx(float(row["last"]), abs=1e-6)


def test_spike_trains_of_spikingjelly_as_installed() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    current = 1.2 * torch.rand(60, 5, generator=torch.Generator().manual_seed(0)) + 0.7
    for v_reset in (None, 0.0):
        theirs = neuron.LIFNode(tau=2.0, v_reset=v_reset, step_mode="m")(current)
        for memory in ("jump", "overwrite", "restart"):
            reset = "subtract" if v_reset is None else "value"
            ours = FractionalLIF(1.0, 2.0, reset=reset, reset_memory=memory, method="l1_explicit")
            assert theirs.sum() > 20
            assert torch.equal(ours(current), theirs)


def test_spike_trains_of_snntorch_as_installed() -> None:
    snntorch = pytest.importorskip("snntorch")
    current = 1.2 * torch.rand(60, 5, generator=torch.Generator().manual_seed(0)) + 0.7
    beta = math.exp(-0.5)
    for reset, mechanism in (("subtract", "subtract"), ("value", "zero")):
        leaky = snntorch.Leaky(beta=beta, reset_mechanism=mechanism, reset_delay=False)
        membrane, theirs = torch.zeros(5), []
        for i in current:
            spike, membrane = leaky((1 - beta) * i, membrane)
            theirs.append(spike)
        for memory in ("jump", "restart"):
            ours = FractionalLIF(1.0, 2.0, reset=reset, reset_memory=memory)
            assert torch.equal(ours(current), torch.stack(theirs))


@pytest.mark.parametrize("model", ["lif", "pif"])
def test_spike_times_of_pycaputo(model: str) -> None:
    """Its implicit L1 with located spikes, at two steps, extrapolated to none."""
    found: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    for row in rows("pycaputo.csv"):
        if row["model"] == model:
            key = tuple(row[k] for k in ("alpha", "current", "v_rest", "v_peak", "v_reset", "v0"))
            found.setdefault(key, {})[row["dt"]] = np.array(row["spike_times"].split(), dtype=float)
    assert found
    for (alpha, current, v_rest, v_peak, v_reset, v0), at in found.items():
        limit = 2 * at["0.0025"] - at["0.005"]
        dt = 0.0025
        neuron = {"lif": FractionalLIF, "pif": FractionalIF}[model](
            float(alpha),
            1.0,
            float(v_peak),
            dt=dt,
            v_rest=float(v_rest),
            v_reset=float(v_reset),
            reset="value",
            memory=Exponentials(1e-8),
        )
        steps = round((limit[-1] + 0.05) / dt)
        with torch.no_grad():
            start = neuron.initial_state(torch.zeros(1, dtype=F64), v=float(v0))
            spikes = neuron.simulate(constant(float(current), steps), start).spikes
        times = (spikes[:, 0].nonzero()[:, 0].numpy() + 1) * dt
        # spikes wait for the end of a step: each is late by up to one, and its successors with it
        np.testing.assert_allclose(times, limit, atol=3 * dt * len(limit))
        assert times[0] == pytest.approx(limit[0], abs=1.5 * dt)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("method", [None, "gl", "l1_explicit"])
@pytest.mark.parametrize("kind", [FractionalLIF, FractionalIF])
def test_transforms_of_torch_func_follow_every_reset(kind: type, method: str | None, memory: str) -> None:
    if method and (memory == "current") != (method == "l1_explicit"):
        return
    layer = kind(0.6, reset="value", reset_memory=memory, method=method, refractory=2.0)
    current = 3 * torch.rand(20, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert 4 < layer(current).sum() < 100
    assert torch.equal(torch.func.vmap(layer, in_dims=1, out_dims=1)(current), layer(current))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return layer.simulate(x).voltage.pow(2).sum()

    found = torch.func.grad(loss)(current)
    (expected,) = torch.autograd.grad(loss(x := current.clone().requires_grad_()), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_second_derivatives_are_refused_with_what_a_layer_can_do() -> None:
    """And what is advised works."""
    for layer, works in (
        (FractionalLIF(0.6, method="l1"), False),
        (FractionalLIF(0.6, backend="torch"), True),
    ):
        x = torch.full((4, 1), 0.3, dtype=F64, requires_grad=True)
        y = layer.simulate(x).voltage.pow(3).sum()
        if works:
            (slope,) = torch.autograd.grad(y, x, create_graph=True)
            assert torch.autograd.grad(slope.sum(), x)[0].all()
        else:
            with pytest.raises(RuntimeError, match=r"memory=Exponentials\(\) and backend='torch'"):
                torch.autograd.grad(y, x, create_graph=True)
