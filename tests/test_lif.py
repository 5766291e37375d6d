"""FractionalLIF against closed forms and against other methods."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import erfcx, gamma
from torch import Tensor, nn

from fracspike import FractionalLIF
from fracspike.neurons import State
from fracspike.solvers import Blocked, Exponentials, Full, Memory, Window

F64 = torch.float64


def drive(value: float, steps: int, *shape: int) -> Tensor:
    return torch.full((steps, *(shape or (1,))), value, dtype=F64)


def spike_times(lif: FractionalLIF, current: Tensor) -> np.ndarray:
    with torch.no_grad():
        spikes = lif(current)
    return (spikes[:, 0].nonzero()[:, 0].numpy() + 1) * lif.dt


def relaxation(t: Tensor | float, tau: float) -> Tensor:
    """E_{1/2}(-sqrt(t / tau)) = erfcx(sqrt(t / tau))."""
    return torch.as_tensor(erfcx(np.sqrt(np.asarray(t) / tau)), dtype=F64)


class TestBetweenSpikes:
    @pytest.mark.parametrize("dt", [0.01, 0.5, 3.0])
    def test_exact_method_has_no_discretisation_error_at_any_step(self, dt: float) -> None:
        lif = FractionalLIF(alpha=0.5, tau=0.5, dt=dt, resistance=2.0, reset="none")
        run = lif.simulate(drive(0.4, 40), lif.initial_state(torch.zeros(1, dtype=F64), v=0.3))
        e = relaxation(dt * np.arange(1, 41), 0.5)
        torch.testing.assert_close(run.voltage[:, 0], 0.3 * e + 0.8 * (1 - e), rtol=1e-12, atol=0)

    def test_a_step_of_the_current_is_a_delayed_copy_of_the_response(self) -> None:
        lif = FractionalLIF(alpha=0.5, tau=1.0, dt=0.25, reset="none")
        current = torch.cat([drive(0.0, 10), drive(0.7, 30)])
        e = relaxation(0.25 * np.arange(1, 31), 1.0)
        torch.testing.assert_close(lif.simulate(current).voltage[10:, 0], 0.7 * (1 - e), rtol=1e-12, atol=0)

    def test_float32_stays_within_its_rounding(self) -> None:
        lif = FractionalLIF(alpha=0.5, tau=0.5, dt=0.05, reset="none")
        run = lif.simulate(drive(0.8, 500).float())
        e = relaxation(0.05 * np.arange(1, 501), 0.5)
        assert run.voltage.dtype == torch.float32
        torch.testing.assert_close(run.voltage[:, 0].double(), 0.8 * (1 - e), rtol=5e-6, atol=0)

    @pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
    @pytest.mark.parametrize("method", ["l1", "l1_explicit"])
    def test_difference_schemes_converge_to_the_exact_method(self, method: str, alpha: float) -> None:
        errors = []
        for dt in (0.02, 0.01):
            steps = round(2.0 / dt)
            pair = [
                FractionalLIF(alpha=alpha, tau=1.5, dt=dt, method=m, reset="none").simulate(drive(0.8, steps))
                for m in (method, "exact")
            ]
            errors.append((pair[0].voltage[-1] - pair[1].voltage[-1]).abs().item())
        assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.15)

    def test_large_time_tail_is_a_power_law_of_slope_minus_alpha(self) -> None:
        lif = FractionalLIF(alpha=0.6, tau=1.0, dt=100.0, reset="none")
        v = lif.simulate(drive(0.0, 1000), lif.initial_state(torch.zeros(1, dtype=F64), v=0.9)).voltage[:, 0]
        tail = 0.9 * (1e5) ** -0.6 / gamma(1 - 0.6)
        assert v[-1].item() == pytest.approx(tail, rel=2e-3)


class TestSpikes:
    # refined L1, three digits past the step, agreed with the closed form for the first spike
    @pytest.mark.parametrize(
        ("alpha", "times"),
        [(0.5, (2.046381, 7.955922, 18.10415)), (0.8, (1.23703, 2.885945, 4.778228))],
    )
    def test_spike_times_under_constant_drive(self, alpha: float, times: tuple[float, ...]) -> None:
        dt = 0.02
        lif = FractionalLIF(alpha=alpha, tau=1.0, dt=dt)
        found = spike_times(lif, drive(1.5, round(1.02 * times[-1] / dt)))
        assert len(found) == len(times)
        np.testing.assert_allclose(found, times, atol=3 * dt)

    def test_first_spike_solves_the_closed_form_to_one_step(self) -> None:
        lif = FractionalLIF(alpha=0.5, tau=1.0, dt=0.001)
        first = spike_times(lif, drive(1.5, 2200))[0]
        assert 1.5 * (1 - relaxation(first, 1.0)) >= 1.0
        assert 1.5 * (1 - relaxation(first - 0.001, 1.0)) < 1.0

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    def test_each_jump_relaxes_like_an_initial_value(self, reset: str) -> None:
        lif = FractionalLIF(alpha=0.5, tau=1.0, dt=0.05, reset=reset)
        pulse = torch.cat([drive(30.0, 1), drive(0.0, 60)])
        run = lif.simulate(pulse)
        assert run.spikes[:, 0].nonzero().tolist() == [[0]] if reset == "value" else run.spikes[0].item() == 1
        if reset == "value":
            e = [relaxation(0.05 * np.maximum(np.arange(1, 62) - k, 0), 1.0) for k in (0, 1)]
            jump = run.voltage[0, 0] - run.pre_reset[0, 0]
            torch.testing.assert_close(
                run.voltage[1:, 0], (30 * (e[1] - e[0]) + jump * e[1])[1:], rtol=1e-9, atol=1e-12
            )

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    @pytest.mark.parametrize("reset_memory", ["jump", "overwrite", "restart"])
    @pytest.mark.parametrize("method", [None, "l1", "l1_explicit"])
    def test_order_one_is_the_textbook_neuron(
        self, method: str | None, reset_memory: str, reset: str
    ) -> None:
        tau, dt, current = 2.0, 0.25, np.random.default_rng(0).uniform(0, 3, 80)
        lif = FractionalLIF(
            alpha=1.0,
            tau=tau,
            dt=dt,
            reset=reset,
            reset_memory=reset_memory,
            method=method,
            v_reset=0.1 if reset == "value" else 0.0,
        )
        v, spikes, before = 0.0, [], []
        for i in current:
            if lif.method == "exact":
                v = i + (v - i) * math.exp(-dt / tau)
            elif lif.method == "l1":
                v = (v + dt / tau * i) / (1 + dt / tau)
            else:
                v = v + dt / tau * (i - v)
            before.append(v)
            spikes.append(float(v >= 1.0))
            if v >= 1.0:
                v = v - 1.0 if reset == "subtract" else 0.1
        run = lif.simulate(torch.tensor(current).unsqueeze(1))
        assert sum(spikes) > 5
        assert run.spikes[:, 0].tolist() == spikes
        torch.testing.assert_close(run.pre_reset[:, 0], torch.tensor(before), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("alpha", [0.4, 0.8])
    def test_overwrite_is_the_explicit_scheme_over_the_overwritten_path(self, alpha: float) -> None:
        tau, dt, steps = 1.5, 0.1, 120
        lif = FractionalLIF(
            alpha=alpha, tau=tau, dt=dt, reset="value", reset_memory="overwrite", method="l1_explicit"
        )
        path = np.zeros(steps + 1)  # written from Teka et al. 2014, equation 5
        for n in range(1, steps + 1):
            lag = n - np.arange(1, n)
            weights = (lag + 1.0) ** (1 - alpha) - lag ** (1.0 - alpha)
            memory = weights @ np.diff(path[:n])
            gain = dt**alpha * gamma(2 - alpha) / tau**alpha
            v = path[n - 1] + gain * (1.8 - path[n - 1]) - memory
            path[n] = 0.0 if v >= 1.0 else v
        run = lif.simulate(drive(1.8, steps))
        assert run.spikes.sum() > 3
        torch.testing.assert_close(run.voltage[:, 0], torch.tensor(path[1:]), rtol=1e-9, atol=1e-12)

    def test_jump_converges_as_the_step_falls_and_overwrite_does_not(self) -> None:
        counts = {
            memory: [
                len(
                    spike_times(
                        FractionalLIF(alpha=0.5, tau=1.0, dt=dt, reset_memory=memory, method="l1"),
                        drive(1.5, round(20 / dt)),
                    )
                )
                for dt in (0.2, 0.05, 0.0125)
            ]
            for memory in ("jump", "overwrite")
        }
        assert counts["jump"] == [3, 3, 3]
        assert counts["overwrite"][2] > 1.5 * counts["overwrite"][1] > 2 * counts["overwrite"][0]

    @pytest.mark.parametrize("method", ["exact", "l1"])
    @pytest.mark.parametrize(
        ("alpha", "interval", "jump", "restart"), [(0.5, 2.04638, 3, 9), (0.8, 1.23703, 9, 16)]
    )
    def test_counts_and_intervals_under_constant_drive(
        self, alpha: float, interval: float, jump: int, restart: int, method: str
    ) -> None:
        """Drive 1.5 for 20 tau; the interval solves 1.5 (1 - E_alpha(-t^alpha)) = 1."""
        for dt in (0.05, 0.01):
            times = {
                memory: spike_times(
                    FractionalLIF(
                        alpha=alpha, tau=1.0, dt=dt, reset_memory=memory, reset="value", method=method
                    ),
                    drive(1.5, round(20 / dt)),
                )
                for memory in ("jump", "restart")
            }
            assert abs(len(times["jump"]) - jump) <= 1
            assert abs(len(times["restart"]) - restart) <= 1
            np.testing.assert_allclose(np.diff(times["restart"]), interval, atol=2 * dt)

    def test_spike_at_the_threshold_itself(self) -> None:
        lif = FractionalLIF(alpha=1.0, tau=1.0, dt=1.0, method="l1_explicit")
        assert lif(drive(1.0, 1)).item() == 1.0

    def test_no_reset_leaves_the_potential_alone(self) -> None:
        run = FractionalLIF(alpha=0.6, reset="none").simulate(drive(2.0, 20))
        torch.testing.assert_close(run.voltage, run.pre_reset, rtol=0, atol=0)
        assert run.spikes.sum() > 5

    def test_potentials_may_be_shifted_together(self) -> None:
        current = torch.rand(60, 4, dtype=F64, generator=torch.Generator().manual_seed(1)) * 3
        for reset, memory in itertools.product(("subtract", "value"), ("jump", "overwrite")):
            at_zero = FractionalLIF(alpha=0.7, reset=reset, reset_memory=memory)
            own = {"v_reset": -70.0} if reset == "value" else {}
            in_mv = FractionalLIF(
                alpha=0.7, reset=reset, reset_memory=memory, v_rest=-70.0, threshold=-69.0, **own
            )
            assert torch.equal(at_zero(current), in_mv(current))


class TestRefractory:
    @pytest.mark.parametrize("reset_memory", ["jump", "overwrite"])
    def test_potential_is_held_and_silent_for_the_period(self, reset_memory: str) -> None:
        lif = FractionalLIF(
            alpha=0.6, tau=1.0, dt=0.1, refractory=0.5, reset="value", reset_memory=reset_memory
        )
        run = lif.simulate(drive(4.0, 200))
        fired = run.spikes[:, 0].nonzero()[:, 0]
        assert len(fired) > 5
        assert (fired.diff() > 5).all()
        for n in fired[:-1]:
            assert (run.voltage[n : n + 6, 0] == 0.0).all()
            assert run.voltage[n + 6, 0] > 0.0

    def test_order_one_has_the_textbook_interval(self) -> None:
        lif = FractionalLIF(alpha=1.0, tau=1.0, dt=0.01, refractory=0.3, reset="value")
        intervals = np.diff(spike_times(lif, drive(2.0, 1000)))
        np.testing.assert_allclose(intervals, 0.3 + math.log(2.0), atol=0.011)

    def test_clamp_of_the_exact_method_is_the_limit_of_the_difference_scheme(self) -> None:
        voltages = []
        for method, dt in (("exact", 0.02), ("l1", 0.02), ("exact", 0.01), ("l1", 0.01)):
            lif = FractionalLIF(alpha=0.6, tau=1.0, dt=dt, refractory=0.4, reset="value", method=method)
            run = lif.simulate(torch.cat([drive(6.0, round(0.2 / dt)), drive(0.9, round(2.0 / dt))]))
            assert run.spikes.sum() == 1
            voltages.append(run.voltage[-1, 0].item())
        assert abs(voltages[3] - voltages[2]) < 0.7 * abs(voltages[1] - voltages[0]) < 0.02


class TestState:
    @pytest.mark.parametrize(
        "kwargs",
        [
            {},
            {"method": "l1"},
            {"reset_memory": "overwrite"},
            {"reset_memory": "restart"},
            {"reset_memory": "restart", "method": "gl"},
        ],
    )
    @pytest.mark.parametrize("refractory", [0.0, 0.3])
    @pytest.mark.parametrize("graph", [True, False])
    def test_chunks_equal_the_whole(self, kwargs: dict, refractory: float, graph: bool) -> None:
        current = torch.rand(150, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(2)) * 4
        lif = FractionalLIF(alpha=0.6, tau=1.0, dt=0.1, refractory=refractory, **kwargs)
        with torch.set_grad_enabled(graph):
            whole = lif.simulate(current)
            state, parts = None, []
            for chunk in current.split([1, 9, 70, 70]):
                parts.append(lif.simulate(chunk, state))
                state = parts[-1].state
        assert whole.spikes.sum() > 40
        assert torch.equal(whole.spikes, torch.cat([p.spikes for p in parts]))
        torch.testing.assert_close(
            whole.voltage, torch.cat([p.voltage for p in parts]), rtol=1e-12, atol=1e-13
        )

    def test_no_state_is_held_between_calls(self) -> None:
        lif, current = FractionalLIF(alpha=0.6), drive(1.3, 30)
        assert torch.equal(lif.simulate(current).voltage, lif.simulate(current).voltage)

    def test_detached_state_cuts_the_graph(self) -> None:
        lif = FractionalLIF(alpha=0.6)
        current = drive(0.5, 5).requires_grad_()
        state = lif.simulate(current).state
        assert lif.simulate(drive(0.5, 5), state).voltage.requires_grad
        assert not lif.simulate(drive(0.5, 5), state.detach()).voltage.requires_grad

    def test_wrong_state_is_named(self) -> None:
        lif = FractionalLIF(alpha=0.6)
        state = lif.simulate(drive(1.0, 3, 2)).state
        with pytest.raises(ValueError, match=r"`state` must match the current, \(3,\)"):
            lif.simulate(drive(1.0, 3, 3), state)
        with pytest.raises(ValueError, match="a neuron of method l1, got one of exact"):
            FractionalLIF(alpha=0.6, method="l1").simulate(drive(1.0, 3, 2), state)
        with pytest.raises(TypeError, match="`state` must be a State"):
            lif.simulate(drive(1.0, 3, 2), torch.zeros(2))

    def test_initial_potential_is_given_by_a_state(self) -> None:
        lif = FractionalLIF(alpha=0.6)
        state = lif.initial_state(torch.zeros(4, 2, dtype=F64), v=0.5)
        assert isinstance(state, State)
        assert state.v.shape == (4, 2)
        assert (state.v == 0.5).all()


class TestMemory:
    @pytest.mark.parametrize("memory", [Blocked(16), Exponentials(1e-6), Window(200)], ids=repr)
    @pytest.mark.parametrize("kwargs", [{}, {"method": "l1"}, {"method": "gl", "reset_memory": "overwrite"}])
    def test_every_memory_gives_the_spikes_and_gradients_of_full(self, kwargs: dict, memory: Memory) -> None:
        current = 3 * torch.rand(200, 2, 5, generator=torch.Generator().manual_seed(4))
        results = []
        for kept in (Full(), memory):
            lif = FractionalLIF(
                alpha=0.6, dt=0.5, memory=kept, learn=("alpha", "tau"), surrogate="atan", **kwargs
            )
            drive = current.clone().requires_grad_()
            run = lif.simulate(drive)
            gradients = torch.autograd.grad(run.spikes.sum(), (drive, *lif.parameters()))
            results.append((run, gradients))
        (full, expected), (other, found) = results
        assert full.spikes.sum() > 100
        assert torch.equal(full.spikes, other.spikes)
        torch.testing.assert_close(full.voltage, other.voltage, rtol=0, atol=1e-5)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


class TestGradients:
    @pytest.mark.parametrize("kwargs", [{}, {"method": "l1"}, {"method": "l1_explicit"}])
    def test_below_threshold_against_finite_differences(self, kwargs: dict) -> None:
        torch.manual_seed(0)
        current = (0.3 * torch.rand(12, 2, dtype=F64)).requires_grad_()
        lif = FractionalLIF(alpha=0.6, tau=1.5, dt=0.5, reset="none", **kwargs)

        def voltage(current: Tensor, alpha: Tensor, tau: Tensor, resistance: Tensor, v0: Tensor) -> Tensor:
            lif.alpha, lif.tau, lif.resistance = alpha, tau, resistance
            state = State.at(v0, {"model": "FractionalLIF"})
            return lif.simulate(current, state).voltage

        scalars = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.6, 1.5, 1.1)]
        v0 = torch.tensor([0.2, -0.1], dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(voltage, (current, *scalars, v0), atol=1e-7)

    @pytest.mark.parametrize("reset", ["subtract", "value"])
    @pytest.mark.parametrize("kwargs", [{}, {"reset_memory": "overwrite"}, {"refractory": 1.0}])
    def test_through_smooth_spikes_and_resets_against_finite_differences(
        self, kwargs: dict, reset: str
    ) -> None:
        torch.manual_seed(1)
        current = (2 * torch.rand(8, 2, dtype=F64)).requires_grad_()
        lif = FractionalLIF(
            alpha=0.6,
            dt=0.5,
            reset=reset,
            surrogate=lambda x: torch.sigmoid(3 * x),
            v_reset=0.2 if reset == "value" else 0.0,
            **kwargs,
        )

        def spikes(current: Tensor, alpha: Tensor, tau: Tensor, threshold: Tensor) -> Tensor:
            lif.alpha, lif.tau, lif.threshold = alpha, tau, threshold
            return lif(current)

        scalars = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.6, 1.5, 1.0)]
        assert torch.autograd.gradcheck(spikes, (current, *scalars), atol=1e-7)

    def test_detach_reset_removes_the_path_through_the_reset(self) -> None:
        gradients = []
        for detach in (False, True):
            current = drive(1.0, 6).requires_grad_()
            lif = FractionalLIF(alpha=0.6, surrogate=torch.sigmoid, detach_reset=detach)
            lif(current).sum().backward()
            gradients.append(current.grad)
        assert gradients[0] is not None
        assert gradients[1] is not None
        assert not torch.allclose(*gradients)
        # the last input reaches only the last spike, which no reset follows
        assert gradients[0][-1] == pytest.approx(gradients[1][-1].item(), rel=1e-9)

    @pytest.mark.parametrize("name", ["alpha", "tau", "threshold", "resistance"])
    def test_learnable_parameters_start_where_told_and_stay_in_range(self, name: str) -> None:
        lif = FractionalLIF(alpha=0.6, tau=3.0, threshold=0.8, learn=(name,), size=(4,), surrogate="atan")
        start = getattr(lif, name).detach().clone()
        assert start.shape == (4,)
        torch.testing.assert_close(
            start,
            torch.full(
                (4,), {"alpha": 0.6, "tau": 3.0, "threshold": 0.8, "resistance": 1.0}[name], dtype=F64
            ),
        )
        assert len(list(lif.parameters())) == 1
        optimizer = torch.optim.Adam(lif.parameters(), lr=3.0)
        for _ in range(5):
            optimizer.zero_grad()
            lif(torch.full((10, 3, 4), 0.9)).sum().backward()
            assert all(torch.isfinite(p.grad).all() for p in lif.parameters())
            optimizer.step()
        assert not torch.allclose(getattr(lif, name), start)
        if name == "alpha":
            assert ((lif.alpha > 0) & (lif.alpha <= 1)).all()
        elif name != "resistance":
            assert (getattr(lif, name) > 0).all()


class TestLayer:
    def test_in_sequential_on_time_batch_features(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(5, 8), FractionalLIF(0.7, surrogate="atan"), nn.Linear(8, 3), FractionalLIF(0.5)
        )
        spikes = net(3 * torch.rand(12, 4, 5))
        assert spikes.shape == (12, 4, 3)
        assert spikes.dtype == torch.float32
        spikes.sum().backward()
        assert net[0].weight.grad is not None
        assert net[0].weight.grad.abs().sum() > 0

    def test_any_trailing_shape(self) -> None:
        assert FractionalLIF(0.7)(torch.rand(5, 2, 3, 4, 6)).shape == (5, 2, 3, 4, 6)
        assert FractionalLIF(0.7)(torch.rand(5)).shape == (5,)

    @pytest.mark.parametrize("kwargs", [{}, {"method": "l1"}])
    def test_alpha_tau_threshold_per_neuron_equal_each_alone(self, kwargs: dict) -> None:
        values = {"alpha": (0.3, 0.6, 1.0), "tau": (0.5, 2.0, 4.0), "threshold": (0.5, 1.0, 1.5)}
        layer = FractionalLIF(**{k: torch.tensor(v, dtype=F64) for k, v in values.items()}, dt=0.3, **kwargs)
        current = 4 * torch.rand(40, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
        together = layer.simulate(current)
        for i in range(3):
            alone = FractionalLIF(**{k: v[i] for k, v in values.items()}, dt=0.3, **kwargs)
            torch.testing.assert_close(together.voltage[..., i], alone.simulate(current[..., i]).voltage)
        assert together.spikes.sum() > 10

    def test_deepcopy_and_state_dict(self) -> None:
        lif = FractionalLIF(alpha=0.6, learn=("alpha", "tau"))
        twin = copy.deepcopy(lif)
        other = FractionalLIF(alpha=0.9, tau=1.0, learn=("alpha", "tau"))
        other.load_state_dict(lif.state_dict())
        current = drive(1.4, 25)
        for copy_ in (twin, other):
            assert torch.equal(copy_(current), lif(current))

    def test_repr_names_the_parameters(self) -> None:
        assert "alpha=0.6, tau=2, threshold=1, dt=1" in repr(FractionalLIF(alpha=0.6))

    def test_noisy_threshold_follows_train_and_eval(self) -> None:
        lif = FractionalLIF(alpha=0.6, surrogate="noisy_threshold")
        current = torch.rand(50, 20, generator=torch.Generator().manual_seed(0)) * 2
        lif.eval()
        assert torch.equal(lif(current), lif(current))
        lif.train()
        torch.manual_seed(0)
        first, second = lif(current), lif(current)
        torch.manual_seed(0)
        assert torch.equal(first, lif(current))
        assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"alpha": 1.3},
            ValueError,
            r"`alpha` must lie in \(0, 1\], got 1.3; for integer order pass alpha=1",
        ),
        ({"alpha": torch.tensor([0.5, 0.0])}, ValueError, "`alpha` must lie in"),
        ({"tau": 0.0}, ValueError, "`tau` must be > 0, got 0"),
        ({"dt": -1.0}, ValueError, "`dt` must be > 0"),
        ({"threshold": math.nan}, ValueError, "`threshold` must be finite"),
        ({"threshold": -1.0}, ValueError, "`threshold` must lie above `v_rest`, got -1 and 0"),
        (
            {"threshold": 0.5, "v_reset": 0.7, "reset": "value"},
            ValueError,
            "`threshold` must lie above `v_reset`",
        ),
        ({"reset": "hard"}, ValueError, "`reset` must be one of 'none', 'subtract', 'value'; got 'hard'"),
        ({"reset_memory": "jmp"}, ValueError, "did you mean 'jump'"),
        (
            {"method": "exact", "reset_memory": "overwrite"},
            ValueError,
            "pass method='l1' or reset_memory='jump'",
        ),
        ({"method": "rk4"}, ValueError, "`method` must be one of 'exact', 'gl', 'gl_explicit', 'l1'"),
        ({"refractory": 0.25, "dt": 0.1}, ValueError, "`refractory` must be a multiple of dt=0.1, got 0.25"),
        ({"learn": ("beta",)}, ValueError, "`learn` must be one of 'alpha'"),
        ({"alpha": 1.0, "learn": "alpha"}, ValueError, "start at 0.99"),
        (
            {"alpha": torch.full((3,), 0.5), "size": 4},
            ValueError,
            r"`alpha` must be a number or have shape \(4,\)",
        ),
        (
            {"alpha": torch.full((3,), 0.5), "tau": torch.ones(4)},
            ValueError,
            r"per-neuron parameters must have one shape, got \[\(3,\), \(4,\)\]",
        ),
        ({"size": 0}, ValueError, "`size` must be >= 1"),
        ({"size": 2.5}, TypeError, "`size` must be a whole number"),
        ({"memory": "full"}, TypeError, r"`memory` must be a Memory such as Full\(\)"),
        ({"surrogate": "nosuch"}, ValueError, "nosuch"),
        ({"surrogate": 5}, TypeError, "surrogate"),
    ],
)
def test_bad_parameters_are_named(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FractionalLIF(**({"alpha": 0.7} | kwargs))


@pytest.mark.parametrize(
    ("current", "error", "message"),
    [
        (
            torch.tensor([[1.0] * 5, [math.nan] * 5]),
            ValueError,
            r"`current` must be finite, got nan at index \(1, 0\)",
        ),
        (
            torch.ones(3, 1, dtype=torch.int64),
            TypeError,
            "floating-point tensor, got torch.int64; call .float",
        ),
        (torch.ones(0, 3), ValueError, r"`current` must have shape \(T, B, \*\) with T >= 1, got \(0, 3\)"),
        (torch.tensor(1.0), ValueError, r"`current` must have shape \(T, B, \*\)"),
        (
            torch.ones(4, 2, 3),
            ValueError,
            r"`current` must end in the neurons' shape \(5,\), got \(4, 2, 3\)",
        ),
        ([1.0], TypeError, "`current` must be a torch.Tensor, got list"),
    ],
)
def test_bad_current_is_named(current: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FractionalLIF(alpha=0.7, size=5)(current)


def test_a_surrogate_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"`surrogate` must keep the shape \(2, 3\)"):
        FractionalLIF(alpha=0.7, surrogate=torch.sum)(torch.ones(4, 2, 3))


class TestOutOfReach:
    """Time steps so small beside tau that no short sum of exponentials is good enough."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_by_default_the_whole_history_is_kept(self, dtype: torch.dtype) -> None:
        lif = FractionalLIF(0.6, tau=1.0, dt=1e-11, reset="none")
        current = torch.full((30, 2), 2.0, dtype=dtype)
        run = lif.simulate(current)
        t = 1e-11 * torch.arange(1, 31, dtype=torch.float64)
        exact = -2.0 * torch.expm1(-(t**0.6) / math.gamma(1.6))  # E is that to order t^1.2
        tol = 1e-5 if dtype == torch.float64 else 0.3  # 1 - E is 1e-7
        torch.testing.assert_close(run.voltage[:, 0].double(), exact, rtol=tol, atol=0)
        first = lif.simulate(current[:12])
        second = lif.simulate(current[12:], first.state)
        torch.testing.assert_close(second.voltage, run.voltage[12:])
        assert "history" in str(lif.backend_report(current))

    def test_a_memory_that_was_asked_for_is_refused(self) -> None:
        with pytest.raises(ValueError, match="`tol` must be within reach"):
            FractionalLIF(0.6, tau=1.0, dt=1e-11, memory=Exponentials(1e-7))
        with pytest.raises(ValueError, match="`backend` 'native' cannot run this layer: dt / tau is too"):
            FractionalLIF(0.6, tau=1.0, dt=1e-11, backend="native")(torch.ones(3, 1))
