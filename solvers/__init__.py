"""Fractional calculus on tensors: Caputo initial-value problems and the Mittag-Leffler function."""

if __name__ == "solvers":  # a bare `solvers` is shadowed by any solvers.py beside a user's script
    raise ImportError(
        "this package is imported as `fracspike.solvers`, not as `solvers`; install fracspike with pip"
    )

from . import checks
from .integrate import fdeint
from .memory import Full, Memory, Past
from .methods import L1, METHODS, L1Explicit, Method
from .mittag_leffler import mittag_leffler

__all__ = [
    "L1",
    "METHODS",
    "Full",
    "L1Explicit",
    "Memory",
    "Method",
    "Past",
    "checks",
    "fdeint",
    "mittag_leffler",
]
