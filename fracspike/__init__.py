"""fracspike: fractional-order spiking neurons for PyTorch."""

__version__ = "0.1.0"

from . import surrogate
from .neurons import FractionalLIF, Simulation, State

__all__ = ["FractionalLIF", "Simulation", "State", "surrogate"]
