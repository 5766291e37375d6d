r"""How the membrane potential advances: the maths of the leak and its memory, nothing of spikes.

The equation is :math:`\tau^\alpha D^\alpha v = -(v - v_\text{rest}) + u`, with ``u`` (resistance
times current) held over each step.  A membrane advances one step at a time and is told
afterwards what a spike made of the potential.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from fracspike.solvers import AdjointHistory, GraphHistory, History, Memory, mittag_leffler, transforms
from fracspike.solvers.weights import trapezoid_weights

from .state import State


class _Adjoint(AdjointHistory):
    remedy = "use method='exact' with memory=Exponentials() and backend='torch', or FractionalNeuron,"


def _history(memory: Memory, kernel: Tensor, dtype: torch.dtype, items: Iterable[Tensor]) -> History:
    """Return the past of a run, differentiated by its adjoint; by a graph where torch.func transforms it."""
    return (GraphHistory if transformed() else _Adjoint)(memory, kernel, dtype, items, keep=True)


def transformed() -> bool:
    """Return whether a transform of torch.func is active, which the adjoint of a history cannot follow."""
    return transforms.active()


class Membrane(ABC):
    """A leaky membrane with memory, for one call of a neuron.

    Attributes:
        v: potential after the last reset, ``(B, *)``.
        drive: the drive that was held over the last step, ``(B, *)``.
    """

    v: Tensor
    drive: Tensor

    @abstractmethod
    def advance(self, u: Tensor, clamped: Tensor | None) -> Tensor:
        """Return the potential one step later, before any reset.

        Args:
            u: held drive ``(B, *)``, in the unit of the potential.
            clamped: where true, the potential is held where it is (refractory neurons).
        """

    @abstractmethod
    def settle(self, before: Tensor, after: Tensor) -> None:
        """Take note that the step ended at ``before`` and was reset to ``after``."""

    @abstractmethod
    def forget(self, where: Tensor) -> None:
        """Erase the past of the neurons for which ``where`` is true: they start anew from where they are."""

    @property
    @abstractmethod
    def past(self) -> list[Tensor]:
        """What must be kept to go on later, oldest first."""


class Propagator(Membrane):
    r"""The exact solution for held drive, by the Mittag-Leffler function.

    The deviation from the held equilibrium, :math:`x = v - v_\text{rest} - u`, relaxes like
    :math:`E(t) = E_\alpha(-(t/\tau)^\alpha)`, and every jump of it (a step of the drive, a reset)
    relaxes likewise from its own time:

    .. math:: v_n = v_\text{rest} + u_n + \sum_{j<n} E(t_n - t_j)\, \Delta x_j

    There is no discretisation error between spikes at any time step.  A clamp is the extra drive
    that holds the potential, as in a voltage-clamp experiment.

    Source: Podlubny (1999), Fractional Differential Equations, section 4.1.
    """

    def __init__(self, state: State, v_rest: Tensor, kernel: Tensor, memory: Memory) -> None:
        self.v, self.drive, self._v_rest = state.v, state.drive, v_rest
        self._decay = kernel[1].to(state.v.dtype)
        # at the start, the whole deviation from rest is one jump
        jumps = list(state.past) or [state.v - v_rest]
        self._jump = jumps.pop()  # the newest, which the next step's drive still changes
        self._past = _history(memory, kernel[1:], state.v.dtype, jumps)

    @staticmethod
    def kernel(alpha: Tensor, tau: Tensor, dt: float, count: int) -> Tensor:
        """Return E(m dt) for m = 0, ..., ``count - 1``: ``(count, *)``, float64."""
        alpha, tau = alpha.double(), tau.double()
        times = torch.arange(1, count, dtype=torch.float64, device=alpha.device) * dt
        times = times.reshape(-1, *([1] * max(alpha.dim(), tau.dim())))
        later = mittag_leffler(-((times / tau) ** alpha), alpha)
        return torch.cat([torch.ones_like(later[:1]), later])  # at t = 0 the power has no derivative

    def advance(self, u: Tensor, clamped: Tensor | None) -> Tensor:
        """See :class:`Membrane`."""
        self._jump = self._jump + (self.drive - u)
        older = self._past.weighted_sum()
        v: Tensor = self._v_rest + u + self._decay * self._jump + older
        self.drive = u
        if clamped is None:
            return v
        clamp: Tensor = torch.where(clamped, (self.v - v) / (1 - self._decay), 0.0)
        self._jump = self._jump - clamp
        self.drive = u + clamp
        held: Tensor = torch.where(clamped, self.v, v)
        return held

    def settle(self, before: Tensor, after: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.append(self._jump)
        self._jump = after - before
        self.v = after

    def forget(self, where: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.forget(where)
        self._jump = torch.where(where, self.v - self._v_rest - self.drive, self._jump)

    @property
    def past(self) -> list[Tensor]:
        """See :class:`Membrane`."""
        return [*self._past.items, self._jump]


class Integrator(Membrane):
    r"""The exact solution without a leak: the fractional integral of the held drive.

    .. math:: v_n = v_0 + \sum_{j \le n} c_{n-j}\, u_j + \sum_{t_k \le t_n} J_k, \qquad
              c_m = \frac{(t_{m+1})^\alpha - (t_m)^\alpha}{\tau^\alpha\, \Gamma(1 + \alpha)}

    A jump :math:`J_k` stays, since nothing draws the potential back. Written step by step, what a past
    drive adds is the change of its :math:`c`, so that the potential itself need not be remembered.

    Source: Podlubny (1999), Fractional Differential Equations, section 2.3.

    Args:
        state: where to start.
        gain: :math:`c_0`, ``(*)`` float64.
        kernel: :math:`(c_m - c_{m-1})/c_0`, and 1 at ``m = 0``: ``(count, *)`` float64.
        memory: what is kept of the past drives.
    """

    def __init__(self, state: State, gain: Tensor, kernel: Tensor, memory: Memory) -> None:
        self.v, self.drive = state.v, state.drive
        self._gain = gain.to(state.v.dtype)
        self._past = _history(memory, kernel, state.v.dtype, state.past)

    @staticmethod
    def coefficients(alpha: Tensor, tau: Tensor, dt: float, count: int) -> tuple[Tensor, Tensor]:
        """Return gain and kernel, ``count`` long."""
        alpha, tau = alpha.double(), tau.double()
        gain = (dt / tau) ** alpha * torch.exp(-torch.lgamma(1 + alpha))
        return gain, trapezoid_weights(alpha - 1, count)  # second differences of m**alpha

    def advance(self, u: Tensor, clamped: Tensor | None) -> Tensor:
        """See :class:`Membrane`."""
        older = self._past.weighted_sum()
        if clamped is not None:
            u = torch.where(clamped, -older, u)
        self.drive = u
        v = self.v + self._gain * (u + older)
        return v if clamped is None else torch.where(clamped, self.v, v)

    def settle(self, before: Tensor, after: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.append(self.drive)
        self.v = after

    def forget(self, where: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.forget(where)

    @property
    def past(self) -> list[Tensor]:
        """See :class:`Membrane`."""
        return self._past.items


class Differences(Membrane):
    r"""A difference scheme for the same equation; its memory holds increments of the potential.

    With the leak linear, the implicit step is solved in closed form. What a reset does to the
    memory is decided by the increment that is remembered:

    - ``jump``: from the last potential *after* reset to the new one *before* reset; the jump stays
      outside the derivative (impulsive Caputo equation);
    - ``overwrite``: from after reset to after reset; the derivative sees the reset potential
      (Teka, Marinov and Santamaria 2014, PLoS Comput. Biol. 10(3):e1003526).

    Args:
        state: where to start.
        v_rest: resting potential, to which it leaks.
        kernel: of the scheme, ``(count, *)`` float64.
        gain: what multiplies leak and drive, in the dtype of the run.
        memory: what is kept of the past.
        implicit: whether the leak is that of the new potential.
        overwrite: see above.
        leaky: if false, there is no leak.
    """

    def __init__(
        self,
        state: State,
        v_rest: Tensor,
        kernel: Tensor,
        gain: Tensor,
        memory: Memory,
        *,
        implicit: bool,
        overwrite: bool,
        leaky: bool = True,
    ) -> None:
        self.v, self.drive, self._v_rest = state.v, state.drive, v_rest
        self._leaky = leaky
        self._past = _history(memory, kernel, state.v.dtype, state.past)
        self._gain, self._implicit, self._overwrite = gain, implicit, overwrite

    def advance(self, u: Tensor, clamped: Tensor | None) -> Tensor:
        """See :class:`Membrane`."""
        self.drive = u
        base = self.v - self._past.weighted_sum()
        if not self._leaky:
            v = base + self._gain * u
        elif self._implicit:
            v = (base + self._gain * (self._v_rest + u)) / (1 + self._gain)
        else:
            v = base + self._gain * (self._v_rest - self.v + u)
        return v if clamped is None else torch.where(clamped, self.v, v)

    def settle(self, before: Tensor, after: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.append((after if self._overwrite else before) - self.v)
        self.v = after

    def forget(self, where: Tensor) -> None:
        """See :class:`Membrane`."""
        self._past.forget(where)

    @property
    def past(self) -> list[Tensor]:
        """See :class:`Membrane`."""
        return self._past.items
