"""Ordinary differential equations, alpha = 1: torchdiffeq, reached through the same call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from . import checks
from .field import Field
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
        ValueError: if the method is unknown, or the right-hand side has values of another kind than ``y0``.
        RuntimeError: if the solution leaves the finite numbers.

    Source: Chen, Rubanova, Bettencourt and Duvenaud (2018), NeurIPS; torchdiffeq.

    >>> import torch
    >>> y = odeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), torch.linspace(0, 1, 3))
    >>> round(y[-1].item(), 5)
    0.36788
    """
    checks.one_of("method", method, ORDINARY)
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
