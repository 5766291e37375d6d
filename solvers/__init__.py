"""Fractional calculus on tensors: Caputo initial-value problems and the Mittag-Leffler function."""

if __name__ == "solvers":  # a bare `solvers` is shadowed by any solvers.py beside a user's script
    raise ImportError(
        "this package is imported as `fracspike.solvers`, not as `solvers`; install fracspike with pip"
    )

from .integrate import fdeint
from .memory import Full, Memory
from .methods import METHODS
from .mittag_leffler import mittag_leffler

__all__ = ["METHODS", "Full", "Memory", "fdeint", "mittag_leffler"]
