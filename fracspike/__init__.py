"""fracspike: fractional-order spiking neurons for PyTorch."""

__version__ = "0.1.0"
