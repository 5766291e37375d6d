r"""Activity and cost of a spiking network: counts, rates, sparsity, and synaptic operations counted honestly.

A network's energy is often argued with the number of synaptic operations alone. A fractional neuron also
pays for its memory, and a first layer that receives analog values pays for multiplications; both are
counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd  # torch names no public base classes
from torch.nn.utils import parametrize

from fracspike.layers.moment import Moment
from fracspike.layers.recording import record
from fracspike.layers.silence import Neuron
from fracspike.neurons import FractionalIF, FractionalLI, FractionalLIF, FractionalNeuron
from fracspike.neurons.lif import EXACT, SCHEMES
from fracspike.neurons.membrane import Integrator, Propagator
from fracspike.solvers import Blocked, Exponentials, Full, Memory, Window, checks


def spike_counts(spikes: Tensor) -> Tensor:
    """Return how often each neuron spiked: ``(T, B, *) -> (B, *)``."""
    return checks.all_finite("spikes", spikes).sum(0)


def firing_rates(spikes: Tensor, dt: float = 1.0) -> Tensor:
    r"""Return spikes per unit of time, :math:`\sum_n s_n / (T\, dt)`: ``(T, B, *) -> (B, *)``.

    >>> firing_rates(torch.tensor([[1.0], [0.0], [1.0], [0.0]]), dt=0.5)
    tensor([1.])
    """
    return spike_counts(spikes) / (len(spikes) * float(checks.real("dt", dt, above=0.0)))


def sparsity(spikes: Tensor) -> float:
    """Return the share of neurons and steps without a spike, in [0, 1]."""
    checks.all_finite("spikes", spikes)
    return float((spikes.detach() == 0).double().mean())


def silent(spikes: Tensor) -> float:
    """Return the share of neurons that never spike for any sample of the batch."""
    checks.all_finite("spikes", spikes)
    return float((spikes.detach() == 0).all(0).all(0).double().mean())


@dataclass(frozen=True)
class Layer:
    """Activity and cost of one layer, the mean over the samples of a batch.

    Attributes:
        name: as ``model.named_modules()`` has it.
        kind: name of the class.
        neurons: spiking neurons in it; 0 for a layer of weights, or a readout.
        spikes: spikes of a sample.
        rate: spikes for each neuron and step.
        synops: additions that spikes cause in this layer of weights: each incoming spike, times its fan-out.
        macs: multiply-adds that analog inputs cause in this layer of weights, at every step, zero or not.
        memory: multiply-adds of the fractional memory: K modes, or the steps remembered, for each neuron
            and step.
        updates: multiply-adds of the membrane itself: one for each neuron and step.
    """

    name: str
    kind: str
    neurons: int = 0
    spikes: float = 0.0
    rate: float = 0.0
    synops: float = 0.0
    macs: float = 0.0
    memory: float = 0.0
    updates: float = 0.0


@dataclass(frozen=True)
class Report:
    """What :func:`operations` returns; ``print`` shows a table.

    Attributes:
        layers: one entry for each layer of weights or neurons, in the order of the pass.
        steps: time steps ``T``.
        batch: samples ``B``.
    """

    layers: tuple[Layer, ...]
    steps: int
    batch: int

    @property
    def total(self) -> Layer:
        """The sum of all layers; its rate is for each neuron of the network."""
        sums: dict[str, Any] = {
            f.name: sum(getattr(layer, f.name) for layer in self.layers)
            for f in fields(Layer)
            if f.name not in ("name", "kind", "rate")
        }
        rate = sums["spikes"] / (sums["neurons"] * self.steps) if sums["neurons"] else 0.0
        return Layer(name="total", kind="", rate=rate, **sums)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the numbers by layer, and under ``"total"`` their sum: for JSON or a data frame."""
        return {
            layer.name: {f.name: getattr(layer, f.name) for f in fields(Layer) if f.name != "name"}
            for layer in (*self.layers, self.total)
        }

    def __str__(self) -> str:
        columns = ["layer", "kind", "neurons", "spikes", "rate", "synops", "macs", "memory", "updates"]
        rows = [
            [layer.name, layer.kind, *(_number(getattr(layer, name)) for name in columns[2:])]
            for layer in (*self.layers, self.total)
        ]
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        head = f"one sample of {self.steps} steps, the mean over {self.batch}"
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (columns, *rows)
        ]
        return "\n".join([head, *lines])


