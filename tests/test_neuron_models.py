"""Each neuron against its own equation, solved another way."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from neuron_cases import build, current
from scipy.integrate import quad
from scipy.special import erfcx, gamma
from torch import Tensor, nn

from fracspike import (
    FractionalAdEx,
    FractionalALIF,
    FractionalCubaLIF,
    FractionalIF,
    FractionalIzhikevich,
    FractionalLI,
    FractionalLIF,
    FractionalNeuron,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
    distributed,
)

F64 = torch.float64


def constant(value: float, steps: int) -> Tensor:
    return torch.full((steps, 1), value, dtype=F64)


def inverse_laplace(transform: object, t: float) -> float:
    with mpmath.workdps(30):
        return float(mpmath.invertlaplace(transform, t, method="talbot"))


class TestIF:
    @pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
    @pytest.mark.parametrize("dt", [0.01, 1.7])
    def test_step_response_has_no_error_at_any_step(self, alpha: float, dt: float) -> None:
        lif = FractionalIF(alpha, 1.3, dt=dt, v_rest=-0.4, resistance=2.0, reset="none")
        t = dt * np.arange(1, 101)
        expected = torch.tensor(-0.4 + 0.6 * (t / 1.3) ** alpha / gamma(1 + alpha)).unsqueeze(1)
        torch.testing.assert_close(lif.simulate(constant(0.3, 100)).voltage, expected, rtol=1e-11, atol=1e-12)

    def test_a_pulse_fades_like_a_power(self) -> None:
        lif = FractionalIF(0.6, 1.0, dt=0.5, reset="none")
        v = lif.simulate(torch.cat([constant(1.0, 4), constant(0.0, 60)])).voltage[:, 0]
        t = 0.5 * np.arange(5, 65)
        expected = torch.tensor((t**0.6 - (t - 2.0) ** 0.6) / gamma(1.6))
        torch.testing.assert_close(v[4:], expected, rtol=1e-11, atol=0)

    @pytest.mark.parametrize("refractory", [0.0, 0.4])
    @pytest.mark.parametrize("alpha", [0.5, 0.9])
    def test_difference_scheme_converges_to_the_exact_method(self, alpha: float, refractory: float) -> None:
        gaps = []
        for dt in (0.02, 0.01):
            drive = torch.cat([constant(4.0, round(0.4 / dt)), constant(0.3, round(1.6 / dt))])
            runs = [
                FractionalIF(alpha, 1.5, dt=dt, method=m, reset="value", refractory=refractory).simulate(
                    drive
                )
                for m in ("l1", "exact")
            ]
            assert runs[0].spikes.sum() == runs[1].spikes.sum() == 1 + (alpha == 0.5 and refractory == 0)
            gaps.append((runs[0].voltage[-1] - runs[1].voltage[-1]).abs().item())
        assert gaps[1] < 0.75 * gaps[0] < 0.05


class TestALIF:
    def test_at_order_one_it_is_the_loop_one_writes(self) -> None:
        tau, tau_a, beta, c, dt = 2.5, 12.0, 0.4, 0.3, 0.5
        drive = 1.5 * current("lif", 150, 1, seed=3)
        layer = FractionalALIF(1.0, tau, dt=dt, beta=beta, tau_adaptation=tau_a, coupling=c)
        decay, keep = math.exp(-dt / tau), math.exp(-dt / tau_a)
        v = a = w = 0.0
        spikes, trace = [], []
        for i in drive[:, 0].tolist():
            v = (i - w) + (v - (i - w)) * decay
            spike = float(v >= 1.0 + beta * a)
            v -= spike
            a = keep * a + spike
            w = keep * w + (1 - keep) * c * v
            spikes.append(spike)
            trace.append((v, a, w))
        run = layer.simulate(drive)
        assert sum(spikes) > 10
        assert run.spikes[:, 0].tolist() == spikes
        found = torch.stack([run.voltage, run.variables["adaptation"], run.variables["w"]], dim=-1)[:, 0]
        torch.testing.assert_close(found, torch.tensor(trace, dtype=F64), rtol=1e-9, atol=1e-11)

    def test_without_beta_it_is_the_plain_neuron(self) -> None:
        drive = current("lif", 60)
        assert torch.equal(FractionalALIF(0.7, beta=0.0)(drive), FractionalLIF(0.7)(drive))

    def test_intervals_grow_where_the_plain_neuron_is_regular(self) -> None:
        drive = constant(1.5, 4000)
        plain = FractionalLIF(1.0, 1.0, dt=0.01, reset="value")(drive)[:, 0].nonzero()[:, 0].diff()
        layer = FractionalALIF(1.0, 1.0, dt=0.01, reset="value", beta=0.05, tau_adaptation=10.0)
        tired = layer(drive)[:, 0].nonzero()[:, 0].diff()
        assert plain.max() - plain.min() <= 1
        assert (tired[1:6] > tired[:5]).all()


class TestCubaLIF:
    @pytest.mark.parametrize("alpha_syn", [1.0, 0.6])
    def test_two_leaks_in_a_row(self, alpha_syn: float) -> None:
        """Step response 1 / (s (1 + (2 s)^a) (1 + (3 s)^b)), inverted numerically."""
        errors = []
        for dt in (0.1, 0.05):
            layer = FractionalCubaLIF(0.7, 3.0, dt=dt, alpha_syn=alpha_syn, tau_syn=2.0, reset="none")
            v = layer.simulate(constant(1.0, round(4.0 / dt))).voltage[-1, 0].item()
            limit = inverse_laplace(
                lambda s: 1 / (s * (1 + (3 * s) ** 0.7) * (1 + (2 * s) ** alpha_syn)), 4.0
            )
            errors.append(abs(v - limit))
        assert errors[1] < 0.6 * errors[0] < 0.01

    def test_gradient_reaches_the_synapse(self) -> None:
        layer = build("cuba_lif", learn=("tau_syn", "alpha"), surrogate="atan")
        layer(current("cuba_lif", 20)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
        assert len(list(layer.parameters())) == 2


class TestLI:
    def test_step_response(self) -> None:
        layer = FractionalLI(0.5, 1.5, dt=0.3, v_rest=0.2, resistance=2.0)
        t = 0.3 * np.arange(1, 51)
        expected = torch.tensor(0.2 + 1.4 * (1 - erfcx(np.sqrt(t / 1.5)))).unsqueeze(1)
        torch.testing.assert_close(layer(constant(0.7, 50)), expected, rtol=1e-10, atol=1e-12)

    def test_it_reads_out_a_network(self) -> None:
        net = nn.Sequential(FractionalLIF(0.7, surrogate="atan"), nn.Linear(4, 2), FractionalLI(0.8, 5.0))
        potential = net(2 * torch.rand(30, 3, 4))
        assert potential.shape == (30, 3, 2)
        potential[-1].sum().backward()
        assert net[1].weight.grad.abs().sum() > 0


class TestRecurrent:
    @pytest.mark.parametrize("kind", [RecurrentFractionalLIF, RecurrentFractionalALIF])
    @pytest.mark.parametrize("reset_memory", ["jump", "current"])
    def test_equals_a_plain_layer_that_is_fed_its_own_spikes(
        self, kind: type[FractionalLIF], reset_memory: str
    ) -> None:
        torch.manual_seed(1)
        plain = {RecurrentFractionalLIF: FractionalLIF, RecurrentFractionalALIF: FractionalALIF}[kind]
        layer = kind(0.6, size=(5,), reset_memory=reset_memory, resistance=1.3).double()
        twin, drive = (
            plain(0.6, reset_memory=reset_memory, resistance=1.3),
            3 * torch.rand(40, 2, 5, dtype=F64),
        )
        state, last, spikes = None, torch.zeros(2, 5, dtype=F64), []
        for i in drive:
            run = twin.simulate((i + last @ layer.recurrent.weight.T).unsqueeze(0), state)
            state, last = run.state, run.spikes[0]
            spikes.append(last)
        assert 40 < torch.stack(spikes).sum() < 300
        assert torch.equal(layer(drive), torch.stack(spikes))
        assert not torch.equal(twin(drive), torch.stack(spikes))

    def test_weights_start_random_or_at_zero_and_learn(self) -> None:
        drive = 3 * torch.rand(20, 2, 4)
        for recurrent, shape in (("all_to_all", (4, 4)), ("one_to_one", (4,))):
            layer = RecurrentFractionalLIF(0.7, size=4, recurrent=recurrent, surrogate="atan")
            layer(drive).sum().backward()
            assert layer.recurrent.weight.shape == shape
            assert layer.recurrent.weight.grad.abs().sum() > 0

    def test_any_module_may_be_the_connection(self) -> None:
        conv = nn.Conv2d(3, 3, 3, padding=1)
        assert RecurrentFractionalLIF(0.7, recurrent=conv)(torch.rand(6, 2, 3, 5, 5)).shape == (6, 2, 3, 5, 5)
        narrow = RecurrentFractionalLIF(0.7, recurrent=nn.Conv2d(3, 1, 3, padding=1))
        with pytest.raises(
            ValueError, match=r"`recurrent` must keep the shape of the spikes, \(2, 3, 5, 5\)"
        ):
            narrow(torch.rand(6, 2, 3, 5, 5))


class TestSeveralOrders:
    def test_one_order_twice_is_one_order(self) -> None:
        drive = current("lif", 60)
        twice = FractionalLIF([0.7, 0.7], 1.5, coefficients=[0.25, 0.75], method="l1")
        assert twice(drive).sum() > 20
        torch.testing.assert_close(
            twice.simulate(drive).voltage, FractionalLIF(0.7, 1.5, method="l1").simulate(drive).voltage
        )

    @pytest.mark.parametrize("neuron", [FractionalLIF, FractionalIF])
    def test_two_orders_against_the_inverse_laplace_transform(self, neuron: type[FractionalLIF]) -> None:
        leak = 1 if neuron is FractionalLIF else 0
        errors = []
        for dt in (0.02, 0.01):
            layer = neuron([1.0, 0.5], 2.0, dt=dt, coefficients=[1.0, 0.6], reset="none")
            v = layer.simulate(constant(1.0, round(3.0 / dt))).voltage[-1, 0].item()
            limit = inverse_laplace(lambda s: 1 / (s * (leak + 2 * s + 0.6 * (2 * s) ** 0.5)), 3.0)
            errors.append(abs(v - limit))
        assert errors[1] < 0.6 * errors[0] < 0.005

    def test_a_density_of_orders_against_the_inverse_laplace_transform(self) -> None:
        orders, coefficients = distributed(lambda a: 6 * a * (1 - a), nodes=8)
        errors = []
        for dt in (0.02, 0.01):
            layer = FractionalLIF(orders, 1.0, dt=dt, coefficients=coefficients, reset="none")
            errors.append(layer.simulate(constant(1.0, round(2.0 / dt))).voltage[-1, 0].item())

        def density(s: mpmath.mpc) -> mpmath.mpc:
            """The integral of 6 a (1 - a) s^a from 0 to 1, in closed form."""
            x = mpmath.log(s)
            return 6 * (s * (x - 2) + x + 2) / x**3

        limit = inverse_laplace(lambda s: 1 / (s * (1 + density(s))), 2.0)
        errors = [abs(v - limit) for v in errors]
        assert errors[1] < 0.6 * errors[0] < 0.005

    def test_quadrature_of_a_density(self) -> None:
        orders, coefficients = distributed(lambda a: torch.exp(-2 * a), low=0.2, high=0.9, nodes=6)
        found = sum(c * 3.0 ** (1 - a) / gamma(2 - a) for a, c in zip(orders, coefficients, strict=True))
        expected = quad(lambda a: math.exp(-2 * a) * 3.0 ** (1 - a) / gamma(2 - a), 0.2, 0.9)[0]
        assert found == pytest.approx(expected, rel=1e-9)  # the distributed derivative of t at t = 3
        assert all(0.2 < a < 0.9 for a in orders)

    def test_per_neuron_time_constants_and_learnable_coefficients(self) -> None:
        tau = torch.tensor([1.0, 2.0, 4.0], dtype=F64)
        drive = current("lif", 30)
        layer = FractionalLIF([0.5, 0.9], tau, coefficients=[1.0, 0.5], learn=("coefficients", "alpha"))
        run = layer.simulate(drive)
        for i in range(3):
            alone = FractionalLIF([0.5, 0.9], float(tau[i]), coefficients=[1.0, 0.5])
            torch.testing.assert_close(run.voltage[..., i], alone.simulate(drive[..., i]).voltage)
        run.voltage.sum().backward()
        assert all(p.grad.shape == (2,) and (p.grad != 0).all() for p in layer.parameters())

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"density": lambda a: a - 0.5}, "`density` must return 8 values >= 0"),
            ({"density": lambda a: 0 * a}, "`density` must be positive somewhere"),
            ({"density": lambda a: a[:2]}, "`density` must return 8 values"),
            ({"density": lambda a: a, "low": 0.6, "high": 0.5}, "`high` must"),
            ({"density": lambda a: a, "nodes": 0}, "`nodes` must be >= 1"),
        ],
    )
    def test_bad_densities_are_named(self, kwargs: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            distributed(**kwargs)


class TestNonlinear:
    def test_izhikevich_at_order_one_is_euler(self) -> None:
        v, u, spikes = -65.0, -13.0, []
        for _ in range(800):
            v, u = (
                v + 0.25 * (0.04 * v * v + 5 * v + 140 - u + 10),
                u + 0.25 * 0.02 * (0.2 * v - u),
            )
            spikes.append(float(v >= 30))
            if v >= 30:
                v, u = -65.0, u + 8
        run = FractionalIzhikevich(1.0, dt=0.25).simulate(constant(10.0, 800))
        assert sum(spikes) > 4
        assert run.spikes[:, 0].tolist() == spikes
        assert run.variables["u"][-1, 0].item() == pytest.approx(u, rel=1e-9)
        assert run.pre_reset.max() == 30.0

    def test_adex_at_order_one_is_euler(self) -> None:
        v, w, spikes = -70.6, 0.0, []
        for _ in range(3000):
            v, w = (
                v + 0.1 * (30 * (-70.6 - v + 2 * math.exp((v + 50.4) / 2)) - w + 900) / 281,
                w + 0.1 * (4 * (v + 70.6) - w) / 144,
            )
            spikes.append(float(v >= -40.4))
            if v >= -40.4:
                v, w = -70.6, w + 80.5
        run = FractionalAdEx(1.0).simulate(constant(900.0, 3000))
        assert sum(spikes) > 4
        assert run.spikes[:, 0].tolist() == spikes
        assert run.variables["w"][-1, 0].item() == pytest.approx(w, rel=1e-9)

    @pytest.mark.parametrize("alpha", [0.6, 0.9, {"first": 0.8, "second": 0.5}])
    @pytest.mark.parametrize("method", ["l1_explicit", "gl_explicit"])
    @pytest.mark.parametrize("name", ["izhikevich", "adex"])
    def test_below_threshold_it_converges_to_the_trapezoid_rule(
        self, name: str, method: str, alpha: float | dict[str, float]
    ) -> None:
        kind, low, high = {
            "izhikevich": (FractionalIzhikevich, -2.0, 2.0),
            "adex": (FractionalAdEx, 0.0, 400.0),
        }[name]
        if isinstance(alpha, dict):
            alpha = dict(zip(kind.variables, alpha.values(), strict=True))

        def drive(t: Tensor) -> Tensor:
            return (low + (high - low) * torch.sin(0.3 * t)).reshape(1, 1).double()

        gaps: dict[str, list[float]] = {key: [] for key in kind.variables}
        limit = kind(alpha).integrate(drive, 0.02 * torch.arange(201, dtype=F64), method="trapezoid")
        for dt in (0.1, 0.05):
            neuron = kind(alpha, dt=dt, method=method)
            t = dt * torch.arange(round(4.0 / dt) + 1, dtype=F64)
            run = neuron.simulate(torch.stack([drive(time) for time in t[:-1]]))
            assert run.spikes.sum() == 0
            assert (run.voltage[-1] - run.voltage[0]).abs() > 1.0
            for key, values in {kind.variables[0]: run.voltage, **run.variables}.items():
                gaps[key].append((values[-1] - limit[key][-1]).abs().item())
        for coarse, fine in gaps.values():
            assert math.log2(coarse / fine) > 0.8

    @pytest.mark.parametrize("orders", [("0.8", "0.8"), ("0.9", "0.6")])
    def test_adex_against_pycaputo(self, orders: tuple[str, str]) -> None:
        """Both are of first order, so both are extrapolated to dt = 0."""
        with (Path(__file__).parent / "reference" / "pycaputo_adex.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if (row["alpha_v"], row["alpha_w"]) == orders]
        theirs = [[float(row[key]) for key in ("v", "w", "first_spike")] for row in rows]
        units = {"C": 1, "g_leak": 1, "E_leak": -5, "V_T": 0, "Delta_T": 1, "V_r": -5, "peak": 3}
        ours = []
        for dt in (0.01, 0.005):
            alpha = dict(zip(("v", "w"), map(float, orders), strict=True))
            neuron = FractionalAdEx(alpha, dt=dt, tau_w=2, a=0.3, b=0.5, **units)
            run, half = neuron.simulate(constant(7.0, round(2.4 / dt))), round(0.5 / dt) - 1
            first = dt * (1 + run.spikes[:, 0].argmax().item())
            ours.append([run.voltage[half, 0].item(), run.variables["w"][half, 0].item(), first])
        found, expected = (2 * np.array(fine) - np.array(coarse) for coarse, fine in (ours, theirs))
        np.testing.assert_allclose(found[:2], expected[:2], atol=2e-4)
        assert ours[1][2] == pytest.approx(expected[2], abs=0.012)

    def test_memory_of_past_spikes_makes_it_adapt(self) -> None:
        """Without its recovery variable it is regular at order one, and slows down below."""
        counts = {}
        for alpha in (1.0, 0.8):
            neuron = FractionalIzhikevich(alpha, dt=0.1, d=0.0, b=0.0, a=1e-9)
            spikes = neuron.simulate(
                constant(40.0, 1500), neuron.initial_state(torch.zeros(1, dtype=F64), u=0.0)
            )
            halves = spikes.spikes.reshape(2, -1).sum(1)
            counts[alpha] = (halves[0] - halves[1]).item()
        assert abs(counts[1.0]) <= 1
        assert counts[0.8] >= 2

    def test_a_state_may_start_anywhere(self) -> None:
        neuron = FractionalAdEx(0.8)
        state = neuron.initial_state(torch.zeros(2, 3, dtype=F64), v=-60.0)
        assert (state.v == -60.0).all()
        with pytest.raises(ValueError, match="`variable` must be one of 'v', 'w'; got 'u'"):
            neuron.initial_state(torch.zeros(2, 3), u=0.0)


class Quadratic(FractionalNeuron):
    variables = ("v",)
    constants = {"k": 1.0, "peak": 5.0}  # noqa: RUF012

    def rest(self) -> tuple[float]:
        return (-1.0,)

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        return (self.k * (variables[0] ** 2 - 1) + current,)

    def excess(self, *variables: Tensor) -> Tensor:
        return variables[0] - self.peak

    def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        return (variables[0] + (-1.0 - variables[0]) * spike,)


class Leaky(FractionalNeuron):
    """The linear neuron, written as a nonlinear one, tau = 1."""

    variables = ("v",)
    constants = {"threshold": 1.0}  # noqa: RUF012

    def rest(self) -> tuple[float]:
        return (0.0,)

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        return (current - variables[0],)

    def excess(self, *variables: Tensor) -> Tensor:
        return variables[0] - self.threshold

    def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        return (variables[0] - self.threshold * spike,)


class TestOwnModel:
    @pytest.mark.parametrize("method", ["l1_explicit", "gl_explicit"])
    @pytest.mark.parametrize("reset_memory", ["jump", "overwrite", "restart"])
    def test_the_linear_neuron_is_the_linear_neuron(self, reset_memory: str, method: str) -> None:
        common = {"dt": 0.2, "reset_memory": reset_memory, "method": method}
        drive = 2 * current("lif", 80)
        ours, theirs = Leaky(0.7, **common).simulate(drive), FractionalLIF(0.7, 1.0, **common).simulate(drive)
        assert ours.spikes.sum() > 60
        assert torch.equal(ours.spikes, theirs.spikes)
        torch.testing.assert_close(ours.voltage, theirs.voltage, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.pre_reset, theirs.pre_reset, rtol=1e-9, atol=1e-11)

    def test_one_class_is_a_neuron(self) -> None:
        neuron = Quadratic(0.8, dt=0.05, learn=("k", "alpha"), size=(3,), surrogate="atan")
        spikes = neuron(torch.full((100, 2, 3), 4.0))
        assert spikes.sum() > 12
        spikes.sum().backward()
        assert all((p.grad != 0).all() for p in neuron.parameters())

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (lambda self, i, v: v, TypeError, "`Bad.rhs` must return a tuple of 1 tensors for v; got Tensor"),
            (lambda self, i, v: (v, v), TypeError, "`Bad.rhs` must return a tuple of 1 tensors"),
            (
                lambda self, i, v: (v.sum(),),
                ValueError,
                r"`Bad.rhs` must return v of shape \(2, 3\), got \(\)",
            ),
            (lambda self, i, v: (1.0,), ValueError, "must return v of shape"),
        ],
    )
    def test_a_wrong_right_hand_side_is_named(
        self, value: object, error: type[Exception], message: str
    ) -> None:
        bad = type("Bad", (Quadratic,), {"rhs": value})
        with pytest.raises(error, match=message):
            bad(0.8)(torch.zeros(4, 2, 3))
