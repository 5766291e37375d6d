"""Step rules, one file each; a new method is one class and one line in ``METHODS``."""

from .base import Coefficients, Method
from .l1 import L1, L1Explicit

METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (L1, L1Explicit)}

__all__ = ["L1", "METHODS", "Coefficients", "L1Explicit", "Method"]
