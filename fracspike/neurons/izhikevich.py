"""The fractional Izhikevich neuron."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .nonlinear import FractionalNeuron


class FractionalIzhikevich(FractionalNeuron):
    r"""A layer of Izhikevich neurons with Caputo derivatives; time in ms, potential in mV.

    .. math:: D^\alpha v &= 0.04 v^2 + 5 v + 140 - u + I \\
              D^\alpha u &= a\,(b v - u)

    At ``v >= peak`` it spikes: :math:`v \to c,\ u \to u + d`. The potential is cut at the peak.

    Args:
        alpha: as :class:`FractionalNeuron`; a dict gives ``v`` and ``u`` orders of their own.
        dt: time step, ms.
        a: rate of the recovery variable, default 0.02.
        b: its sensitivity to the potential, default 0.2.
        c: potential after a spike, default -65 mV.
        d: step of the recovery variable at a spike, default 8.
        peak: potential at and above which it spikes, default 30 mV.
        **others: as :class:`FractionalNeuron`.

    Source: Izhikevich (2003), IEEE Trans. Neural Netw. 14(6), equations 1 to 3; with a fractional
    derivative, Teka, Upadhyay and Mondal (2018), Neural Netw. 93, 110-125.

    >>> import torch
    >>> neuron = FractionalIzhikevich(alpha=1.0, dt=0.25)
    >>> int(neuron(torch.full((2000, 1), 10.0)).sum())  # regular spiking, 500 ms
    12
    """

    variables = ("v", "u")
    constants: ClassVar[dict[str, float]] = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0, "peak": 30.0}
    positive = ("a",)

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    peak: Tensor

    def rest(self) -> tuple[Tensor, Tensor]:
        """Return the published start: the reset potential, and the recovery that it would hold."""
        return self.c, self.b * self.c

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, u = variables
        return 0.04 * v**2 + 5 * v + 140 - u + current, self.a * (self.b * v - u)

    def excess(self, *variables: Tensor) -> Tensor:
        """See :class:`FractionalNeuron`."""
        return variables[0] - self.peak

    def limit(self, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, u = variables
        return torch.minimum(v, self.peak.to(v.dtype)), u

    def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, u = variables
        return v + (self.c - v) * spike, u + self.d * spike
