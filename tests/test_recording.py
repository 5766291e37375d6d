"""Recording, measures of activity and cost, and figures."""

from __future__ import annotations

import math

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import fracspike as fs
from fracspike import measure, plots
from fracspike.layers import Recording, memory_kernel
from fracspike.neurons import NEURONS
from fracspike.solvers import Blocked, Exponentials, Full, Window, mittag_leffler


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 10),
        fs.FractionalLIF(0.6, resistance=4.0),
        nn.Linear(10, 3, bias=False),
        fs.FractionalLI(0.8),
    )


@pytest.fixture
def recording(net: nn.Sequential) -> Recording:
    with fs.record(net) as made:
        net(torch.rand(25, 4, 6))
    return made


def test_a_recording_is_the_simulation_of_each_layer(net: nn.Sequential) -> None:
    x = torch.rand(25, 4, 6)
    plain = net(x)
    with fs.record(net) as recording:
        recorded = net(x)
    assert torch.equal(plain, recorded)
    assert list(recording) == ["1", "3"]
    first = net[1].simulate(net[0](x))
    assert torch.equal(recording["1"].spikes, first.spikes)
    assert torch.equal(recording["1"].voltage, first.voltage)
    assert torch.equal(recording["1"].pre_reset, first.pre_reset)
    assert torch.equal(recording["1"].current, net[0](x))
    assert torch.equal(recording["3"].voltage, plain)
    assert not recording["1"].spikes.requires_grad


def test_layers_are_as_they_were_afterwards_even_after_an_error(net: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="must be finite"), fs.record(net):
        net(torch.full((3, 1, 6), float("nan")))
    for layer in net:
        assert not {"simulate", "forward"} & vars(layer).keys()


def test_recordings_within_each_other_both_see_the_pass(net: nn.Sequential) -> None:
    with fs.record(net) as outer:
        with fs.record(net[1]) as inner:
            net(torch.rand(5, 2, 6))
        assert torch.equal(outer["1"].spikes, inner[""].spikes)
        net(torch.rand(7, 2, 6))
    assert len(outer["1"].spikes) == 7
    assert len(inner[""].spikes) == 5
    for layer in net:
        assert not {"simulate", "forward"} & vars(layer).keys()


def test_a_layer_with_a_forward_of_its_own_gives_what_it_gives() -> None:
    class Potential(fs.FractionalLIF):
        def forward(self, current: torch.Tensor, state: fs.neurons.State | None = None) -> torch.Tensor:
            return self.simulate(current, state).voltage

    layer, x = Potential(0.6, resistance=3.0), torch.rand(9, 2, 3)
    with fs.record(layer) as recording:
        recorded = layer(x)
    assert torch.equal(recorded, layer(x))
    assert torch.equal(recording[""].voltage, recorded)


def test_to_measure_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(fs.TimeDistributed(nn.BatchNorm1d(6)), nn.Dropout(0.5), fs.FractionalLIF(0.6))
    random = torch.get_rng_state()
    measure.operations(model, torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(1)))
    assert int(model[0].module.num_batches_tracked) == 0
    assert torch.equal(model[0].module.running_mean, torch.zeros(6))
    assert torch.equal(torch.get_rng_state(), random)


def test_each_pass_overwrites_the_one_before(net: nn.Sequential) -> None:
    with fs.record(net) as recording:
        net(torch.rand(5, 1, 6))
        net(torch.rand(9, 2, 6))
    assert recording["1"].spikes.shape == (9, 2, 10)


def test_what_to_keep_and_a_loss_on_the_record(net: nn.Sequential) -> None:
    with fs.record(net, what="voltage", detach=False) as recording:
        net(torch.rand(9, 2, 6))
    assert recording["1"].spikes.numel() == 0
    recording["1"].voltage.square().mean().backward()
    assert net[0].weight.grad is not None
    with pytest.raises(ValueError, match="`what` must be one of"), fs.record(net, what=("weights",)):
        pass
    with pytest.raises(ValueError, match="at least one fractional layer"), fs.record(nn.Linear(2, 2)):
        pass
    with pytest.raises(TypeError, match="must be a module"), fs.record("net"):
        pass


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_can_be_recorded_and_counted(name: str) -> None:
    layer = NEURONS[name](**({"size": (4,)} if "recurrent" in name else {}))
    x = 2 * torch.rand(12, 2, 4)
    with fs.record(layer, warn=False) as recording:  # some are silent in so few steps
        out = layer(x)
    assert torch.equal(out, recording[""].voltage if name == "li" else recording[""].spikes)
    assert recording[""].variables.keys() == layer.simulate(x).variables.keys()
    report = measure.operations(layer, x)
    assert report.total.memory > 0
    assert report.total.updates >= 12 * 4


def test_kernels_are_the_mittag_leffler_function(net: nn.Sequential, recording: Recording) -> None:
    kernel = recording["1"].kernel()
    assert len(kernel) == 26
    t = torch.arange(26, dtype=torch.float64)
    assert torch.allclose(kernel, mittag_leffler(-((t / 2.0) ** 0.6), torch.tensor(0.6).double()))
    free = memory_kernel(fs.FractionalIF(0.5, tau=1.0), 3)
    assert torch.allclose(free.cumsum(0), torch.arange(1, 5).double().sqrt() / math.gamma(1.5))
    with pytest.raises(TypeError, match="a linear neuron of one order"):
        memory_kernel(fs.FractionalIzhikevich(), 3)


def test_counts_rates_and_sparsity() -> None:
    spikes = torch.zeros(10, 2, 3)
    spikes[[1, 4, 6], 0, 0] = 1
    spikes[2, 1, 1] = 1
    assert measure.spike_counts(spikes).tolist() == [[3, 0, 0], [0, 1, 0]]
    assert measure.firing_rates(spikes, dt=0.01)[0, 0].item() == pytest.approx(30.0)
    assert measure.sparsity(spikes) == pytest.approx(1 - 4 / 60)
    assert measure.silent(spikes) == pytest.approx(1 / 3)


