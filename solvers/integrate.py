"""The public entry point: solve a Caputo initial-value problem."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import checks
from .dense import Dense
from .field import Field
from .graded import ROWS, march_on
from .gradient import GRADIENTS
from .memory import Full, Memory
from .methods import METHODS, IncrementMethod
from .ordinary import ORDINARY, odeint
from .relaxation import LinearLeak, relax
from .stepping import Progress, Solve
from .watch import finite

State = Tensor | tuple[Tensor, ...]
EXACT = "exact"
MOST_STEPS_EACH = 100  # for each interval of a t that is not uniform, before a step must be chosen


@dataclass(frozen=True)
class SolveState:
    """Where a solve stopped; pass it in place of ``y0`` to go on from there.

    Attributes:
        y: the last state, flattened if it was a tuple.
        initial: the state where the memory began.
        past: all that was remembered, ``(n, *)``.
        t: the time reached.
        h: the time step.
        method: name of the method.
        shapes: shapes of the tuple's members; None if the state is one tensor.
    """

    y: Tensor
    initial: Tensor
    past: Tensor
    t: float
    h: float
    method: str
    shapes: list[torch.Size] | None


torch.serialization.add_safe_globals([SolveState])  # plain data, which torch.load takes with weights_only


def fdeint(
    rhs: Callable[[Tensor, Any], Any],
    y0: State | SolveState,
    t: Tensor,
    alpha: float | Tensor | Sequence[float | Tensor],
    *,
    coefficients: Sequence[float | Tensor] | None = None,
    method: str = "l1",
    memory: Memory | None = None,
    gradient: str = "adjoint",
    step: float | None = None,
    mesh: str = "uniform",
    progress: Progress | None = None,
    return_state: bool = False,
    **options: Any,
) -> Any:
    r"""Solve the Caputo problem :math:`D^\alpha y = f(t, y),\ y(t_0) = y_0`.

    .. math:: D^\alpha y(t) = \frac{1}{\Gamma(1-\alpha)} \int_{t_0}^{t} (t-s)^{-\alpha} y'(s)\, ds

    Args:
        rhs: the right-hand side, ``rhs(t, y)``; a function or an ``nn.Module``. It receives and
            returns what ``y0`` is: a tensor, or a tuple of tensors.
        y0: initial state ``(*)``, or a tuple of such, in any floating dtype and on any device, which the
            solution follows; or the ``SolveState`` of an earlier solve, to go on from there (the
            gradient does not reach back into that solve).
        t: ``(T,)`` increasing; ``t[0]`` is the initial time, where the memory begins. If it is not
            uniform, the solution is found on a uniform grid of its smallest step, with a warning that says
            so; ``step`` and ``mesh`` decide otherwise.
        alpha: order in (0, 1], a number or a tensor that broadcasts to ``y0``; may require grad. A
            list of orders makes a multi-term equation, :math:`\sum_i c_i D^{\alpha_i} y = f`.
        coefficients: the :math:`c_i` of a multi-term equation, positive; may require grad.
        method: a name in ``METHODS``; ``"exact"`` for a :class:`LinearLeak`; at ``alpha=1`` also every
            name that torchdiffeq knows, which then does the work.
        memory: what is kept of the past: ``Full()`` by default, ``Window``, ``Blocked``, ``Exponentials``.
        gradient: ``"adjoint"`` (exact, stores states and no graph over the past) or ``"autograd"``
            (through everything; for second derivatives).
        step: time step; the solution is then found on a uniform grid of at most this step, and between
            its points by product integration of the rates there, to the order of the method.
        mesh: ``"uniform"``, or ``"given"`` to step exactly from each ``t`` to the next, such as on a
            :func:`graded_mesh` (methods ``"l1"`` and ``"trapezoid"``, full memory, plain autograd).
        progress: called as ``progress(done, steps)`` after each step.
        return_state: if true, return ``(y, state)``.
        **options: passed on to torchdiffeq, for its methods only.

    Returns:
        ``(T, *)``, with ``y[0] == y0``; a tuple of such if ``y0`` is a tuple.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an order, a grid, a name or a shape is wrong, two arguments do not go together, or
            anything is not finite.
        RuntimeError: if the solution leaves the finite numbers, or an implicit step has no root that
            continues the last value; with time, method and remedy.

    Source: Lin and Xu (2007), J. Comput. Phys. 225 (L1); Diethelm, Ford and Freed (2002), Nonlinear
    Dyn. 29 (product integration); each method's class has its own.

    >>> import torch
    >>> t = torch.linspace(0, 1, 101, dtype=torch.float64)
    >>> y = fdeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), t, 0.5)
    >>> round(y[-1].item(), 3)  # the limit is exp(1) * erfc(1) = 0.4276
    0.428
    """
    checks.one_of("method", method, (*METHODS, EXACT, *ORDINARY))
    checks.one_of("gradient", gradient, GRADIENTS)
    checks.one_of("mesh", mesh, ("uniform", "given"))
    if memory is not None and not isinstance(memory, Memory):
        raise TypeError(f"`memory` must be a Memory such as Full(), got {memory!r}")
    if method in ORDINARY:
        _only_defaults(method, coefficients=coefficients, memory=memory, step=step, return_state=return_state)
        if isinstance(alpha, Tensor | list | tuple) or checks.order("alpha", alpha) != 1:
            raise ValueError(
                f"`alpha` must be 1 with torchdiffeq's method {method!r}, got {alpha}; use 'trapezoid'"
            )
        return odeint(rhs, y0, t, method=method, **options)
    if options:
        raise TypeError(f"fdeint() got the unknown argument {next(iter(options))!r}")
    earlier = y0 if isinstance(y0, SolveState) else None
    start, field, restore, shapes = _flatten(rhs, earlier if earlier is not None else y0)
    step = _implied_step(t, step, mesh)
    times, h = _times(t, step, mesh)
    alphas, factors = _orders(alpha, coefficients, start, single=shapes is not None)
    grid = times.to(start.device, start.dtype)
    if method == EXACT:
        _only_defaults(method, memory=memory, step=step, return_state=return_state, coefficients=coefficients)
        if not isinstance(rhs, LinearLeak) or h is None:
            raise TypeError(
                "`rhs` must be a LinearLeak on a uniform grid for method 'exact', "
                f"got {type(rhs).__name__}; use 'trapezoid'"
            )
        return finite(relax(rhs, start, grid, alphas[0], h), grid, method)
    if h is None:
        if method not in ROWS:
            raise ValueError(
                f"`mesh` must be 'uniform' with method {method!r}; 'given' goes with {', '.join(ROWS)}"
            )
        _only_defaults("mesh='given'", memory=memory, coefficients=coefficients, return_state=return_state)
        return restore(march_on(times, method, Field(field, start), start, alphas[0], grid))
    rule = METHODS[method]()
    if len(alphas) > 1 and not isinstance(rule, IncrementMethod):
        names = [name for name, cls in METHODS.items() if issubclass(cls, IncrementMethod)]
        raise ValueError(f"`method` must be one of {', '.join(names)} for several orders, got {method!r}")
    if earlier is not None:
        _check_continues(earlier, method, times, h)
    solution, items = Solve(
        method=rule,
        memory=Full() if memory is None else memory,
        gradient=GRADIENTS[gradient],
        rhs=Field(field, start),
        alphas=alphas,
        factors=factors,
        h=h,
        times=grid,
        initial=start if earlier is None else earlier.initial,
        start=start,
        past=() if earlier is None else list(earlier.past),
        progress=progress,
        keep=return_state,
    ).march()
    if step is not None:
        before = [] if earlier is None else list(earlier.past)
        rates, increments = ([], before) if isinstance(rule, IncrementMethod) else (before[:-1], [])
        dense = Dense(Field(field, start), alphas, factors, times, h, rates, increments)
        y = restore(finite(dense.at(solution, t), t, method))
    else:
        y = restore(solution)
    if not return_state:
        return y
    initial = start if earlier is None else earlier.initial
    past = torch.stack(items).detach()
    last = solution[-1].detach()
    return y, SolveState(last, initial.detach(), past, float(times[-1]), h, method, shapes)


def _only_defaults(what: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(f"`{name}` does not go with {what}; leave it out")


def _implied_step(t: Tensor, step: float | None, mesh: str) -> float | None:
    """Check ``t``; return ``step``, or the smallest step of a ``t`` that is not uniform."""
    if not isinstance(t, Tensor):
        raise TypeError(f"`t` must be a tensor of times, got {type(t).__name__}; use torch.linspace")
    if t.dim() != 1 or len(t) < 2:
        raise ValueError(f"`t` must have shape (T,) with T >= 2, got {tuple(t.shape)}")
    checks.all_finite("t", t)
    given = t.detach().double()
    steps = given.diff()
    if bool((steps <= 0).any()):
        n = int((steps <= 0).nonzero()[0])
        raise ValueError(f"`t` must increase, got t[{n}] = {t[n]:g} and t[{n + 1}] = {t[n + 1]:g}")
    if step is not None:
        return float(checks.real("step", step, above=0.0))
    span = float(given[-1] - given[0])
    # each time is rounded to its own dtype, so steps differ by a few units of the largest time
    slack = 4 * torch.finfo(t.dtype).eps * float(given.abs().max()) + 1e-9 * span / len(steps)
    if mesh == "given" or float((steps - span / len(steps)).abs().max()) <= slack:
        return None
    smallest = float(steps.min())
    if span / smallest > MOST_STEPS_EACH * len(steps):
        raise ValueError(
            f"`t` must be uniform or nearly so, got steps between {smallest:g} and {float(steps.max()):g}; "
            "pass step=... to solve on a uniform grid and interpolate, or mesh='given' to step on t itself"
        )
    warnings.warn(
        f"t is not uniform: solved on a uniform grid of step {smallest:g} and integrated to t from "
        "there; pass step=... to choose the step, or mesh='given' to step on t itself",
        stacklevel=3,
    )
    return smallest


def _times(t: Tensor, step: float | None, mesh: str) -> tuple[Tensor, float | None]:
    """Return the times to step through, in float64, and the step if it is uniform."""
    given = t.detach().double()
    if mesh == "given":
        _only_defaults("mesh='given'", step=step)
        return given, None
    span = float(given[-1] - given[0])
    count = len(t) - 1 if step is None else math.ceil(span / step - 1e-9)
    h = span / count
    return given[0] + h * torch.arange(count + 1, dtype=torch.float64, device=t.device), h


def _orders(
    alpha: float | Tensor | Sequence[float | Tensor],
    coefficients: Sequence[float | Tensor] | None,
    start: Tensor,
    *,
    single: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return orders and coefficients, one each but for a multi-term equation."""
    several = isinstance(alpha, list | tuple)
    alphas: list[Any] = list(alpha) if isinstance(alpha, list | tuple) else [alpha]
    factors: list[Any] = [1.0] if coefficients is None else list(coefficients)
    if several and coefficients is None:
        raise ValueError("`coefficients` must be given with a list of orders, got none; pass one for each")
    if len(alphas) != len(factors) or not alphas or (coefficients is not None and not several):
        raise ValueError(
            f"`coefficients` must be one for each of a list of orders, got {len(factors)} for {len(alphas)}"
        )
    for a, c in zip(alphas, factors, strict=True):
        checks.order("alpha", a)
        checks.real("coefficients", c, above=0.0)
    tensors = [torch.as_tensor(x, dtype=torch.float64, device=start.device) for x in (*alphas, *factors)]
    for tensor in tensors:
        if tensor.dim() > 0 and single:
            raise ValueError(
                "`alpha` must be one number when `y0` is a tuple; got a tensor, concatenate the states"
            )
        tail = start.shape[start.dim() - tensor.dim() :] if tensor.dim() <= start.dim() else ()
        if len(tail) != tensor.dim() or any(a not in (1, s) for a, s in zip(tensor.shape, tail, strict=True)):
            raise ValueError(
                f"`alpha` must broadcast to the state, {tuple(start.shape)}, got shape {tuple(tensor.shape)}"
            )
    return tensors[: len(alphas)], tensors[len(alphas) :]


