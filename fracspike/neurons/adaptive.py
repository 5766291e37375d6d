"""The adaptive fractional leaky integrate-and-fire neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fracspike.solvers import checks

from . import parameters
from .lif import FractionalLIF
from .loop import Feedback
from .module import LAZY
from .state import State

OWN = ("beta", "tau_adaptation", "coupling")
TAU = 20.0  # of the adaptation, by default


class FractionalALIF(FractionalLIF):
    r"""A layer of fractional neurons that tire: each spike raises the threshold for a while.

    .. math:: \tau^\alpha D^\alpha v &= -(v - v_\text{rest}) + R\, I(t) - w \\
              \theta &= \text{threshold} + \beta\, a, \qquad a' = -a/\tau_a + \sum_k \delta(t - t_k) \\
              \tau_a\, w' &= -w + c\,(v - v_\text{rest})

    ``a`` steps up by 1 at a spike and decays with ``tau_adaptation``, exactly at any ``dt``. With
    ``coupling`` c other than 0, the potential below threshold is opposed as well, by ``w`` (adLIF).
    The power-law memory of the membrane adapts by itself; this adaptation forgets exponentially.

    Args:
        alpha, tau, threshold, dt: as :class:`FractionalLIF`.
        beta: rise of the threshold at a spike, in the unit of the potential.
        tau_adaptation: time constant of the adaptation, in the unit of ``dt``.
        coupling: how strongly the potential is opposed, per potential.
        learn: as :class:`FractionalLIF`, and ``"beta"``, ``"tau_adaptation"``, ``"coupling"``.
        **kwargs: as :class:`FractionalLIF`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if one is out of range, unknown, or does not go with another.

    Source: Bellec, Salaj, Subramoney, Legenstein and Maass (2018), NeurIPS, for the threshold (there
    ``a`` rises by :math:`1 - e^{-dt/\tau_a}`); Bittar and Garner (2022), Front. Neurosci. 16:865897,
    for adLIF.

    >>> import torch
    >>> neuron = FractionalALIF(alpha=0.9, beta=0.5, tau_adaptation=50.0)
    >>> run = neuron.simulate(torch.full((60, 1), 3.0))
    >>> run.spikes[:30].sum() > run.spikes[30:].sum(), run.variables["adaptation"].shape
    (tensor(True), torch.Size([60, 1]))
    """

    beta: Tensor
    tau_adaptation: Tensor
    coupling: Tensor

    learnable = (*FractionalLIF.learnable, *OWN)
    shown = (*FractionalLIF.shown, "beta", "tau_adaptation")
    defaults: ClassVar[Mapping[str, float]] = {**FractionalLIF.defaults, "coupling": 0.0}

    def __init__(
        self,
        alpha: float | Tensor | Sequence[float] = 0.7,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor | None = None,
        dt: float = 1.0,
        *,
        beta: float | Tensor = 0.2,
        tau_adaptation: float | Tensor = TAU,
        coupling: float | Tensor = 0.0,
        learn: str | Sequence[str] = (),
        size: int | Sequence[int] | str | None = None,
        **kwargs: Any,
    ) -> None:
        own = {
            "beta": checks.real("beta", beta),
            "tau_adaptation": checks.real("tau_adaptation", tau_adaptation, above=0.0),
            "coupling": checks.real("coupling", coupling),
        }
        learned = parameters.names(learn, self.learnable)
        _check_time(own, learned, tau_adaptation)
        shape = parameters.shared_size(own.values(), size)
        super().__init__(alpha, tau, threshold, dt, learn=sorted(learned - own.keys()), size=shape, **kwargs)
        ranges = {"tau_adaptation": parameters.Above(0.0)}
        parameters.register_all(self, own, ranges, learned & own.keys(), self.size)
        if shape == LAZY:
            self._make_lazy(learned & own.keys())
        self._coupled = "coupling" in learned or bool((torch.as_tensor(coupling) != 0).any())

    def _initial_extra(self, like: Tensor) -> dict[str, Tensor | State]:
        rest = torch.zeros_like(like)
        start: dict[str, Tensor | State] = {"adaptation": rest}
        return start | ({"w": rest} if self._coupled else {}) | super()._initial_extra(like)

    def _feedback(self, state: State, dtype: torch.dtype) -> Feedback:
        names = ("adaptation", "w") if self._coupled else ("adaptation",)
        decay = torch.exp(-self.dt / self.tau_adaptation)
        return Adaptation(
            {name: value for name in names if isinstance(value := state.extra[name], Tensor)},
            decay=decay.to(dtype),
            beta=self.beta.to(dtype),
            pull=((1 - decay) * self.coupling).to(dtype),
            v_rest=self.v_rest.to(dtype),
        )


def _check_time(own: Mapping[str, float | Tensor], learned: set[str], tau_adaptation: float | Tensor) -> None:
    """Refuse a time constant of an adaptation that there is not."""
    adapts = learned & {"beta", "coupling"} or any(
        parameters.differs(own[name], 0.0) for name in ("beta", "coupling")
    )
    if not adapts and (parameters.differs(tau_adaptation, TAU) or "tau_adaptation" in learned):
        raise ValueError(
            "`tau_adaptation` has no effect with beta=0 and coupling=0; give one of them, or learn it"
        )


class Adaptation(Feedback):
    """A threshold that spikes raise, and a current that opposes the potential; see :class:`FractionalALIF`.

    Args:
        state: ``adaptation``, and ``w`` if the potential is opposed.
        decay: of both over one step.
        beta: rise of the threshold per unit of adaptation.
        pull: what ``w`` gains in a step per potential above rest.
        v_rest: resting potential.
    """

    def __init__(
        self, state: Mapping[str, Tensor], decay: Tensor, beta: Tensor, pull: Tensor, v_rest: Tensor
    ) -> None:
        super().__init__(state)
        self.shown = tuple(state)
        self.decay, self.beta, self.pull, self.v_rest = decay, beta, pull, v_rest

    def reason(self, current: Tensor) -> str | None:
        """See :class:`Feedback`."""
        return None

    def given(self, current: Tensor) -> dict[str, Tensor]:
        """See :class:`Feedback`."""
        double = self.decay.dtype
        found = {"lift": self.beta, "stay": self.decay, "a": self._state["adaptation"].to(double)}
        if "w" in self._state:
            found |= {"pull": self.pull, "w": self._state["w"].to(double)}
        return found

    def drive(self, u: Tensor) -> Tensor:
        """See :class:`Feedback`."""
        return u - self._state["w"] if "w" in self._state else u

    def threshold(self, threshold: Tensor) -> Tensor:
        """See :class:`Feedback`."""
        return threshold + self.beta * self._state["adaptation"]

    def observe(self, v: Tensor, spike: Tensor) -> None:
        """See :class:`Feedback`."""
        self._state["adaptation"] = self.decay * self._state["adaptation"] + spike
        if "w" in self._state:
            self._state["w"] = self.decay * self._state["w"] + self.pull * (v - self.v_rest)
