"""The base of nonlinear fractional neurons: a new model writes its right-hand side."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fracspike import surrogate as surrogates
from fracspike.solvers import GRADIENTS, Full, History, Memory, checks, fdeint

from . import parameters
from .lif import SCHEMES, whole_steps
from .loop import HALF
from .membrane import transformed
from .module import HALVES, NeuronModule, in_single
from .state import Simulation, State, check_current, check_potential, check_state

EXPLICIT = {name: scheme for name, scheme in SCHEMES.items() if not scheme.implicit}
RESET_MEMORIES = ("jump", "overwrite", "restart")
ABOVE = "above threshold"  # in the state of a neuron that spikes at upward crossings; no name of a variable


class FractionalNeuron(NeuronModule, ABC):
    r"""A layer of neurons of any right-hand side, with a Caputo derivative on the left.

    .. math:: D^{\alpha_i} x_i = f_i(I, x_1, x_2, \dots)

    A model is a subclass with the names of its ``variables``, its ``constants``, and its methods:
    :meth:`rest`, :meth:`rhs`, :meth:`excess` and, if a spike resets it, :meth:`reset` (see
    ``docs/neurons.md``). A neuron without a reset, such as Hodgkin's and Huxley's, runs through its action
    potential by itself: it spikes once at each upward crossing, where :meth:`excess` rises to 0 or above.
    The constants become arguments, attributes and, named in ``learn``, parameters. Steps are explicit, of
    order 1; the memory and its gradient are the solvers'. No time constant stands on the left: at
    another alpha the same right-hand side is per ``(unit of dt) ** alpha``.

    Args:
        alpha: Caputo order in (0, 1] of all variables, or a dict that names one for each; these are
            then called ``alpha_v`` and so on.
        dt: time step.
        surrogate: what makes the spike of the excess; as :class:`FractionalLIF`.
        reset_memory: ``"jump"`` (default), ``"overwrite"`` or ``"restart"``; as :class:`FractionalLIF`.
            Not for a neuron without a reset.
        method: ``"l1_explicit"`` or ``"gl_explicit"``.
        memory: what is kept of the past, ``Full()`` by default.
        gradient: ``"adjoint"`` (stores states, no graph over the past) or ``"autograd"``.
        learn: names of orders and constants that become parameters.
        size: shape of the neurons, if they have constants of their own.
        detach_reset: if true, no gradient flows through the reset. Not for a neuron without one.
        dead_time: time after a spike in which a further upward crossing is not counted, in the unit of
            ``dt`` and a multiple of it. Only for neurons that spike at upward crossings.
        **constants: values other than the default ones.

    Raises:
        TypeError: if an argument is of the wrong kind or a constant unknown.
        ValueError: if one is out of range, unknown, or does not go with another.
    """

    variables: ClassVar[tuple[str, ...]]
    """Names of the variables, the potential first."""
    constants: ClassVar[Mapping[str, float]]
    """Names and default values of the constants."""
    positive: ClassVar[tuple[str, ...]] = ()
    """Names of the constants that must be positive, and stay so when learned."""
    crossings: ClassVar[bool | None] = None
    """Whether it spikes at upward crossings only; by default, if the class has no :meth:`reset`."""

    def __init__(
        self,
        alpha: float | Tensor | Mapping[str, float | Tensor] = 0.9,
        dt: float = 0.1,
        *,
        surrogate: str | type[nn.Module] | Callable[[Tensor], Tensor] = "sigmoid",
        reset_memory: str | None = None,
        method: str = "l1_explicit",
        memory: Memory | None = None,
        gradient: str = "adjoint",
        learn: str | Sequence[str] = (),
        size: int | Sequence[int] | None = None,
        detach_reset: bool = False,
        dead_time: float = 0.0,
        **constants: Any,
    ) -> None:
        super().__init__()
        self._check_names()
        self.dt = checks.number("dt", dt, above=0.0)
        self._crosses = not self._resets if self.crossings is None else self.crossings
        self.dead_time = checks.number("dead_time", dead_time, at_least=0.0)
        self.detach_reset = parameters.flag("detach_reset", detach_reset)
        self._check_spiking(reset_memory, detach_reset)
        self._hold = whole_steps("dead_time", self.dead_time, self.dt)
        self.surrogate = surrogates.resolve(surrogate)
        usual = "jump" if reset_memory is None else reset_memory
        self.reset_memory = checks.one_of("reset_memory", usual, RESET_MEMORIES)
        self.method = checks.one_of("method", method, EXPLICIT)
        self.memory = Full() if memory is None else memory
        self._memory_text = repr(self.memory)
        if not isinstance(self.memory, Memory):
            raise TypeError(f"`memory` must be a Memory such as Full(), got {memory!r}")
        self.gradient = checks.one_of("gradient", gradient, GRADIENTS)
        for name in constants:
            if name not in self.constants:
                raise TypeError(
                    f"{type(self).__name__}() got the unknown argument {name!r}; "
                    f"its constants are {', '.join(self.constants)}"
                )
        values = self._orders(alpha)
        self.order_names = [n if n in values else "alpha" for n in map(_order_name, self.variables)]
        ranges: dict[str, nn.Module] = {name: parameters.UnitInterval() for name in values}
        for name, default in self.constants.items():
            floor = 0.0 if name in self.positive else -math.inf
            values[name] = checks.real(name, constants.get(name, default), above=floor)
        ranges |= {name: parameters.Above(0.0) for name in self.positive}
        learned = parameters.names(learn, values)
        self.size = parameters.common_shape(values.values(), parameters.size_tuple(size))
        parameters.register_all(self, values, ranges, learned, self.size)

    def _check_names(self) -> None:
        """Refuse constants that would replace something else, and names that mean nothing."""
        taken = {"alpha", "order_names", *map(_order_name, self.variables)}
        taken |= inspect.signature(FractionalNeuron).parameters.keys()
        for name in self.constants:
            if name in taken or hasattr(FractionalNeuron, name):
                raise ValueError(
                    f"`constants` of {self._model} must not name {name!r}, which every FractionalNeuron has; "
                    "call it otherwise"
                )
        for name in self.positive:
            checks.one_of("positive", name, self.constants)
        if not self.variables or len(set(self.variables)) < len(self.variables) or "like" in self.variables:
            raise ValueError(
                f"`variables` of {self._model} must be different names, none of them 'like', "
                f"got {self.variables!r}"
            )

    @property
    def _resets(self) -> bool:
        return type(self).reset is not FractionalNeuron.reset

    def _check_spiking(self, reset_memory: str | None, detach_reset: bool) -> None:
        """Refuse arguments that say something of a reset, or of crossings, where there is none."""
        if not self._resets and (reset_memory not in (None, "jump") or detach_reset):
            name = "detach_reset" if detach_reset else "reset_memory"
            raise ValueError(
                f"`{name}` must be left out of {type(self).__name__}, which has no reset; "
                "a neuron with one defines `reset`"
            )
        if self.dead_time and not self._crosses:
            raise ValueError(
                f"`dead_time` must be 0 for {type(self).__name__}, got {self.dead_time:g}: it spikes at "
                "every step above threshold; leave out `reset`, or set crossings = True"
            )

    def _orders(self, alpha: Any) -> dict[str, float | Tensor]:
        if not isinstance(alpha, Mapping):
            return {"alpha": checks.order("alpha", alpha)}
        if alpha.keys() != set(self.variables):
            raise ValueError(
                f"`alpha` must name one order for each of {', '.join(self.variables)}, "
                f"got {', '.join(map(str, alpha))}"
            )
        return {_order_name(name): checks.order(_order_name(name), alpha[name]) for name in self.variables}

    @abstractmethod
    def rest(self) -> tuple[Tensor | float, ...]:
        """Return the values of the variables at which every call starts."""

    @abstractmethod
    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        """Return the right-hand sides, one for each variable.

        Args:
            current: input current ``(B, *)``.
            *variables: in the order of ``variables``, each ``(B, *)``.
        """

    @abstractmethod
    def excess(self, *variables: Tensor) -> Tensor:
        """Return what makes a spike where it is, or rises to, at least 0, such as potential minus peak."""

    def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        """Return the variables after a spike of the value ``spike`` ``(B, *)``, from 0 to 1.

        A class without this method has no reset, and spikes at upward crossings.
        """
        return variables

    def limit(self, *variables: Tensor) -> tuple[Tensor, ...]:
        """Return the variables cut to what they can be: here as they are.

        A model that runs away in finite time overshoots its peak by whatever the last step gives; to
        cut the overshoot keeps it out of the memory. The spike is decided before.
        """
        return variables

    def forward(self, current: Tensor, state: State | None = None) -> Tensor:
        """Return the spikes for a current: ``(T, B, *) -> (T, B, *)``.

        Args:
            current: input current ``(T, B, *)``, floating point and finite.
            state: where to start, from :meth:`simulate`; at rest by default.
        """
        return self.simulate(current, state).spikes

    @in_single
    def simulate(self, current: Tensor, state: State | None = None) -> Simulation:
        """Return spikes, potentials, the further variables and the state to go on from.

        Args:
            current: input current ``(T, B, *)``, floating point and finite.
            state: where to start: ``run.state`` of an earlier call, or :meth:`initial_state`.

        Raises:
            TypeError: if ``current`` is not a floating-point tensor or ``state`` not a State.
            ValueError: if the current is not finite, or a shape or the state does not fit.
        """
        check_current(current, self.size)
        checks.all_finite("current", current)
        if state is None:
            state = self.initial_state(current[0])
        else:
            check_state(state, current, self._made(), self._learned)
        x, pasts = self._unpacked(state)
        above, dead = state.extra.get(ABOVE), state.refractory
        histories, gains = self._histories(pasts, len(current), current.dtype)
        spikes, before_reset, after_reset = [], [], []
        for i in current:
            rates = self._cast(self.rhs(i, *x), x, "rhs")
            new = tuple(
                value - history.weighted_sum() + gain * rate
                for value, history, gain, rate in zip(x, histories, gains, rates, strict=True)
            )
            spike = reached = self._above(new)
            if isinstance(above, Tensor):
                spike = reached * (1 - above)
            if self._hold:
                spike = torch.where(dead > 0, 0.0, spike)
                dead = torch.where(spike.detach() > HALF, self._hold, (dead - 1).clamp(min=0))
            new = self._cast(self.limit(*new), x, "limit")
            after = self._after(spike, new)
            if above is not None:
                above = self._above(after) if self._resets else reached
            remembered = after if self.reset_memory == "overwrite" else new
            for history, value, less in zip(histories, remembered, x, strict=True):
                history.append(value - less)
            if self.reset_memory == "restart":
                fired = spike.detach() > HALF
                if checks.hidden() or bool(fired.any()):
                    for history in histories:
                        history.forget(fired)
            x = after
            spikes.append(spike)
            before_reset.append(new[0])
            after_reset.append(after)
        v, *others = (torch.stack(values) for values in zip(*after_reset, strict=True))
        for values in (v, *others):
            check_potential(values, "pass a smaller `dt`, or a smaller current")
        return Simulation(
            spikes=torch.stack(spikes),
            voltage=v,
            pre_reset=torch.stack(before_reset),
            state=self._packed(x, [torch.stack(history.items) for history in histories], above, dead),
            variables=dict(zip(self.variables[1:], others, strict=True)),
        )

    def initial_state(self, like: Tensor, **values: float | Tensor) -> State:
        """Return the state of a neuron with no past.

        Args:
            like: a tensor ``(B, *)`` of the shape, dtype and device wanted.
            **values: of variables that start elsewhere than at rest, broadcastable to ``like``.

        Raises:
            ValueError: if a variable is unknown or a value not finite.
        """
        if like.dtype in HALVES:
            like = like.float()  # as the layer computes
        start = dict(zip(self.variables, self.rest(), strict=True))
        for name, value in values.items():
            start[checks.one_of("variable", name, self.variables)] = checks.real(name, value)
        x = tuple(torch.as_tensor(value).to(like).expand(like.shape) for value in start.values())
        above = self._above(x) if self._crosses else None
        fresh = self._packed(x, [like.new_zeros((0, *like.shape))] * len(x), above)
        return replace(fresh, made={"model": self._model})

    def _above(self, x: tuple[Tensor, ...]) -> Tensor:
        """Return what the surrogate makes of the excess: 1 at and above the threshold, 0 below."""
        above: Tensor = self.surrogate(self.excess(*x).to(x[0].dtype))
        return above

    def _after(self, spike: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the variables after the reset.

        Raises:
            ValueError: if `reset` does nothing, and every step above the threshold would be a spike.
        """
        if not self._resets:
            return x
        found = self.reset(spike.detach() if self.detach_reset else spike, *x)
        after = self._cast(found, x, "reset")
        if self.crossings is None and all(new is old for new, old in zip(after, x, strict=True)):
            raise ValueError(
                f"`{type(self).__name__}.reset` returns what it was given, so every step above the threshold "
                "would be a spike; leave `reset` out to spike at upward crossings, or set crossings = False"
            )
        return after

    def integrate(
        self, current: Tensor | Callable[[Tensor], Tensor], t: Tensor, **options: Any
    ) -> dict[str, Tensor]:
        """Return the solution below threshold by :func:`fracspike.solvers.fdeint`, from rest.

        The same right-hand sides under any method of the solvers: no spike is looked for.

        Args:
            current: ``(B, *)``, constant in time, or a function of time that returns it.
            t: times ``(T,)``.
            **options: of ``fdeint``, such as ``method="trapezoid"``.

        Returns:
            each variable by its name, ``(T, B, *)``, the first at ``t[0]``.
        """
        at = current if callable(current) else lambda _: current
        like = checks.all_finite("current", at(t[0]))
        x = self._unpacked(self.initial_state(like))[0]

        def field(time: Tensor, y: Tensor) -> Tensor:
            now = tuple(y.unbind())
            return torch.stack(self._cast(self.rhs(at(time), *now), now, "rhs"))

        orders = [getattr(self, name) for name in self.order_names]
        own = [a.reshape((1,) * (like.dim() - a.dim()) + tuple(a.shape)) for a in orders]
        alpha = torch.stack(torch.broadcast_tensors(*own))  # type: ignore[no-untyped-call]
        solution = fdeint(field, torch.stack(x), t, alpha, **options)
        return dict(zip(self.variables, solution.unbind(1), strict=True))

    def _histories(
        self, pasts: Sequence[Tensor], steps: int, dtype: torch.dtype
    ) -> tuple[list[History], list[Tensor]]:
        scheme, count = EXPLICIT[self.method](), len(pasts[0]) + steps + 1
        way = GRADIENTS["autograd" if transformed() else self.gradient]
        histories, gains = [], []
        for name, past in zip(self.order_names, pasts, strict=True):
            alpha = getattr(self, name).double()
            rule = scheme.coefficients([alpha], [torch.ones_like(alpha)], self.dt, count)
            histories.append(way(self.memory, rule.kernel, dtype, past, keep=True))
            gains.append(rule.gain.to(dtype))
        return histories, gains

    def _cast(self, values: Any, like: tuple[Tensor, ...], method: str) -> tuple[Tensor, ...]:
        """Bring what a model's method returned to the dtype of the run, in which its constants are not."""
        if not isinstance(values, tuple) or len(values) != len(self.variables):
            raise TypeError(
                f"`{type(self).__name__}.{method}` must return a tuple of {len(self.variables)} tensors "
                f"for {', '.join(self.variables)}; got {type(values).__name__}"
            )
        for value, old, name in zip(values, like, self.variables, strict=True):
            if not isinstance(value, Tensor) or value.shape != old.shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else value
                raise ValueError(
                    f"`{type(self).__name__}.{method}` must return {name} of shape {tuple(old.shape)}, "
                    f"got {got}"
                )
        return tuple(value.to(like[0].dtype) for value in values)

    def _made(self) -> dict[str, float | str | Tensor]:
        return self._origin(dict.fromkeys(self.order_names))

    def _packed(
        self,
        x: tuple[Tensor, ...],
        pasts: Sequence[Tensor],
        above: Tensor | State | None = None,
        dead: Tensor | None = None,
    ) -> State:
        extra: dict[str, Tensor | State] = dict(zip(self.variables[1:], x[1:], strict=True))
        if above is not None:
            extra[ABOVE] = above
        extra |= {f"past of {n}": past for n, past in zip(self.variables[1:], pasts[1:], strict=True)}
        return State(
            v=x[0],
            past=pasts[0],
            drive=torch.zeros_like(x[0]),
            refractory=torch.zeros_like(x[0], dtype=torch.long) if dead is None else dead,
            made=self._made(),
            extra=extra,
        ).apart()

    def _unpacked(self, state: State) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        others = [(state.extra[name], state.extra[f"past of {name}"]) for name in self.variables[1:]]
        pairs = [(x, past) for x, past in others if isinstance(x, Tensor) and isinstance(past, Tensor)]
        return (state.v, *(x for x, _ in pairs)), [state.past, *(past for _, past in pairs)]

    def extra_repr(self) -> str:
        """Return orders and constants, for printing."""
        names = (*dict.fromkeys(self.order_names), *self.constants)
        numbers = ", ".join(f"{name}={parameters.short(getattr(self, name))}" for name in names)
        spiking = f"reset_memory={self.reset_memory!r}" if self._resets else "spikes at upward crossings"
        options = [f"dt={self.dt:g}", spiking, f"method={self.method!r}", f"memory={self.memory!r}"]
        options += [f"dead_time={self.dead_time:g}"] * bool(self.dead_time)
        options += ["detach_reset=True"] * self.detach_reset
        options += [f"gradient={self.gradient!r}"] * (self.gradient != "adjoint")
        return ", ".join([numbers, *options])


def _order_name(variable: str) -> str:
    return f"alpha_{variable}"
