r"""A reservoir: fractional neurons wired at random, whose potentials a linear readout sees.

The neuron steps by the explicit Grünwald-Letnikov scheme with a hard reset to 0, and the reset
potential stays in the memory ("overwrite"):

.. math:: v_n = h^\alpha g \left(-\frac{v_{n-1}}{\tau} + W_\text{in} x + W s_{n-1} + b\right)
          - \sum_{k=1}^{M-1} w_k v_{n-k}, \qquad s_n = [v_n \ge 1]

The weights are those of :mod:`fracspike.solvers`; the loop is here and compiled, because the wiring
is sparse, a spike reaches only 15 neurons of 400, and thousands of samples go through it. Here
:math:`\tau` has the unit of a time to the power alpha.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array

from fracspike.solvers import METHODS, IncrementMethod, checks

Array = NDArray[np.float64]
THRESHOLD = 1.0
FORGETS = ("values", "differences")


@dataclass(frozen=True)
class Wiring:
    """The random weights of a reservoir.

    Attributes:
        recurrent: ``(neurons, neurons)``, from column to row.
        inputs: ``(neurons, inputs)``.
    """

    recurrent: Array
    inputs: Array

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        neurons: int = 400,
        inputs: int = 13,
        degree: int = 15,
        excitatory: float = 0.8,
        radius: float = 0.99,
    ) -> Wiring:
        """Draw a scale-free graph, each edge in one direction, and weights of random size and sign.

        Args:
            generator: decides everything.
            neurons: how many.
            inputs: channels.
            degree: edges that a neuron brings along when it joins, and so the mean number of inputs.
            excitatory: share of positive weights.
            radius: spectral radius to which the recurrent weights are scaled.
        """
        linked = scale_free(generator, neurons, degree)
        i, j = np.nonzero(np.triu(linked))
        turned = generator.random(len(i)) < 0.5
        recurrent = np.zeros((neurons, neurons))
        recurrent[np.where(turned, i, j), np.where(turned, j, i)] = _weights(generator, excitatory, len(i))
        recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
        return cls(recurrent, _weights(generator, excitatory, neurons, inputs))


def _weights(generator: np.random.Generator, excitatory: float, *shape: int) -> Array:
    return generator.random(shape) * np.where(generator.random(shape) < excitatory, 1.0, -1.0)


def scale_free(generator: np.random.Generator, nodes: int, edges: int) -> NDArray[np.bool_]:
    """Return the symmetric adjacency of a graph grown by preferential attachment from a clique.

    Args:
        generator: decides the edges.
        nodes: how many.
        edges: that a new node brings, each to a node drawn in proportion to its degree plus one.

    Source: Barabási and Albert (1999), Science 286, 509-512.
    """
    linked = np.zeros((nodes, nodes), dtype=bool)
    linked[:edges, :edges] = ~np.eye(edges, dtype=bool)
    for new in range(edges, nodes):
        pull = linked[:new].sum(1) + 1.0
        chosen = generator.choice(new, edges, replace=False, p=pull / pull.sum())
        linked[new, chosen] = linked[chosen, new] = True
    return linked


@dataclass(frozen=True)
class Reservoir:
    """Fractional neurons with their wiring.

    Attributes:
        wiring: the weights.
        alpha: order.
        bias: current into every neuron.
        gain: factor g of all that drives a neuron and of its leak.
        tau: time constant, a time to the power alpha.
        dt: time step h.
        samples: length M of the memory, in steps.
        forget: what leaves the memory after M steps: ``"values"`` of the potential, as in the formula
            (so a constant is forgotten as well, which acts as a further leak), or ``"differences"``, the
            short-memory principle of a Caputo derivative, as in ``FractionalLIF(memory=Window(M - 1))``.
        hard: reset to 0; otherwise the threshold is subtracted.
    """

    wiring: Wiring
    alpha: float
    bias: float = 0.0
    gain: float = 1.0
    tau: float = 20.0
    dt: float = 0.1
    samples: int = 100
    forget: str = "values"
    hard: bool = True

    def run(self, inputs: Array, hold: int = 10) -> tuple[Array, float]:
        """Return the potential of every neuron at the end of every frame, and the spikes per step.

        Args:
            inputs: ``(frames, samples, channels)``; each sample starts at rest.
            hold: steps for which a frame is held.

        Returns:
            Potentials ``(frames, samples, neurons)``, and the mean number of spikes of a neuron in a step.
        """
        checks.one_of("forget", self.forget, FORGETS)
        method = METHODS["gl_explicit"]()
        assert isinstance(method, IncrementMethod)
        order = torch.tensor(checks.order("alpha", self.alpha), dtype=torch.float64)
        scheme = method.coefficients([order], [torch.ones_like(order)], self.dt, self.samples)
        kernel, drive = scheme.kernel.numpy(), self.gain * float(scheme.gain)
        # In increments, values that are forgotten leave a shorter kernel and a leak: summation by parts.
        tail = kernel[-1] if self.forget == "values" else 0.0
        lags = kernel[1 : -1 if self.forget == "values" else None] - tail
        lags = np.pad(lags, (0, -len(lags) % 4))
        recurrent = csc_array(drive * self.wiring.recurrent)
        outer = drive * (inputs @ self.wiring.inputs.T + self.bias)
        potentials = np.empty_like(outer)
        fired = 0
        for sample in range(inputs.shape[1]):
            fired += _compiled()(
                np.ascontiguousarray(outer[:, sample]),
                (recurrent.indptr, recurrent.indices, recurrent.data),
                lags,
                1.0 - drive / self.tau - tail,
                hold,
                self.hard,
                potentials[:, sample],
            )
        return potentials, fired / (potentials.size * hold)


@functools.cache
def _compiled() -> Callable[..., int]:
    import numba  # here, because it is slow to import

    compiled: Callable[..., int] = numba.njit()(_march)
    return compiled


def _march(
    outer: Array,
    columns: tuple[Array, Array, Array],
    lags: Array,
    keep: float,
    hold: int,
    hard: bool,
    potentials: Array,
) -> int:
    """March one sample through all frames and return the number of spikes; compiled.

    Args:
        outer: what input and bias add in a step, ``(frames, neurons)``.
        columns: the same of a spike: pointers, rows, values of a sparse matrix by columns.
        lags: weights of the last increments of the potential, newest first; a multiple of four.
        keep: what is left of the potential after a step of leak.
        hold: steps a frame lasts.
        hard: reset to 0, or by subtraction.
        potentials: where to write, ``(frames, neurons)``.
    """
    pointers, rows, values = columns
    frames, neurons = outer.shape
    length = len(lags)
    increments = np.zeros((length, neurons))
    v, before, spikes, head, fired = np.zeros(neurons), np.zeros(neurons), np.zeros(neurons), 0, 0
    for frame in range(frames):
        for _ in range(hold):
            for i in range(neurons):
                before[i] = keep * v[i] + outer[frame, i]
            for m in range(0, length, 4):  # four at once, so that they share the way to memory
                a, b = increments[(head - 1 - m) % length], increments[(head - 2 - m) % length]
                c, d = increments[(head - 3 - m) % length], increments[(head - 4 - m) % length]
                for i in range(neurons):
                    before[i] -= (lags[m] * a[i] + lags[m + 1] * b[i]) + (
                        lags[m + 2] * c[i] + lags[m + 3] * d[i]
                    )
            for j in range(neurons):
                if spikes[j]:
                    fired += 1
                    for k in range(pointers[j], pointers[j + 1]):
                        before[rows[k]] += values[k]
            newest = increments[head]
            for i in range(neurons):  # without a branch, so that it is compiled to vectors
                spiked = 1.0 if before[i] >= THRESHOLD else 0.0
                after = before[i] * (1.0 - spiked) if hard else before[i] - THRESHOLD * spiked
                spikes[i], newest[i], v[i] = spiked, after - v[i], after
            head = (head + 1) % length
        potentials[frame] = v
    return fired + int(spikes.sum())


def streams(samples: Array, count: int) -> Array:
    """Lay samples one after the other in ``count`` streams: ``(N, frames, *) -> (N/count*frames, count, *)``.

    Sample ``i`` is in stream ``i // (N / count)``.
    """
    n, frames = samples.shape[:2]
    checks.positive_int("count", count)
    if n % count:
        raise ValueError(f"`count` must divide the number of samples, {n}, got {count}")
    each = samples.reshape(count, n // count, frames, *samples.shape[2:])
    rows: Array = np.moveaxis(each, 0, 2).reshape(n // count * frames, count, *samples.shape[2:])
    return rows


@dataclass(frozen=True)
class Readout:
    """A linear readout without an intercept, as least squares on all given states.

    Attributes:
        weights: ``(neurons, classes)``.
        ridge: the penalty, in units of the mean square of a state.
    """

    weights: Array
    ridge: float = 0.0

    def classes(self, states: Array) -> NDArray[np.int64]:
        """Return the class of each state: ``(*, neurons) -> (*)``."""
        chosen: NDArray[np.int64] = (states @ self.weights).argmax(-1)
        return chosen

    @classmethod
    def fit(cls, products: Products, ridge: float) -> Readout:
        """Solve the normal equations by LU decomposition, as they are: ``ridge`` 0 may be ill-conditioned."""
        scale = np.trace(products.gram) / len(products.gram)
        penalty = ridge * scale * np.eye(len(products.gram))
        try:
            weights = np.linalg.solve(products.gram + penalty, products.moment)
        except np.linalg.LinAlgError:  # exactly singular: nothing is learned
            weights = np.zeros_like(products.moment)
        return cls(weights, ridge)


@dataclass(frozen=True)
class Products:
    """What a linear readout needs to know of states and targets.

    Attributes:
        gram: sum of the outer products of the states, ``(neurons, neurons)``.
        moment: the same of states and targets, ``(neurons, classes)``.
    """

    gram: Array
    moment: Array

    @classmethod
    def of(cls, states: Array, targets: Array) -> Products:
        """Sum over all but the last dimension."""
        x = states.reshape(-1, states.shape[-1])
        return cls(x.T @ x, x.T @ targets.reshape(-1, targets.shape[-1]))

    def __add__(self, other: Products) -> Products:
        return Products(self.gram + other.gram, self.moment + other.moment)


def penalties() -> Iterator[float]:
    """Yield the penalties among which validation chooses, relative to the mean square of a state."""
    yield from (10.0**k for k in range(-9, 0))
