r"""The exact neuron on a GPU: two fused Triton kernels, forward through time and the adjoint back.

Plain tensors in, plain tensors out; autograd, layers and surrogates stay outside:

- `problem`: what a run is made of, and what comes out.
- `coefficients`: the tables of the modes that both kernels read.
- `equations`: the few formulas that both kernels share.
- `forward`, `adjoint`: the kernels, one program for each block of neurons.
- `launch`: grid, block and warps by size, memory, and the two functions to call.
- `reference`: the same recurrence as a plain loop in torch, differentiable, to be read beside the kernels.

**What a run computes.** Potentials are measured from rest. Modes :math:`z_k` relax to the drive u, which is
held over a step, and a reset adds the same to all of them:

.. math:: x_k = z_k + \ell_k (u_n - z_k), \qquad v_n = \sum_k w_k x_k, \qquad z_k = x_k + J_n

with :math:`\ell_k = 1 - d_k` the loss of a mode in a step, :math:`\sum_k w_k = 1`, and the last mode losing
everything (:math:`\ell = 1`). Without a leak nothing draws the potential back: it is a state itself, the
modes hold the fading past of the drive, and a reset does not touch them:

.. math:: v_n = v^+_{n-1} + \sum_k w_k \ell_k (u_n - x_k), \qquad x_k \leftarrow x_k + \ell_k (u_n - x_k)

Recurrence from all to all needs every neuron of a layer before the next step, which no program here sees. It
will be a loop over time of its own, captured once as a CUDA graph: the step of `forward` for all neurons, and
the matrix product. `Constants.own` is the recurrence that stays within a neuron.

Importing this package imports Triton; ``TRITON_INTERPRET=1``, set before, runs the kernels on a CPU.
"""

from .coefficients import Coefficients, tabulate, without_leak
from .launch import adjoint, forward
from .problem import Arriving, Constants, Gradients, Made, Options, Start, Wants

__all__ = [
    "Arriving",
    "Coefficients",
    "Constants",
    "Gradients",
    "Made",
    "Options",
    "Start",
    "Wants",
    "adjoint",
    "forward",
    "tabulate",
    "without_leak",
]
