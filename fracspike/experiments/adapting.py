r"""Memoryless neurons that adapt, step by step as a published benchmark iterates them.

``FractionalALIF`` holds the same ideas on the library's terms: exact between spikes, parameters kept in
range. These two are the recurrences behind Ma et al. (2025), to compare with their figures; where they
differ from the papers they go by, the docstrings say how. With ``recurrent=True`` the spikes of the step
before come back through weights of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fracspike import surrogate as surrogates

Spike = Callable[[Tensor], Tensor]


class ThresholdAdapting(nn.Module):
    r"""ALIF: spikes raise the threshold, and the reset takes the threshold of the moment off.

    .. math:: b_n &= \rho\, b_{n-1} + (1 - \rho)\, s_{n-1}, \qquad \theta_n = \theta + \beta\, b_n \\
              v_n &= \kappa\, v_{n-1} + x_n + W s_{n-1} + c - \theta_n s_{n-1}, \qquad s_n = H(v_n - \theta_n)

    with :math:`\rho = e^{-1/\tau_a}`, :math:`\kappa = e^{-1/\tau}` and :math:`b_0 = 0.01`. Both time
    constants are learnt, one for each neuron; nothing keeps them positive.

    Args:
        size: how many neurons.
        threshold: :math:`\theta`, of a neuron that has not spiked.
        surrogate: makes the spike of ``v - threshold``; as for :class:`fracspike.FractionalLIF`.
        recurrent: whether there are recurrent weights and a bias, W and c.
        beta: rise of the threshold.
        tau: of the potential at first, in steps.
        tau_adaptation: of the threshold at first, in steps.

    Source: Yin, Corradi and Bohte (2021), Nat. Mach. Intell. 3:905-913; there the input is scaled by
    :math:`1 - \kappa`.

    >>> import torch
    >>> ThresholdAdapting(3, 0.3, "rectangle")(torch.ones(10, 2, 3)).shape
    torch.Size([10, 2, 3])
    """

    def __init__(
        self,
        size: int,
        threshold: float,
        surrogate: str,
        *,
        recurrent: bool = False,
        beta: float = 0.2,
        tau: float = 1.0,
        tau_adaptation: float = 2.0,
    ) -> None:
        super().__init__()
        self.threshold, self.beta = threshold, beta
        self.spike: Spike = surrogates.resolve(surrogate)
        self.recurrent = nn.Linear(size, size) if recurrent else None
        self.tau = nn.Parameter(torch.full((size,), tau))
        self.tau_adaptation = nn.Parameter(torch.full((size,), tau_adaptation))

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes for a current, both ``(T, B, N)``."""
        keep, keep_threshold = torch.exp(-1.0 / self.tau), torch.exp(-1.0 / self.tau_adaptation)
        v, s, b = torch.zeros_like(x[0]), torch.zeros_like(x[0]), torch.full_like(x[0], 0.01)
        spikes = []
        for drive in x:
            if self.recurrent is not None:
                drive = drive + self.recurrent(s)
            b = torch.lerp(s, b, keep_threshold)
            theta = self.threshold + self.beta * b
            v = keep * v + drive - theta * s
            s = self.spike(v - theta)
            spikes.append(s)
        return torch.stack(spikes)


class CurrentAdapting(nn.Module):
    r"""adLIF: a slow current opposes the potential, and spikes add to it.

    .. math:: w_n &= \rho\, w_{n-1} + a\, v_{n-1} + b\, s_{n-1} \\
              v_n &= \kappa\, (v_{n-1} - s_{n-1}) + (1 - \kappa)\, (\hat{x}_n + W s_{n-1} - w_n), \qquad
              s_n = H(v_n - \theta)

    All four parameters are learnt, one for each neuron, and cut to a range; :math:`\kappa` and :math:`\rho`
    are drawn evenly from theirs at first, a and b start at 0. :math:`\hat{x}` is the current, normalised over
    steps and samples of the batch. W has no diagonal and starts from an orthogonal matrix.

    Args:
        size: how many neurons.
        threshold: :math:`\theta`.
        surrogate: makes the spike of ``v - threshold``; as for :class:`fracspike.FractionalLIF`.
        recurrent: whether there are recurrent weights.

    Source: Bittar and Garner (2022), Front. Neurosci. 16:865897; there a and b are drawn from their ranges.

    >>> import torch
    >>> CurrentAdapting(3, 0.5, "rectangle", recurrent=True)(torch.ones(10, 2, 3)).shape
    torch.Size([10, 2, 3])
    """

    KEEP = (math.exp(-1 / 5), math.exp(-1 / 25))
    KEEP_CURRENT = (math.exp(-1 / 30), math.exp(-1 / 120))
    COUPLING = (-1.0, 1.0)
    JUMP = (0.0, 2.0)

    def __init__(self, size: int, threshold: float, surrogate: str, *, recurrent: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.spike: Spike = surrogates.resolve(surrogate)
        self.normalise = nn.BatchNorm1d(size, momentum=0.05)
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size))) if recurrent else None
        self.keep = nn.Parameter(torch.empty(size).uniform_(*self.KEEP))
        self.keep_current = nn.Parameter(torch.empty(size).uniform_(*self.KEEP_CURRENT))
        self.coupling = nn.Parameter(torch.zeros(size))
        self.jump = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes for a current, both ``(T, B, N)``."""
        keep, keep_current = self.keep.clamp(*self.KEEP), self.keep_current.clamp(*self.KEEP_CURRENT)
        coupling, jump = self.coupling.clamp(*self.COUPLING), self.jump.clamp(*self.JUMP)
        weights = None if self.recurrent is None else self.recurrent.clone().fill_diagonal_(0.0)
        v = s = w = torch.zeros_like(x[0])
        spikes = []
        for drive in self.normalise(x.flatten(0, 1)).view_as(x):
            if weights is not None:
                drive = drive + s @ weights
            w = keep_current * w + coupling * v + jump * s
            v = torch.lerp(drive - w, v - s, keep)
            s = self.spike(v - self.threshold)
            spikes.append(s)
        return torch.stack(spikes)
