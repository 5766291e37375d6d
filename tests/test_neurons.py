"""What every neuron must do, whatever its equation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from neuron_cases import CASES, LEARNABLE, LINEAR, SPIKING, N, build, current

import fracspike as fs
from fracspike.neurons import NEURONS, State
from fracspike.solvers import Blocked, Exponentials, Memory, Window

F64 = torch.float64
ALL = list(CASES)


def test_every_neuron_is_tested_exported_and_documented() -> None:
    assert set(NEURONS) == set(CASES) == set(LEARNABLE)
    for neuron in NEURONS.values():
        assert getattr(fs, neuron.__name__) is neuron
        assert neuron.__name__ in fs.__all__
        assert ".. math::" in (neuron.__doc__ or "") or "equation of" in (neuron.__doc__ or "")
        assert ">>>" in (neuron.__doc__ or "")


@pytest.mark.parametrize("name", ALL)
def test_spikes_have_shape_and_dtype_of_the_current(name: str) -> None:
    layer = build(name).float() if name.startswith("recurrent") else build(name)
    drive = current(name, 60).float()
    run = layer.simulate(drive)
    for tensor in (layer(drive), run.spikes, run.voltage, run.pre_reset, *run.variables.values()):
        assert tensor.shape == drive.shape
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert set(run.spikes.unique().tolist()) == ({0.0, 1.0} if name in SPIKING else {0.0})
    assert torch.equal(layer(drive), run.spikes if name in SPIKING else run.voltage)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("graph", [True, False])
def test_chunks_equal_the_whole(name: str, graph: bool) -> None:
    layer, drive = build(name), current(name, 60)
    with torch.set_grad_enabled(graph):
        whole, state, parts = layer.simulate(drive), None, []
        for chunk in drive.split([1, 9, 25, 25]):
            parts.append(layer.simulate(chunk, state))
            state = parts[-1].state
    assert torch.equal(whole.spikes, torch.cat([p.spikes for p in parts]))
    scale = whole.voltage.abs().max().item()
    torch.testing.assert_close(
        whole.voltage, torch.cat([p.voltage for p in parts]), rtol=1e-9, atol=1e-11 * scale
    )
    for key, value in whole.variables.items():
        torch.testing.assert_close(value, torch.cat([p.variables[key] for p in parts]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", ["jump", "overwrite", "current", "restart"])
@pytest.mark.parametrize("name", [n for n in LINEAR if n != "li"])
def test_chunks_equal_the_whole_for_every_reset_memory(name: str, memory: str) -> None:
    layer, drive = build(name, reset_memory=memory, reset="value", refractory=1.0), current(name, 50)
    whole = layer.simulate(drive)
    first = layer.simulate(drive[:20])
    second = layer.simulate(drive[20:], first.state)
    assert whole.spikes.sum() > 5
    assert torch.equal(whole.spikes, torch.cat([first.spikes, second.spikes]))
    torch.testing.assert_close(whole.voltage[20:], second.voltage, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_a_detached_state_cuts_the_graph(name: str) -> None:
    layer = build(name)
    state = layer.simulate(current(name, 8).requires_grad_()).state
    more = current(name, 4, seed=1)
    assert layer.simulate(more, state).voltage.requires_grad
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer.simulate(more, state.detach()).voltage.requires_grad


@pytest.mark.parametrize("name", ALL)
def test_no_state_is_held_between_calls(name: str) -> None:
    layer, drive = build(name), current(name, 30)
    assert torch.equal(layer.simulate(drive).voltage, layer.simulate(drive).voltage)


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith("recurrent")])
def test_orders_per_neuron_equal_each_alone(name: str) -> None:
    orders, drive = torch.tensor([0.5, 0.8, 1.0], dtype=F64), current(name, 40)
    together = build(name, alpha=orders).simulate(drive)
    for i in range(N):
        alone = build(name, alpha=float(orders[i])).simulate(drive[..., i])
        assert torch.equal(together.spikes[..., i], alone.spikes)
        torch.testing.assert_close(together.voltage[..., i], alone.voltage, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", [Blocked(16), Exponentials(1e-6), Window(100)], ids=repr)
@pytest.mark.parametrize("name", ALL)
def test_every_memory_gives_the_spikes_of_full(name: str, memory: Memory) -> None:
    drive = current(name, 100)
    full, other = build(name).simulate(drive), build(name, memory=memory).simulate(drive)
    assert torch.equal(full.spikes, other.spikes)
    scale = full.voltage.abs().max().item()
    torch.testing.assert_close(full.voltage, other.voltage, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ALL)
def test_learnable_parameters_survive_a_step_deepcopy_and_state_dict(name: str) -> None:
    layer, drive = build(name, learn=LEARNABLE[name], size=(N,)), current(name, 20)
    before = {key: getattr(layer, key).detach().clone() for key in LEARNABLE[name] if hasattr(layer, key)}
    assert all(value.shape == (N,) for value in before.values())
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    run = layer.simulate(drive)
    (run.spikes.sum() + run.voltage.pow(2).mean()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    optimizer.step()
    assert any(not torch.equal(getattr(layer, key), value) for key, value in before.items())
    other = build(name, learn=LEARNABLE[name], size=(N,), alpha=0.4)
    other.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), other):
        assert torch.equal(twin(drive), layer(drive))


@pytest.mark.parametrize("name", ALL)
def test_repr_says_what_it_is(name: str) -> None:
    text = repr(build(name))
    assert text.startswith(NEURONS[name].__name__)
    assert "alpha=0.7" in text
    assert "dt=" in text


@pytest.mark.parametrize("name", ALL)
def test_wrong_arguments_are_named(name: str) -> None:
    layer = build(name)
    bad = current(name, 3)
    bad[1, 0, 2] = math.nan
    with pytest.raises(ValueError, match=r"`current` must be finite, got nan at index \(1, 0, 2\)"):
        layer(bad)
    with pytest.raises(TypeError, match=r"`current` must be a floating-point tensor, got torch.int64"):
        layer(torch.ones(4, 2, N, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`current` must have shape \(T, B, \*\) with T >= 1"):
        layer(torch.ones(0, 2, N, dtype=F64))
    with pytest.raises(TypeError, match="`state` must be a State"):
        layer(current(name, 3), state=torch.zeros(2, N))
    state = layer.simulate(current(name, 3)).state
    with pytest.raises(ValueError, match=r"`state` must match the current, \(4, 3\)"):
        layer(current(name, 3, 4, N), state)
    other = build("izhikevich" if name != "izhikevich" else "adex")
    with pytest.raises(ValueError, match="`state` must come from a"):
        other(current(name, 3), state)
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(0, 1\], got 1.3; for integer order"):
        build(name, alpha=1.3)
    with pytest.raises(ValueError, match="`learn` must be one of"):
        build(name, learn=("nosuch",))
    with pytest.raises(ValueError, match=r"start at 0\.99"):
        build(name, alpha=1.0, learn=("alpha",))
    with pytest.raises(ValueError, match="`dt` must be > 0"):
        build(name, dt=0.0)
    with pytest.raises(TypeError, match="`memory` must be a Memory"):
        build(name, memory="full")


def test_a_state_of_another_linear_neuron_is_named() -> None:
    state = build("lif").simulate(current("lif", 3)).state
    assert isinstance(state, State)
    with pytest.raises(
        ValueError, match="`state` must come from a neuron of model FractionalALIF, got one of FractionalLIF"
    ):
        build("alif")(current("alif", 3), state)


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [
        ("alif", {"beta": math.inf}, ValueError, "`beta` must be finite"),
        ("alif", {"tau_adaptation": 0.0}, ValueError, "`tau_adaptation` must be > 0, got 0"),
        (
            "alif",
            {"beta": torch.ones(2), "size": (N,)},
            ValueError,
            r"`beta` must be a number or have shape \(3,\)",
        ),
        ("cuba_lif", {"alpha_syn": 2.0}, ValueError, r"`alpha_syn` must lie in \(0, 1\], got 2"),
        ("recurrent_lif", {"size": None}, ValueError, r"`size` must be given .*pass size=\(N,\)"),
        ("recurrent_lif", {"recurrent": "all"}, ValueError, "`recurrent` must be one of 'all_to_all'"),
        ("recurrent_lif", {"recurrent": 5}, TypeError, "`recurrent` must be a name or a module, got int"),
        ("izhikevich", {"e": 1.0}, TypeError, r"unknown argument 'e'; its constants are a, b, c, d, peak"),
        ("izhikevich", {"a": -1.0}, ValueError, "`a` must be > 0, got -1"),
        ("izhikevich", {"alpha": {"v": 0.5}}, ValueError, "`alpha` must name one order for each of v, u"),
        ("izhikevich", {"method": "l1"}, ValueError, "`method` must be one of 'gl_explicit', 'l1_explicit'"),
        ("izhikevich", {"reset_memory": "current"}, ValueError, "`reset_memory` must be one of"),
        ("izhikevich", {"gradient": "none"}, ValueError, "`gradient` must be one of 'adjoint', 'autograd'"),
        ("lif", {"alpha": [0.5, 0.9]}, ValueError, "`coefficients` must be one for each order, got 0 for 2"),
        ("lif", {"coefficients": [1.0]}, ValueError, "`coefficients` must go with a list of orders"),
        ("lif", {"alpha": [0.5, 0.9], "coefficients": [1.0, -1.0]}, ValueError, "`coefficients` must be > 0"),
        (
            "lif",
            {"alpha": [0.5, 0.9], "coefficients": [1.0, 1.0], "method": "exact"},
            ValueError,
            "`method` must be a difference scheme with several orders, got 'exact': pass method='l1'",
        ),
        ("lif", {"learn": ("coefficients",)}, ValueError, "`learn` must not name `coefficients`"),
    ],
)
def test_bad_parameters_are_named(name: str, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(name, **kwargs)


def test_the_report_on_a_neuron_without_a_leak_does_not_contradict_itself() -> None:
    report = str(fs.FractionalIF(memory=fs.solvers.Exponentials()).backend_report(torch.ones(5, 1)))
    assert report == "torch: FractionalIF has no leak, and only leaky neurons are compiled"
