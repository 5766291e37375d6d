"""Fractional-order spiking neurons."""

from torch import nn

from .adaptive import FractionalALIF
from .adex import FractionalAdEx
from .current_based import FractionalCubaLIF
from .integrate_and_fire import FractionalIF
from .izhikevich import FractionalIzhikevich
from .lif import FractionalLIF
from .nonlinear import FractionalNeuron
from .orders import distributed
from .readout import FractionalLI
from .recurrent import RecurrentFractionalALIF, RecurrentFractionalLIF
from .state import Simulation, State

#: every neuron by its short name
NEURONS: dict[str, type[nn.Module]] = {
    "if": FractionalIF,
    "lif": FractionalLIF,
    "alif": FractionalALIF,
    "cuba_lif": FractionalCubaLIF,
    "li": FractionalLI,
    "recurrent_lif": RecurrentFractionalLIF,
    "recurrent_alif": RecurrentFractionalALIF,
    "izhikevich": FractionalIzhikevich,
    "adex": FractionalAdEx,
}

__all__ = [
    "NEURONS",
    "FractionalALIF",
    "FractionalAdEx",
    "FractionalCubaLIF",
    "FractionalIF",
    "FractionalIzhikevich",
    "FractionalLI",
    "FractionalLIF",
    "FractionalNeuron",
    "RecurrentFractionalALIF",
    "RecurrentFractionalLIF",
    "Simulation",
    "State",
    "distributed",
]
