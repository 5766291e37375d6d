r"""A whole network as one fractional differential equation.

In :class:`torch.nn.Sequential` a layer runs through all its steps before the next begins. Here the
potentials of all layers are one state that advances together, a right-hand side for
:func:`fracspike.solvers.fdeint` or torchdiffeq, as in the wrapper of spikeDE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fracspike.neurons import FractionalLIF
from fracspike.solvers import METHODS, Memory, checks, fdeint

from .cells import check_layer, in_place, rate_of
from .interpolate import INTERPOLATIONS, on_grid
from .moment import Moment
from .passes import Pass, flat, steps_of


@dataclass(frozen=True)
class Solution:
    """What :meth:`System.solve` returns.

    Attributes:
        t: times ``(n + 1,)``, from 0.
        potentials: of each layer by name, ``(n + 1, B, *)``, from rest.
        spikes: of each layer by name, ``(n, B, *)``: those that drove the step from ``t[k]`` to ``t[k + 1]``.
            A readout's are its potentials.
        output: what the network makes of them, ``(n, B, *)``: the spikes of the last layer, or what the
            layers after it make of these.
        at: times ``(n,)`` of spikes and output: ``t[:-1]`` with an explicit method, and ``t[1:]`` with an
            implicit one, whose steps are driven by the spikes at their end.
    """

    t: Tensor
    potentials: dict[str, Tensor]
    spikes: dict[str, Tensor]
    output: Tensor
    at: Tensor


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
            check_layer(name, layer)
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
        if isinstance(y, Tensor):
            return flat(self._look(t, y).rates)
        at = {name: v.unsqueeze(0) for name, v in zip(self.shapes, y, strict=True)}
        return tuple(rate.squeeze(0) for rate in self._pass(self.input_at(t.reshape(1)), at).rates.values())

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
        """Return the spikes of each layer and the output of the network, along a solution from elsewhere.

        The network is passed once more, so that it must not draw random numbers; its running statistics
        are left as they are.

        Args:
            t: times ``(n,)``.
            y: flat states ``(n, B, N)`` at these times.

        Raises:
            ValueError: if the network draws random numbers, which would be others than those of the solution.
        """
        moment = Moment(self.model)
        try:
            if self.model.training and any(isinstance(part, _NormBase) for part in self.model.modules()):
                # statistics over the batch of each time, as the right-hand side has them
                made = [self._look(time, state) for time, state in zip(t, y, strict=True)]
            else:
                made = [self._pass(self.input_at(t), self.split(y))]
            if moment.drew():
                raise ValueError(
                    "the network draws random numbers (noise, dropout), so that its spikes would be others "
                    "than those of the solution; take them from system.solve(), or call eval() first"
                )
        finally:
            moment.restore()
        return _joined(made)

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

        Each step passes the network once, and returned are the spikes of this pass, which drove the step:
        random numbers (a noisy threshold, dropout) are drawn once a step, and running statistics count a step
        once. ``"abm"`` corrects a step with the currents and spikes at its start, and moves the potentials
        alone. An implicit method looks several times at the end of a step, each time with the same random
        numbers, and statistics count the last look.

        Args:
            inputs: what to drive it with, ``(T, B, *)``; what it was bound to by default.
            method: a name in ``fracspike.solvers.METHODS``. Explicit ones go with the jumps that spikes make
                in the right-hand side; the iteration of an implicit one may not converge.
            memory: what is kept of the past, ``Full()`` by default.
            gradient: ``"adjoint"`` or ``"autograd"``.
            substeps: steps for each sample.

        Returns:
            Potentials, spikes and output; there is one entry for each step.

        Raises:
            ValueError: if an argument is unknown, or the system has no input.
            RuntimeError: if an implicit step does not converge.
        """
        checks.one_of("method", method, METHODS)
        if inputs is not None:
            self.bind(inputs)
        t = self._grid(checks.positive_int("substeps", substeps))
        steps = steps_of(method, self._look, self._hold, self.model, self.dt / substeps)
        y = fdeint(steps, self.y0, t, self.alpha, method=method, memory=memory, gradient=gradient)
        spikes, output = _joined(steps.passes(t, y))
        return Solution(t, self.split(y), spikes, output, t[1:] if steps.at_end else t[:-1])

    def _grid(self, substeps: int) -> Tensor:
        count = len(self._bound()) * substeps
        return torch.arange(count + 1, dtype=torch.float64) * (self.dt / substeps)

    def _bound(self) -> Tensor:
        if self.inputs is None:
            raise ValueError("the system has no input yet; pass it to as_system, bind or solve")
        return self.inputs

    def _look(self, t: Tensor, y: Tensor) -> Pass:
        """Pass the network at one time, with the flat state ``(B, N)`` there."""
        return self._pass(self.input_at(t.reshape(1)), self.split(y.unsqueeze(0)))

    def _pass(self, x: Tensor, potentials: dict[str, Tensor]) -> Pass:
        """Pass the network at n times, with an input and potentials of ``(n, B, *)``."""
        rates: dict[str, Tensor] = {}
        currents: dict[str, Tensor] = {}
        spikes: dict[str, Tensor] = {}

        def cell(name: str, current: Tensor) -> Tensor:
            currents[name] = current
            rates[name], spikes[name] = rate_of(self.layers[name], potentials[name], current, self.lookahead)
            return spikes[name]

        with in_place(self.layers, cell):
            output = cast(Tensor, self.model(x))
        return Pass({name: rates[name] for name in self.shapes}, currents, spikes, output)

    def _hold(self, y: Tensor, made: Pass) -> dict[str, Tensor]:
        """Return the rates at the flat state ``(B, N)``, with the currents and spikes of a pass."""
        return {
            name: rate_of(self.layers[name], v, made.currents[name], self.lookahead, made.spikes[name])[0]
            for name, v in self.split(y.unsqueeze(0)).items()
        }

    @torch.no_grad()
    def _probe(self, x: Tensor) -> dict[str, torch.Size]:
        shapes: dict[str, torch.Size] = {}

        def cell(name: str, current: Tensor) -> Tensor:
            if name in shapes:
                raise ValueError(f"`{name}` is used twice in a pass; a system needs one layer for each place")
            shapes[name] = current.shape[2:]
            return torch.zeros_like(current)

        modes = {part: part.training for part in self.model.modules()}
        moment = Moment(self.model)
        self.model.eval()  # a look at the shapes must not move running statistics, nor random numbers
        try:
            with in_place(self._named, cell):
                self.model(x)
        finally:
            moment.restore()
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
        ``system.read(t, y)`` gives spikes and output, of a network that draws no random numbers;
        ``system.solve()`` does all in one pass a step.

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


def _joined(made: list[Pass]) -> tuple[dict[str, Tensor], Tensor]:
    """Return spikes and output of passes as one, in the order of time."""
    spikes = {name: torch.cat([one.spikes[name] for one in made]) for name in made[0].spikes}
    return spikes, torch.cat([one.output for one in made])
