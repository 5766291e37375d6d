r"""A whole network as one fractional differential equation.

In :class:`torch.nn.Sequential` a layer runs through all its steps before the next begins. Here the
potentials of all layers are one state that advances together, a right-hand side for
:func:`fracspike.solvers.fdeint` or torchdiffeq, as in the wrapper of spikeDE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from fracspike.neurons import FractionalIF, FractionalLI, FractionalLIF
from fracspike.neurons.reset import RESETS
from fracspike.solvers import Memory, checks, fdeint

from .interpolate import INTERPOLATIONS, on_grid

KINDS = (FractionalLIF, FractionalIF, FractionalLI)


@dataclass(frozen=True)
class Solution:
    """What :meth:`System.solve` returns.

    Attributes:
        t: times ``(n + 1,)``, from 0.
        potentials: of each layer by name, ``(n + 1, B, *)``, from rest.
        spikes: of each layer by name, ``(n, B, *)``; entry k belongs to ``t[k]``. A readout's are its
            potentials.
        output: what the network makes of them, ``(n, B, *)``: the spikes of the last layer, or what the
            layers after it make of these.
    """

    t: Tensor
    potentials: dict[str, Tensor]
    spikes: dict[str, Tensor]
    output: Tensor


class System(nn.Module):
    r"""The coupled system of a network: ``system(t, y)`` is :math:`D^\alpha y`; see :func:`as_system`.

    Attributes:
        model: the network, with its weights; training one trains the other.
        layers: the spiking layers by name, in the order in which they are reached.
        shapes: shape of each layer's potential for one sample, by name.
        dt: time between samples, the ``dt`` of the layers.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor | None, interpolation: str, lookahead: float | None
    ) -> None:
        super().__init__()
        self.model = model
        self.interpolation = checks.one_of("interpolation", interpolation, INTERPOLATIONS)
        self.lookahead = float(checks.real("lookahead", lookahead, at_least=0.0))
        named = {name: part for name, part in model.named_modules() if isinstance(part, FractionalLIF)}
        if not named:
            raise ValueError(
                "`model` must have at least one fractional layer, such as FractionalLIF; got none"
            )
        for name, layer in named.items():
            _check_layer(name, layer)
        steps = {layer.dt for layer in named.values()}
        if len(steps) > 1:
            raise ValueError(f"all layers of a system must have one dt, got {sorted(steps)}")
        self.dt = steps.pop()
        self._named = named
        self.layers: dict[str, FractionalLIF] = {}
        self.shapes: dict[str, torch.Size] = {}
        self.inputs: Tensor | None = None
        if inputs is not None:
            self.bind(inputs)

    def bind(self, inputs: Tensor) -> System:
        """Set the input that drives the system, and return the system.

        Args:
            inputs: samples ``(T, B, *)``; sample n belongs to the time ``n dt``, and the last is held for
                another ``dt``.

        Raises:
            ValueError: if the network does not reach all its layers, or one twice.
        """
        checks.all_finite("inputs", inputs)
        if inputs.dim() < 2 or len(inputs) < 1:
            raise ValueError(f"`inputs` must have shape (T, B, *) with T >= 1, got {tuple(inputs.shape)}")
        self.inputs = inputs
        self.shapes = self._probe(inputs[:1])
        self.layers = {name: self._named[name] for name in self.shapes}
        return self

    def forward(self, t: Tensor, y: Any) -> Any:
        r"""Return the right-hand side :math:`D^\alpha y` at the time ``t``.

        Args:
            t: time, a scalar tensor.
            y: all potentials: flat ``(B, N)``, or a tuple ``(B, *)``, one for each layer.

        Returns:
            What ``y`` is.
        """
        potentials = self.split(y) if isinstance(y, Tensor) else dict(zip(self.shapes, y, strict=True))
        at = {name: v.unsqueeze(0) for name, v in potentials.items()}
        rates, _, _ = self._evaluate(self.input_at(t.reshape(1)), at)
        tuple_ = tuple(rates[name].squeeze(0) for name in self.shapes)
        return torch.cat([rate.flatten(1) for rate in tuple_], 1) if isinstance(y, Tensor) else tuple_

    rhs = forward

    def input_at(self, t: Tensor) -> Tensor:
        """Return the input between the samples at times ``(n,)``: ``(n, B, *)``."""
        x = self._bound()
        return INTERPOLATIONS[self.interpolation](x, on_grid(t, self.dt))

    @property
    def t(self) -> Tensor:
        """The times of the samples and the end of the last, ``(T + 1,)`` float64."""
        return self._grid(1)

    @property
    def y0(self) -> Tensor:
        """All layers at rest, ``(B, N)``."""
        x = self._bound()
        return torch.cat(
            [
                layer.v_rest.to(x).expand(x.shape[1], *self.shapes[name]).flatten(1)
                for name, layer in self.layers.items()
            ],
            1,
        )

    @property
    def alpha(self) -> Tensor:
        """The order: one for all, or one for each entry of the flat state, ``(N,)``; differentiable."""
        orders = [layer.alpha for layer in self.layers.values()]
        first = orders[0]
        if all(a.dim() == 0 and not a.requires_grad and torch.equal(a, first) for a in orders):
            return first
        return torch.cat(
            [
                layer.alpha.expand(shape).flatten()
                for layer, shape in zip(self.layers.values(), self.shapes.values(), strict=True)
            ]
        )

    def split(self, y: Tensor) -> dict[str, Tensor]:
        """Return the layers' potentials by name, ``(..., *)``, of flat states ``(..., N)``."""
        self._bound()
        parts = torch.split(y, [shape.numel() for shape in self.shapes.values()], dim=-1)
        return {
            name: part.reshape(*y.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def read(self, t: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the spikes of each layer and the output of the network, along a solution.

        Args:
            t: times ``(n,)``.
            y: flat states ``(n, B, N)`` at these times.
        """
        potentials = self.split(y)
        if not (self.model.training and any(isinstance(part, _NormBase) for part in self.model.modules())):
            _, spikes, output = self._evaluate(self.input_at(t), potentials)
            return spikes, output
        # statistics over the batch of each time, as the right-hand side has them
        at = [
            self._evaluate(
                self.input_at(t[k : k + 1]), {name: v[k : k + 1] for name, v in potentials.items()}
            )
            for k in range(len(t))
        ]
        spikes = {name: torch.cat([one[1][name] for one in at]) for name in self.shapes}
        return spikes, torch.cat([one[2] for one in at])

    def solve(
        self,
        inputs: Tensor | None = None,
        *,
        method: str = "gl_explicit",
        memory: Memory | None = None,
        gradient: str = "adjoint",
        substeps: int = 1,
    ) -> Solution:
        """Solve the system over the time of the input, by :func:`fracspike.solvers.fdeint`.

        Args:
            inputs: what to drive it with, ``(T, B, *)``; what it was bound to by default.
            method: a name in ``fracspike.solvers.METHODS``. Explicit ones go with the jumps that spikes make
                in the right-hand side; the iteration of an implicit one may not converge.
            memory: what is kept of the past, ``Full()`` by default.
            gradient: ``"adjoint"`` or ``"autograd"``.
            substeps: steps for each sample.

        Returns:
            Potentials, spikes and output; there is one entry for each step.
        """
        if inputs is not None:
            self.bind(inputs)
        t = self._grid(checks.positive_int("substeps", substeps))
        y = fdeint(self, self.y0, t, self.alpha, method=method, memory=memory, gradient=gradient)
        spikes, output = self.read(t[:-1], y[:-1])
        return Solution(t, self.split(y), spikes, output)

    def _grid(self, substeps: int) -> Tensor:
        count = len(self._bound()) * substeps
        return torch.arange(count + 1, dtype=torch.float64) * (self.dt / substeps)

    def _bound(self) -> Tensor:
        if self.inputs is None:
            raise ValueError("the system has no input yet; pass it to as_system, bind or solve")
        return self.inputs

    def _evaluate(
        self, x: Tensor, potentials: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Return rates, spikes and output at n times, each ``(n, B, *)``."""
        rates: dict[str, Tensor] = {}
        spikes: dict[str, Tensor] = {}

        def cell(name: str, current: Tensor) -> Tensor:
            rates[name], spikes[name] = self._rate(self.layers[name], potentials[name], current)
            return spikes[name]

        with _in_place(self.layers, cell):
            output = cast(Tensor, self.model(x))
        return rates, spikes, output

    def _rate(self, layer: FractionalLIF, v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`D^\alpha v` of a layer and its spikes, the reset a negative input."""
        rate = (layer.tau**-layer.alpha).to(v.dtype)
        drive = layer.resistance.to(v.dtype) * current
        if not isinstance(layer, FractionalIF):
            drive = drive + layer.v_rest.to(v.dtype) - v
        flow = rate * drive
        if isinstance(layer, FractionalLI):
            return flow, v
        charged = v + self.lookahead * flow
        spike = layer.surrogate(charged - layer.threshold.to(v.dtype))
        fed_back = spike.detach() if layer.detach_reset else spike
        return flow + rate * (RESETS[layer.reset](charged, fed_back, layer) - charged), spike

    @torch.no_grad()
    def _probe(self, x: Tensor) -> dict[str, torch.Size]:
        shapes: dict[str, torch.Size] = {}

        def cell(name: str, current: Tensor) -> Tensor:
            if name in shapes:
                raise ValueError(f"`{name}` is used twice in a pass; a system needs one layer for each place")
            shapes[name] = current.shape[2:]
            return torch.zeros_like(current)

        modes = {part: part.training for part in self.model.modules()}
        self.model.eval()  # a look at the shapes must not move running statistics
        try:
            with _in_place(self._named, cell):
                self.model(x)
        finally:
            for part, mode in modes.items():
                part.training = mode
        missing = self._named.keys() - shapes.keys()
        if missing:
            raise ValueError(
                f"every fractional layer must be reached in a pass, got none for {sorted(missing)}"
            )
        return shapes


def as_system(
    model: nn.Module,
    inputs: Tensor | None = None,
    *,
    interpolation: str = "linear",
    lookahead: float = 1.0,
) -> System:
    r"""Return a network as one coupled fractional system, a right-hand side for ``fdeint`` or torchdiffeq.

    For each fractional layer, with :math:`I` what the layers before it make of its predecessor's spikes at
    the same instant,

    .. math:: \tau^\alpha D^\alpha v = -(v - v_\text{rest}) + R\,I(t) - (\theta - v_\text{rest})\,s, \qquad
              s = H\!\left(v + \ell\,\frac{-(v - v_\text{rest}) + R\,I}{\tau^\alpha} - \theta\right)

    The reset is a negative input inside the vector field, and a spike is decided on the potential that a
    unit of time ahead would have, as spikeDE's wrapper has both (:math:`\ell` is ``lookahead``; 0 decides
    on the potential itself). With ``reset="value"`` the reset leads to ``v_reset`` instead. The layers'
    own ``method``, ``memory`` and ``reset_memory`` play no part: a system has one method and one memory, and
    resets that are currents (``"current"``).

    Args:
        model: a network on ``(T, B, *)`` of stateless layers and :class:`FractionalLIF`,
            :class:`FractionalIF` or :class:`FractionalLI` ones, each reached once in a pass:
            ``nn.Sequential``, or any module with skip connections and the like.
        inputs: samples ``(T, B, *)``, sample n at the time ``n dt``; may be given later.
        interpolation: the input between samples: ``"hold"``, ``"linear"``, or ``"cubic"`` (Catmull-Rom).
        lookahead: how far ahead a spike is decided, in the unit of ``tau**alpha``.

    Returns:
        The system: ``system(t, y)``, ``system.y0``, ``system.t``, ``system.alpha`` go into ``fdeint``;
        ``system.read(t, y)`` gives spikes and output; ``system.solve()`` does all at once.

    Raises:
        ValueError: if there is no fractional layer, or one has what no system can have.

    Source: spikeDE (SNNWrapper); its ``tau`` is ``tau**alpha`` here.

    >>> net = nn.Sequential(nn.Linear(3, 8), FractionalLIF(0.8), nn.Linear(8, 2), FractionalLIF(0.5))
    >>> system = as_system(net, torch.rand(20, 4, 3))
    >>> solution = system.solve(method="l1_explicit")
    >>> solution.output.shape, solution.potentials["1"].shape
    (torch.Size([20, 4, 2]), torch.Size([21, 4, 8]))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a module, got {type(model).__name__}")
    return System(model, inputs, interpolation, lookahead)


@contextmanager
def _in_place(layers: dict[str, FractionalLIF], cell: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let ``cell(name, current)`` stand in for the layers, for as long as the context lasts."""
    for name, layer in layers.items():
        layer.forward = partial(cell, name)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


def _check_layer(name: str, layer: FractionalLIF) -> None:
    kind = parametrize.type_before_parametrizations(layer)
    if kind not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise TypeError(f"a system takes layers of {known}, got {kind.__name__} in `{name}`")
    if layer.terms > 1:
        raise ValueError(f"a system takes layers of one order, got {layer.terms} in `{name}`")
    if layer.refractory > 0:
        raise ValueError(f"a system has no refractory periods, got {layer.refractory:g} in `{name}`; pass 0")
