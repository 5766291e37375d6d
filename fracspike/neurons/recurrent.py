"""Layers whose spikes come back to them one step later, through weights of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fracspike.solvers import checks

from .adaptive import FractionalALIF
from .lif import FractionalLIF
from .loop import Both, Feedback
from .state import State

CONNECTIONS = ("all_to_all", "one_to_one")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class OneToOne(nn.Module):
    """Each neuron to itself: multiplies by a weight per neuron.

    Args:
        size: shape of the neurons.
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the weighted spikes."""
        return self.weight.to(spikes.dtype) * spikes


class Recurrence(FractionalLIF):
    """What makes a neuron recurrent; to be put before it among the bases of a class.

    Args:
        alpha, tau, threshold, dt: as the neuron without recurrence.
        size: shape of the layer, which the weights need.
        recurrent: ``"all_to_all"`` (a linear map of the last dimension, without bias),
            ``"one_to_one"`` (each neuron to itself; the weights start at 0), or a module that maps
            spikes ``(B, *)`` to currents ``(B, *)``, such as a convolution. The two names and ``nn.Linear``
            compute in the dtype of the run and are compiled; other modules, and those with hooks, run by
            the loop in torch, in the dtype of their own weights, which must be that of the run.
        **kwargs: as the neuron without recurrence.

    Raises:
        TypeError: if ``recurrent`` is neither a name nor a module.
        ValueError: if ``size`` is missing.
    """

    def __init__(
        self,
        alpha: float | Tensor | Sequence[float] = 0.7,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor | None = None,
        dt: float = 1.0,
        *,
        size: int | Sequence[int] | None = None,
        recurrent: str | nn.Module = "all_to_all",
        **kwargs: Any,
    ) -> None:
        super().__init__(alpha, tau, threshold, dt, size=size, **kwargs)
        if isinstance(recurrent, nn.Module):
            self.recurrent: nn.Module = recurrent
            return
        if not isinstance(recurrent, str):
            raise TypeError(f"`recurrent` must be a name or a module, got {type(recurrent).__name__}")
        checks.one_of("recurrent", recurrent, CONNECTIONS)
        if self.size is None:
            raise ValueError(f"`size` must be given for recurrent={recurrent!r}, got None; pass size=(N,)")
        if recurrent == "one_to_one":
            self.recurrent = OneToOne(self.size)
        else:
            self.recurrent = nn.Linear(self.size[-1], self.size[-1], bias=False)

    def _initial_extra(self, like: Tensor) -> dict[str, Tensor | State]:
        return {"last_spikes": torch.zeros_like(like)} | super()._initial_extra(like)

    def _feedback(self, state: State, dtype: torch.dtype) -> Feedback:
        last = state.extra["last_spikes"]
        assert isinstance(last, Tensor)
        own = Echo(last, self.recurrent, self.resistance.to(dtype))
        return Both(own, super()._feedback(state, dtype))


class RecurrentFractionalLIF(Recurrence, FractionalLIF):
    r"""A layer of fractional LIF neurons with explicit recurrent weights.

    .. math:: \tau^\alpha D^\alpha v = -(v - v_\text{rest}) + R\,(I_n + W s_{n-1})

    Args:
        alpha, tau, threshold, dt: as :class:`FractionalLIF`.
        size: shape of the layer, which the weights need.
        recurrent: ``"all_to_all"`` (``layer.recurrent`` is an ``nn.Linear`` without bias),
            ``"one_to_one"`` (each neuron to itself; the weights start at 0), or a module that maps
            spikes ``(B, *)`` to currents ``(B, *)``; unless it is an ``nn.Linear``, by the loop in torch.
        **kwargs: as :class:`FractionalLIF`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``size`` is missing, or as :class:`FractionalLIF`.

    >>> import torch
    >>> layer = RecurrentFractionalLIF(alpha=0.7, size=(5,))
    >>> layer(torch.rand(10, 2, 5)).shape, layer.recurrent.weight.shape
    (torch.Size([10, 2, 5]), torch.Size([5, 5]))
    """


class RecurrentFractionalALIF(Recurrence, FractionalALIF):
    r"""A layer of adaptive fractional neurons with explicit recurrent weights.

    The equation of :class:`FractionalALIF`, with :math:`I_n + W s_{n-1}` for the input: at
    ``alpha=1`` the adaptive half of a long short-term memory spiking network (LSNN).

    Args:
        alpha, tau, threshold, dt: as :class:`FractionalALIF`.
        size: shape of the layer, which the weights need.
        recurrent: as :class:`RecurrentFractionalLIF`.
        **kwargs: as :class:`FractionalALIF`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``size`` is missing, or as :class:`FractionalALIF`.

    Source: Bellec, Salaj, Subramoney, Legenstein and Maass (2018), NeurIPS.

    >>> import torch
    >>> RecurrentFractionalALIF(alpha=0.7, size=(5,), beta=0.3)(torch.rand(10, 2, 5)).shape
    torch.Size([10, 2, 5])
    """


class Echo(Feedback):
    """Spikes that come back as a drive one step later.

    Args:
        last: spikes of the last step, ``(B, *)``.
        weights: maps spikes to currents.
        resistance: potential per unit of current.
    """

    def __init__(self, last: Tensor, weights: nn.Module, resistance: Tensor) -> None:
        super().__init__({"last_spikes": last})
        self.weights, self.resistance = weights, resistance

    def reason(self, current: Tensor) -> str | None:
        """See :class:`Feedback`."""
        module = self.weights
        if type(module).forward not in (nn.Linear.forward, OneToOne.forward) or "forward" in vars(module):
            return f"recurrent={type(module).__name__} is not compiled, only nn.Linear and 'one_to_one'"
        if any(getattr(module, hooks) for hooks in HOOKS):
            return "the recurrent module has hooks, which a compiled loop does not call"
        weight, shape = module.weight, tuple(current.shape[1:])
        assert isinstance(weight, Tensor)
        if weight.device != current.device:
            return f"the recurrent weights are on {weight.device}, and the current is not"
        if isinstance(module, nn.Linear):
            fits = len(shape) > 0 and weight.shape == (shape[-1], shape[-1])
        else:
            fits = weight.dim() <= len(shape) and all(
                n == 1 or n == m for n, m in zip(reversed(weight.shape), reversed(shape), strict=False)
            )
        return None if fits else f"the recurrent weights {tuple(weight.shape)} do not keep the shape {shape}"

    def given(self, current: Tensor) -> dict[str, Tensor]:
        """See :class:`Feedback`."""
        module, kind = self.weights, current.dtype
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        found = {"last": self._state["last_spikes"].to(kind)}
        if isinstance(module, nn.Linear):
            found["matrix"] = weight.to(kind)
        else:
            found["own"] = weight.to(self.resistance.dtype)
        return found if bias is None else found | {"bias": bias.to(kind)}

    def drive(self, u: Tensor) -> Tensor:
        """See :class:`Feedback`."""
        current = self._returned(self._state["last_spikes"])
        if current.shape != u.shape:
            raise ValueError(
                f"`recurrent` must keep the shape of the spikes, {tuple(u.shape)}, got {tuple(current.shape)}"
            )
        return u + self.resistance * current

    def _returned(self, spikes: Tensor) -> Tensor:
        """Return the current that spikes bring back, by weights in the dtype of the run."""
        module, kind = self.weights, spikes.dtype
        if type(module) is nn.Linear and not any(getattr(module, hooks) for hooks in HOOKS):
            bias = None if module.bias is None else module.bias.to(kind)
            return functional.linear(spikes, module.weight.to(kind), bias)
        current: Tensor = module(spikes)
        return current

    def observe(self, v: Tensor, spike: Tensor) -> None:
        """See :class:`Feedback`."""
        self._state["last_spikes"] = spike
