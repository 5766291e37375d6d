"""Recording a forward pass: what each spiking layer received, felt and sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.neurons import FractionalIF, FractionalLIF, Simulation, State
from fracspike.neurons.membrane import Integrator, Propagator
from fracspike.solvers import checks

from .silence import Neuron, Silence

KINDS = ("current", "spikes", "voltage", "pre_reset", "variables")
METHODS = ("simulate", "forward")  # of a layer, replaced while it is recorded


@dataclass
class Trace:
    """What one layer did in the recorded passes.

    Attributes:
        layer: the layer itself.
        current: its input ``(T, B, *)``.
        spikes: its output ``(T, B, *)``.
        voltage: potential after reset ``(T, B, *)``.
        pre_reset: potential before reset, on which the spike was decided ``(T, B, *)``.
        variables: what else the layer has, such as an adaptation, by name, each ``(T, B, *)``.
    """

    layer: Neuron
    current: Tensor = field(default_factory=lambda: torch.empty(0))
    spikes: Tensor = field(default_factory=lambda: torch.empty(0))
    voltage: Tensor = field(default_factory=lambda: torch.empty(0))
    pre_reset: Tensor = field(default_factory=lambda: torch.empty(0))
    variables: dict[str, Tensor] = field(default_factory=dict)

    def kernel(self, steps: int | None = None) -> Tensor:
        """Return the layer's memory kernel, see :func:`memory_kernel`; as long as the record by default."""
        return memory_kernel(self.layer, len(self.spikes) if steps is None else steps)


class Recording(dict[str, Trace]):
    """Traces by the layers' names, as ``model.named_modules()`` has them; in the order of the passes."""


@contextmanager
def record(
    model: nn.Module,
    *,
    what: Sequence[str] = KINDS,
    detach: bool = True,
    device: str | torch.device | None = None,
    warn: bool = True,
) -> Iterator[Recording]:
    """Record the spiking layers of a model during its forward passes.

    Each pass overwrites the one before. Passes go through ``simulate``, which gives what ``forward`` does:
    recording changes no result.

    Args:
        model: a model with fractional layers, or one such layer (whose name is then ``""``).
        what: which of ``"current"``, ``"spikes"``, ``"voltage"``, ``"pre_reset"``, ``"variables"`` to keep.
        detach: if false, the record stays in the graph, so that a loss can be made of it.
        device: where to keep the record; where the layer computes by default.
        warn: whether to say in the end which layers were used and never spiked.

    Yields:
        The recording, which fills as the model runs.

    Raises:
        TypeError: if ``model`` is no module.
        ValueError: if it has no fractional layer, or ``what`` is unknown.

    Warns:
        UserWarning: in the end, if layers that were used never spiked, with what to change; see ``warn``.

    >>> net = nn.Sequential(nn.Linear(3, 4), FractionalLIF(alpha=0.7, resistance=50.0))
    >>> with record(net) as recording:
    ...     out = net(torch.ones(10, 2, 3))
    >>> recording["1"].voltage.shape, torch.equal(recording["1"].spikes, out)
    (torch.Size([10, 2, 4]), True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a module, got {type(model).__name__}")
    kept = [checks.one_of("what", kind, KINDS) for kind in ([what] if isinstance(what, str) else what)]
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Neuron)}
    if not layers:
        raise ValueError("`model` must have at least one fractional layer, such as FractionalLIF; got none")
    recording, silence = Recording(), Silence(model)

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: keep(one) for name, one in value.items()}
        value = value.detach() if detach else value
        return value if device is None else value.to(device)

    def listen(name: str, layer: Neuron) -> Any:
        simulate = layer.simulate

        def listening(current: Tensor, *args: Any, **kwargs: Any) -> Simulation:
            run = simulate(current, *args, **kwargs)
            made = {"current": current, **{kind: getattr(run, kind) for kind in KINDS[1:]}}
            silence.note(name, current, run.spikes)
            recording.pop(name, None)  # so that the order is that of the last pass
            recording[name] = Trace(layer, **{kind: keep(made[kind]) for kind in kept})
            return run

        return listening

    before = [(layer, {name: vars(layer).get(name) for name in METHODS}) for layer in layers.values()]
    for name, layer in layers.items():
        layer.simulate = listen(name, layer)  # type: ignore[method-assign]
        if isinstance(layer, FractionalLIF) and type(layer).forward is FractionalLIF.forward:
            # all others call simulate themselves
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield recording
    finally:
        for layer, methods in before:
            for name, method in methods.items():
                vars(layer).pop(name, None)
                if method is not None:  # of a recording around this one
                    setattr(layer, name, method)
    if warn:
        silence.warn(silence.layers(), "while the model was recorded", stacklevel=3)


def _forward(layer: FractionalLIF, current: Tensor, state: State | None = None) -> Tensor:
    return layer.simulate(current, state).spikes


def memory_kernel(layer: Neuron, steps: int) -> Tensor:
    r"""Return how a layer remembers: :math:`E_\alpha(-(m\,dt/\tau)^\alpha)` for m = 0, ..., ``steps``.

    What is left of a unit jump of the potential ``m`` steps later; at alpha = 1 the exponential of the
    memoryless neuron, below it a power law, :math:`\approx (t/\tau)^{-\alpha} / \Gamma(1-\alpha)`. Without a
    leak (:class:`FractionalIF`) jumps stay, and this is what a unit of drive adds m steps later,
    :math:`\big((t_{m+1})^\alpha - (t_m)^\alpha\big) / (\tau^\alpha\, \Gamma(1+\alpha))`.

    Args:
        layer: a fractional layer of one order.
        steps: how many steps to look back.

    Returns:
        ``(steps + 1, *)`` float64, with the shape of the layer's own parameters.

    Raises:
        TypeError: if the layer is nonlinear, or of several orders.

    >>> memory_kernel(FractionalLIF(alpha=1.0, tau=2.0), 2)
    tensor([1.0000, 0.6065, 0.3679], dtype=torch.float64)
    """
    count = checks.positive_int("steps", steps) + 1
    if not isinstance(layer, FractionalLIF) or layer.terms > 1:
        raise TypeError(
            f"`layer` must be a linear neuron of one order, which has a kernel; got {type(layer).__name__}"
        )
    with torch.no_grad():
        if isinstance(layer, FractionalIF):
            gain, changes = Integrator.coefficients(layer.alpha, layer.tau, layer.dt, count)
            return gain * changes.cumsum(0)
        return Propagator.kernel(layer.alpha, layer.tau, layer.dt, count)
