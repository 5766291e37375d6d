"""fracspike: fractional-order spiking neurons for PyTorch."""

__version__ = "0.1.0"

from . import encode, losses, measure, plots, surrogate
from .layers import TimeDistributed, as_system, record
from .neurons import FractionalLIF, Simulation, State

__all__ = [
    "FractionalLIF",
    "Simulation",
    "State",
    "TimeDistributed",
    "as_system",
    "encode",
    "losses",
    "measure",
    "plots",
    "record",
    "surrogate",
]
