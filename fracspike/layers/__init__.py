"""Whole networks: layers on sequences, conversion of other libraries' models, recording, coupled systems."""

from .convert import ReturnsPotential, convert
from .recording import Recording, Trace, memory_kernel, record
from .system import Solution, System, as_system
from .time_distributed import TimeDistributed

__all__ = [
    "Recording",
    "ReturnsPotential",
    "Solution",
    "System",
    "TimeDistributed",
    "Trace",
    "as_system",
    "convert",
    "memory_kernel",
    "record",
]
