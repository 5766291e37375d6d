"""Conversion: at alpha = 1 the spikes of the library the model came from, and its gradients."""

from __future__ import annotations

import importlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn

import fracspike as fs
from fracspike.layers import ReturnsPotential
from fracspike.solvers import mittag_leffler

PATHS = {"snntorch": "snntorch", "spikingjelly": "spikingjelly.activation_based.neuron"}


def stand_in(library: str, name: str, arguments: dict[str, Any], **more: Any) -> nn.Module:
    """A module that looks like the library's layer to whoever reads its attributes."""
    layer = type(name, (nn.Module,), {"__module__": f"{library}.layers"})()
    if library == "snntorch":
        made = {
            "threshold": 1.0,
            "reset_mechanism": "subtract",
            "reset_delay": True,
            "spike_grad": fs.surrogate.get("snntorch.atan"),
            "init_hidden": True,
            "output": False,
            "inhibition": False,
            "state_quant": False,
            "graded_spikes_factor": 1.0,
            "time_step": 1.0,
        }
        if name == "Lapicque":  # read from its source: beta follows from R and C
            made["beta"] = math.exp(-1.0 / (arguments["R"] * arguments["C"]))
    else:
        made = {
            "tau": 2.0,
            "decay_input": True,
            "v_threshold": 1.0,
            "v_reset": 0.0,
            "surrogate_function": fs.surrogate.get("spikingjelly.Sigmoid"),
            "detach_reset": False,
            "step_mode": "s",
        }
        if name == "ParametricLIFNode":
            made["w"] = nn.Parameter(torch.tensor(-math.log(arguments["init_tau"] - 1)))
    tensors = ("beta", "alpha", "threshold", "R", "C")
    for key, value in (made | arguments | more).items():
        is_number = key in tensors and not isinstance(value, Tensor)
        setattr(layer, key, torch.tensor(value) if is_number else value)
    return layer


def case(name: str, **more: Any) -> nn.Sequential:
    library, layer, arguments, scale = networks.CASES[name]
    first, second = (stand_in(library, layer, arguments, **more) for _ in range(2))
    return networks.network(first, second, scale)


@pytest.fixture(scope="module")
def published() -> dict[str, str]:
    path = Path(__file__).parent / "reference" / "networks.json"
    return json.loads(path.read_text())["spikes"]


@pytest.mark.parametrize("name", networks.CASES)
def test_spikes_at_order_one_are_the_librarys(name: str, published: dict[str, str]) -> None:
    want = networks.unpack(published[name])
    assert 0.03 < want.mean() < 0.9  # a silent network would agree with anything
    got = fs.convert(case(name), alpha=1.0)(networks.samples())
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", networks.CASES)
def test_other_orders_keep_what_one_step_does(name: str) -> None:
    """A single pulse from rest moves the potential as far at any order."""
    model = case(name)
    one, other = (fs.convert(model, alpha=a, reset="none") for a in (1.0, 0.6))
    pulse = torch.zeros(1, 1, networks.HIDDEN).fill_(0.5)
    first = [net[1].simulate(pulse).voltage for net in (one, other)]
    assert torch.allclose(*first, atol=1e-6)
    assert not torch.equal(one(networks.samples()), other(networks.samples()))


def test_a_late_soft_reset_takes_the_threshold_off_one_step_later() -> None:
    for alpha in (1.0, 0.6):
        neuron = fs.convert(case("snntorch subtract"), alpha=alpha)[1]
        quiet = neuron.simulate(torch.tensor([0.9, 0.0]).reshape(2, 1, 1)).voltage
        spiking = neuron.simulate(torch.tensor([1.9, 0.0]).reshape(2, 1, 1))
        assert spiking.spikes[0].item() == 1
        left = float(mittag_leffler(-((1 / neuron.tau) ** alpha), torch.tensor(alpha, dtype=torch.float64)))
        without = quiet[1].item() / 0.9 * 1.9  # both are linear in the pulse
        assert spiking.voltage[1].item() == pytest.approx(without - 1.0, abs=1e-5)
        assert float(neuron.reset_scale) == pytest.approx(1 / left)


