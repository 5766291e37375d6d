"""fracspike: fractional-order spiking neurons for PyTorch."""

__version__ = "0.1.0"

from . import encode, losses, measure, plots, surrogate
from .layers import TimeDistributed, as_system, convert, record
from .neurons import (
    FractionalAdEx,
    FractionalALIF,
    FractionalCubaLIF,
    FractionalIF,
    FractionalIzhikevich,
    FractionalLI,
    FractionalLIF,
    FractionalNeuron,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
    Simulation,
    State,
    distributed,
)

__all__ = [
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
    "TimeDistributed",
    "as_system",
    "convert",
    "distributed",
    "encode",
    "losses",
    "measure",
    "plots",
    "record",
    "surrogate",
]
