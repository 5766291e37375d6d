"""The fractional leaky integrate-and-fire neuron."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fracspike import surrogate as surrogates
from fracspike.solvers import METHODS, Exponentials, Full, IncrementMethod, Memory, checks

from . import exact, parameters
from .backend import BACKENDS, Choice
from .loop import Feedback, Loop
from .membrane import Differences, Membrane, Propagator
from .modal import Modes as ModalMembrane
from .modes import ModeBank, Modes, Range
from .module import HALVES, LAZY, NeuronModule, in_single
from .reset import RESETS
from .state import Simulation, State, check_current, check_drive, check_potential, check_state

EXACT = "exact"
LARGEST = torch.finfo(torch.float32).max / 4  # what a layer can add up in single precision
THRESHOLD = 1.0  # if none is given
OTHER_SCALE = 10.0  # so many times further from 0, a resting potential is in other units, such as mV
#: the solvers whose memory holds increments, which is where a reset can be told apart from the leak
SCHEMES = {name: method for name, method in METHODS.items() if issubclass(method, IncrementMethod)}
RESET_MEMORIES = ("jump", "overwrite", "current", "restart")
#: relative error of the memory, if none is asked for, and the steps over which it holds
TOLERANCE = {torch.float32: 7e-7, torch.float64: 1e-11}
HORIZON = 1 << 27
STEP = ("_membrane", "_loop", "_march", "_feedback")  # what a subclass with a step of its own replaces


class FractionalLIF(NeuronModule):
    r"""A layer of leaky integrate-and-fire neurons with a Caputo derivative of order alpha.

    .. math:: \tau^\alpha D^\alpha v = -(v - v_\text{rest}) + R\, I(t)

    ``current[n]`` is held over :math:`(t_n, t_{n+1}]` and output ``n`` belongs to
    :math:`t_{n+1}`, so as many steps come out as go in. A spike is decided at the end of a step on
    the potential before reset, ``v >= threshold``, and the same spike value drives the output and
    the reset. The layer holds no state between calls: each starts at rest unless ``state`` is given.

    With ``reset_memory="jump"`` each reset relaxes by itself, so under constant current the rate
    falls like :math:`t^{\alpha-1}`: the neuron adapts. With ``"overwrite"`` the spike count depends
    on ``dt`` unless there is a refractory period.

    Args:
        alpha: Caputo order in (0, 1]; 1 is the ordinary LIF neuron. A list of orders makes a
            multi-term equation, :math:`\sum_i c_i \tau^{\alpha_i} D^{\alpha_i} v` on the left.
        tau: membrane time constant, in the unit of ``dt``.
        threshold: potential at and above which the neuron spikes, 1 by default; not counted from
            ``v_rest``, so it must be given if rest is on another scale.
        dt: time step.
        v_rest: resting potential, at which every call starts.
        resistance: potential per unit of current, positive.
        surrogate: what makes the spike of ``v - threshold``: a name (``"atan"``,
            ``"atan:alpha=2"``), a surrogate class or instance, or any callable.
        reset: ``"subtract"`` (soft: the threshold's height above rest is taken off), ``"value"``
            (hard: to ``v_reset``) or ``"none"``.
        reset_memory: how the reset enters the memory: ``"jump"`` (outside the derivative; converges
            as ``dt`` falls), ``"overwrite"`` (the reset potential replaces the true one),
            ``"current"`` (a negative input, as in the released code of the f-SNN paper) or
            ``"restart"`` (the memory is erased: no adaptation); see ``docs/reset-memory.md``.
        v_reset: potential after a hard reset; only with ``reset="value"``.
        refractory: time for which the potential is held after a spike, the unit of ``dt``; a
            multiple of ``dt``.
        method: ``"exact"`` (no error between spikes at any ``dt``), or a difference scheme: ``"l1"``,
            ``"gl"``, ``"l1_explicit"``, ``"gl_explicit"``. By default ``"exact"``, but ``"l1"`` with
            ``"overwrite"`` or several orders, and ``"l1_explicit"`` with ``"current"``.
        memory: what is kept of the past. By default ``Full()`` for a difference scheme; for the exact
            method ``Exponentials``, constant in time, with a relative error of 7e-7 in single and 1e-11 in
            double precision over the steps of its ``horizon``.
        learn: names among ``"alpha"``, ``"coefficients"``, ``"tau"``, ``"threshold"``,
            ``"resistance"``, ``"v_reset"`` that become parameters, kept in their range by a parametrisation.
        size: shape of the layer's neurons, such as ``(N,)``, if they have parameters of their own;
            broadcasts over the trailing dimensions of the current, such as ``(C, 1, 1)`` for one set
            in each channel. ``"lazy"`` leaves the shape of what is learned to the first input.
        detach_reset: if true, no gradient flows through the reset; not with ``reset="none"``.
        coefficients: the :math:`c_i` of a multi-term equation, positive, one for each order; see
            also :func:`distributed`.
        backend: ``"native"`` (a compiled loop over time, for the exact method with ``Exponentials`` on the
            CPU), ``"torch"`` (a loop in Python: any method and device, second derivatives) or ``"auto"``,
            native where it can; see :meth:`backend_report`.
        reset_scale: how many times the threshold's height above rest a soft reset takes off; only with
            ``reset="subtract"``.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if one is out of range, unknown, or does not go with another.

    Source: Teka, Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526, for the model
    (there with ``tau_a = tau**alpha`` on the left); ``docs/neurons.md`` for the reset memories.

    >>> import torch
    >>> lif = FractionalLIF(alpha=0.5, tau=1.0, dt=0.001)
    >>> spikes = lif(torch.full((3000, 1), 1.5))
    >>> spikes.nonzero()[:, 0].mul(0.001)  # the first spike solves 1.5 (1 - E(-sqrt(t))) = 1
    tensor([2.0460])
    """

    learnable: ClassVar[tuple[str, ...]] = (
        "alpha",
        "coefficients",
        "tau",
        "threshold",
        "resistance",
        "v_reset",
    )
    leaky: ClassVar[bool] = True
    spiking: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ("alpha", "tau", "threshold")  # in the printed form
    defaults: ClassVar[Mapping[str, float]] = {
        "resistance": 1.0,
        "v_rest": 0.0,
        "v_reset": 0.0,
        "reset_scale": 1.0,
    }  # printed where they differ

    alpha: Tensor
    coefficients: Tensor
    tau: Tensor
    threshold: Tensor
    resistance: Tensor
    v_rest: Tensor
    v_reset: Tensor
    reset_scale: Tensor

    def __init__(
        self,
        alpha: float | Tensor | Sequence[float] = 0.7,
        tau: float | Tensor = 2.0,
        threshold: float | Tensor | None = None,
        dt: float = 1.0,
        v_rest: float | Tensor = 0.0,
        resistance: float | Tensor = 1.0,
        surrogate: str | type[nn.Module] | Callable[[Tensor], Tensor] = "sigmoid",
        reset: str = "subtract",
        reset_memory: str = "jump",
        v_reset: float | Tensor = 0.0,
        refractory: float = 0.0,
        method: str | None = None,
        memory: Memory | None = None,
        learn: Sequence[str] = (),
        size: int | Sequence[int] | str | None = None,
        detach_reset: bool = False,
        coefficients: Sequence[float] | None = None,
        backend: str = "auto",
        reset_scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.reset = checks.one_of("reset", reset, RESETS)
        self.reset_memory = checks.one_of("reset_memory", reset_memory, RESET_MEMORIES)
        order, factors = parameters.terms(alpha, coefficients)
        self.terms = 1 if factors is None else len(factors)
        self.method = _method(method, self.reset_memory, self.terms)
        relaxes = self.method == EXACT and self.leaky
        usual = Exponentials(TOLERANCE[torch.float32], horizon=HORIZON) if relaxes else Full()
        self.memory = usual if memory is None else memory
        self._memory_text = repr(self.memory)
        if not isinstance(self.memory, Memory):
            raise TypeError(f"`memory` must be a Memory such as Full(), got {memory!r}")
        self._modal = relaxes and isinstance(self.memory, Exponentials)
        self.backend = checks.one_of("backend", backend, BACKENDS)
        self.dt = checks.number("dt", dt, above=0.0)
        self.refractory = checks.number("refractory", refractory, at_least=0.0)
        self._hold = whole_steps("refractory", self.refractory, self.dt)
        self.detach_reset = parameters.flag("detach_reset", detach_reset)
        self._check_effects(v_reset, reset_scale, learn)
        self.surrogate = surrogates.resolve(surrogate)
        self._register(
            {
                "alpha": order,
                "tau": checks.real("tau", tau, above=0.0),
                "threshold": self._level(threshold, v_rest),
                "resistance": checks.real("resistance", resistance, above=0.0, at_most=LARGEST),
                "v_rest": _potential("v_rest", v_rest),
                "v_reset": _potential("v_reset", v_reset),
            }
            | ({} if factors is None else {"coefficients": factors}),
            learn,
            None if size == LAZY else parameters.size_tuple(size),
        )
        scale = parameters.expand("reset_scale", checks.real("reset_scale", reset_scale, above=0.0), None)
        self.register_buffer("reset_scale", scale, persistent=False)
        self._off_zero = bool(self.v_rest.any())
        self.modes: ModeBank | None = None
        learned = parameters.names(learn, self.learnable)
        if self._modal:
            assert isinstance(self.memory, Exponentials)
            tols = TOLERANCE if memory is None else dict.fromkeys(TOLERANCE, self.memory.tol)
            self.modes = ModeBank(tols, self.memory.horizon, required=memory is not None)
            self.modes.choose(
                Range.of(self.alpha, self.dt / self.tau), ("alpha" in learned, "tau" in learned)
            )
        if size == LAZY:
            self._make_lazy(learned - ({"alpha", "coefficients"} if self.terms > 1 else set()))

    def _own_step(self) -> str | None:
        """Return why no backend knows the step of this layer; None if one may."""
        if self.reset_memory == "current":
            return "reset_memory='current' decides on a spike before the step, which is not compiled"
        for name in STEP:
            owner = next(kind for kind in type(self).__mro__ if name in vars(kind))
            if owner.__module__.partition(".")[0] != __name__.partition(".")[0]:
                return f"{type(self).__name__} has a step of its own, which is not compiled"
        return None

    def _check_effects(
        self, v_reset: float | Tensor, reset_scale: float | Tensor, learn: str | Sequence[str]
    ) -> None:
        """Refuse arguments that say something of a reset which there is not."""
        learned = parameters.names(learn, self.learnable)
        _potential("v_reset", v_reset)
        checks.real("reset_scale", reset_scale, above=0.0)
        moot = {
            "v_reset": parameters.differs(v_reset, 0.0) and self.reset != "value",
            "learn": "v_reset" in learned and self.reset != "value",
            "reset_scale": parameters.differs(reset_scale, 1.0) and self.reset != "subtract",
            "detach_reset": self.detach_reset and self.reset == "none",
            "reset_memory": self.reset_memory == "overwrite" and self.reset == "none",
        }
        remedies = {
            "v_reset": "pass reset='value' for a reset to v_reset",
            "learn": "leave 'v_reset' out of it, or pass reset='value'",
            "reset_scale": "pass reset='subtract'",
            "detach_reset": "leave it out",
            "reset_memory": "'overwrite' writes what a reset leaves",
        }
        for name, idle in moot.items():
            if idle:
                raise ValueError(f"`{name}` has no effect with reset={self.reset!r}; {remedies[name]}")

    def _level(self, threshold: float | Tensor | None, v_rest: float | Tensor) -> float | Tensor:
        """Return the threshold, which must be given where rest is on another scale than the default one."""
        if threshold is not None:
            return _potential("threshold", threshold)
        far = torch.as_tensor(_potential("v_rest", v_rest)).abs().max().item()
        if self.spiking and far >= OTHER_SCALE * THRESHOLD:
            raise ValueError(
                f"`threshold` must be given with v_rest={parameters.short(torch.as_tensor(v_rest))}, got the "
                f"default {THRESHOLD:g}: it is a potential on the same scale, not a height above rest; "
                "pass threshold=..."
            )
        return THRESHOLD

    def _register(
        self, values: dict[str, float | Tensor], learn: str | Sequence[str], size: tuple[int, ...] | None
    ) -> None:
        learned = parameters.names(learn, self.learnable)
        if self.terms == 1 and "coefficients" in learned:
            raise ValueError("`learn` must not name `coefficients` of a single order; pass alpha=[...]")
        ofterms = {name: values.pop(name) for name in ("alpha", "coefficients") if self.terms > 1}
        size = parameters.common_shape(values.values(), size)
        tensors = {
            name: parameters.expand(
                name, value, size if name in learned or isinstance(value, Tensor) else None
            )
            for name, value in values.items()
        } | {name: torch.as_tensor(value) for name, value in ofterms.items()}
        self.size = size
        if self.spiking:
            _check_levels(self.reset, tensors)
        _check_step(self.dt, tensors)
        floor = float(tensors["v_rest"].max())
        ranges = {
            "alpha": parameters.UnitInterval(),
            "tau": parameters.Above(0.0),
            "threshold": parameters.Above(floor),
            "coefficients": parameters.Above(0.0),
            "resistance": parameters.Above(0.0),
        }
        for name, value in tensors.items():
            parameters.register(self, name, value, ranges.get(name), name in learned)

    def forward(self, current: Tensor, state: State | None = None) -> Tensor:
        """Return the spikes for a current: ``(T, B, *) -> (T, B, *)``.

        Args:
            current: input current ``(T, B, *)``, floating point and finite.
            state: where to start, from :meth:`simulate`; at rest by default.
        """
        if type(self).simulate is not FractionalLIF.simulate:  # a subclass has its own: do what it does
            return self.simulate(current, state).spikes
        return self._run(current, state, traces=False).spikes

    def simulate(self, current: Tensor, state: State | None = None) -> Simulation:
        """Return spikes, potentials and the state to go on from.

        Args:
            current: input current ``(T, B, *)``, floating point and finite.
            state: where to start: ``run.state`` of an earlier call, or :meth:`initial_state`.

        Raises:
            TypeError: if ``current`` is not a floating-point tensor or ``state`` not a State.
            ValueError: if the current is not finite, or a shape or the state does not fit.

        >>> import torch
        >>> lif = FractionalLIF(alpha=0.6)
        >>> whole = lif.simulate(torch.ones(20, 1))
        >>> first = lif.simulate(torch.ones(12, 1))
        >>> second = lif.simulate(torch.ones(8, 1), state=first.state)
        >>> torch.allclose(whole.voltage[12:], second.voltage)
        True
        """
        return self._run(current, state, traces=True)

    def backend_report(self, current: Tensor) -> Choice:
        """Return which backend runs on a current like this one, and why.

        Args:
            current: ``(T, B, *)``.

        >>> import torch
        >>> print(FractionalLIF(backend="torch").backend_report(torch.ones(5, 1)))
        torch: backend='torch' was asked for
        """
        self._need_size()
        return exact.backend_report(self, current)

    @in_single
    def _run(self, current: Tensor, state: State | None, *, traces: bool) -> Simulation:
        self._check_current(current)
        if state is None:
            state = self._start(self.v_rest.to(current.dtype).expand(current.shape[1:]))
        else:
            self._check_state(state, current)
        modes = exact.find_modes(self, current, state, traces=traces)
        if modes is not None:
            return exact.simulate(self, current, state, modes, traces=traces)
        if self.backend not in ("auto", "torch"):
            exact.refuse(self, exact.no_modes(self))
        check_drive(current, self.resistance)
        return self._march(current, state)

    def _march(self, current: Tensor, state: State, modes: Modes | None = None) -> Simulation:
        """Run the loop over time in torch."""
        membrane = self._membrane(state, steps=current.shape[0], dtype=current.dtype, modes=modes)
        loop = self._loop(state, current.dtype)
        trace = loop.run(membrane, self.resistance.to(current.dtype) * current, state.refractory)
        check_potential(trace.voltage, "the current times `resistance`, or dt / tau, is too large")
        return Simulation(
            spikes=trace.spikes,
            voltage=trace.voltage,
            pre_reset=trace.pre_reset,
            state=State(
                v=membrane.v,
                past=torch.stack(membrane.past),
                drive=membrane.drive,
                refractory=trace.refractory,
                made=self._made(),
                extra=dict(loop.feedback.state),
            ).apart(),
            variables=trace.variables,
        )

    def _loop(self, state: State, dtype: torch.dtype) -> Loop:
        return Loop(
            surrogate=self.surrogate,
            threshold=self.threshold.to(dtype),
            reset=lambda v, spike: RESETS[self.reset](v, spike, self),
            charge=self._charge,
            reset_memory=self.reset_memory,
            hold=self._hold,
            detach_reset=self.detach_reset,
            feedback=self._feedback(state, dtype),
        )

    def _feedback(self, state: State, dtype: torch.dtype) -> Feedback:
        """Return what spikes do to later steps: here nothing; a subclass may say otherwise."""
        return Feedback()

    def _charge(self, v: Tensor, u: Tensor) -> Tensor:
        r"""Return :math:`v + (v_\text{rest} - v + u)/\tau^\alpha`, on which ``"current"`` decides."""
        return v + self._unit_gain(v.dtype) * (self.v_rest.to(v.dtype) - v + u)

    def _unit_gain(self, dtype: torch.dtype) -> Tensor:
        factors = self._orders()[1]
        return (1 / sum(factors[1:], start=factors[0])).to(dtype)

    def initial_state(self, like: Tensor, v: float | Tensor | None = None) -> State:
        """Return the state of a neuron with no past.

        Args:
            like: a tensor ``(B, *)`` of the shape, dtype and device wanted.
            v: initial potential, broadcastable to ``like``; ``v_rest`` by default.
        """
        start = torch.as_tensor(self.v_rest if v is None else checks.real("v", v), dtype=torch.float64)
        if like.dtype in HALVES:
            like = like.float()  # as the layer computes
        return self._start(start.to(like).expand(like.shape)).apart()

    def _start(self, v: Tensor) -> State:
        """Return the state of a neuron at a potential with no past; it may share memory with constants."""
        return State.at(v, {"model": self._model}, self._initial_extra(v))

    def _initial_extra(self, like: Tensor) -> dict[str, Tensor | State]:
        """Return what else the state has at the start; a subclass may have more."""
        return {}

    def _made(self) -> dict[str, float | str | Tensor]:
        """Return what a state remembers of the neuron that made it, apart from its tensors."""
        names = ("alpha", "tau", *(("v_rest",) if self.leaky else ()))
        constants = (*names, *(("coefficients",) if self.terms > 1 else ()))
        return self._origin(constants)

    def _membrane(self, state: State, steps: int, dtype: torch.dtype, modes: Modes | None = None) -> Membrane:
        count = len(state.past) + steps + 1
        v_rest = self.v_rest.to(dtype)
        if modes is not None:  # differentiable to any order: in tau through the decays
            loss, weight = modes.losses(self.dt / self.tau.double()), modes.weights(self.alpha)
            return ModalMembrane(state, v_rest, loss, weight)
        if self.method == EXACT:
            kernel = Propagator.kernel(self.alpha, self.tau, self.dt, count)
            return Propagator(state, v_rest, kernel, Full() if self._modal else self.memory)
        return self._differences(state, count, dtype)

    def _differences(self, state: State, count: int, dtype: torch.dtype, leaky: bool = True) -> Differences:
        rule = SCHEMES[self.method]()
        alphas, factors = self._orders()
        ones = [torch.ones_like(alpha) for alpha in alphas]
        single = self.terms == 1  # then the kernel has the shape of alpha alone, whatever that of tau
        scheme = rule.coefficients(alphas, ones if single else factors, self.dt, count)
        return Differences(
            state,
            self.v_rest.to(dtype),
            scheme.kernel,
            (scheme.gain / factors[0] if single else scheme.gain).to(dtype),
            self.memory,
            implicit=rule.implicit,
            overwrite=self.reset_memory == "overwrite",
            leaky=leaky,
        )

    def _orders(self) -> tuple[list[Tensor], list[Tensor]]:
        r"""Return the orders, and the factors :math:`c_i \tau^{\alpha_i}` of their derivatives."""
        alpha, tau = self.alpha.double(), self.tau.double()
        if self.terms == 1:
            return [alpha], [tau**alpha]
        alphas = [a.expand(tau.shape) for a in alpha.unbind()]
        return alphas, [c * tau**a for c, a in zip(self.coefficients.double(), alphas, strict=True)]

    def _check_current(self, current: Tensor) -> None:
        check_current(current, self.size)

    def _check_state(self, state: State, current: Tensor) -> None:
        check_state(state, current, self._made(), self._learned)
        if state.extra.keys() != self._initial_extra(state.v).keys():
            raise ValueError(
                f"`state` must come from a {type(self).__name__}, got one with {sorted(state.extra)}"
            )

    def extra_repr(self) -> str:
        """Return the parameters, for printing."""
        detached = ", detach_reset=True" if self.detach_reset else ""
        return (
            f"{self._numbers()}, dt={self.dt:g}, reset={self.reset!r}, reset_memory={self.reset_memory!r}, "
            f"refractory={self.refractory:g}{detached}, method={self.method!r}, memory={self.memory!r}, "
            f"backend={self.backend!r}"
        )

    def _numbers(self) -> str:
        later = self.__dict__.get("_later") or {}
        several = ("coefficients",) if self.terms > 1 else ()
        others = [
            name
            for name, default in self.defaults.items()
            if name not in self.shown
            and (name in later or parameters.differs(getattr(self, name).detach(), default))
        ]
        return ", ".join(
            f"{name}={LAZY if name in later else parameters.short(getattr(self, name))}"
            for name in (*self.shown, *several, *others)
        )


def _method(method: str | None, reset_memory: str, terms: int) -> str:
    if method is None:
        usual = EXACT if terms == 1 else "l1"
        return {"overwrite": "l1", "current": "l1_explicit"}.get(reset_memory, usual)
    checks.one_of("method", method, (EXACT, *SCHEMES))
    if method == EXACT and terms > 1:
        raise ValueError(
            "`method` must be a difference scheme with several orders, got 'exact': pass method='l1'"
        )
    if method == EXACT and reset_memory == "overwrite":
        raise ValueError(
            "`method` must be a difference scheme with reset_memory='overwrite', which has no exact "
            "solution; got 'exact': pass method='l1' or reset_memory='jump'"
        )
    return method


def _potential(name: str, value: object) -> float | Tensor:
    return checks.real(name, checks.real(name, value), at_least=-LARGEST, at_most=LARGEST)


def _check_step(dt: float, at: dict[str, Tensor]) -> None:
    ratio = dt / at["tau"]
    wrong = ~torch.isfinite(ratio) | (ratio < torch.finfo(torch.float32).tiny)
    if bool(wrong.any()):
        tau = at["tau"].broadcast_to(wrong.shape)[wrong].flatten()[0].item()
        raise ValueError(
            f"`tau` must be within reach of dt={dt:g}, got {tau:g}; dt / tau is no normal number"
        )


def whole_steps(name: str, time: float, dt: float) -> int:
    """Return how many steps of ``dt`` a time has.

    Raises:
        ValueError: if it is no whole number of them.
    """
    steps = round(time / dt)
    if abs(time / dt - steps) > 1e-6 or (time > 0 and not steps):
        raise ValueError(
            f"`{name}` must be a multiple of dt={dt:g}, got {time:g}; the nearest is {steps * dt:g}"
        )
    return steps


def _check_levels(reset: str, at: dict[str, Tensor]) -> None:
    floors = {"subtract": ("v_rest",), "value": ("v_rest", "v_reset"), "none": ("v_rest",)}
    for name in floors[reset]:
        if bool((at["threshold"] <= at[name]).any()):
            raise ValueError(
                f"`threshold` must lie above `{name}`, got {parameters.short(at['threshold'])} and "
                f"{parameters.short(at[name])}; "
                "set all potentials on one scale"
            )
