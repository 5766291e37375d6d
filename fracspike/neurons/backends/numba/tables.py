"""The coefficients of the blocked kernels, from what each mode loses in a step and its weight."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,call-arg"

from __future__ import annotations

import numpy as np

from .compiling import kernel
from .sizes import MOMENTS, STRETCH


@kernel
def tabulate(version, loss, weight, rest, slow, weights, gone, rates, losses, kernel):
    """Fill the tables of `coefficients.Split`.

    Args:
        version: see `threads.sources`.
        loss: of each mode in a step ``(K, C)`` float64, slowest first.
        weight: of each mode, likewise.
        rest: weight of the mode that decays at once ``(C,)``.
        slow: how many modes are slow.
        weights: table ``(groups, rows, items, lanes)``, where neuron c is lane ``c % lanes`` of its group;
            and so are the rest.
        gone: as said.
        rates: as said.
        losses: as said.
        kernel: as said.
    """
    lanes = kernel.shape[3]
    at, fall = np.zeros(STRETCH + 1), np.zeros(STRETCH + 1)
    for c in range(loss.shape[1]):
        g, lane = c // lanes, c % lanes
        at[:] = 0.0
        fall[:] = 0.0
        at[0], fall[0] = 1.0, rest[c]
        for k in range(len(loss)):
            a, w = loss[k, c], weight[k, c]
            left, lost = 1.0, 0.0  # of a mode after j steps
            fall[0] += w * a
            for j in range(1, STRETCH + 1):
                lost += a * left
                left *= 1.0 - a
                at[j] += w * left
                fall[j] += w * left * a
                if k >= slow:
                    weights[g, k - slow, j - 1, lane] = w * left
                    gone[g, k - slow, j - 1, lane] = lost
            if k >= slow:
                weights[g, k - slow, STRETCH, lane] = w * left * (1.0 - a)
            else:
                losses[g, k, 0, lane], losses[g, k, 1, lane], losses[g, k, 2, lane] = a, lost, w
                rates[g, k, 0, lane] = a
                for p in range(1, MOMENTS + 1):
                    w *= -a
                    rates[g, k, p, lane] = w
        if fall[0] > 0.5:  # nothing cancels, and a potential that has arrived at its drive is that drive
            fall[0] = 1.0 - at[1]
        for j in range(STRETCH + 1):
            kernel[g, 0, j, lane], kernel[g, 1, j, lane] = at[j], fall[j]
