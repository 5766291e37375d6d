"""Surrogate gradients: a Heaviside step forward, a smooth derivative backward.

Three ways to call each: the module ``ATan(alpha=2.0)(x)``, the function ``functional.atan(x, alpha=2.0)``,
and by name ``get("atan", alpha=2.0)``, where ``get("snntorch.atan")`` knows other libraries' names as well.
"""

from . import aliases as _aliases  # noqa: F401 -- registers the names
from . import functional
from .base import Surrogate
from .bells import Erf, Gaussian, MultiGaussian, PiecewiseExponential, ShiftedExponential
from .fields import any_real, choice, flag, non_negative, positive, whole
from .noisy import NoisyThreshold, noisy_threshold
from .piecewise import LeakyRectangle, LeakyReLU, LogTailedReLU, Rectangle, StraightThrough, Triangle
from .plots import plot_surrogates
from .reciprocal import Reciprocal
from .registry import Wrapped, aliases, get, names, register, resolve
from .sigmoids import ATan, Circular, FastSigmoid, QPseudoSpike, Sigmoid, SoftSign, SparseFastSigmoid
from .spike import SmoothSpikeFunction, SpikeFunction, heaviside
from .unusual import S2NN, NonzeroSignLog, SquarewaveFourier

__all__ = [
    "S2NN",
    "ATan",
    "Circular",
    "Erf",
    "FastSigmoid",
    "Gaussian",
    "LeakyReLU",
    "LeakyRectangle",
    "LogTailedReLU",
    "MultiGaussian",
    "NoisyThreshold",
    "NonzeroSignLog",
    "PiecewiseExponential",
    "QPseudoSpike",
    "Reciprocal",
    "Rectangle",
    "ShiftedExponential",
    "Sigmoid",
    "SmoothSpikeFunction",
    "SoftSign",
    "SparseFastSigmoid",
    "SpikeFunction",
    "SquarewaveFourier",
    "StraightThrough",
    "Surrogate",
    "Triangle",
    "Wrapped",
    "aliases",
    "any_real",
    "choice",
    "flag",
    "functional",
    "get",
    "heaviside",
    "names",
    "noisy_threshold",
    "non_negative",
    "plot_surrogates",
    "positive",
    "register",
    "resolve",
    "whole",
]