def test_synaptic_operations_are_spikes_times_fan_out() -> None:
    torch.manual_seed(0)
    hidden = fs.FractionalLIF(0.6, resistance=4.0)
    net = nn.Sequential(nn.Linear(6, 10), hidden, nn.Linear(10, 3), fs.FractionalLIF(0.6))
    x = torch.rand(20, 4, 6)
    report = measure.operations(net, x)
    rows = {layer.name: layer for layer in report.layers}
    spikes = hidden(net[0](x)).sum().item() / 4
    assert spikes > 10
    assert rows["0"].macs == 20 * 6 * 10
    assert rows["0"].synops == 0
    assert rows["2"].synops == pytest.approx(spikes * 3)
    assert rows["2"].macs == 0
    assert rows["1"].spikes == pytest.approx(spikes)
    assert rows["1"].rate == pytest.approx(spikes / (20 * 10))
    assert rows["1"].updates == 200
    assert report.total.synops == rows["2"].synops
    assert report.as_dict()["total"]["macs"] == 1200
    text = str(report)
    assert text.startswith("one sample of 20 steps, the mean over 4\n")
    assert text.splitlines()[1].split()[:3] == ["layer", "kind", "neurons"]
    assert "1,200" in text


def test_convolutions_count_what_each_spike_meets() -> None:
    spikes = torch.zeros(1, 1, 2, 5, 5)
    spikes[0, 0, 0, 2, 2] = 1  # in the middle: all 9 places of the kernel
    spikes[0, 0, 1, 0, 0] = 1  # in the corner: without padding 1 of 9
    net = nn.Sequential(fs.TimeDistributed(nn.Conv2d(2, 4, 3)), fs.FractionalLIF(0.6))
    layer = measure.operations(net, spikes).layers[0]
    assert layer.synops == 4 * (9 + 1)
    assert layer.kind == "Conv2d"
    analog = measure.operations(net, spikes + 0.5).layers[0]
    assert analog.macs == 4 * 9 * (2 * 9)
    grouped = nn.Sequential(fs.TimeDistributed(nn.Conv2d(2, 4, 3, groups=2)), fs.FractionalLIF(0.6))
    assert measure.operations(grouped, spikes).layers[0].synops == 2 * (9 + 1)
    up = nn.Sequential(fs.TimeDistributed(nn.ConvTranspose2d(2, 4, 3)), fs.FractionalLIF(0.6))
    assert measure.operations(up, spikes).layers[0].synops == 4 * 9 * 2


def test_memory_costs_what_it_keeps() -> None:
    def cost(memory: object, **options: object) -> float:
        return measure.memory_operations(fs.FractionalLIF(0.6, memory=memory, **options), 100)

    assert cost(Full()) == 100 * 99 / 2
    assert cost(Blocked()) == 100 * 99 / 2
    assert cost(Window(10)) == sum(min(n, 10) for n in range(100))
    for memory, most in ((Exponentials(1e-6), 30), (Exponentials(1e-3), 20), (None, 35)):
        modes = cost(memory) / 200
        assert modes == int(modes)
        assert 5 <= modes <= most
    by_steps = cost(Exponentials(1e-6), method="l1") / 200
    assert 5 <= by_steps <= 30
    assert measure.memory_operations(fs.FractionalLIF(1.0), 100) == 0
    two = fs.FractionalIzhikevich(memory=Window(10))
    assert measure.memory_operations(two, 100) == 2 * cost(Window(10))
    with pytest.raises(TypeError, match="`model`"):
        measure.operations("net", torch.ones(2, 2))


def test_figures_show_what_they_are_given(recording: Recording) -> None:
    trace = recording["1"]
    figure = plots.raster(trace.spikes, dt=0.5, title="raster", unit="ms", sample=1)
    points = figure.axes[0].collections[0].get_offsets()
    assert len(points) == int(trace.spikes[:, 1].sum()) > 0
    step, neuron = trace.spikes[:, 1].nonzero(as_tuple=True)
    assert points[:, 0].tolist() == (0.5 * (step + 1)).tolist()
    assert points[:, 1].tolist() == neuron.tolist()
    figure = plots.membrane(trace.pre_reset, trace.spikes, threshold=1.0, neurons=[2, 7])
    assert len(figure.axes) == 2
    assert figure.axes[0].lines[0].get_ydata().tolist() == trace.pre_reset[:, 0, 2].tolist()
    figure = plots.kernel([0.3, 0.7])
    assert [line.get_label() for line in figure.axes[0].lines] == ["alpha 0.3", "alpha 0.7", "exponential"]
    figure = plots.rates({"hidden": trace.spikes})
    heights = figure.axes[0].patches[0].get_xy()[:, 1]
    assert heights.max() <= 1


def test_figures_of_nothing_and_of_convolutions() -> None:
    silent = torch.zeros(5, 1, 2, 3, 3)
    for figure in (
        plots.raster(silent),
        plots.membrane(silent, silent),
        plots.rates(silent),
        plots.kernel(1.0, tau=10.0),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()


def test_figures_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(T, B, \*\), got \(5, 3\)"):
        plots.raster(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"`sample` must lie in 0\.\.1, got 2"):
        plots.raster(torch.zeros(5, 2, 3), sample=2)
    with pytest.raises(ValueError, match=r"`neurons` must lie in 0\.\.2, got \[7\]"):
        plots.membrane(torch.zeros(5, 2, 3), neurons=[7])
    with pytest.raises(ValueError, match="for integer order"):
        plots.kernel(1.5)
