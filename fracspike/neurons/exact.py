"""The exact method with constant memory: a layer's call as a problem, and what came out as a simulation."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from fracspike.solvers import Memory

from .backend import Choice
from .backends import surrogate
from .backends.choice import choose
from .backends.operator import integrate
from .loop import Feedback
from .modal import start_modes
from .modes import ModeBank, Modes, Range, within
from .module import HALVES
from .problem import KINDS, Fixed, Moved, Options, Problem
from .problem import RESETS as NUMBERS
from .reset import RESETS, height
from .state import Simulation, State, check_drive

logger = logging.getLogger("fracspike")


class Layer(Protocol):
    """What is asked of a layer; see `FractionalLIF`."""

    alpha: Tensor
    tau: Tensor
    threshold: Tensor
    resistance: Tensor
    v_rest: Tensor
    v_reset: Tensor
    reset_scale: Tensor
    dt: float
    method: str
    memory: Memory
    modes: ModeBank | None
    backend: str
    reset: str
    reset_memory: str
    spiking: ClassVar[bool]
    leaky: ClassVar[bool]
    detach_reset: bool
    surrogate: nn.Module
    _hold: int
    _off_zero: bool

    def initial_state(self, like: Tensor) -> State: ...  # noqa: D102
    def sources(self, *names: str) -> list[Tensor]: ...  # noqa: D102
    def _own_step(self) -> str | None: ...
    def _made(self) -> dict[str, float | str | Tensor]: ...
    def _feedback(self, state: State, dtype: torch.dtype) -> Feedback: ...
    def _march(self, current: Tensor, state: State, modes: Modes | None = None) -> Simulation: ...


EARLIER = 0.8  # of the first time of its rates a step may be, with an error below DRIFT times the tolerance
DRIFT = 30.0  # how far beyond the tolerance the error may go when tau or alpha is learnt between two chunks


def simulate(lif: Layer, current: Tensor, state: State, modes: Modes, *, traces: bool) -> Simulation:
    """Run a layer with modes over a current; see :meth:`FractionalLIF.simulate`.

    Args:
        lif: the layer.
        current: checked.
        state: checked.
        modes: those of `find_modes`.
        traces: whether potentials are wanted; without them ``voltage`` and ``pre_reset`` may be empty.

    Raises:
        ValueError: if the horizon is passed, or the backend that was asked for cannot run this.
    """
    done = state.steps + current.shape[0]
    if done > modes.horizon:
        raise ValueError(
            f"`current` must end within the horizon of the memory, {modes.horizon} steps, got step {done}; "
            f"pass memory=Exponentials({modes.grid.tol:g}, horizon={1 << (done - 1).bit_length()})"
        )
    if traces and state.steps <= modes.horizon // 2 < done:
        logger.warning(
            "a stream is half way to the end of its memory: it can go on for %d more steps; build the neuron "
            "with memory=Exponentials(%g, horizon=1 << 27) for a longer one",
            modes.horizon - done,
            modes.grid.tol,
        )
    run = None
    choice, whole = _choose(lif, current, state)
    if whole:
        try:
            run = _integrate(lif, current, state, modes, choice.backend, traces=traces)
        except surrogate.MismatchError as mismatch:
            if lif.backend != "auto":
                refuse(lif, str(mismatch))
    if run is None:
        check_drive(current, lif.resistance)
        run = lif._march(current, replace(state, grid=modes.grid), modes)
        run = replace(run, state=replace(run.state, grid=modes.grid))
    return replace(run, state=replace(run.state, steps=done)) if traces else run


def find_modes(lif: Layer, current: Tensor, state: State, *, traces: bool) -> Modes | None:
    """Return the modes of a call; None if the whole history is kept."""
    bank = lif.modes
    if bank is None or (state.grid is None and len(state.past)):  # begun with the whole history
        return None
    _follow(lif, bank)
    modes = bank.find(current.dtype, current.shape[0], resumed=traces or state.steps > 0)
    if state.grid is None or modes is None or state.grid == modes.grid:
        return modes
    low, high = Range.of(lif.alpha, lif.dt / lif.tau).step
    done = state.steps + current.shape[0]
    moved = low < EARLIER * state.grid.first or done * high > state.grid.last
    if moved or state.grid.error(lif.alpha) > DRIFT * state.grid.tol:
        raise ValueError(
            f"`state` must come from a neuron of about this {'tau' if moved else 'alpha'}: "
            "its modes no longer serve; start from rest"
        )
    return bank.of(state.grid, lif.alpha, current.device)


def _follow(lif: Layer, bank: ModeBank) -> None:
    """Have modes follow the constants; inside a compiled graph, refuse what has left their margin."""
    moving = lif.alpha.requires_grad, lif.tau.requires_grad
    if torch.compiler.is_compiling():
        if any(moving):
            alpha, step = lif.alpha.detach(), lif.dt / lif.tau.detach()
            message = "`alpha` or `tau` left the margin of the modes; call the layer once outside the graph"
            torch._assert_async(within(alpha, step, bank.outer), message)
    elif torch._C._functorch.maybe_current_level() is None:
        changed = bank.changed(lif.sources("alpha", "tau"))
        if changed or bank.asking:
            alpha, step = lif.alpha.detach(), lif.dt / lif.tau.detach()
            if type(step) is Tensor:  # not a fake one, which has no value
                bank.follow(alpha, step, moving, changed=changed)


def backend_report(lif: Layer, current: Tensor) -> Choice:
    """Return what runs a current like this one, and why; see :meth:`FractionalLIF.backend_report`."""
    if current.dtype in HALVES:
        current = current.float()  # as the layer computes
    state = lif.initial_state(current[0])
    modes = find_modes(lif, current, state, traces=True)
    if modes is None:
        return Choice("torch", no_modes(lif))
    return _choose(lif, current, state)[0]


def no_modes(lif: Layer) -> str:
    """Return why a layer has no modes, in words."""
    if not lif.leaky:
        return f"{type(lif).__name__} has no leak, and only leaky neurons are compiled"
    if lif.modes is not None:
        return "dt / tau is too small for the exponential memory, so the full history is kept"
    return (
        "only method='exact' with Exponentials is compiled, and this layer has "
        f"method={lif.method!r} with {lif.memory!r}"
    )


def refuse(lif: Layer, why: str) -> None:
    """Raise ValueError: the backend that was asked for cannot run this."""
    raise ValueError(
        f"`backend` {lif.backend!r} cannot run this layer: {why}; pass backend='auto' or 'torch'"
    )


def _choose(lif: Layer, current: Tensor, state: State) -> tuple[Choice, bool]:
    """Return the backend that runs a call, and whether by an adjoint; else step by step, with a graph.

    Raises:
        ValueError: if another was asked for, which cannot.
    """
    if lif.backend == "torch":
        return Choice("torch", "backend='torch' was asked for"), False
    feedback = lif._feedback(state, torch.float64)
    why = lif._own_step() or feedback.reason(current)
    if lif.spiking:
        why = why or surrogate.obstacle(lif.surrogate, current)
    if not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None:
        why = why or "a transform of torch.func is active"
    if current.numel() == 0:
        why = why or "the current is empty"
    if why is None:
        choice = choose(lif.backend, current, dense="matrix" in feedback.given(current))
    else:
        choice = Choice("torch", why)
    if choice.backend == "torch" and lif.backend != "auto":
        refuse(lif, choice.reason)
    return choice, why is None


def _integrate(
    lif: Layer, current: Tensor, state: State, modes: Modes, backend: str, *, traces: bool
) -> Simulation:
    problem = pose(lif, current, state, modes, traces=traces)
    made = integrate(problem, backend)
    if not traces:
        return Simulation(made.spikes, made.before, made.before, state)
    before = made.before + lif.v_rest.to(current.dtype) if lif._off_zero else made.before
    spikes = made.spikes.detach() if lif.detach_reset else made.spikes
    after = RESETS[lif.reset](before, spikes, lif)
    if after is before:  # no reset
        after = before.clone()
    shown = {"adaptation": made.a, "w": made.w}
    variables = {name: x for name, x in shown.items() if name in state.extra}
    ends = {name: x[-1] for name, x in variables.items()} | {"last_spikes": made.spikes[-1]}
    end = State(
        v=after[-1],
        past=made.z,
        drive=lif.resistance.to(current.dtype) * current[-1],
        refractory=made.hold,
        made=lif._made(),
        extra={name: ends.get(name, x) for name, x in state.extra.items()},
        grid=modes.grid,
    ).apart()
    return Simulation(made.spikes, after, before, end, variables)


def pose(lif: Layer, current: Tensor, state: State, modes: Modes, *, traces: bool) -> Problem:
    """Return a call as a problem; noise is drawn here."""
    step = surrogate.plan(lif.surrogate, current) if lif.spiking else surrogate.NEVER
    double = modes.rates.dtype
    rest = lif.v_rest.to(double)
    fall = height(lif).to(double) if lif.reset == "subtract" else lif.v_reset.to(double) - rest
    none = rest.new_empty(0)
    own = dict.fromkeys(("lift", "stay", "pull", "a", "w", "own"), none)
    own |= dict.fromkeys(("matrix", "last"), current.new_empty(0))
    given = lif._feedback(state, double).given(current)
    current = current + given.pop("bias") if "bias" in given else current
    loss, weight = modes.evaluate(lif.alpha, lif.tau, lif.dt)
    past = state.past.to(double)
    if traces and not len(past):
        past = start_modes(state, lif.v_rest, len(loss))
    moved = Moved(
        current=current,
        resistance=lif.resistance.to(double),
        threshold=lif.threshold.to(double) - rest,
        fall=fall,
        weight=weight,
        z=past,
        v=state.v.to(double) - rest,
        **(own | given),
    )
    empty = current.new_empty(0)
    slope = step.slope if isinstance(step.slope, Tensor) else rest.new_full((), step.slope)
    fixed = Fixed(loss, empty if step.shift is None else step.shift, slope, state.refractory)
    options = Options(
        kind=KINDS[step.kind],
        reset=NUMBERS[lif.reset],
        restart=lif.reset_memory == "restart",
        period=lif._hold,
        detach=lif.detach_reset,
        tol=modes.grid.tol,
        slow=modes.slow,
        keep_before=traces,
        form=() if moved.tires else step.form,  # where the threshold moves, the potential does not tell
    )
    return Problem(moved, fixed, options, step)
