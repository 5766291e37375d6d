"""What users expect of a layer: shapes, precision, saving, copying, compiling; and layers on sequences."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

import fracspike as fs
from fracspike.neurons import NEURONS, State


def current(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    extra = {"size": (4,)} if "recurrent" in name else {}
    return NEURONS[name](**extra, **options)


# ------------------------------------------------------------------ layers on sequences


def test_time_distributed_is_the_layer_at_each_step() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.rand(5, 4, 2, 6, 6)
    each = torch.stack([conv(step) for step in x])
    assert torch.allclose(fs.TimeDistributed(conv)(x), each, atol=1e-6)
    several = fs.TimeDistributed(conv, nn.AvgPool2d(2), nn.Flatten())
    assert torch.allclose(several(x), torch.stack([several.module(s) for s in x]), atol=1e-6)


def test_time_distributed_norm_takes_its_statistics_over_time_as_well() -> None:
    x = torch.randn(6, 4, 3) * 5 + 2
    y = fs.TimeDistributed(nn.BatchNorm1d(3))(x)
    assert torch.allclose(y.mean((0, 1)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(y.var((0, 1), unbiased=False), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize(
    "module", [nn.LSTM(3, 3), nn.GRUCell(3, 3), fs.FractionalLIF(), nn.Sequential(fs.FractionalIzhikevich())]
)
def test_time_distributed_refuses_what_has_a_state(module: nn.Module) -> None:
    with pytest.raises(TypeError, match="which has a state in time"):
        fs.TimeDistributed(nn.Linear(3, 3), module)


def test_time_distributed_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="at least one module"):
        fs.TimeDistributed()
    with pytest.raises(TypeError, match="wrap a function in a module"):
        fs.TimeDistributed(torch.relu)
    with pytest.raises(ValueError, match=r"5 dimensions, got \(4, 2, 6, 6\); a single step is"):
        fs.TimeDistributed(nn.Conv2d(2, 3, 3))(torch.rand(4, 2, 6, 6))
    with pytest.raises(ValueError, match=r"must have shape \(T, B, \*\), got \(4,\)"):
        fs.TimeDistributed(nn.Identity())(torch.rand(4))
    with pytest.raises(ValueError, match="must keep the batch of 2 x 3 = 6 entries"):
        fs.TimeDistributed(nn.Flatten(0))(torch.rand(2, 3, 5))


def test_whole_networks_dense_and_convolutional_train() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        fs.TimeDistributed(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
        fs.FractionalLIF(0.7, resistance=3.0, learn=("alpha", "tau"), size=(4, 1, 1)),
        fs.TimeDistributed(nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(36, 5),
        fs.FractionalLIF(0.6, resistance=3.0),
    )
    net(current(8, 2, 1, 8, 8)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    alpha = net[1].parametrizations["alpha"].original
    assert alpha.grad.shape == (4, 1, 1)
    assert bool((alpha.grad != 0).any())


# ------------------------------------------------------------------ shapes and sizes


@pytest.mark.parametrize("shape", [(), (4,), (2, 4), (3, 2, 4), (2, 3, 2, 4)])
def test_any_trailing_shape_is_as_many_neurons_side_by_side(shape: tuple[int, ...]) -> None:
    x = current(9, 3, *shape)
    lif = fs.FractionalLIF(0.6)
    alone = lif(x.reshape(9, -1))
    assert torch.equal(lif(x), alone.reshape(x.shape))


def test_sizes_that_broadcast_are_one_set_for_each_channel() -> None:
    alpha = torch.tensor([0.4, 0.8]).reshape(2, 1, 1)
    lif = fs.FractionalLIF(alpha, resistance=3.0)
    x = current(10, 3, 2, 3, 3)
    each = [fs.FractionalLIF(a, resistance=3.0)(x[:, :, i]) for i, a in enumerate((0.4, 0.8))]
    # 0.4 and 0.8 were given in single precision, which the layer keeps
    assert (lif(x) != torch.stack(each, 2)).float().mean() < 0.01
    with pytest.raises(ValueError, match=r"end in the neurons' shape \(2, 1, 1\), got \(10, 3, 5, 3, 3\)"):
        lif(current(10, 3, 5, 3, 3))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("lif", {}),
        ("if", {}),
        ("li", {}),
        ("alif", {"beta": 0.3, "tau_adaptation": 9.0}),
        ("cuba_lif", {"alpha_syn": 0.8, "tau_syn": 3.0}),
    ],
)
def test_a_lazy_size_is_that_of_the_first_input(name: str, own: dict[str, float]) -> None:
    learn = ("alpha", "tau", "resistance", *own)
    layer, given = (
        NEURONS[name](alpha=0.7, tau=3.0, learn=learn, size=size, **own) for size in ("lazy", (4,))
    )
    assert "alpha=lazy" in repr(layer)
    parameters = list(layer.parameters())
    x = current(8, 2, 4)
    assert torch.equal(layer(x), given(x))
    assert layer.size == (4,)
    assert [p.shape for p in layer.parameters()] == [(4,)] * len(learn)
    assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))  # an optimizer's hold
    layer(x).sum().backward()
    with pytest.raises(ValueError, match=r"neurons' shape \(4,\)"):
        layer(current(8, 2, 5))


def test_a_lazy_layer_takes_its_size_from_a_saved_one() -> None:
    saved = nn.Sequential(
        nn.Linear(3, 4), fs.FractionalLIF(0.4, reset="value", learn=("alpha", "v_reset"), size=(4,))
    )
    lazy = nn.Sequential(
        nn.LazyLinear(4), fs.FractionalLIF(0.7, reset="value", learn=("alpha", "v_reset"), size="lazy")
    )
    lazy.load_state_dict(saved.state_dict())
    x = current(8, 2, 3)
    assert torch.equal(lazy(x), saved(x))
    with pytest.raises(ValueError, match="`alpha` must be a number if `size` is 'lazy', got shape"):
        fs.FractionalLIF(alpha=torch.tensor([0.5, 0.6]), learn="alpha", size="lazy")
    with pytest.raises(ValueError, match="`size` must be given for recurrent='all_to_all'"):
        fs.RecurrentFractionalLIF(size="lazy")
    again = copy.deepcopy(nn.Sequential(fs.FractionalLIF(learn="tau", size="lazy")))
    assert again(x).shape == x.shape


# ------------------------------------------------------------------ saving and copying


@pytest.mark.parametrize("name", NEURONS)
def test_state_dicts_load_across_batch_sizes(name: str) -> None:
    layer, other = made(name, alpha=0.5, learn=("alpha",)), made(name, alpha=0.9, learn=("alpha",))
    layer(current(6, 2, 4))
    other(current(6, 7, 4))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = current(6, 3, 4)
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("learn", [(), ("alpha",)])
def test_copies_and_pickles_are_the_same_and_apart(name: str, learn: tuple[str, ...]) -> None:
    layer = made(name, alpha=0.6, learn=learn)
    x = current(10, 2, 4)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        assert torch.equal(twin(x), layer(x))
        assert twin.state_dict().keys() == layer.state_dict().keys()
        if learn:
            with torch.no_grad():
                next(p for n, p in twin.named_parameters() if "alpha" in n).add_(1.0)
            assert not torch.equal(twin.alpha, layer.alpha)
            assert twin.alpha.requires_grad


def test_whole_networks_are_saved_and_loaded(tmp_path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), fs.FractionalLIF(0.6, learn=("alpha", "tau", "threshold")))
    torch.save(net, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    x = current(7, 2, 3)
    assert torch.equal(again(x), net(x))
    again(x).sum().backward()
    assert again[1].parametrizations["tau"].original.grad is not None


# ------------------------------------------------------------------ precision


@pytest.mark.parametrize("name", NEURONS)
def test_half_precision_is_computed_in_single(name: str) -> None:
    layer = made(name)
    x = current(40, 2, 4).bfloat16()
    run, exact = layer.simulate(x), layer.simulate(x.float())
    assert run.spikes.dtype == run.voltage.dtype == run.pre_reset.dtype == torch.bfloat16
    assert torch.equal(run.spikes.float(), exact.spikes)
    assert torch.equal(run.voltage, exact.voltage.bfloat16())
    assert layer(x).dtype == torch.bfloat16
    if name != "izhikevich":
        first = layer.simulate(x[:25])
        assert first.state.v.dtype == torch.float32
        second = layer.simulate(x[25:], state=first.state)
        assert torch.equal(torch.cat([first.spikes, second.spikes]), run.spikes)


def test_states_for_half_precision_input_can_be_made() -> None:
    layer = fs.FractionalLIF(0.6)
    x = current(5, 2, 3).half()
    state = layer.initial_state(x[0], v=0.5)
    assert isinstance(state, State)
    assert layer(x, state).dtype == torch.float16


def test_autocast_leaves_the_memory_in_single_precision() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), fs.FractionalLIF(0.6, resistance=3.0, learn=("alpha",)))
    x = current(60, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
        hidden = net[0](x)
    assert hidden.dtype == out.dtype == torch.bfloat16
    assert torch.equal(out.float(), net[1](hidden.float()))
    out.float().sum().backward()
    assert bool((net[0].weight.grad != 0).any())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = net[1](hidden.float().detach())
    assert torch.equal(same, net[1](hidden.float()))


@pytest.mark.parametrize("move", ["half", "bfloat16", "float", "double"])
def test_parameters_stay_in_double_precision(move: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), fs.FractionalLIF(0.7, learn=("tau",), size=(4,)))
    getattr(net, move)()
    assert net[1].alpha.dtype == net[1].tau.dtype == torch.float64
    assert float(net[1].alpha) == 0.7
    assert net[0].weight.dtype == {"half": torch.float16, "bfloat16": torch.bfloat16}.get(
        move, torch.float32 if move == "float" else torch.float64
    )
    out = net(current(6, 2, 3).to(net[0].weight.dtype))
    assert out.dtype == net[0].weight.dtype
    out.sum().backward()
    net.to(torch.float32)  # with a gradient there, which moves as well
    assert net[1].parametrizations["tau"].original.grad.dtype == torch.float64


def test_recurrent_weights_do_follow() -> None:
    layer = fs.RecurrentFractionalLIF(0.6, size=(4,)).double()
    assert layer.recurrent.weight.dtype == torch.float64
    assert layer(current(5, 2, 4).double()).dtype == torch.float64


# ------------------------------------------------------------------ torch's other tools


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_compiled_networks_give_the_same_spikes_and_gradients() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), fs.FractionalLIF(0.6, resistance=3.0, learn=("alpha", "tau")))
    compiled = torch.compile(copy.deepcopy(net), backend="eager")
    x = 3 * current(6, 2, 3)
    out, same = compiled(x), net(x)
    assert torch.equal(out, same)
    assert same.sum() > 0
    out.sum().backward()
    same.sum().backward()
    for (name, a), b in zip(net.named_parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5), name


def test_hooks_see_input_and_output() -> None:
    layer = fs.FractionalLIF(0.6)
    seen = []
    layer.register_forward_hook(lambda module, args, out: seen.append((args[0].shape, out.shape)))
    layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    x = current(5, 2, 3)
    assert torch.equal(layer(x), fs.FractionalLIF(0.6)(2 * x))
    assert seen == [(x.shape, x.shape)]


def test_printed_layers_say_their_parameters() -> None:
    text = repr(fs.FractionalLIF(torch.tensor([0.4, 0.8]), tau=3.0, reset="value", refractory=2.0))
    for part in ("alpha=0.4..0.8", "tau=3", "reset='value'", "refractory=2"):
        assert part in text


@pytest.mark.parametrize("scale", [1.0, 1.7, torch.tensor([1.0, 1.5, 2.0, 0.5])])
def test_reset_scale_is_the_same_compiled(scale: float | Tensor) -> None:
    x = 3 * current(60, 3, 4).double()
    found = []
    for backend in ("torch", "native"):
        layer = fs.FractionalLIF(
            0.6, v_rest=-0.5, reset_scale=scale, backend=backend, learn=("alpha", "threshold")
        )
        inputs = x.clone().requires_grad_()
        run = layer.simulate(inputs)
        (run.spikes.cumsum(0).sum() + run.voltage.square().sum()).backward()
        found.append([run.spikes, run.voltage, inputs.grad, *(p.grad for p in layer.parameters())])
    assert found[0][0].sum() > 20
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_reset_scale_takes_off_that_many_heights() -> None:
    run = fs.FractionalLIF(0.6, resistance=10.0, reset_scale=2.5).simulate(torch.ones(1, 1))
    assert run.spikes.item() == 1
    assert (run.pre_reset - run.voltage).item() == pytest.approx(2.5)
    with pytest.raises(ValueError, match="`reset_scale` must be > 0"):
        fs.FractionalLIF(reset_scale=0.0)
