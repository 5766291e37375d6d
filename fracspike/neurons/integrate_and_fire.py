"""The fractional integrate-and-fire neuron: no leak."""

from __future__ import annotations

import torch
from torch import Tensor

from .lif import EXACT, FractionalLIF
from .membrane import Integrator, Membrane
from .modes import Modes
from .state import State


class FractionalIF(FractionalLIF):
    r"""A layer of integrate-and-fire neurons without a leak.

    .. math:: \tau^\alpha D^\alpha v = R\, I(t)

    The potential is the fractional integral of the input: the past drive fades like
    :math:`t^{\alpha-1}`, although nothing leaks. Under constant current,
    :math:`v = v_\text{rest} + R I\, (t/\tau)^\alpha / \Gamma(1 + \alpha)`. The method ``"exact"`` has no
    discretisation error at any ``dt``. A reset stays in the potential for good.

    Args:
        *args: as :class:`FractionalLIF`; ``v_rest`` is where it starts, and from where the threshold's
            height is counted.
        **kwargs: likewise.

    Source: Teka, Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526, without their leak.

    >>> import torch
    >>> neuron = FractionalIF(alpha=0.5, tau=1.0, dt=0.25, reset="none")
    >>> neuron.simulate(torch.ones(4, 1)).voltage[:, 0]  # sqrt(t) / Gamma(3/2)
    tensor([0.5642, 0.7979, 0.9772, 1.1284])
    """

    leaky = False

    def _membrane(self, state: State, steps: int, dtype: torch.dtype, modes: Modes | None = None) -> Membrane:
        count = len(state.past) + steps + 1
        if self.method == EXACT:
            gain, kernel = Integrator.coefficients(self.alpha, self.tau, self.dt, count)
            return Integrator(state, gain, kernel, self.memory)
        return self._differences(state, count, dtype, leaky=False)

    def _charge(self, v: Tensor, u: Tensor) -> Tensor:
        return v + self._unit_gain(v.dtype) * u
