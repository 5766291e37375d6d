"""Whole networks: layers on sequences, conversion of other libraries' models, recording, coupled systems."""

from .recording import Recording, Trace, memory_kernel, record
from .time_distributed import TimeDistributed

__all__ = ["Recording", "TimeDistributed", "Trace", "memory_kernel", "record"]
