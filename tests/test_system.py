"""Networks as one coupled system: against spikeDE, against closed forms, against the layers themselves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import networks
import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import fracspike as fs
from fracspike.layers.interpolate import INTERPOLATIONS, on_grid
from fracspike.solvers import Blocked, Exponentials, Memory, Window, fdeint, mittag_leffler

OURS = {"gl": "gl_explicit", "l1": "l1_explicit", "pred": "predictor", "euler": "gl_explicit"}


def layer(alpha: float, dt: float = 1.0, tau_a: float = 2.0, **options: object) -> fs.FractionalLIF:
    surrogate = "spikede.arctan:scale=5"
    return fs.FractionalLIF(
        alpha, tau_a ** (1 / alpha), dt=dt, surrogate=surrogate, detach_reset=True, **options
    )


def spikede_network(dt: float, orders: tuple[float, float]) -> nn.Sequential:
    return networks.network(layer(orders[0], dt), layer(orders[1], dt), scale=3.0)


@pytest.mark.parametrize("name", networks.SYSTEMS)
def test_spikes_are_those_of_spikede(name: str) -> None:
    method, interpolation, dt, orders = networks.SYSTEMS[name]
    text = (Path(__file__).parent / "reference" / "networks.json").read_text()
    want = networks.unpack(json.loads(text)["spikes"][name])
    assert 0.03 < want.mean() < 0.9
    system = fs.as_system(spikede_network(dt, orders), networks.samples(), interpolation=interpolation)
    assert torch.equal(system.solve(method=OURS[method]).output, want)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", networks.SYSTEMS)
def test_gradients_are_those_of_spikede(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function=None, **_: function or (lambda f: f))
    pytest.importorskip("torchfde")
    pytest.importorskip("spikeDE")
    spikede = importlib.import_module("spikeDE")
    method, interpolation, dt, orders = networks.SYSTEMS[name]
    inner = networks.network(spikede.LIFNeuron(tau=2.0), spikede.LIFNeuron(tau=2.0), scale=3.0)
    theirs = spikede.SNNWrapper(
        inner,
        integrator="odeint" if method == "euler" else "fdeint",
        alpha=list(orders),
        alpha_mode="per_layer",
        interpolation_method=interpolation,
    )
    theirs._set_neuron_shapes((1, networks.INPUTS))
    model = spikede_network(dt, orders)
    weight = networks.numbers(networks.STEPS, networks.BATCH, networks.OUTPUTS, seed=9)
    x = networks.samples()
    (theirs(x, torch.arange(networks.STEPS) * dt, method=method) * weight).sum().backward()
    solution = fs.as_system(model, x, interpolation=interpolation).solve(method=OURS[method])
    (solution.output * weight).sum().backward()
    assert torch.allclose(model[0].weight.grad, inner[0].weight.grad, rtol=1e-3, atol=1e-4)


def quiet(alpha: float, dt: float) -> fs.FractionalLIF:
    return fs.FractionalLIF(alpha, tau=1.5, threshold=100.0, dt=dt, resistance=2.0)


def test_without_spikes_a_layer_relaxes_like_mittag_leffler() -> None:
    for alpha in (1.0, 0.6):
        dt = 0.05
        x = torch.ones(60, 1, 1, dtype=torch.float64)
        solution = fs.as_system(quiet(alpha, dt), x).solve(method="trapezoid")
        order = torch.tensor(alpha, dtype=torch.float64)
        want = 2 * (1 - mittag_leffler(-((solution.t / 1.5) ** alpha), order))
        assert torch.allclose(solution.potentials[""][:, 0, 0].detach(), want, atol=5e-3)
        assert torch.allclose(solution.potentials[""][-1, 0, 0].detach(), want[-1], atol=5e-4)


def test_silent_layers_agree_with_the_exact_method_as_steps_shrink() -> None:
    model = nn.Sequential(nn.Linear(2, 3), quiet(0.6, 0.5)).double()
    x = networks.numbers(40, 2, 2, seed=3).double()
    system = fs.as_system(model, x, interpolation="hold")
    want = model[1].simulate(model[0](x)).voltage
    errors = []
    for substeps in (4, 16):
        got = system.solve(method="predictor", substeps=substeps).potentials["1"][substeps::substeps]
        errors.append(float((got - want).detach().abs().max()))
    assert errors[1] < 0.02
    assert errors[1] < 0.5 * errors[0]


def test_readouts_and_layers_without_a_leak() -> None:
    x = networks.numbers(30, 2, 3, seed=2).double()
    readout = fs.FractionalLI(0.7, tau=2.0, dt=0.1)
    read = fs.as_system(readout, x, interpolation="hold").solve(method="predictor", substeps=20)
    want = readout.simulate(x).voltage
    assert torch.allclose(read.potentials[""][20::20], want, atol=1e-2)
    assert torch.equal(read.output, read.potentials[""][:-1])
    free = fs.FractionalIF(0.7, tau=2.0, dt=0.1, threshold=100.0)
    run = fs.as_system(free, x, interpolation="hold").solve(method="predictor")  # exact for held input
    assert torch.allclose(run.potentials[""][1:], free.simulate(x).voltage, atol=1e-9)


def test_a_reset_is_a_current_that_takes_the_height_off_in_a_unit_of_time() -> None:
    one = fs.FractionalLIF(1.0, tau=2.0, threshold=1.0)
    x = torch.full((3, 1, 1), 4.0)
    solution = fs.as_system(one, x).solve(method="gl_explicit")
    # v1 = (4 - 1)/2: spikes at once, for 0 + 4/2 >= 1; then Euler's step with the current 4 - 1
    assert solution.spikes[""][:, 0, 0].tolist() == [1, 1, 1]
    assert solution.potentials[""][:3, 0, 0].tolist() == [0, 1.5, 2.25]
    hard = fs.FractionalLIF(1.0, tau=2.0, threshold=1.0, reset="value", v_reset=-1.0)
    first = fs.as_system(hard, x).solve(method="gl_explicit").potentials[""][1, 0, 0]
    assert first.item() == 2.0 + (-1.0 - 2.0) / 2.0
    at_once = fs.as_system(one, x, lookahead=0.0).solve(method="gl_explicit")
    assert at_once.spikes[""][:2, 0, 0].tolist() == [0, 1]


def test_reset_current_agrees_with_the_layer_that_has_it() -> None:
    """A single layer as a system is the neuron of reset_memory='current', one step earlier in time."""
    neuron = fs.FractionalLIF(0.6, tau=3.0, reset_memory="current", method="gl_explicit", resistance=3.0)
    x = networks.numbers(40, 2, 3, seed=2)
    solution = fs.as_system(neuron, x).solve(method="gl_explicit")
    run = neuron.simulate(x)
    assert run.spikes.sum() > 20
    assert torch.equal(solution.spikes[""], run.spikes)
    assert torch.allclose(solution.potentials[""][1:], run.voltage, atol=1e-5)


def test_flat_and_tuple_states_are_the_same_system() -> None:
    system = fs.as_system(spikede_network(1.0, (0.5, 0.8)), networks.samples())
    flat = networks.numbers(networks.BATCH, networks.HIDDEN + networks.OUTPUTS, seed=6)
    parts = tuple(system.split(flat).values())
    t = torch.tensor(2.5)
    rates = system(t, parts)
    assert isinstance(rates, tuple)
    assert torch.equal(torch.cat(rates, 1), system(t, flat))
    assert torch.equal(system.rhs(t, flat), system(t, flat))
    assert system.y0.shape == flat.shape
    assert system.alpha.shape == (networks.HIDDEN + networks.OUTPUTS,)
    assert fs.as_system(spikede_network(1.0, (0.5, 0.5)), networks.samples()).alpha.dim() == 0


def test_torchdiffeq_and_fdeint_solve_it_from_outside() -> None:
    model = nn.Sequential(networks.linear(2, 3, 7, 2.0), quiet(1.0, 0.1)).double()
    system = fs.as_system(model, networks.numbers(20, 2, 2, seed=3).double(), interpolation="cubic")
    fine = torchdiffeq.odeint(system, system.y0, system.t, rtol=1e-8, atol=1e-8)
    ours = fdeint(system, system.y0, system.t, system.alpha, method="trapezoid")
    assert torch.allclose(fine, ours, atol=1e-2)
    finer = system.solve(method="trapezoid", substeps=8).potentials["1"][::8]
    assert torch.allclose(fine, finer, atol=1e-4)
    tuples = torchdiffeq.odeint(system, tuple(system.split(system.y0).values()), system.t, method="rk4")
    assert torch.allclose(tuples[0], fine, atol=1e-4)


def test_gradients_reach_weights_inputs_and_orders_of_every_layer() -> None:
    x = networks.samples().requires_grad_()
    model = networks.network(
        layer(0.5, learn=("alpha", "tau")), layer(0.8, learn=("alpha", "threshold")), scale=3.0
    )
    fs.as_system(model, x).solve().output.sum().backward()
    for name, parameter in (*model.named_parameters(), ("x", x)):
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_order_gradient_is_that_of_finite_differences() -> None:
    smooth = nn.Sigmoid()
    x = networks.numbers(12, 1, 3, seed=2).double()

    def loss(alpha: float, learn: tuple[str, ...] = ()) -> tuple[Tensor, fs.FractionalLIF]:
        neuron = fs.FractionalLIF(alpha, tau=3.0, surrogate=smooth, learn=learn, detach_reset=False)
        solution = fs.as_system(neuron, x).solve()
        return (solution.output**2).sum(), neuron

    value, neuron = loss(0.6, ("alpha",))
    value.backward()
    raw = neuron.parametrizations["alpha"].original.grad
    analytic = float(raw) / (0.6 * 0.4)  # the derivative of the sigmoid that keeps alpha in range
    numeric = float(loss(0.6 + 1e-5)[0] - loss(0.6 - 1e-5)[0]) / 2e-5
    assert analytic == pytest.approx(numeric, rel=1e-5)


def test_networks_with_skips_convolutions_and_norms() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(fs.TimeDistributed(nn.Conv2d(1, 2, 3, padding=1)), layer(0.7))
            self.second = nn.Sequential(fs.TimeDistributed(nn.BatchNorm2d(2)), layer(0.7))
            self.read = nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            h = h + self.second(h)
            return self.read(h.flatten(2))

    model = Residual()
    system = fs.as_system(model)
    x = 3 * networks.numbers(8, 2, 1, 4, 4, seed=3)
    solution = system.solve(x, memory=Exponentials(1e-5), method="l1_explicit")
    assert solution.output.shape == (8, 2, 3)
    assert list(solution.spikes) == ["first.1", "second.1"]
    assert solution.potentials["second.1"].shape == (9, 2, 2, 4, 4)
    solution.output.sum().backward()
    assert model.first[0].module.weight.grad is not None
    assert "forward" not in vars(model.first[1])  # the layers are as they were


EXPLICIT = ("gl_explicit", "l1_explicit", "predictor", "abm")
MEMORIES = (None, Window(6), Blocked(8), Exponentials(1e-5))


def noisy(generator: torch.Generator | None = None) -> nn.Sequential:
    """A network with all that a second pass would do otherwise: dropout, statistics, a noisy threshold."""
    noise = fs.surrogate.get("noisy_threshold", mode="hard_st", generator=generator)
    return nn.Sequential(
        networks.linear(3, 8, 5, 3.0),
        fs.TimeDistributed(nn.BatchNorm1d(8)),
        nn.Dropout(0.3),
        fs.FractionalLIF(0.6, resistance=3.0, surrogate=noise),
        networks.linear(8, 5, 6, 3.0),
        fs.FractionalLIF(0.6, resistance=4.0, surrogate="atan", learn="tau"),
        networks.linear(5, 2, 7, 1.0),
    )


@pytest.mark.parametrize("gradient", ["adjoint", "autograd"])
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("method", EXPLICIT)
def test_the_returned_spikes_drove_the_solution(method: str, memory: Memory | None, gradient: str) -> None:
    """The rest of the net, driven by the spikes of the noisy layer, has the same potentials to the bit."""
    torch.manual_seed(3)
    model, x = noisy(), 3 * networks.numbers(20, 4, 3, seed=2)
    options = {"method": method, "memory": memory, "gradient": gradient}
    whole = fs.as_system(model, x, interpolation="hold").solve(**options)
    assert 0.05 < float(whole.spikes["3"].detach().mean()) < 0.95
    rest = fs.as_system(model[4:], whole.spikes["3"], interpolation="hold").solve(**options)
    assert torch.equal(rest.potentials["5"], whole.potentials["5"])
    assert torch.equal(rest.spikes["5"], whole.spikes["5"])
    assert torch.equal(rest.output, whole.output)
    assert torch.equal(whole.at, whole.t[:-1])
    assert int(model[1].module.num_batches_tracked) == 20  # once a step


def test_statistics_are_those_of_one_pass_a_step() -> None:
    model, x = noisy().eval(), 3 * networks.numbers(20, 4, 3, seed=2)
    model[1].train()
    fs.as_system(model, x, interpolation="hold").solve()
    mean = torch.zeros(8)
    for sample in model[0](x):
        mean = 0.9 * mean + 0.1 * sample.mean(0)
    assert torch.allclose(model[1].module.running_mean, mean, atol=1e-6)


@pytest.mark.parametrize("method", ["l1", "gl", "trapezoid"])
def test_an_implicit_step_draws_once_and_counts_once(method: str) -> None:
    """Without spikes it converges, and dropout is that of the step; entry k is of its end."""
    torch.manual_seed(3)
    model = nn.Sequential(
        fs.TimeDistributed(nn.BatchNorm1d(3)),
        nn.Dropout(0.5),
        fs.FractionalLI(0.6),
        nn.Linear(3, 2),
        fs.FractionalLI(0.6),
    ).double()
    x = networks.numbers(15, 4, 3, seed=2).double()
    whole = fs.as_system(model, x, interpolation="hold").solve(method=method)
    assert int(model[0].module.num_batches_tracked) == 15
    assert torch.equal(whole.at, whole.t[1:])
    assert torch.equal(whole.spikes["2"], whole.potentials["2"][1:])
    begun = torch.cat([whole.potentials["2"][:1], whole.spikes["2"]])
    rest = fs.as_system(model[3:], begun, interpolation="hold").solve(method=method)
    assert torch.allclose(rest.potentials["4"][:-1], whole.potentials["4"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [*EXPLICIT, "trapezoid"])
def test_gradients_of_a_network_that_draws_are_those_of_finite_differences(method: str) -> None:
    x = networks.numbers(12, 2, 3, seed=2).double()
    weight = networks.numbers(12, 2, 4, seed=4).double()
    model = nn.Sequential(
        nn.Dropout(0.3),
        networks.linear(3, 4, 5, 1.0).double(),
        fs.FractionalLIF(0.6, tau=9.0, surrogate=nn.Sigmoid()),
        networks.linear(4, 4, 6, 1.0).double(),
        fs.FractionalLIF(0.6, tau=9.0, surrogate=nn.Sigmoid()),
    )

    def loss() -> Tensor:
        torch.manual_seed(7)
        solution = fs.as_system(model, x, interpolation="hold").solve(method=method)
        return (solution.output * weight).sum() + (solution.spikes["2"][3] ** 2).sum()

    loss().backward()
    matrix = model[1].weight
    for i, j in ((0, 0), (2, 1)):
        with torch.no_grad():
            ends = []
            for move in (1e-6, -2e-6):
                matrix[i, j] += move
                ends.append(float(loss()))
            matrix[i, j] += 1e-6
        assert float(matrix.grad[i, j]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_a_method_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`method` must be one of .*got 'dopri5'"):
        fs.as_system(layer(1.0), torch.ones(3, 1, 2)).solve(method="dopri5")


def test_reading_passes_the_network_again_and_says_where_that_cannot_be() -> None:
    model, x = noisy(), 3 * networks.numbers(20, 4, 3, seed=2)
    system = fs.as_system(model, x)
    y = fdeint(system, system.y0, system.t, system.alpha, method="gl_explicit")
    counted = int(model[1].module.num_batches_tracked)
    assert counted == 20
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"draws random numbers .* take them from system.solve\(\)"):
        system.read(system.t[:-1], y[:-1])
    assert torch.equal(torch.get_rng_state(), random)
    model[2].eval()
    model[3].eval()
    whole = system.solve()
    counted += 20
    spikes, output = system.read(
        whole.at, torch.cat([v[:-1].flatten(2) for v in whole.potentials.values()], 2)
    )
    assert torch.equal(spikes["3"], whole.spikes["3"])
    assert torch.equal(output, whole.output)
    assert int(model[1].module.num_batches_tracked) == counted
    generator = torch.Generator().manual_seed(1)  # noise of its own is noise as well
    own = fs.as_system(nn.Sequential(*list(noisy(generator))[3:]), torch.rand(5, 4, 8))
    with pytest.raises(ValueError, match=r"draws random numbers"):
        own.read(own.t[:-1], own.y0.expand(5, 4, -1))


def test_a_recording_does_not_see_a_system_and_says_so() -> None:
    model = layer(0.5)
    system = fs.as_system(model, torch.ones(3, 1, 2))
    with fs.record(model), pytest.raises(ValueError, match=r"a `forward` of its own, as within record\(\)"):
        system.solve()
    assert "forward" not in vars(model)
    system.solve()


def test_a_look_at_the_shapes_moves_no_statistics() -> None:
    model = nn.Sequential(fs.TimeDistributed(nn.BatchNorm1d(3)), layer(0.5)).train()
    fs.as_system(model, networks.numbers(5, 4, 3, seed=1))
    assert int(model[0].module.num_batches_tracked) == 0
    assert model.training
    assert model[0].module.training


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_interpolations_pass_through_the_samples(name: str) -> None:
    x = networks.numbers(9, 2, 3, seed=4)
    assert torch.equal(INTERPOLATIONS[name](x, torch.arange(9.0)), x)
    assert torch.equal(INTERPOLATIONS[name](x, torch.tensor([9.0]))[0], x[-1])  # the last one is held


def test_interpolations_meet_the_functions_they_are_exact_for() -> None:
    n = torch.arange(10, dtype=torch.float64)
    s = torch.linspace(1, 8, 29, dtype=torch.float64)
    for name, function in (("linear", lambda t: 2 * t - 1), ("cubic", lambda t: t**2 - 3 * t + 1)):
        got = INTERPOLATIONS[name](function(n).reshape(-1, 1), s)
        assert torch.allclose(got[:, 0], function(s))
    steps = INTERPOLATIONS["hold"](n.reshape(-1, 1), s)[:, 0]
    assert torch.equal(steps, s.floor())
    smooth = INTERPOLATIONS["cubic"](torch.sin(0.5 * n).reshape(-1, 1), s)[:, 0]
    assert torch.allclose(smooth, torch.sin(0.5 * s), atol=5e-3)


def test_rounded_times_find_their_sample() -> None:
    t = torch.arange(5000, dtype=torch.float32) * 0.1
    assert torch.equal(on_grid(t, 0.1), torch.arange(5000, dtype=torch.float64))


def test_what_no_system_can_have_is_refused() -> None:
    x = torch.ones(3, 1, 2)
    with pytest.raises(ValueError, match="at least one fractional layer"):
        fs.as_system(nn.Linear(2, 2), x)
    with pytest.raises(TypeError, match="must be a module, got list"):
        fs.as_system([], x)
    with pytest.raises(ValueError, match="no refractory periods, got 2 in `1`"):
        fs.as_system(nn.Sequential(nn.Linear(2, 2), layer(0.5, refractory=2.0)), x)
    with pytest.raises(
        TypeError, match="takes layers of FractionalLIF, FractionalIF, FractionalLI, got FractionalALIF"
    ):
        fs.as_system(fs.FractionalALIF(0.5), x)
    with pytest.raises(ValueError, match="must have one dt"):
        fs.as_system(nn.Sequential(layer(0.5), layer(0.5, dt=0.1)), x)
    with pytest.raises(ValueError, match="`interpolation` must be one of 'cubic', 'hold', 'linear'"):
        fs.as_system(layer(0.5), x, interpolation="akima")
    with pytest.raises(ValueError, match="has no input yet"):
        _ = fs.as_system(layer(0.5)).y0
    shared = layer(0.5)
    with pytest.raises(ValueError, match="is used twice in a pass"):
        fs.as_system(nn.Sequential(shared, nn.Linear(2, 2), shared), x)
    with pytest.raises(ValueError, match="must be finite"):
        fs.as_system(layer(0.5), x * float("nan"))
