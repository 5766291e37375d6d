"""Fractional-order spiking neurons."""

from .lif import FractionalLIF
from .state import Simulation, State

__all__ = ["FractionalLIF", "Simulation", "State"]
