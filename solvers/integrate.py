"""The public entry point: solve a Caputo initial-value problem."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import checks
from .memory import Full, Memory
from .methods import METHODS
from .stepping import march

State = Tensor | tuple[Tensor, ...]


def fdeint(
    rhs: Callable[[Tensor, Any], Any],
    y0: State,
    t: Tensor,
    alpha: float | Tensor,
    *,
    method: str = "l1",
    memory: Memory | None = None,
    gradient: str = "autograd",
) -> Any:
    r"""Solve the Caputo problem :math:`D^\alpha y = f(t, y),\ y(t_0) = y_0` on a uniform grid.

    .. math:: D^\alpha y(t) = \frac{1}{\Gamma(1-\alpha)} \int_{t_0}^{t} (t-s)^{-\alpha} y'(s)\, ds

    Args:
        rhs: the right-hand side, ``rhs(t, y)``; a function or an ``nn.Module``.  It receives and
            returns what ``y0`` is: a tensor, or a tuple of tensors.
        y0: initial state ``(*)``, or a tuple of such; any floating dtype and device, which the
            solution follows.
        t: ``(T,)`` increasing and uniform; ``t[0]`` is the initial time, where the memory begins.
        alpha: order in (0, 1], a number or a tensor that broadcasts to ``y0``; may require grad.
        method: a name in ``METHODS``: ``"l1"`` (implicit) or ``"l1_explicit"``.
        memory: what is kept of the past; ``Full()`` by default.
        gradient: ``"autograd"``, through every step.

    Returns:
        ``(T, *)``, with ``y[0] == y0``; a tuple of such if ``y0`` is a tuple.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an order, a time grid, a name or a shape is wrong, or anything is not finite.
        RuntimeError: if an implicit step does not converge.

    Source: Lin and Xu (2007), J. Comput. Phys. 225 (the L1 scheme).

    >>> import torch
    >>> t = torch.linspace(0, 1, 101, dtype=torch.float64)
    >>> y = fdeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), t, 0.5)
    >>> round(y[-1].item(), 3)  # the limit is exp(1) * erfc(1) = 0.4276
    0.428
    """
    step_rule = METHODS[checks.one_of("method", method, METHODS)]()
    checks.one_of("gradient", gradient, ("autograd",))
    if memory is None:
        memory = Full()
    if not isinstance(memory, Memory):
        raise TypeError(f"`memory` must be a Memory such as Full(), got {memory!r}")
    start, field, restore = _flatten(rhs, y0)
    orders = _order_tensor(alpha, start, y0)
    h = uniform_step(t)
    times = (t[0].double() + h * torch.arange(len(t), dtype=torch.float64, device=t.device)).to(
        start.device, start.dtype
    )
    _check_rhs(field, times[0], start)
    return restore(march(step_rule, memory, field, start, times, orders, h))


def uniform_step(t: Tensor) -> float:
    """Return the step of the uniform grid ``t``.

    Raises:
        TypeError: if ``t`` is not a tensor.
        ValueError: if it is not one-dimensional, finite, increasing and uniform.
    """
    if not isinstance(t, Tensor):
        raise TypeError(f"`t` must be a tensor of times, got {type(t).__name__}; use torch.linspace")
    if t.dim() != 1 or len(t) < 2:
        raise ValueError(f"`t` must have shape (T,) with T >= 2, got {tuple(t.shape)}")
    checks.all_finite("t", t)
    grid = t.detach().double()
    steps = grid.diff()
    if bool((steps <= 0).any()):
        n = int((steps <= 0).nonzero()[0])
        raise ValueError(f"`t` must increase, got t[{n}] = {t[n]:g} and t[{n + 1}] = {t[n + 1]:g}")
    h = float((grid[-1] - grid[0]) / (len(t) - 1))
    # each time is rounded to its own dtype, so steps differ by a few units of the largest time
    slack = 4 * torch.finfo(t.dtype).eps * float(grid.abs().max()) + 1e-9 * h
    if float((steps - h).abs().max()) > slack:
        raise ValueError(
            f"`t` must be uniform, got steps between {steps.min():g} and {steps.max():g}; "
            "use torch.linspace and interpolate the solution"
        )
    return h


def _order_tensor(alpha: float | Tensor, start: Tensor, y0: State) -> Tensor:
    checks.order("alpha", alpha)
    orders = torch.as_tensor(alpha, dtype=torch.float64, device=start.device)
    if orders.dim() > 0 and not isinstance(y0, Tensor):
        raise ValueError(
            "`alpha` must be one number when `y0` is a tuple, got a tensor; concatenate the states"
        )
    tail = start.shape[start.dim() - orders.dim() :] if orders.dim() <= start.dim() else ()
    if len(tail) != orders.dim() or any(a not in (1, s) for a, s in zip(orders.shape, tail, strict=True)):
        raise ValueError(
            f"`alpha` must broadcast to the state, got shape {tuple(orders.shape)} for {tuple(start.shape)}"
        )
    return orders


def _check_rhs(field: Callable[[Tensor, Tensor], Tensor], t0: Tensor, y0: Tensor) -> None:
    with torch.no_grad():
        value = field(t0, y0)
    if not isinstance(value, Tensor) or value.shape != y0.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"`rhs` must return the shape of the state, {tuple(y0.shape)}; got {got}")
    checks.all_finite("rhs(t[0], y0)", value)


def _flatten(
    rhs: Callable[[Tensor, Any], Any], y0: State
) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Any]]:
    """Bring a tuple of states to one vector; a tensor stays as it is."""
    if not callable(rhs):
        raise TypeError(f"`rhs` must be callable as rhs(t, y), got {type(rhs).__name__}")
    if isinstance(y0, Tensor):
        return checks.all_finite("y0", y0), rhs, lambda y: y
    if not isinstance(y0, tuple) or not y0:
        raise TypeError(f"`y0` must be a tensor or a tuple of tensors, got {type(y0).__name__}")
    parts = [checks.all_finite(f"y0[{i}]", part) for i, part in enumerate(y0)]
    if len({(part.dtype, part.device) for part in parts}) > 1:
        raise ValueError("`y0` must have one dtype and device, got " + ", ".join(str(p.dtype) for p in parts))
    shapes = [part.shape for part in parts]
    sizes = [math.prod(shape) for shape in shapes]

    def split(y: Tensor) -> tuple[Tensor, ...]:
        lead = y.shape[:-1]
        return tuple(
            p.reshape((*lead, *s)) for p, s in zip(torch.split(y, sizes, dim=-1), shapes, strict=True)
        )

    def field(t: Tensor, y: Tensor) -> Tensor:
        values = rhs(t, split(y))
        if not isinstance(values, tuple | list) or [v.shape for v in values] != shapes:
            raise ValueError(f"`rhs` must return a tuple of tensors of shapes {[tuple(s) for s in shapes]}")
        return torch.cat([v.reshape(-1) for v in values])

    return torch.cat([part.reshape(-1) for part in parts]), field, split
