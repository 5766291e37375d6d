"""The fractional adaptive exponential integrate-and-fire neuron."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .nonlinear import FractionalNeuron


class FractionalAdEx(FractionalNeuron):
    r"""A layer of adaptive exponential neurons with Caputo derivatives; ms, mV, pA, nS, pF.

    .. math:: C\, D^\alpha v &= -g_L (v - E_L) + g_L \Delta_T\, e^{(v - V_T)/\Delta_T} - w + I \\
              \tau_w D^\alpha w &= a\,(v - E_L) - w

    At ``v >= peak`` it spikes: :math:`v \to V_r,\ w \to w + b`. The potential is cut at the peak.

    Args:
        alpha: as :class:`FractionalNeuron`; a dict gives ``v`` and ``w`` orders of their own.
        dt: time step, ms.
        C: capacitance, default 281 pF.
        g_leak: leak conductance, default 30 nS.
        E_leak: leak potential, default -70.6 mV.
        V_T: where the upswing begins, default -50.4 mV.
        Delta_T: how sharply, default 2 mV.
        tau_w: time constant of the adaptation current, default 144 ms.
        a: its sensitivity to the potential, default 4 nS.
        b: its step at a spike, default 80.5 pA.
        V_r: potential after a spike, default -70.6 mV.
        peak: potential at and above which it spikes, default -40.4 mV (five ``Delta_T`` above ``V_T``,
            from where the upswing takes no time to speak of).
        **others: as :class:`FractionalNeuron`.

    Source: Brette and Gerstner (2005), J. Neurophysiol. 94, 3637-3642, equations 1 and 2, Table 1.

    >>> import torch
    >>> neuron = FractionalAdEx(alpha=1.0, dt=0.1)
    >>> spikes = neuron(torch.full((4000, 1), 1000.0))  # 1 nA for 400 ms: it adapts
    >>> int(spikes[:2000].sum()) > int(spikes[2000:].sum()) > 0
    True
    """

    variables = ("v", "w")
    constants: ClassVar[dict[str, float]] = {
        "C": 281.0,
        "g_leak": 30.0,
        "E_leak": -70.6,
        "V_T": -50.4,
        "Delta_T": 2.0,
        "tau_w": 144.0,
        "a": 4.0,
        "b": 80.5,
        "V_r": -70.6,
        "peak": -40.4,
    }
    positive = ("C", "g_leak", "Delta_T", "tau_w")

    C: Tensor
    g_leak: Tensor
    E_leak: Tensor
    V_T: Tensor
    Delta_T: Tensor
    tau_w: Tensor
    a: Tensor
    b: Tensor
    V_r: Tensor
    peak: Tensor

    def rest(self) -> tuple[Tensor, Tensor]:
        """Return the leak potential, and no adaptation."""
        return self.E_leak, torch.zeros_like(self.E_leak)

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, w = variables
        upswing = self.Delta_T * torch.exp((v - self.V_T) / self.Delta_T)
        return (
            (self.g_leak * (self.E_leak - v + upswing) - w + current) / self.C,
            (self.a * (v - self.E_leak) - w) / self.tau_w,
        )

    def excess(self, *variables: Tensor) -> Tensor:
        """See :class:`FractionalNeuron`."""
        return variables[0] - self.peak

    def limit(self, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, w = variables
        return torch.minimum(v, self.peak.to(v.dtype)), w

    def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FractionalNeuron`."""
        v, w = variables
        return v + (self.V_r - v) * spike, w + self.b * spike