def _check_continues(state: SolveState, method: str, times: Tensor, h: float) -> None:
    if state.method != method:
        raise ValueError(f"`method` must be that of the state, {state.method!r}, got {method!r}")
    close = 1e-6 * state.h
    if abs(float(times[0]) - state.t) > close or abs(h - state.h) > 1e-6 * state.h:
        raise ValueError(
            f"`t` must go on from the state, at {state.t:g} with step {state.h:g}; got {times[0]:g} and {h:g}"
        )


def _flatten(
    rhs: Callable[[Tensor, Any], Any], y0: State | SolveState
) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Any], list[torch.Size] | None]:
    """Bring a tuple of states to one vector; a tensor stays as it is."""
    if not callable(rhs):
        raise TypeError(f"`rhs` must be callable as rhs(t, y), got {type(rhs).__name__}")
    if isinstance(y0, SolveState):
        flat, shapes = y0.y, y0.shapes
    elif isinstance(y0, Tensor):
        flat, shapes = checks.all_finite("y0", y0), None
    elif isinstance(y0, tuple) and y0:
        parts = [checks.all_finite(f"y0[{i}]", part) for i, part in enumerate(y0)]
        if len({(part.dtype, part.device) for part in parts}) > 1:
            raise ValueError(
                "`y0` must have one dtype and device, got " + ", ".join(str(p.dtype) for p in parts)
            )
        flat, shapes = torch.cat([part.reshape(-1) for part in parts]), [part.shape for part in parts]
    else:
        raise TypeError(f"`y0` must be a tensor or a tuple of tensors, got {type(y0).__name__}")
    if shapes is None:
        return flat, rhs, lambda y: y, None
    tuple_shapes = shapes
    sizes = [math.prod(shape) for shape in tuple_shapes]

    def split(y: Tensor) -> tuple[Tensor, ...]:
        lead = y.shape[:-1]
        pieces = torch.split(y, sizes, dim=-1)
        return tuple(p.reshape((*lead, *s)) for p, s in zip(pieces, tuple_shapes, strict=True))

    def field(t: Tensor, y: Tensor) -> Tensor:
        values = rhs(t, split(y))
        if not isinstance(values, tuple | list) or [v.shape for v in values] != tuple_shapes:
            raise ValueError(
                f"`rhs` must return a tuple of tensors of shapes {[tuple(s) for s in tuple_shapes]}"
            )
        return torch.cat([v.reshape(-1) for v in values])

    return flat, field, split, shapes
