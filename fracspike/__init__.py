"""fracspike: fractional-order spiking neurons for PyTorch."""

from . import surrogate

__all__ = ["surrogate"]
__version__ = "0.1.0"