def live(name: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The library's own layers on the test network, and a copy with single steps taken by us."""
    library, layer, arguments, scale = networks.CASES[name]
    pytest.importorskip(library)
    kind = getattr(importlib.import_module(PATHS[library]), layer)
    extra = {"init_hidden": True} if library == "snntorch" else {}
    return networks.network(kind(**arguments, **extra), kind(**arguments, **extra), scale)


@pytest.mark.filterwarnings("ignore")  # what the libraries warn of is not ours
@pytest.mark.parametrize("name", networks.CASES)
def test_gradients_at_order_one_are_the_librarys(name: str) -> None:
    model = live(name)
    converted = fs.convert(model, alpha=1.0)
    weight = networks.numbers(networks.STEPS, networks.BATCH, networks.OUTPUTS, seed=9)
    theirs = torch.stack([model(x) for x in networks.samples()])
    ours = converted(networks.samples())
    assert torch.equal(ours, theirs)
    (theirs * weight).sum().backward()
    (ours * weight).sum().backward()
    for ours_, theirs_ in ((converted[0], model[0]), (converted[2], model[2])):
        assert torch.allclose(ours_.weight.grad, theirs_.weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", ["atan", "fast_sigmoid", "sigmoid", "triangular", "SFS"])
def test_snntorch_surrogates_are_ours_or_pass_through(function: str) -> None:
    snn = pytest.importorskip("snntorch")
    made = getattr(importlib.import_module("snntorch.surrogate"), function)()
    neuron = fs.convert(snn.Leaky(beta=0.9, init_hidden=True, spike_grad=made), alpha=0.5)
    known = isinstance(neuron.surrogate, fs.surrogate.Surrogate)
    assert known == (function != "triangular")
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    (theirs,) = torch.autograd.grad(made(x).sum(), x)
    (ours,) = torch.autograd.grad(neuron.surrogate(x).sum(), x)
    assert torch.allclose(ours, theirs, rtol=1e-4)


def test_weights_are_copied_and_the_model_is_left_alone() -> None:
    model = case("snntorch subtract")
    converted = fs.convert(model, alpha=0.7)
    assert type(model[1]).__name__ == "Leaky"
    assert torch.equal(converted[0].weight, model[0].weight)
    with torch.no_grad():
        converted[0].weight.zero_()
    assert bool((model[0].weight != 0).any())
    tied = nn.Sequential(model[0], model[1], model[2], model[3])
    tied.again = model[2]
    new = fs.convert(tied)
    assert new.again is new[2]  # sharing survives


def test_modes_and_devices_follow_the_model() -> None:
    model = case("spikingjelly lif").eval()
    converted = fs.convert(model)
    assert not any(part.training for part in converted.modules())


def test_what_is_learnt_there_is_learnt_here() -> None:
    beta, threshold = nn.Parameter(torch.tensor(0.9)), nn.Parameter(torch.tensor(1.0))
    layer = stand_in("snntorch", "Leaky", {}, beta=beta, threshold=threshold)
    neuron = fs.convert(layer, alpha=0.7)
    assert {name.split(".")[1] for name, _ in neuron.named_parameters()} == {"tau", "threshold"}
    assert fs.convert(layer, alpha=0.7, learn=("alpha",)).tau.requires_grad is False
    plif = fs.convert(stand_in("spikingjelly", "ParametricLIFNode", {"init_tau": 3.0}))
    assert [name for name, _ in plif.named_parameters()] == ["parametrizations.tau.original"]


def test_per_neuron_decay_and_order_by_name() -> None:
    beta = torch.linspace(0.5, 0.95, networks.HIDDEN)
    model = nn.Sequential(
        networks.linear(networks.INPUTS, networks.HIDDEN, 2, 1.0),
        stand_in("snntorch", "Leaky", {"beta": beta}),
    )
    converted = fs.convert(model, alpha={"1": 0.4})
    assert torch.allclose(torch.exp(-1 / converted[1].tau).float(), beta)
    assert float(converted[1].alpha) == pytest.approx(0.4)
    assert converted(networks.samples()).shape == (networks.STEPS, networks.BATCH, networks.HIDDEN)
    with pytest.raises(ValueError, match=r"must name every layer to replace, \['1'\]; got \['lif'\]"):
        fs.convert(model, alpha={"lif": 0.4})


def test_layers_that_need_the_batch_in_front_are_wrapped() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        stand_in("spikingjelly", "IFNode", {}),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36, 5),
        stand_in("spikingjelly", "LIFNode", {}),
    ).eval()
    converted = fs.convert(model, alpha=0.5)
    wrapped = [isinstance(part, fs.TimeDistributed) for part in converted]
    assert wrapped == [True, True, False, True, False, True, False, False]
    x = networks.numbers(6, 2, 1, 8, 8, seed=3)
    assert converted(x).shape == (6, 2, 5)
    plain = fs.convert(model, alpha=0.5, time_distributed=False)
    assert not any(isinstance(part, fs.TimeDistributed) for part in plain)


