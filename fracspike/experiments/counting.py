"""The networks of the binary-adding table: 2-128-128-10, of neurons by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.neurons import FractionalLIF, RecurrentFractionalLIF
from fracspike.solvers import Exponentials, mittag_leffler

from .adapting import CurrentAdapting, ThresholdAdapting

STEPS, CLASSES, HIDDEN = 100, 10, 128
SURROGATE = "rectangle:width=0.2,normalize=peak"
SINGLE = 7e-7  # the memory is exact in single precision; with the horizon, half the usual modes do


@dataclass(frozen=True)
class Published:
    """A row of the published table, with what its configuration has of its own.

    Attributes:
        accuracy: in percent, the best of 50 epochs.
        lr: learning rate at first.
        threshold: of the neurons.
        decay: of the potential in a step; learnt where None.
    """

    accuracy: float
    lr: float
    threshold: float
    decay: float | None = None

    @property
    def tau(self) -> float:
        """Time constant in steps."""
        assert self.decay is not None
        return -1.0 / math.log(self.decay)


#: neuron and whether it is recurrent -> row
TABLE = {
    ("lif", False): Published(29.6, lr=5e-4, threshold=0.5, decay=0.98),
    ("lif", True): Published(53.35, lr=5e-4, threshold=0.5, decay=0.5),
    ("alif", False): Published(40.3, lr=5e-3, threshold=0.3),
    ("alif", True): Published(68.0, lr=1e-3, threshold=0.4),
    ("adlif", False): Published(42.0, lr=5e-3, threshold=0.5),
    ("adlif", True): Published(99.05, lr=1e-3, threshold=0.5),
}
ADAPTING = {"alif": ThresholdAdapting, "adlif": CurrentAdapting}
NAMES = {"lif": "LIF", "alif": "ALIF", "adlif": "adLIF"}
TAU = TABLE["lif", False].tau

#: makes the neurons of a layer, given whether their spikes come back
Layer = Callable[[bool], nn.Module]


def fractional(
    alpha: float,
    *,
    learn: bool = False,
    tau: float = TAU,
    threshold: float = 0.5,
    surrogate: str = SURROGATE,
) -> Layer:
    """Return layers of the fractional LIF that a unit weight raises by 1 in one step.

    Args:
        alpha: Caputo order of all neurons; of each one at first, if it is learnt.
        learn: whether each neuron learns its own order.
        tau: time constant in steps.
        threshold: of the potential.
        surrogate: name of the surrogate gradient.
    """
    order = torch.tensor(alpha, dtype=torch.float64)
    first_step = 1.0 - mittag_leffler(-((1.0 / tau) ** order), order)

    def layer(recurrent: bool) -> FractionalLIF:
        common: dict[str, Any] = {
            "alpha": alpha,
            "tau": tau,
            "threshold": threshold,
            "resistance": 1.0 / first_step,
            "surrogate": surrogate,
            "reset": "value",
            "memory": Exponentials(SINGLE, horizon=STEPS),
            "learn": ("alpha",) if learn else (),
            "size": HIDDEN if learn else None,
        }
        if recurrent:
            return RecurrentFractionalLIF(recurrent=nn.Linear(HIDDEN, HIDDEN), **common)
        return FractionalLIF(**common)

    return layer


def layers(cell: Mapping[str, Any]) -> Layer:
    """Return what makes the layers of a network.

    Args:
        cell: ``neuron``, ``recurrent`` and ``surrogate``; of a LIF ``alpha``, ``learn`` and ``tau`` as well.
    """
    published = TABLE[cell["neuron"], cell["recurrent"]]
    if cell["neuron"] == "lif":
        own = {name: cell[name] for name in ("alpha", "learn", "tau", "surrogate")}
        return fractional(threshold=published.threshold, **own)
    make = ADAPTING[cell["neuron"]]
    return lambda recurrent: make(HIDDEN, published.threshold, cell["surrogate"], recurrent=recurrent)


class Network(nn.Module):
    """Two layers of 128 neurons; the scores are a linear map of the second's last spikes.

    Args:
        layer: makes the neurons of a layer.
        recurrent: whether the spikes of the first layer come back to it.
    """

    def __init__(self, layer: Layer, *, recurrent: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.early, self.late = layer(recurrent), layer(False)
        self.readout = nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scores: ``(N, T, 2) -> (N, 10)``."""
        spikes = self.early(self.first(inputs.transpose(0, 1)))
        scores: Tensor = self.readout(self.late(self.second(spikes))[-1])
        return scores
