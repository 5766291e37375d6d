"""The exact method with constant memory: which modes, which backend, and what comes out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fracspike.solvers import Exponentials, checks, modes

from . import native
from .backend import Choice
from .modal import Modes, start_modes
from .reset import RESETS, height
from .state import Simulation, State

if TYPE_CHECKING:
    from .lif import FractionalLIF

logger = logging.getLogger("fracspike")
#: relative error of the memory, if none is asked for
TOLERANCE = {torch.float32: 7e-7, torch.float64: 1e-11}
SHORT = 4096  # steps; modes for fewer save nothing, and cost accuracy: the tolerance would be used up
AMPLE = 8  # times the steps there are, for the same reason
EARLIER = 0.8  # of the first time of its rates a step may be, with an error below DRIFT times the tolerance
DRIFT = 30.0  # how far beyond the tolerance the error may go when tau or alpha is learnt between two chunks


def simulate(lif: FractionalLIF, current: Tensor, state: State, *, traces: bool) -> Simulation:
    """Run a layer with modes over a current; see :meth:`FractionalLIF.simulate`.

    Args:
        lif: the layer.
        current: checked.
        state: checked.
        traces: whether potentials are wanted; without them ``voltage`` and ``pre_reset`` may be empty.

    Raises:
        ValueError: if the horizon is passed, or the native backend was asked for and cannot run this.
    """
    memory = _memory(lif, current.dtype)
    done = state.steps + len(current)
    if done > memory.horizon:
        raise ValueError(
            f"`current` must end within the horizon of the memory, {memory.horizon} steps, got step {done}; "
            f"pass memory=Exponentials({memory.tol:g}, horizon={1 << (done - 1).bit_length()})"
        )
    if traces and state.steps <= memory.horizon // 2 < done:
        logger.warning(
            "a stream is half way to the end of its memory: it can go on for %d more steps; build the neuron "
            "with memory=Exponentials(%g, horizon=1 << 27) for a longer one",
            memory.horizon - done,
            memory.tol,
        )
    run = None
    if _wants_native(lif, current):
        run = _native(lif, current, state, memory, traces)
    if run is None:
        checks.all_finite("current", current)
        grid = _grid(lif.alpha, lif.dt / lif.tau, state, done, memory.horizon, memory.tol)
        run = lif._march(current, replace(state, grid=grid))
        run = replace(run, state=replace(run.state, grid=grid))
    return replace(run, state=replace(run.state, steps=done)) if traces else run


def within_reach(lif: FractionalLIF, dtype: torch.dtype, state: State | None) -> bool:
    """Return whether modes serve the layer; with the default memory the whole history does where none do."""
    if not lif._by_dtype or torch.compiler.is_compiling() or (state is not None and state.grid is not None):
        return True
    if state is not None and len(state.past):  # begun with the whole history
        return False
    try:
        rates(lif, dtype)
    except ValueError:
        return False
    return True


def rates(lif: FractionalLIF, dtype: torch.dtype) -> modes.Grid:
    """Return the fewest rates that serve a layer with modes, begun at rest.

    Raises:
        ValueError: if none do.
    """
    memory = _memory(lif, dtype)
    return modes.choose(lif.alpha, lif.dt / lif.tau.detach(), memory.horizon, memory.tol)


def membrane(lif: FractionalLIF, state: State, v_rest: Tensor) -> Modes:
    """Return the membrane for the loop in torch, differentiable to any order."""
    assert state.grid is not None
    loss = state.grid.losses(lif.dt / lif.tau.double())
    return Modes(state, v_rest, loss, state.grid.weights(lif.alpha))


def choose_backend(lif: FractionalLIF, current: Tensor) -> Choice:
    """Return what runs a current like this one, and why; see :meth:`FractionalLIF.backend_report`."""
    if lif.backend == "torch":
        return Choice("torch", "backend='torch' was asked for")
    reason = _reason(lif, current)
    if reason is not None:
        return Choice("torch", reason)
    return Choice(
        "native", "backend='native' was asked for" if lif.backend == "native" else "it can run this"
    )


def obstacle(lif: FractionalLIF, current: Tensor) -> str | None:
    """Return why the compiled loop cannot run modes of this layer on such a current; None if it can."""
    from . import carried
    from .lif import FractionalLIF

    if not lif.leaky:
        return f"{type(lif).__name__} has no leak, and only leaky neurons are compiled"
    if not lif._modal:
        return (
            "only method='exact' with Exponentials is compiled, and this layer has "
            f"method={lif.method!r} with {lif.memory!r}"
        )
    if lif.reset_memory == "current":
        return "reset_memory='current' decides on a spike before the step, which is not compiled"
    for name in ("_membrane", "_loop", "_march"):
        if getattr(type(lif), name) is not getattr(FractionalLIF, name):
            return f"{type(lif).__name__} has a step of its own, which is not compiled"
    if current.device.type != "cpu":
        return f"the current is on {current.device.type!r}, and the compiled loop runs on the CPU"
    if current.numel() == 0:
        return "the current is empty"
    if torch.compiler.is_compiling():
        if torch.is_grad_enabled() and not native.known(lif.surrogate):
            return "torch.compile can only take a surrogate of fracspike through the compiled loop"
    elif torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func is active"
    return native.missing() or carried.obstacle(lif, current) or native.obstacle(lif.surrogate, current)


def _reason(lif: FractionalLIF, current: Tensor) -> str | None:
    """Return the obstacle, or that there are no modes to run."""
    reason = obstacle(lif, current)
    if reason is None and not within_reach(lif, current.dtype, None):
        return "no short sum of exponentials serves so small a dt / tau, and the whole history is kept"
    return reason


def refuse(lif: FractionalLIF, current: Tensor, reason: str | None = None) -> None:
    """Raise ValueError: the native backend was asked for and cannot run this."""
    reason = reason or _reason(lif, current)
    raise ValueError(f"`backend` 'native' cannot run this layer: {reason}; pass backend='auto' or 'torch'")


def _wants_native(lif: FractionalLIF, current: Tensor) -> bool:
    if lif.backend == "torch":
        return False
    reason = obstacle(lif, current)
    if reason is not None and lif.backend == "native":
        refuse(lif, current, reason)
    return reason is None


def _native(
    lif: FractionalLIF, current: Tensor, state: State, memory: Exponentials, traces: bool
) -> Simulation | None:
    """Run the compiled loop; None if the surrogate turns out not to step as it promised."""
    from . import carried

    rest, alpha, tau = lif.v_rest.double(), lif.alpha, lif.tau
    neuron = native.Neuron(
        alpha=alpha,
        tau=tau,
        resistance=lif.resistance,
        threshold=lif.threshold.double() - rest,
        v_reset=height(lif).double() if lif.reset == "subtract" else lif.v_reset.double() - rest,
        dt=lif.dt,
        reset=lif.reset,
        restart=lif.reset_memory == "restart",
        period=lif._hold,
        detach=lif.detach_reset,
        horizon=memory.horizon,
        tol=memory.tol,
    )
    horizon = memory.horizon
    if not traces and not state.steps:  # nobody goes on from here: fewer modes serve what there is
        horizon = min(horizon, max(SHORT, AMPLE << (len(current) - 1).bit_length()))
    grid, done = None, state.steps + len(current)
    if not torch.compiler.is_compiling():
        grid = _grid(alpha.detach(), lif.dt / tau.detach(), state, done, horizon, memory.tol)
    past = state.past.double()
    if traces and grid is not None:
        past = start_modes(state, lif.v_rest, grid.modes)
    step = native.plan(lif.surrogate, current)
    v, feedback = state.v.double() - rest, carried.feedback(lif, state)
    try:
        found = native.run(current, neuron, step, grid, past, v, state.refractory, feedback, traces=traces)
    except native.MismatchError as mismatch:
        if lif.backend == "native":
            refuse(lif, current, str(mismatch))
        return None
    if not traces:
        return Simulation(found.spikes, found.before, found.before, state)
    before = found.before if _is_zero(rest) else found.before + lif.v_rest.to(current.dtype)
    spikes = found.spikes.detach() if lif.detach_reset else found.spikes
    after = RESETS[lif.reset](before, spikes, lif)
    if after is before:  # no reset
        after = before.clone()
    end = replace(
        state,
        v=after[-1],
        past=found.modes,
        drive=lif.resistance.to(current.dtype) * current[-1],
        refractory=found.hold,
        grid=grid,
        extra=carried.extra(state, found),
        made=lif._made(),
    ).apart()
    return Simulation(found.spikes, after.clone() if after is before else after, before, end, found.variables)


def _is_zero(value: Tensor) -> bool:
    return not value.requires_grad and not bool(value.any())


def _memory(lif: FractionalLIF, dtype: torch.dtype) -> Exponentials:
    assert isinstance(lif.memory, Exponentials)
    return replace(lif.memory, tol=TOLERANCE.get(dtype, lif.memory.tol)) if lif._by_dtype else lif.memory


def _grid(alpha: Tensor, step: Tensor, state: State, done: int, horizon: int, tol: float) -> modes.Grid:
    """Return the rates: those the state was made with, else the fewest that serve.

    Raises:
        ValueError: if learning has moved alpha, or dt / tau, out of what the rates of the state serve.
    """
    if state.grid is None:
        return modes.choose(alpha, step, horizon, tol)
    low, high = (float(x) for x in torch.aminmax(step.detach()))
    moved = low < EARLIER * state.grid.first or done * high > state.grid.last
    if moved or state.grid.error(alpha) > DRIFT * tol:
        raise ValueError(
            f"`state` must come from a neuron of about this {'tau' if moved else 'alpha'}: "
            "its modes no longer serve; start from rest"
        )
    return state.grid
