r"""Random manifolds: spike-timing classes made by a formula, as hard and as many as one likes.

Each class is a smooth random curve from [0, 1] to the spike times of all inputs. A sample is a
random point of the curve: every input spikes once, and only the times tell the classes apart.

.. math:: t_i(x) \propto \sum_{k=1}^{K} k^{-\alpha}\, a_{ik} \sin\bigl(2\pi(k\,b_{ik}\,x + c_{ik})\bigr),
          \qquad a, b, c \sim U(0, 1)

Each :math:`t_i` is moved and stretched to fill [0, duration). The larger the smoothness alpha, the
fewer the turns of a curve, and the easier the task.

Source: Zenke and Vogels (2021), Neural Computation 33(4), 899-925, with one-dimensional manifolds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fracspike.solvers import checks
from fracspike.training.task import Images

GRID = 2001  # points at which the extremes of a curve are looked for


@dataclass(frozen=True)
class Manifolds:
    """One curve for each class.

    Attributes:
        weights: the three random numbers a, b, c of each term, ``(3, classes, inputs, K)``.
        smoothness: exponent with which the terms decay.
        duration: the time that is filled, in steps.
    """

    weights: Tensor
    smoothness: float
    duration: int

    def times(self, x: Tensor) -> Tensor:
        """Return the spike times on every curve.

        Args:
            x: where on each curve, ``(classes, N)`` between 0 and 1; ``(1, N)`` for the same on all.

        Returns:
            ``(classes, N, inputs)`` times in steps, at least 0 and less than ``duration``.
        """
        ends = self._raw(torch.linspace(0.0, 1.0, GRID, dtype=torch.float64)[None])
        low, high = ends.amin(1, keepdim=True), ends.amax(1, keepdim=True)
        share = ((self._raw(x) - low) / (high - low)).clamp(0.0, 1.0)
        return share * math.nextafter(self.duration, 0.0)

    def samples(self, each: int, generator: torch.Generator) -> Images:
        """Draw samples, the classes one after the other.

        Args:
            each: how many of each class.
            generator: decides which points of the curves.

        Returns:
            Spikes ``(duration, N, inputs)``, zeros and ones, and classes ``(N,)``.
        """
        checks.positive_int("each", each)
        classes, inputs = self.weights.shape[1:3]
        points = torch.rand(classes, each, generator=generator, dtype=torch.float64)
        steps = self.times(points).flatten(0, 1).long()
        spikes = torch.zeros(self.duration, classes * each, inputs)
        spikes.scatter_(0, steps[None], 1.0)
        return Images(spikes, torch.arange(classes).repeat_interleave(each))

    def _raw(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for k, term in enumerate(self.weights.unbind(-1), start=1):  # at once they would fill the memory
            a, b, c = term[:, :, None]
            total = total + k**-self.smoothness * a * torch.sin(2 * math.pi * (k * b * x[..., None] + c))
        return total


def draw(
    generator: torch.Generator,
    classes: int = 10,
    inputs: int = 20,
    smoothness: float = 1.0,
    duration: int = 50,
    terms: int = 100,
) -> Manifolds:
    """Draw the curves of all classes.

    Args:
        generator: decides the curves.
        classes: number of curves.
        inputs: number of input neurons.
        smoothness: exponent with which the terms of the Fourier series decay.
        duration: steps that a sample lasts.
        terms: length K of the series.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if one is out of range.

    >>> generator = torch.Generator().manual_seed(0)
    >>> spikes, labels = draw(generator).samples(3, generator)
    >>> spikes.shape, labels.shape, spikes.sum(0).unique()
    (torch.Size([50, 30, 20]), torch.Size([30]), tensor([1.]))
    """
    for name, value in (("classes", classes), ("inputs", inputs), ("duration", duration), ("terms", terms)):
        checks.positive_int(name, value)
    checks.real("smoothness", smoothness, at_least=0.0)
    weights = torch.rand(3, classes, inputs, terms, generator=generator, dtype=torch.float64)
    return Manifolds(weights, float(smoothness), duration)