@torch.no_grad()
def operations(model: nn.Module, inputs: Tensor) -> Report:
    """Run a model once, as it is in training or evaluation, and count what it does for a sample.

    Running statistics and random numbers are afterwards as if it had not run.

    Layers of weights are linear and convolutional ones. A layer of which all inputs are 0 or 1 is counted
    as event-driven: additions, for each spike as many as weights leave it (its fan-out; at the border of a
    convolution fewer). Any other input is analog: all multiply-adds, at every step. Biases, normalisation
    and pooling are not counted.

    Args:
        model: a network on ``(T, B, *)``; layers of weights on sequences or in TimeDistributed.
        inputs: ``(T, B, *)``.

    Returns:
        A report, per layer and in total.

    Raises:
        TypeError: if ``model`` is no module.
        ValueError: if it has no fractional layer, or the input is not a finite sequence.

    >>> net = nn.Sequential(nn.Linear(3, 4), FractionalLIF(alpha=0.7))
    >>> print(operations(net, torch.full((10, 2, 3), 0.5)).total.macs)
    120.0
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a module, got {type(model).__name__}")
    checks.all_finite("inputs", inputs)
    if inputs.dim() < 2:
        raise ValueError(f"`inputs` must have shape (T, B, *), got {tuple(inputs.shape)}")
    steps, batch = inputs.shape[:2]
    found: dict[str, Layer] = {}
    names = {module: name for name, module in model.named_modules()}

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        name = names[module]
        found[name] = _add(found.get(name), _weights(name, module, args[0], output, batch))

    def place(module: nn.Module, *_: object) -> None:
        found.setdefault(names[module], Layer(names[module], _kind(module)))

    hooks = []
    for module in names:
        if isinstance(module, nn.Linear | _ConvNd):
            hooks.append(module.register_forward_hook(count))
        elif isinstance(module, FractionalLIF | FractionalNeuron):
            hooks.append(module.register_forward_hook(place))
    moment = Moment(model)
    try:
        with record(model, what=("spikes",), warn=False) as recording:
            model(inputs)
    finally:
        moment.restore()  # to measure counts no statistics, and draws no random numbers
        for hook in hooks:
            hook.remove()
    for name, trace in recording.items():
        found[name] = _neurons(name, trace.layer, trace.spikes, batch)
    return Report(tuple(found.values()), steps, batch)


def memory_operations(layer: Neuron, steps: int, dtype: torch.dtype = torch.float32) -> float:
    r"""Return the multiply-adds that a neuron's memory costs over ``steps`` steps.

    - ``Full`` and ``Blocked``: each step weighs all that was before, :math:`\sum_n n = T(T-1)/2`
      (a block done by FFT takes fewer, which is not counted);
    - ``Window(n)``: at most n a step;
    - ``Exponentials``: two for each of K modes and step, one to decay it and one to read it;
    - the exact method's own sum of exponentials likewise;
    - at alpha = 1 the memory is one exponential, which the membrane is: nothing.

    A neuron of several variables has a memory for each.

    Args:
        layer: a fractional layer.
        steps: number of time steps ``T``.
        dtype: in which it runs, on which the number of modes depends.

    Raises:
        TypeError: if the memory is of a kind whose cost is not known.
    """
    count = checks.positive_int("steps", steps)
    kernels = _kernels(layer, count + 1)
    if isinstance(layer, FractionalLIF) and layer.modes is not None:
        found = layer.modes.find(dtype, count, resumed=False)
        if found is not None:
            return sum(2.0 * found.grid.modes * count for _ in kernels)
    return sum(_past(layer.memory, kernel, count, dtype) for kernel in kernels)


def _past(memory: Memory, kernel: Tensor, steps: int, dtype: torch.dtype) -> float:
    """Return the cost of weighing the past by a kernel ``(count, *)``, of which lag 0 is not used."""
    if isinstance(memory, Window):
        return float(sum(min(n, memory.length) for n in range(steps)))
    if isinstance(memory, Exponentials) and steps > 1:
        return 2.0 * memory.fit(kernel, dtype).modes * steps
    if not isinstance(memory, Full | Blocked | Exponentials):
        raise TypeError(f"the memory must be Full, Blocked, Window or Exponentials, got {memory!r}")
    return steps * (steps - 1) / 2


@torch.no_grad()
def _kernels(layer: Neuron, count: int) -> Iterator[Tensor]:
    """Yield the kernel of each variable of order below 1."""
    if isinstance(layer, FractionalLIF) and layer.terms == 1:
        if bool((layer.alpha != 1).any()):
            yield _exact(layer, count) if layer.method == EXACT else _scheme(layer, [layer.alpha], count)
    elif isinstance(layer, FractionalLIF):
        yield _scheme(layer, list(layer.alpha.unbind()), count)
    else:
        for name in layer.order_names:
            if bool((getattr(layer, name) != 1).any()):
                yield _scheme(layer, [getattr(layer, name)], count)


def _exact(layer: FractionalLIF, count: int) -> Tensor:
    if isinstance(layer, FractionalIF):
        return Integrator.coefficients(layer.alpha, layer.tau, layer.dt, count)[1]
    return Propagator.kernel(layer.alpha, layer.tau, layer.dt, count)[1:]


def _scheme(layer: Neuron, alphas: list[Tensor], count: int) -> Tensor:
    orders = [alpha.double() for alpha in alphas]
    factors = [torch.ones_like(order) for order in orders]
    return SCHEMES[layer.method]().coefficients(orders, factors, layer.dt, count).kernel


def _neurons(name: str, layer: Neuron, spikes: Tensor, batch: int) -> Layer:
    steps, neurons = len(spikes), spikes[0, 0].numel()
    total = float(spikes.double().sum()) / batch
    return Layer(
        name,
        _kind(layer),
        neurons=0 if isinstance(layer, FractionalLI) else neurons,
        spikes=total,
        rate=total / (neurons * steps),
        memory=neurons * memory_operations(layer, steps, spikes.dtype),
        updates=float(neurons * steps),
    )


def _weights(name: str, module: nn.Module, x: Tensor, y: Tensor, batch: int) -> Layer:
    kind = _kind(module)
    if bool(((x == 0) | (x == 1)).all()):
        return Layer(name, kind, synops=float(_fan_out(module, x)) / batch)
    # the first dimension of weights is the outputs', but a transposed convolution's is the inputs'
    values = x if isinstance(module, _ConvTransposeNd) else y
    return Layer(name, kind, macs=values.numel() / batch * cast(Tensor, module.weight)[0].numel())


def _fan_out(module: nn.Module, spikes: Tensor) -> Tensor:
    """Return the sum over spikes of the weights that each meets: the layer with all weights 1."""
    if isinstance(module, nn.Linear):
        return spikes.double().sum() * module.out_features
    weight = cast(Tensor, module.weight)
    if isinstance(module, _ConvTransposeNd):
        return spikes.double().sum() * weight[0].numel()
    ones = torch.ones_like(weight, dtype=torch.float64)
    met: Tensor = module._conv_forward(spikes.double(), ones, None)  # type: ignore[operator]
    return met.sum()


def _kind(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__


def _add(one: Layer | None, other: Layer) -> Layer:
    if one is None:  # a layer used twice in a pass counts twice
        return other
    return Layer(one.name, one.kind, synops=one.synops + other.synops, macs=one.macs + other.macs)


def _number(value: float) -> str:
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