def test_models_of_sequences_are_not_wrapped() -> None:
    layers = [stand_in("spikingjelly", "LIFNode", {}, step_mode=mode) for mode in ("m", "s")]
    many = nn.Sequential(nn.Flatten(2), nn.Linear(4, 3), layers[0])
    assert fs.convert(many)(torch.ones(5, 2, 2, 2)).shape == (5, 2, 3)
    with pytest.raises(ValueError, match="single steps or sequences throughout"):
        fs.convert(nn.Sequential(*layers))


def test_blocks_with_a_forward_of_their_own() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(4, 4)
            self.spike = stand_in("spikingjelly", "LIFNode", {})

        def forward(self, x: Tensor) -> Tensor:
            return x + self.spike(self.map(x))

    converted = fs.convert(nn.Sequential(Block(), Block()), alpha=0.6)
    assert converted(torch.ones(7, 2, 4)).shape == (7, 2, 4)
    assert isinstance(converted[1].spike, fs.FractionalLIF)


def test_layers_that_return_their_potential_still_do() -> None:
    library, name, arguments, _ = networks.CASES["snntorch subtract"]
    converted = fs.convert(stand_in(library, name, arguments, init_hidden=False), alpha=1.0)
    assert isinstance(converted, ReturnsPotential)
    current = 0.4 * networks.numbers(30, 2, 5, seed=5)
    mem, want_spikes, want_mem = torch.zeros(2, 5), [], []
    for x in current:  # snnTorch's equation
        mem = 0.9 * mem + x - (mem > 1).float()
        want_mem.append(mem)
        want_spikes.append((mem > 1).float())
    spikes, potential = converted(current, converted.init_leaky())
    assert spikes.sum() > 5
    assert torch.equal(spikes, torch.stack(want_spikes))
    assert torch.allclose(potential, torch.stack(want_mem), atol=1e-5)
    _, later = converted(current, torch.full((2, 5), 0.5))
    assert torch.allclose(later[0], 0.45 + current[0], atol=1e-6)
    synaptic = fs.convert(stand_in("snntorch", "Synaptic", {"alpha": 0.6, "beta": 0.9}, init_hidden=False))
    assert len(synaptic(current, *synaptic.init_synaptic())) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"linear_features": 5}, {"all_to_all": False, "V": -0.6}])
def test_recurrent_layers_of_snntorch(options: dict[str, Any]) -> None:
    snn = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    layer = snn.RLeaky(beta=0.9, init_hidden=True, **options)
    current = 0.5 * networks.numbers(40, 3, 5, seed=5)
    with torch.no_grad():
        want = torch.stack([layer(x) for x in current])
    assert 0.05 < want.mean() < 0.9
    assert torch.equal(fs.convert(layer, alpha=1.0)(current), want)


