"""Step rules, one file a family; a new method is one class and one name in ``METHODS``."""

from .base import IncrementMethod, Method, RateMethod
from .gl import GL, GLExplicit
from .l1 import L1, L1Explicit
from .product import ABM, Predictor, Trapezoid

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (L1, L1Explicit, GL, GLExplicit, Predictor, ABM, Trapezoid)
}

__all__ = [
    "ABM",
    "GL",
    "L1",
    "METHODS",
    "GLExplicit",
    "IncrementMethod",
    "L1Explicit",
    "Method",
    "Predictor",
    "RateMethod",
    "Trapezoid",
]
