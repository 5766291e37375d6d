r"""The modes of a layer: rates chosen once and kept as buffers, weights by tensor operations alone.

A relaxation :math:`E_\alpha(-(t/\tau)^\alpha)` is a sum of exponentials whose rates are a grid and whose
weights are a smooth function of alpha (see `fracspike.solvers.modes`). The grid depends on *values*: on the
orders and steps it must serve. So it is chosen when a layer is made or its constants are set, never in a
call, and covers a margin around constants that are learned. A call then only evaluates Chebyshev series.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast
from weakref import ref

import torch
from torch import Tensor, nn

from fracspike.solvers import modes
from fracspike.solvers.modes import Grid

#: how far an order that is learned may move, and by which factor a time constant, until modes do not serve
MARGIN_ALPHA, MARGIN_TAU = 0.1, 2.0
#: the part of a margin after which they are chosen anew: the rest is for steps that nobody saw
USED_UP = 0.6
SMALLEST = 1e-8  # step in units of tau below which nothing is tried: 1 - E is lost in double precision
SHORTER = 1 << 17  # steps, if modes for the whole horizon are none
SPARE, TIGHT = 1e-9, 1e-11  # tolerances tried in turn where few modes are none: more modes cancel less
SLOW = 0.003  # what a mode may lose in a step at most for single precision to need compensated sums
SHORT = 1 << 14  # steps; modes for fewer save nothing
AMPLE = 8  # times the steps there are: a tolerance that is not used up
Mark = tuple[ref[Tensor], int]  # a tensor, and how often it had been changed
AT_ONCE = 1e30  # rate of the mode that decays in one step: a number, because infinity times 0 is none


class Range(NamedTuple):
    """Orders, and steps in units of tau, that modes must serve, each from lowest to highest."""

    alpha: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def of(cls, alpha: Tensor, step: Tensor) -> Range:
        """Return the range of the values; reads them on the host."""
        ends = [torch.aminmax(x.detach().double()) for x in (alpha, step)]
        return cls(*((float(low), float(high)) for low, high in ends))

    def widened(self, alpha: bool, step: bool, part: float = 1.0) -> Range:
        """Return the range with a part of the margins of what is learned."""
        (low, high), (short, long) = self
        if alpha:
            low, high = max(low - part * MARGIN_ALPHA, min(low, 0.01)), min(high + part * MARGIN_ALPHA, 1.0)
        if step:
            short, long = short / MARGIN_TAU**part, long * MARGIN_TAU**part
        return Range((low, high), (short, long))

    def holds(self, other: Range) -> bool:
        """Return whether another range lies within this one."""
        return all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(self, other, strict=True))


class Modes(nn.Module):
    """One grid of modes with its tables, for orders in a range.

    Args:
        grid: rates, and the times over which they hold.
        alpha: lowest and highest order.
        horizon: steps over which they serve.
    """

    rates: Tensor
    centres: Tensor
    widths: Tensor
    table: Tensor
    degree: Tensor
    numbers: Tensor

    def __init__(self, grid: Grid, alpha: tuple[float, float], horizon: int) -> None:
        super().__init__()
        self.grid, self.alpha, self.horizon = grid, alpha, horizon
        self.first, tables = grid.tables(*alpha)
        self._kept: tuple[Mark, Mark, tuple[Tensor, Tensor]] | None = None  # of constants that stay
        #: how many modes lose less than SLOW in the shortest step that they serve
        self.slow = int((grid.rates * grid.first < SLOW).sum())
        rates = grid.rates.clone()
        rates[-1] = AT_ONCE
        values = {
            "rates": rates,
            "centres": torch.tensor([t.centre for t in tables], dtype=torch.float64),
            "widths": torch.tensor([t.half for t in tables], dtype=torch.float64),
            "table": torch.stack([torch.from_numpy(t.both) for t in tables]),
            "degree": torch.arange(modes.NODES, dtype=torch.float64),
            "numbers": torch.arange(len(tables), dtype=torch.float64),
        }
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)

    def evaluate(self, alpha: Tensor, tau: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """Return losses and weights of a layer's constants, each ``(K, *)``; the first has no graph."""
        fixed = not (alpha.requires_grad or tau.requires_grad or torch.compiler.is_compiling())
        if fixed and self._kept is not None:
            of_alpha, of_tau, kept = self._kept
            if _is(*of_alpha, alpha) and _is(*of_tau, tau):
                return kept
        found = self.losses(dt / tau.detach().to(self.rates.dtype)), self.weights(alpha, tau)
        if fixed and type(found[1]) is Tensor and torch._C._functorch.maybe_current_level() is None:
            self._kept = (ref(alpha), alpha._version), (ref(tau), tau._version), found
        return found

    def losses(self, step: Tensor) -> Tensor:
        """Return what each mode loses in a step (in units of tau): ``(K, *)``, float64, differentiable."""
        rates = self.rates.reshape(-1, *([1] * step.dim()))
        return -torch.expm1(-rates * step.to(rates.dtype))

    def weights(self, alpha: Tensor, tau: Tensor | None = None) -> Tensor:
        r"""Return the weights of E, ``(K, *)`` float64.

        With ``tau`` their gradient in it is that of E at fixed rates: the weights of
        :math:`\partial E/\partial\log\tau`. Its value does not count, for E depends on time through t / tau.
        """
        weight, slope = self._series(alpha)
        if tau is None or not tau.requires_grad:
            return weight
        log = torch.log(tau.to(weight.dtype))
        dims = max(alpha.dim(), tau.dim())
        return _spread(weight, dims) + _spread(slope.detach(), dims) * (log - log.detach())

    def _series(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of E and of its slope in log tau, each ``(K, *)``."""
        order = alpha.to(self.rates.dtype)
        if len(self.table) == 1:
            place = (order - self.centres[0]) / self.widths[0]
            basis = torch.cos(torch.acos(place).unsqueeze(-1) * self.degree)
        else:  # each order in its own patch, the others' series times 0
            index = ((order * modes.PATCHES).ceil() - (1 + self.first)).clamp(0, len(self.table) - 1)
            own = (index.unsqueeze(-1) == self.numbers).to(order.dtype)
            place = ((order - own @ self.centres) / (own @ self.widths)).clamp(-1.0, 1.0)
            series = torch.cos(torch.acos(place).unsqueeze(-1) * self.degree)
            basis = (own.unsqueeze(-1) * series.unsqueeze(-2)).flatten(-2)
        found = torch.movedim(basis @ self.table.flatten(0, 1), -1, 0)
        return found[: len(self.rates)], found[len(self.rates) :]

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        """Move the buffers, and keep them in double precision, except where a device has none."""

        def moved(tensor: Tensor) -> Tensor:
            there = fn(tensor)
            kind = torch.float32 if there.device.type == "mps" else torch.float64
            return tensor.to(there.device, kind) if there.device.type != "meta" else there

        self._kept = None
        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}  # type: ignore[no-untyped-call]


def _is(seen: ref[Tensor], version: int, x: Tensor) -> bool:
    """Return whether a tensor is the one that was seen, and has not changed since."""
    return seen() is x and version == x._version


def _spread(value: Tensor, dims: int) -> Tensor:
    """Return ``(K, *)`` with dimensions of size 1 after the first, to broadcast with ``dims`` others."""
    return value.reshape(len(value), *([1] * (dims - value.dim() + 1)), *value.shape[1:])


class ModeBank(nn.Module):
    """All the modes that a layer may need, chosen when it is made or its constants are set.

    A call without a state, and short, has a grid with fewer modes; one that may go on has a long horizon.

    Args:
        tols: tolerance of the memory by dtype of the input.
        horizon: the most steps that anybody goes on for.
        required: whether it is an error that there are none.
    """

    def __init__(self, tols: Mapping[torch.dtype, float], horizon: int, *, required: bool = False) -> None:
        super().__init__()
        self.tols, self.horizon, self.required = dict(tols), horizon, required
        self._names: dict[tuple[torch.dtype, bool], str] = {}
        self._others: dict[Grid, Modes] = {}
        self._seen: list[Mark] = []
        self._asked: _Question | None = None

    def choose(self, values: Range, moving: tuple[bool, bool]) -> None:
        """Choose modes for present orders and steps; where there are none, the whole history serves.

        Args:
            values: as they are now.
            moving: whether orders, and time constants, are learned and need a margin.

        Raises:
            ValueError: if there are none, and they are required.
        """
        self.present = values
        self.inner, self.outer = values.widened(*moving, USED_UP), values.widened(*moving)
        self._names, self._others = {}, {}
        self._modules.clear()
        self.prepare(torch.float32)

    def __repr__(self) -> str:
        counts = {str(modes.grid.modes) for modes in self.children() if isinstance(modes, Modes)}
        return f"ModeBank({' or '.join(sorted(counts)) or 'no'} modes)"

    def __getstate__(self) -> dict[str, Any]:
        # a copy has constants of its own, which it has not seen yet
        return {**super().__getstate__(), "_seen": [], "_asked": None}  # type: ignore[no-untyped-call]

    def prepare(self, dtype: torch.dtype) -> None:
        """Choose the modes for inputs of a dtype."""
        tol = self.tols[dtype]
        for short in (True, False):
            name = f"{'short' if short else 'long'}_{-math.log10(tol):.0f}"
            if name not in self._modules:
                modes = self._choose(min(SHORT, self.horizon) if short else self.horizon, tol)
                if modes is None:
                    name = ""
                else:
                    self.add_module(name, modes)
            self._names[dtype, short] = name

    def _choose(self, horizon: int, tol: float) -> Modes | None:
        """Return the first modes that serve; where few or long ones are none, more or shorter ones do."""
        if self.required:
            return choose(self.outer, horizon, tol)
        if self.present.step[0] < SMALLEST:
            return None
        tols = sorted({tol, min(tol, SPARE), min(tol, TIGHT)}, reverse=True)
        for span in (self.outer, self.present):
            for steps, least in itertools.product((horizon, min(horizon, SHORTER)), tols):
                try:
                    found = choose(span, steps, least)
                except ValueError:
                    continue
                if span == self.present:  # without a margin: chosen anew as soon as anything moves
                    self.inner = self.outer = span
                return found
        return None

    def find(self, dtype: torch.dtype, steps: int, *, resumed: bool) -> Modes | None:
        """Return the modes for a call of so many steps; None if there are none."""
        # an exported program has one grid for every length
        short = not (resumed or torch.compiler.is_exporting()) and steps <= SHORT // AMPLE
        if (dtype, short) not in self._names:
            device = next((x.device for x in self.buffers()), None)
            self.prepare(dtype)
            self.to(device)
        name = self._names[dtype, short]
        return cast(Modes, getattr(self, name)) if name else None

    def changed(self, sources: Sequence[Tensor]) -> bool:
        """Return whether the tensors that orders and steps follow from are others than in the last call."""
        same = len(sources) == len(self._seen) and all(
            _is(*mark, x) for mark, x in zip(self._seen, sources, strict=True)
        )
        if not same:
            self._seen = [(ref(x), x._version) for x in sources]
        return not same

    @property
    def asking(self) -> bool:
        """Whether an answer of a device is on its way."""
        return self._asked is not None

    def follow(self, alpha: Tensor, step: Tensor, moving: tuple[bool, bool], *, changed: bool) -> None:
        """Choose anew if constants have used up much of their margin, or were set to others.

        On the host that is seen at once. On another device nobody waits for an answer: it is asked for here
        and looked at in a later call, which the rest of the margin is for.

        Args:
            alpha: orders as they are now.
            step: steps in units of tau.
            moving: as in `choose`.
            changed: whether they may be others than in the last call.
        """
        if alpha.device.type == "cpu":
            if changed:
                values = Range.of(alpha, step)
                if not self.inner.holds(values):
                    self.choose(values, moving)
            return
        if self._asked is not None:
            if not self._asked.ready:
                return
            if not self._asked.answer:
                self.choose(Range.of(alpha, step), moving)
                self.to(alpha.device)
        self._asked = None if not changed else _Question(within(alpha, step, self.inner))

    def of(self, grid: Grid, alpha: Tensor, device: torch.device) -> Modes:
        """Return modes with the grid of a state that was made before the present ones were chosen."""
        if grid not in self._others:
            low, high = Range.of(alpha, alpha).alpha
            self._others[grid] = Modes(grid, (low, high), self.horizon).to(device)
        return self._others[grid]


def within(alpha: Tensor, step: Tensor, span: Range) -> Tensor:
    """Return whether all orders and steps lie in a range: a tensor, of which nothing is read."""
    pairs = ((alpha, span.alpha), (step, span.step))
    inside = [((x >= low) & (x <= high)).all() for x, (low, high) in pairs]
    return inside[0] & inside[1]


class _Question:
    """A truth value on a device, on its way to the host."""

    def __init__(self, value: Tensor) -> None:
        self._there = torch.empty((), dtype=torch.bool, pin_memory=value.is_cuda)
        self._there.copy_(value, non_blocking=True)
        self._event = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        if self._event is not None:
            self._event.record()

    @property
    def ready(self) -> bool:
        """Whether it has arrived."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    @property
    def answer(self) -> bool:
        """The value."""
        return bool(self._there)


def choose(span: Range, horizon: int, tol: float) -> Modes:
    """Return modes that serve every order and step of a range.

    Raises:
        ValueError: if there are none.
    """
    alpha = torch.tensor(span.alpha, dtype=torch.float64)
    first, last = (math.ceil(a * modes.PATCHES - 1e-12) for a in span.alpha)
    orders = torch.cat([alpha, torch.arange(first, last + 1, dtype=torch.float64) / modes.PATCHES]).clamp(
        max=1.0
    )
    grid = modes.choose(orders, torch.tensor(span.step, dtype=torch.float64), horizon, tol)
    return Modes(grid, span.alpha, horizon)
