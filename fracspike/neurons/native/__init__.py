"""The compiled path of the linear neurons: a whole sequence in one call, with its adjoint.

Importing this package imports neither Numba nor the operators; the first sequence does.
"""

from __future__ import annotations

from .sequence import Levels, Sequence, run
from .step import Mismatch, Step, obstacle, plan

__all__ = ["Levels", "Mismatch", "Sequence", "Step", "obstacle", "plan", "run"]
