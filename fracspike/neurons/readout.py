"""The fractional leaky integrator: a readout without spikes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fracspike.solvers import Memory

from .lif import FractionalLIF
from .state import State


class FractionalLI(FractionalLIF):
    r"""A layer of leaky integrators that never spike; it returns potentials.

    .. math:: \tau^\alpha D^\alpha v = -(v - v_\text{rest}) + R\, I(t)

    The usual last layer of a network that is read by its potential, and a synaptic filter: with
    ``alpha=1`` the exponential one.

    Args:
        alpha: Caputo order in (0, 1].
        tau: time constant, in the unit of ``dt``.
        dt: time step.
        v_rest: resting potential.
        resistance: potential per unit of current, positive.
        method: as :class:`FractionalLIF`.
        memory: as :class:`FractionalLIF`.
        learn: names among ``"alpha"``, ``"coefficients"``, ``"tau"``, ``"resistance"``.
        size: shape of the neurons, if they have parameters of their own.
        coefficients: with a list of orders, one for each.
        backend: as :class:`FractionalLIF`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if one is out of range, unknown, or does not go with another.

    >>> import torch
    >>> readout = FractionalLI(alpha=1.0, tau=2.0)
    >>> readout(torch.ones(3, 1))[:, 0]  # 1 - exp(-t / 2)
    tensor([0.3935, 0.6321, 0.7769])
    """

    learnable = ("alpha", "coefficients", "tau", "resistance")
    shown = ("alpha", "tau", "resistance")
    spiking = False

    def __init__(
        self,
        alpha: float | Tensor | Sequence[float] = 0.7,
        tau: float | Tensor = 2.0,
        dt: float = 1.0,
        v_rest: float | Tensor = 0.0,
        resistance: float | Tensor = 1.0,
        method: str | None = None,
        memory: Memory | None = None,
        learn: Sequence[str] = (),
        size: int | Sequence[int] | str | None = None,
        coefficients: Sequence[float] | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            alpha,
            tau,
            dt=dt,
            v_rest=v_rest,
            resistance=resistance,
            surrogate=torch.zeros_like,
            reset="none",
            method=method,
            memory=memory,
            learn=learn,
            size=size,
            coefficients=coefficients,
            backend=backend,
        )

    def forward(self, current: Tensor, state: State | None = None) -> Tensor:
        """Return the potentials for a current: ``(T, B, *) -> (T, B, *)``.

        Args:
            current: input current ``(T, B, *)``, floating point and finite.
            state: where to start, from :meth:`simulate`; at rest by default.
        """
        return self.simulate(current, state).voltage

    def extra_repr(self) -> str:
        """Return the parameters, for printing."""
        numbers = f"{self._numbers()}, dt={self.dt:g}"
        return f"{numbers}, method={self.method!r}, memory={self.memory!r}, backend={self.backend!r}"