def test_recurrence_comes_back_undecayed_one_step_later() -> None:
    layer = stand_in("snntorch", "RLeaky", {"beta": 0.9}, recurrent=nn.Linear(1, 1))
    with torch.no_grad():
        layer.recurrent.weight.fill_(-0.7)
        layer.recurrent.bias.zero_()
    current = 0.8 * networks.numbers(40, 3, 1, seed=5)
    mem, spikes, want = torch.zeros(3, 1), torch.zeros(3, 1), []
    for x in current:  # snnTorch's equation
        mem = 0.9 * mem + x - 0.7 * spikes - (mem > 1).float()
        spikes = (mem > 1).float()
        want.append(spikes)
    got = fs.convert(layer, alpha=1.0)(current)
    assert got.sum() > 10
    assert torch.equal(got, torch.stack(want))


def test_plain_activations_when_asked() -> None:
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh())
    both = fs.convert(plain, activations=True, alpha=0.6, tau=5.0, threshold=0.5)
    assert [type(part).__name__ for part in both] == ["Linear", "FractionalLIF"] * 2
    assert float(both[1].tau) == 5.0
    one = fs.convert(plain, activations=(nn.ReLU,))
    assert isinstance(one[3], nn.Tanh)
    with pytest.raises(ValueError, match="activations=True"):
        fs.convert(plain)
    with pytest.raises(TypeError, match=r"classes such as nn\.ReLU"):
        fs.convert(plain, activations=("relu",))


def test_single_steps_given_to_a_converted_network_say_so() -> None:
    converted = fs.convert(case("snntorch subtract"))
    with pytest.raises(ValueError, match=r"whole sequences \(T, B, \*\), got \(3, 8\)"):
        converted(networks.samples()[0])


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (stand_in("snntorch", "Leaky", {"beta": 0.0}), ValueError, "forgets all within a step"),
        (stand_in("spikingjelly", "LIFNode", {"tau": 1.0}), ValueError, "forgets all within a step"),
        (stand_in("snntorch", "Leaky", {"beta": 0.9}, inhibition=True), ValueError, "inhibition"),
        (
            stand_in("snntorch", "Leaky", {"beta": 0.9}, graded_spikes_factor=2.0),
            ValueError,
            "next layer's weights",
        ),
        (
            stand_in("snntorch", "Synaptic", {"alpha": 0.5, "beta": 0.9}, reset_mechanism="zero"),
            ValueError,
            "drops the input",
        ),
        (
            type("Alpha", (nn.Module,), {"__module__": "snntorch._neurons.alpha"})(),
            TypeError,
            "no counterpart here; known are snntorch.Leaky",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(layer: nn.Module, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fs.convert(nn.Sequential(layer))


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            stand_in("snntorch", "Leaky", {"beta": 0.9}, graded_spikes_factor=nn.Parameter(torch.ones(()))),
            "`0` has learn_graded_spikes_factor=True.*set it to False",
        ),
        (stand_in("spikingjelly", "LIFNode", {}, store_v_seq=True), "`0` has store_v_seq=True.*simulate"),
        (
            stand_in("spikingjelly", "IFNode", {}, surrogate_function=type("S", (), {"spiking": False})()),
            "`0` has a surrogate_function with spiking=False.*set spiking=True",
        ),
        (
            stand_in("spikingjelly", "SimpleLIFNode", {}, v_reset=-0.5),
            "`0` is a SimpleLIFNode with v_reset=-0.5, which starts at 0.*use LIFNode",
        ),
        (hooked(stand_in("snntorch", "Leaky", {"beta": 0.9})), "`0`, a Leaky, has forward hooks.*remove"),
        (hooked(nn.ReLU()), "`0`, a ReLU, has forward hooks"),
    ],
)
def test_what_would_be_lost_is_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.convert(nn.Sequential(layer), activations=True)


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="must be a module, got str"):
        fs.convert("net")
    with pytest.raises(ValueError, match="for integer order pass alpha=1"):
        fs.convert(case("snntorch subtract"), alpha=1.5)


def test_converted_networks_train_and_save() -> None:
    converted = fs.convert(case("snntorch subtract"), alpha=0.7, learn=("alpha", "tau"))
    converted(networks.samples()).sum().backward()
    for name, parameter in converted.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name
    again = pickle.loads(pickle.dumps(converted))
    assert torch.equal(again(networks.samples()), converted(networks.samples()))
