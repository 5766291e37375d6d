"""The compiled path of the linear neurons: a whole sequence in one call, with its adjoint.

Importing this package imports neither Numba nor the operators; the first sequence does.
"""

from __future__ import annotations

from .available import missing
from .sequence import Feedback, Neuron, Sequence, run
from .step import MismatchError, Step, known, obstacle, plan

__all__ = [
    "Feedback",
    "MismatchError",
    "Neuron",
    "Sequence",
    "Step",
    "known",
    "missing",
    "obstacle",
    "plan",
    "run",
]
