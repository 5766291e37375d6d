"""What the networks of the tasks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fracspike.neurons import FractionalLIF
from fracspike.neurons.module import HALVES
from fracspike.solvers import mittag_leffler

from .task import Options


class Single(nn.Module):
    """Gives neurons a current of single precision where autocast made less of it.

    A membrane adds many small steps, of which half precision would lose most.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, in single precision if it had half."""
        return x.float() if x.dtype in HALVES else x


class Raster(nn.Module):
    """Lays out which neuron spiked when: ``(T, N, H) -> (N, T * H)``."""

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the spikes of each image in one row."""
        return spikes.transpose(0, 1).flatten(1)


class Rate(nn.Module):
    """Counts spikes, as a share of the time steps: ``(T, N, *) -> (N, H)``."""

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the rate of each neuron."""
        return spikes.mean(0).flatten(1)


class Still(nn.Module):
    """Puts an image that came row by row together: ``(rows, N, columns) -> (N, 1, rows, columns)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return images with one channel."""
        return x.transpose(0, 1)[:, None]


class Lasting(nn.Module):
    """Holds a current for some time steps: ``(N, *) -> (T, N, *)``.

    Args:
        steps: T.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Return the current at each step."""
        return x.expand(self.steps, *x.shape)


class EachStep(nn.Module):
    """Applies a module to all time steps at once, as more samples: ``(T, N, *) -> (T, N, *)``.

    Args:
        module: of samples ``(N, *)``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module makes of each step."""
        result: Tensor = self.module(x.flatten(0, 1))
        return result.reshape(*x.shape[:2], *result.shape[1:])


def neurons(options: Options, tau: float) -> nn.Module:
    """Return neurons that a unit current takes from rest to the threshold in one step, for any alpha.

    Orders are compared at equal drive that way: otherwise a larger alpha would also mean a
    smaller response to a single step, and fewer spikes.

    Args:
        options: ``alpha`` and ``surrogate`` are used.
        tau: membrane time constant, in steps.
    """
    order = torch.tensor(options.alpha, dtype=torch.float64)
    decay = mittag_leffler(-((1.0 / tau) ** order), order)
    lif = FractionalLIF(
        alpha=options.alpha, tau=tau, resistance=1.0 / (1.0 - decay), surrogate=options.surrogate
    )
    return nn.Sequential(Single(), lif)


def scaled(layer: nn.Linear | nn.Conv2d, factor: float = 2.0) -> nn.Module:
    """Return a layer with larger weights: with torch's own most neurons are silent, without a gradient.

    Args:
        layer: fresh.
        factor: of its weights; more where the inputs are spikes, most of which are 0.
    """
    with torch.no_grad():
        layer.weight *= factor
    return layer
