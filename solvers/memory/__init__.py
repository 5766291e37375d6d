"""Memory strategies, one file each; a new one is one class and one line in ``MEMORIES``."""

from .base import Memory, Past
from .blocked import Blocked
from .exponentials import Exponentials, Fit
from .full import Full
from .window import Window

MEMORIES: dict[str, type[Memory]] = {
    "full": Full,
    "window": Window,
    "blocked": Blocked,
    "exponentials": Exponentials,
}

__all__ = ["MEMORIES", "Blocked", "Exponentials", "Fit", "Full", "Memory", "Past", "Window"]
