"""Fractional calculus on tensors: Caputo initial-value problems and the Mittag-Leffler function."""

if __name__ == "solvers":  # a bare `solvers` is shadowed by any solvers.py beside a user's script
    raise ImportError(
        "this package is imported as `fracspike.solvers`, not as `solvers`; install fracspike with pip"
    )

from . import checks, modes, transforms
from .graded import graded_mesh
from .gradient import GRADIENTS, AdjointHistory, GraphHistory, History
from .integrate import fdeint
from .memory import MEMORIES, Blocked, Exponentials, Full, Memory, Window
from .methods import METHODS, IncrementMethod, L1Explicit, Method, RateMethod
from .mittag_leffler import mittag_leffler
from .ordinary import odeint
from .relaxation import LinearLeak
from .state import SolveState

__all__ = [
    "GRADIENTS",
    "MEMORIES",
    "METHODS",
    "AdjointHistory",
    "Blocked",
    "Exponentials",
    "Full",
    "GraphHistory",
    "History",
    "IncrementMethod",
    "L1Explicit",
    "LinearLeak",
    "Memory",
    "Method",
    "RateMethod",
    "SolveState",
    "Window",
    "checks",
    "fdeint",
    "graded_mesh",
    "mittag_leffler",
    "modes",
    "odeint",
    "transforms",
]
