"""The public entry point: solve a Caputo initial-value problem."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import checks, transforms
from .dense import Dense
from .field import Field
from .graded import ROWS, march_on
from .gradient import GRADIENTS, GraphHistory
from .memory import Full, Memory
from .methods import METHODS, IncrementMethod
from .orders import Entry, orders
from .ordinary import ORDINARY, odeint, refuse_other_orders
from .parts import Parts, Rhs, State, flatten
from .relaxation import LinearLeak, relax
from .state import SolveState, check_continues
from .stepping import Progress, Solve
from .watch import finite

EXACT = "exact"
MOST_STEPS_EACH = 100  # for each interval of a t that is not uniform, before a step must be chosen


def fdeint(
    rhs: Rhs,
    y0: State | SolveState,
    t: Tensor,
    alpha: Entry | Sequence[Entry],
    *,
    coefficients: Sequence[Entry] | None = None,
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
            gradient does not reach back into that solve). What made the state must go on: the same method,
            memory, step, orders and coefficients, except that those that require grad may have moved by 0.05.
        t: ``(T,)`` increasing; ``t[0]`` is the initial time, where the memory begins. May require grad: the
            gradient is that in start and step of the grid, which must stay uniform. If it is not uniform, the
            solution is found on a uniform grid of its smallest step, with a warning that says so; ``step``
            and ``mesh`` decide otherwise.
        alpha: order in (0, 1], a number or a tensor that broadcasts to ``y0``: one order per component. If
            ``y0`` is a tuple, a number, or a tuple with one such entry per part. A list together with
            ``coefficients`` makes a multi-term equation, :math:`\sum_i c_i D^{\alpha_i} y = f`, with one
            entry of these forms for each term. May require grad.
        coefficients: the :math:`c_i` of a multi-term equation, a list of entries of the same forms; at least
            0, and for every component one above 0. May require grad.
        method: a name in ``METHODS``; ``"exact"`` for a :class:`LinearLeak`; at ``alpha=1`` also every
            name that torchdiffeq knows, which then does the work.
        memory: what is kept of the past: ``Full()`` by default, ``Window``, ``Blocked``, ``Exponentials``.
        gradient: ``"adjoint"`` (exact, stores states and no graph over the past) or ``"autograd"``
            (through everything; for second derivatives). Inside a transform of ``torch.func``, such as vmap
            or jacrev, it is always ``"autograd"``.
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
        _only_defaults(method, progress=progress, mesh=None if mesh == "uniform" else mesh)
        refuse_other_orders(alpha, method)
        return odeint(rhs, y0, t, method=method, **options)
    if options:
        raise TypeError(f"fdeint() got the unknown argument {next(iter(options))!r}")
    if not callable(rhs):
        raise TypeError(f"`rhs` must be callable as rhs(t, y), got {type(rhs).__name__}")
    earlier = y0 if isinstance(y0, SolveState) else None
    start, parts = (earlier.y, Parts(earlier.shapes)) if earlier is not None else flatten(y0)  # type: ignore[arg-type]
    step = _implied_step(t, step, mesh)
    times, h = _times(t, step, mesh)
    alphas, factors = orders(alpha, coefficients, start, parts.shapes)
    grid = times.to(start.device, start.dtype)
    h = h.to(start.device) if isinstance(h, Tensor) else h
    if method == EXACT:
        _only_defaults(
            EXACT,
            memory=memory,
            step=step,
            return_state=return_state,
            coefficients=coefficients,
            progress=progress,
        )
        if not isinstance(rhs, LinearLeak) or h is None or earlier is not None or parts.shapes is not None:
            raise TypeError(
                "`rhs` must be a LinearLeak on a uniform grid, from one tensor, for method 'exact', "
                f"got {type(rhs).__name__}; use 'trapezoid'"
            )
        return finite(relax(rhs, start, grid, alphas[0], h), grid, method)
    if h is None:
        if method not in ROWS:
            raise ValueError(
                f"`mesh` must be 'uniform' with method {method!r}; 'given' goes with {', '.join(ROWS)}"
            )
        _only_defaults(
            "mesh='given'",
            memory=memory,
            coefficients=coefficients,
            return_state=return_state,
            progress=progress,
            y0=earlier,
        )
        field = Field(parts.field(rhs), start)
        return parts.split(march_on(times, method, field, start, alphas[0], grid))
    rule = METHODS[method]()
    if len(alphas) > 1 and not isinstance(rule, IncrementMethod):
        names = [name for name, cls in METHODS.items() if issubclass(cls, IncrementMethod)]
        raise ValueError(f"`method` must be one of {', '.join(names)} for several orders, got {method!r}")
    memory = Full() if memory is None else memory
    if earlier is not None:
        kind = {"method": method, "memory": memory, "alphas": alphas, "coefficients": factors}
        _check_goes_on(earlier, t, times, **kind)
    if return_state and transforms.active():
        raise ValueError("`return_state` does not go with a transform of torch.func; leave it out")
    initial = start if earlier is None else earlier.initial.clone()
    solution, items = Solve(
        method=rule,
        memory=memory,
        # transforms find their own way through plain operations, but not through an adjoint memory
        gradient=GraphHistory if transforms.active() else GRADIENTS[gradient],
        rhs=Field(parts.field(rhs), start),
        alphas=alphas,
        factors=factors,
        h=h,
        times=grid,
        initial=initial,
        start=start,
        past=() if earlier is None else list(earlier.past.clone()),
        progress=progress,
        keep=return_state,
    ).march()
    if step is not None:
        before = [] if earlier is None else list(earlier.past)
        rates, increments = ([], before) if isinstance(rule, IncrementMethod) else (before[:-1], [])
        dense = Dense(Field(parts.field(rhs), start), alphas, factors, times, h, rates, increments)
        solution_at_t = finite(dense.at(solution, t), t, method)
    y = parts.split(solution if step is None else solution_at_t)
    if not return_state:
        return y
    state = SolveState(
        y=solution[-1].detach().clone(),
        initial=initial.detach().clone(),
        past=torch.stack(items).detach(),
        t=float(times[-1]),
        h=float(h),
        method=method,
        shapes=parts.shapes,
        memory=memory,
        alphas=tuple(a.detach().clone() for a in alphas),
        coefficients=tuple(c.detach().clone() for c in factors),
        learned=any(x.requires_grad for x in (*alphas, *factors)),
    )
    return y, state


def _only_defaults(what: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(f"`{name}` does not go with {what}; leave it out")


def _implied_step(t: Tensor, step: float | None, mesh: str) -> float | None:
    """Check ``t``; return ``step``, or the smallest step of a ``t`` that is not uniform."""
    checks.times("t", t)
    given = transforms.values(t).double()  # (T,), or (T, batches) inside vmap
    steps = given.diff(dim=0)
    if step is not None:
        _only_defaults("a batch of `t` inside vmap", step=step if given.dim() > 1 else None)
        return float(checks.real("step", step, above=0.0))
    span = given[-1] - given[0]
    # each time is rounded to its own dtype, so steps differ by a few units of the largest time
    slack = 4 * torch.finfo(t.dtype).eps * given.abs().amax(0) + 1e-9 * span / len(steps)
    if mesh == "given" or bool(((steps - span / len(steps)).abs() <= slack).all()):
        return None
    smallest, largest = (float(x) for x in torch.aminmax(steps))
    if given.dim() > 1 or float(span) / smallest > MOST_STEPS_EACH * len(steps):
        raise ValueError(
            f"`t` must be uniform or nearly so, got steps between {smallest:g} and {largest:g}; "
            "pass step=... to solve on a uniform grid and interpolate, or mesh='given' to step on t itself"
        )
    warnings.warn(
        f"t is not uniform: solved on a uniform grid of step {smallest:g} and integrated to t from "
        "there; pass step=... to choose the step, or mesh='given' to step on t itself",
        stacklevel=3,
    )
    return smallest


def _times(t: Tensor, step: float | None, mesh: str) -> tuple[Tensor, float | Tensor | None]:
    """Return the times to step through, in float64, and the step if it is uniform.

    Both are functions of ``t`` where its gradient may be wanted.
    """
    live = transforms.differentiated(t)
    given = (t if live else t.detach()).double()
    if mesh == "given":
        _only_defaults("mesh='given'", step=step)
        return given, None
    span = given[-1] - given[0]
    count = len(t) - 1
    if step is not None:
        count = math.ceil(float(transforms.values(span)) / step - 1e-9)
    h = span / count
    times = given[0] + h * torch.arange(count + 1, dtype=torch.float64, device=t.device)
    return times, h if live else float(h)


def _check_goes_on(earlier: SolveState, t: Tensor, times: Tensor, **kind: Any) -> None:
    """Refuse to go on from ``earlier`` on another grid, or by a solve of another ``kind``."""
    if t.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "`t` must not require grad where `y0` is a SolveState, whose step it shares; pass t.detach()"
        )
    now = transforms.values(times)
    if now.dim() > 1:
        raise ValueError("`t` must be one grid where `y0` is a SolveState, got a batch of them inside vmap")
    rounding = 4 * torch.finfo(t.dtype).eps * float(now.abs().max())
    h = float((now[-1] - now[0]) / (len(now) - 1))
    check_continues(earlier, start=float(now[0]), h=h, rounding=rounding, **kind)
