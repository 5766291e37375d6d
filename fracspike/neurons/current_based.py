"""The current-based neuron: a synaptic filter before the membrane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from fracspike.solvers import checks

from . import parameters
from .lif import FractionalLIF
from .module import LAZY, in_single
from .readout import FractionalLI
from .state import Simulation, State

OWN = {"alpha_syn": "alpha", "tau_syn": "tau"}  # what the synapse calls it


class FractionalCubaLIF(FractionalLIF):
    r"""A layer of current-based neurons: the input passes a synaptic filter first.

    .. math:: \tau_s^{\alpha_s} D^{\alpha_s} i &= -i + I(t) \\
              \tau^\alpha D^\alpha v &= -(v - v_\text{rest}) + R\, i

    The filter is a :class:`FractionalLI`, exponential at ``alpha_syn=1`` (the default), with a
    power-law tail below. The synaptic current at the end of a step drives the membrane over that step.

    Args:
        alpha, tau, threshold, dt: as :class:`FractionalLIF`.
        alpha_syn: order of the synaptic filter, in (0, 1].
        tau_syn: its time constant, in the unit of ``dt``.
        learn: as :class:`FractionalLIF`, and ``"alpha_syn"``, ``"tau_syn"``.
        **kwargs: as :class:`FractionalLIF`; ``dt``, ``memory`` and ``size`` hold for the filter too.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if one is out of range, unknown, or does not go with another.

    >>> import torch
    >>> neuron = FractionalCubaLIF(alpha=0.7, tau_syn=2.0)
    >>> neuron.simulate(torch.ones(3, 1)).variables["synaptic_current"][:, 0]  # 1 - exp(-t / 2)
    tensor([0.3935, 0.6321, 0.7769])
    """

    learnable = (*FractionalLIF.learnable, *OWN)

    def __init__(
        self,
        alpha: float | Tensor | Sequence[float] = 0.7,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor | None = None,
        dt: float = 1.0,
        *,
        alpha_syn: float | Tensor = 1.0,
        tau_syn: float | Tensor = 2.0,
        learn: str | Sequence[str] = (),
        size: int | Sequence[int] | str | None = None,
        **kwargs: Any,
    ) -> None:
        learned = parameters.names(learn, self.learnable)
        shape = parameters.shared_size((alpha_syn, tau_syn), size)
        super().__init__(alpha, tau, threshold, dt, learn=sorted(learned - OWN.keys()), size=shape, **kwargs)
        self.synapse = FractionalLI(
            checks.order("alpha_syn", alpha_syn),
            checks.real("tau_syn", tau_syn, above=0.0),
            dt=self.dt,
            memory=kwargs.get("memory"),
            backend=kwargs.get("backend", "auto"),
            learn=[OWN[name] for name in sorted(learned & OWN.keys())],
            size=shape if shape == LAZY else self.size,
        )

    @in_single
    def simulate(self, current: Tensor, state: State | None = None) -> Simulation:
        """See :meth:`FractionalLIF.simulate`; the synaptic current is in ``variables``."""
        self._check_current(current)
        if state is None:
            state = self.initial_state(current[0])
        else:
            self._check_state(state, current)
        before = state.extra["synapse"]
        assert isinstance(before, State)
        filtered = self.synapse.simulate(current, before)
        run = super().simulate(filtered.voltage, state)
        return replace(
            run,
            state=replace(run.state, extra=run.state.extra | {"synapse": filtered.state}),
            variables=run.variables | {"synaptic_current": filtered.voltage},
        )

    def _initial_extra(self, like: Tensor) -> dict[str, Tensor | State]:
        return {"synapse": self.synapse.initial_state(like)} | super()._initial_extra(like)
