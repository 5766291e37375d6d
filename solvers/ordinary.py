"""Ordinary differential equations, alpha = 1: torchdiffeq, reached through the same call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import checks, transforms
from .field import Field
from .parts import flatten
from .watch import finite

#: torchdiffeq's method names; a test compares them with the installed version's
ORDINARY = (
    "dopri8",
    "dopri5",
    "bosh3",
    "fehlberg2",
    "adaptive_heun",
    "euler",
    "midpoint",
    "heun2",
    "heun3",
    "rk4",
    "explicit_adams",
    "implicit_adams",
    "fixed_adams",
    "scipy_solver",
)
#: what torchdiffeq calls on a right-hand side beside its value
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


def odeint(
    rhs: Callable[[Tensor, Any], Any], y0: Any, t: Tensor, *, method: str = "dopri5", **options: Any
) -> Any:
    """Solve the ordinary problem y' = f(t, y), y(t_0) = y0, by torchdiffeq.

    Args:
        rhs: the right-hand side, ``rhs(t, y)``.
        y0: initial state ``(*)``, or a tuple of such.
        t: ``(T,)`` increasing or decreasing times at which the solution is wanted.
        method: one of torchdiffeq's names.
        **options: passed on to ``torchdiffeq.odeint``: ``rtol``, ``atol``, ``options``, ...

    Returns:
        ``(T, *)``, or a tuple of such.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if the method is unknown, ``y0`` or ``t`` is empty, not finite or not in order, or the
            right-hand side has values of another kind than ``y0``.
        RuntimeError: if the solution leaves the finite numbers.

    Source: Chen, Rubanova, Bettencourt and Duvenaud (2018), NeurIPS; torchdiffeq.

    >>> import torch
    >>> y = odeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), torch.linspace(0, 1, 3))
    >>> round(y[-1].item(), 5)
    0.36788
    """
    checks.one_of("method", method, ORDINARY)
    if not callable(rhs):
        raise TypeError(f"`rhs` must be callable as rhs(t, y), got {type(rhs).__name__}")
    flatten(y0)  # for what it checks
    checks.times("t", t, falling=True)
    import torchdiffeq  # here, because it takes longer to import than the rest of this package

    field = rhs
    if callable(rhs) and isinstance(y0, Tensor):  # the values for a tuple are copied by torchdiffeq itself
        field = Field(rhs, y0)
        for name in filter(partial(hasattr, rhs), CALLBACKS):
            setattr(field, name, getattr(rhs, name))
    solution = torchdiffeq.odeint(field, y0, t, method=method, **options)
    for part in solution if isinstance(solution, tuple) else (solution,):
        finite(part, t, method)
    return solution


def refuse_other_orders(alpha: object, method: str) -> None:
    """Refuse orders that are not 1, or that would be learned: torchdiffeq's methods know no order.

    Args:
        alpha: a number, a tensor, or a list of such, one for each part of a tuple of states.
        method: its name.
    """
    for entry in alpha if isinstance(alpha, list | tuple) else [alpha]:
        order = transforms.values(torch.as_tensor(checks.order("alpha", entry)))
        if bool((order != 1).any()):
            other = float(order[order != 1].flatten()[0])
            raise ValueError(
                f"`alpha` must be 1 with torchdiffeq's method {method!r}, got {other:g}; use 'trapezoid'"
            )
        if isinstance(entry, Tensor) and entry.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"`alpha` must not require grad with torchdiffeq's method {method!r}, which knows no "
                "other order; use 'trapezoid', or pass alpha=1"
            )
