"""The exact method with constant memory: which modes, which backend, and what comes out."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fracspike.solvers import Exponentials
from fracspike.solvers.modes import Grid, choose

from . import native
from .backend import Choice
from .modal import Modes, start_modes
from .reset import RESETS
from .state import Simulation, State

if TYPE_CHECKING:
    from .lif import FractionalLIF

#: relative error of the memory, if none is asked for
TOLERANCE = {torch.float32: 7e-7, torch.float64: 1e-11}
HALVES = (torch.float16, torch.bfloat16)
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
    memory = _memory(lif)
    done = state.steps + len(current)
    if done > memory.horizon:
        raise ValueError(
            f"`current` must end within the horizon of the memory, {memory.horizon} steps, got step {done}; "
            f"pass memory=Exponentials({memory.tol:g}, horizon={1 << (done - 1).bit_length()})"
        )
    dtype = current.dtype
    if dtype in HALVES:  # single precision costs nothing here, and half of one would not hold a potential
        current, state = current.float(), replace(state, v=state.v.float(), drive=state.drive.float())
    state = replace(state, grid=_grid(lif, state, current.dtype))
    run = _native(lif, current, state, traces) if _wants_native(lif, current) else None
    if run is None:
        run = lif._march(current, state)
    end = replace(run.state, v=run.state.v.to(dtype), drive=run.state.drive.to(dtype), grid=state.grid, steps=done)
    return replace(
        run,
        spikes=run.spikes.to(dtype),
        voltage=run.voltage.to(dtype),
        pre_reset=run.pre_reset.to(dtype),
        state=end,
    )


def membrane(lif: FractionalLIF, state: State, v_rest: Tensor) -> Modes:
    """Return the membrane for the loop in torch, differentiable to any order."""
    assert state.grid is not None
    loss = state.grid.losses(lif.dt / lif.tau.double())
    return Modes(state, v_rest, loss, state.grid.weights(lif.alpha))


def choose_backend(lif: FractionalLIF, current: Tensor) -> Choice:
    """Return what runs a current like this one, and why; see :meth:`FractionalLIF.backend_report`."""
    if lif.backend == "torch":
        return Choice("torch", "backend='torch' was asked for")
    reason = obstacle(lif, current)
    if reason is not None:
        return Choice("torch", reason)
    return Choice("native", "backend='native' was asked for" if lif.backend == "native" else "it can run this")


def obstacle(lif: FractionalLIF, current: Tensor) -> str | None:
    """Return why the compiled loop cannot run this layer on such a current, in words; None if it can."""
    from .lif import FractionalLIF

    if not lif._modal:
        return (
            "only method='exact' with Exponentials is compiled, and this layer has "
            f"method={lif.method!r} with {lif.memory!r}"
        )
    if lif.reset_memory == "current":
        return "reset_memory='current' decides on a spike before the step, which is not compiled"
    for name in ("_membrane", "_loop", "_feedback", "_march"):
        if getattr(type(lif), name) is not getattr(FractionalLIF, name):
            return f"{type(lif).__name__} has a step of its own, which is not compiled"
    if current.device.type != "cpu":
        return f"the current is on {current.device.type!r}, and the compiled loop runs on the CPU"
    if torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func is active"
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed"
    return native.obstacle(lif.surrogate, current)


def refuse(lif: FractionalLIF, current: Tensor, reason: str | None = None) -> None:
    """Raise ValueError: the native backend was asked for and cannot run this."""
    reason = reason or obstacle(lif, current)
    raise ValueError(f"`backend` 'native' cannot run this layer: {reason}; pass backend='auto' or 'torch'")


def _wants_native(lif: FractionalLIF, current: Tensor) -> bool:
    if lif.backend == "torch":
        return False
    reason = obstacle(lif, current)
    if reason is not None and lif.backend == "native":
        refuse(lif, current, reason)
    return reason is None


def _native(lif: FractionalLIF, current: Tensor, state: State, traces: bool) -> Simulation | None:
    """Run the compiled loop; None if the surrogate turns out not to step as it promised."""
    grid, rest = state.grid, lif.v_rest.double()
    assert grid is not None
    alpha, tau = lif.alpha.detach(), lif.tau.detach().double()
    moves = []
    if lif.alpha.requires_grad:
        moves.append((lif.alpha, grid.tangents(alpha)))
    if lif.tau.requires_grad:  # the decays are held fixed: dE/dlog(tau) has weights of its own
        moves.append((lif.tau.double().log(), grid.slopes(alpha)))
    levels = native.Levels(
        resistance=lif.resistance,
        threshold=lif.threshold.double() - rest,
        v_reset=lif.v_reset.double() - rest,
        decay=1 - grid.losses(lif.dt / tau),
        weight=grid.weights(alpha),
        moves=moves,
    )
    try:
        found = native.run(
            current,
            levels,
            native.plan(lif.surrogate, current),
            start_modes(state, lif.v_rest, grid.modes),
            state.v.double() - rest,
            state.refractory,
            reset=lif.reset,
            restart=lif.reset_memory == "restart",
            period=lif._hold,
            detach=lif.detach_reset,
            traces=traces,
        )
    except native.Mismatch as mismatch:
        if lif.backend == "native":
            refuse(lif, current, str(mismatch))
        return None
    if found.before is None:
        nothing = current.new_empty(0)
        return Simulation(found.spikes, nothing, nothing, state)
    before = found.before if _is_zero(rest) else found.before + lif.v_rest.to(current.dtype)
    spikes = found.spikes.detach() if lif.detach_reset else found.spikes
    after = RESETS[lif.reset](before, spikes, lif)
    end = replace(
        state,
        v=after[-1],
        past=found.modes,
        drive=lif.resistance.to(current.dtype) * current[-1],
        refractory=found.hold,
    )
    return Simulation(found.spikes, after, before, end)


def _is_zero(value: Tensor) -> bool:
    return not value.requires_grad and not bool(value.any())


def _memory(lif: FractionalLIF) -> Exponentials:
    assert isinstance(lif.memory, Exponentials)
    return lif.memory


def _grid(lif: FractionalLIF, state: State, dtype: torch.dtype) -> Grid:
    """Return the rates: those the state was made with, else the fewest that serve."""
    memory = _memory(lif)
    tol = TOLERANCE[dtype] if lif._by_dtype else memory.tol
    if state.grid is None:
        return choose(lif.alpha, lif.dt / lif.tau.detach().double(), memory.horizon, tol)
    if state.grid.error(lif.alpha) > DRIFT * tol:
        raise ValueError(
            "`state` must come from a neuron of about this alpha: its modes no longer serve; start from rest"
        )
    return state.grid
