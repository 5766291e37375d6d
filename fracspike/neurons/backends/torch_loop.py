r"""The loop over time in torch, on any device, with the adjoint of the compiled loops: no graph over time.

The plain form of what every backend computes. With :math:`y_k` the deviations of the modes from the drive,

.. math:: y_k \leftarrow d_k (y_k + c_n), \quad c_n = u_{n-1} + J_{n-1} - u_n, \qquad
          v_n = u_n + \sum_k w_k y_k,

where :math:`J` is what a reset adds. Kept so, a potential that has arrived at its drive is that drive, to the
bit. Back through time, with :math:`\delta_n` the gradient in the potential before reset,

.. math:: Q_k^n = d_k Q_k^{n+1} + \delta_n, \qquad b_n = \sum_k w_k d_k Q_k^{n+1};

:math:`b_n` is the gradient in what the reset adds, :math:`\delta_n + b_n - b_{n-1}` that in the drive, and
:math:`d_k \sum_n Q_k^{n+1} c_{n+1}` that in the weight :math:`w_k`, but for a number common to all modes.
Nothing of the modes is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fracspike.surrogate.reciprocal import reciprocal

from ..problem import HALF, KINDS, RESETS, Arriving, Fixed, Made, Moved, Options
from ..state import check_drive
from .base import Backend


def _spread(value: Tensor, dims: int) -> Tensor:
    """Return ``(K, *constant)`` with dimensions of size 1 after the first, for neurons of so many."""
    return value.reshape(len(value), *([1] * (dims - value.dim() + 1)), *value.shape[1:])


class _Modes:
    """Losses, weights and the sums over modes of a problem."""

    def __init__(self, moved: Moved, fixed: Fixed) -> None:
        dims = len(moved.shape)
        self.loss, self.weight = _spread(fixed.loss, dims), _spread(moved.weight, dims)
        self.fresh = (self.loss * self.weight).sum(0)  # what the potential takes of the drive in a step
        self.seen = self.weight * (1 - self.loss)

    @staticmethod
    def sum(factor: Tensor, modes: Tensor) -> Tensor:
        """Return the sum over modes, each times its factor."""
        if factor.numel() == len(factor):
            total: Tensor = torch.tensordot(factor.reshape(-1), modes, 1)
            return total
        return (factor * modes).sum(0)

    def decay(self, modes: Tensor) -> Tensor:
        """Take modes over a step, in place."""
        return modes.addcmul_(modes, self.loss, value=-1.0)


def _jump(options: Options, v: Tensor, s: Tensor, fall: Tensor) -> Tensor:
    """Return what a reset adds."""
    if options.reset == RESETS["subtract"]:
        return -fall * s
    if options.reset == RESETS["value"]:
        return (fall - v) * s
    return torch.zeros_like(v)


def _returned(moved: Moved, s: Tensor) -> Tensor:
    """Return the current that spikes ``s`` of the step before bring back."""
    return s @ moved.matrix.t() if moved.dense else moved.own.to(s.dtype) * s


# -- forward ------------------------------------------------------------------------------------------------


def forward(moved: Moved, fixed: Fixed, options: Options) -> Made:
    """Run a problem; see `Backend`."""
    check_drive(moved.current, moved.resistance)
    modes, current = _Modes(moved, fixed), moved.current
    kind, rows = current.dtype, _Rows()
    y = (moved.z if len(moved.z) else moved.v.expand(len(fixed.loss), *moved.shape)).clone()
    u_last, after = torch.zeros_like(moved.v), moved.v
    a, w, last, hold = moved.a, moved.w, moved.last, fixed.hold
    # the spike is decided in the dtype of the sequences, as a surrogate sees it
    threshold = moved.threshold if moved.tires else moved.threshold.to(kind)
    for t in range(len(current)):
        given = current[t]
        if moved.echoes:
            given = given + _returned(moved, last)
            rows.add(total=given)
        u = moved.resistance * given.to(after.dtype)
        if moved.opposed:
            u = u - w
        y = modes.decay(y.add_(u_last - u))
        v = u + modes.sum(modes.weight, y)
        held = hold > 0
        if options.period:
            clamp = torch.where(held, (after - v) / modes.fresh, torch.zeros_like(v))
            rows.add(clamp=torch.where(held, clamp, torch.nan).to(kind))
            # deviations from a drive that has changed by the clamp
            y, u = y.sub_((1 - modes.loss) * clamp), u + clamp
            v = torch.where(held, after, v)
        before = v.to(kind)
        over = before - ((threshold + moved.lift * a).to(kind) if moved.tires else threshold)
        s = _decide(over, fixed, options, t)
        if options.period:
            s = torch.where(held, torch.zeros_like(s), s)
            hold = torch.where(s > HALF, options.period, (hold - 1).clamp(min=0))
        spike = s.to(v.dtype)
        jump = _jump(options, v, spike, moved.fall)
        after = v + jump
        if options.restart:
            y = torch.where(s > HALF, after - u, y + jump)
            u_last = u
        else:
            u_last = u + jump
        if moved.tires:
            a = (moved.stay * a + spike).to(kind).to(v.dtype)
            rows.add(over=over, a=a.to(kind))
        if moved.opposed:
            w = (moved.stay * w + moved.pull * after).to(kind).to(v.dtype)
            rows.add(w=w.to(kind))
        last = s
        rows.add(spikes=s, before=before)
    end = y + u_last if len(moved.z) else moved.z.clone()
    return rows.made(moved, end, hold)


def _decide(over: Tensor, fixed: Fixed, options: Options, t: int) -> Tensor:
    """Return the spikes; NaN where the potential is."""
    x = over
    if fixed.noisy or options.kind == KINDS["soft"]:
        x = fixed.slope.to(over.dtype) * over + (fixed.noise[t] if fixed.noisy else 0.0)
    if options.kind == KINDS["soft"]:
        return torch.sigmoid(x)
    if options.kind == KINDS["never"]:
        return torch.zeros_like(x)
    found = (x > 0 if options.kind == KINDS["above"] else x >= 0).to(over.dtype)
    return torch.where(x.isnan(), x, found)


class _Rows:
    """Sequences that grow by a step at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}

    def add(self, **steps: Tensor) -> None:
        """Add a step to each."""
        for name, step in steps.items():
            self._rows.setdefault(name, []).append(step)

    def made(self, moved: Moved, end: Tensor, hold: Tensor) -> Made:
        """Return all of them."""
        empty = moved.current.new_empty(0)
        found = {name: torch.stack(steps) for name, steps in self._rows.items()}
        return Made(**(dict.fromkeys(Made._fields, empty) | found | {"z": end, "hold": hold.clone()}))


# -- back ---------------------------------------------------------------------------------------------------


def adjoint(
    moved: Moved,
    fixed: Fixed,
    options: Options,
    made: Made,
    derivative: Tensor,
    arriving: Arriving,
    wants: Sequence[bool],
) -> list[Tensor]:
    """Return gradients; see `Backend`."""
    return _Adjoint(
        moved, fixed, options, made, derivative, arriving, wants[Moved._fields.index("weight")]
    ).run(wants[-1])


class _Adjoint:
    """One pass back through time. Names with ``d_`` are gradients in what follows."""

    def __init__(
        self, moved: Moved, fixed: Fixed, options: Options, made: Made, derivative: Tensor,
        arriving: Arriving, moves: bool,
    ) -> None:  # fmt: skip
        self.moved, self.fixed, self.options, self.made = moved, fixed, options, made
        self.derivative, self.arriving = derivative, arriving
        self.modes = _Modes(moved, fixed)
        zero = torch.zeros_like(moved.v)
        self.sums: dict[str, Tensor] = {}
        self.zero, self.q = zero, zero.new_zeros((len(fixed.loss), *moved.shape))
        self.tail = arriving.z.clone() if arriving.z.numel() else None
        self.grown = torch.zeros_like(self.q) if moves else None
        self.d_after, self.d_a, self.d_w = zero, zero, zero

    def run(self, wants_s: bool) -> list[Tensor]:
        """Return the gradients in `Moved` and at the spikes all told."""
        moved, made, kind = self.moved, self.made, self.moved.current.dtype
        count, inputs = len(moved.current), made.total if moved.echoes else moved.current
        d_current, d_s = torch.empty_like(inputs), inputs.new_empty(inputs.shape if wants_s else 0)
        b, d_back, u_next = self._tail_sum(), self.zero, self.zero
        for t in range(count - 1, -1, -1):
            a, w = self._carried(t)
            u = moved.resistance * inputs[t].to(b.dtype) - (w if moved.opposed else 0.0)
            held = None
            if self.options.period:
                clamp = made.clamp[t].to(b.dtype)
                held = ~clamp.isnan()
                u = u + torch.where(held, clamp, self.zero)
            s = made.spikes[t].to(b.dtype)
            v = made.before[t].to(b.dtype) if made.before.numel() else self.zero
            b, at_s, delta, change = self._step(t, u, u_next, v, s, b, held, d_back)
            if wants_s:
                d_s[t] = at_s.to(kind)
            # the modes, a step back
            if self.grown is not None:
                self.grown.addcmul_(self.q, change)
            self.modes.decay(self.q)
            if self.options.restart:
                self.q.mul_((s <= HALF).to(b.dtype))
            self.q.add_(delta)
            if self.tail is not None:
                if self.options.restart:
                    self.tail.mul_((s <= HALF).to(b.dtype))
                self.modes.decay(self.tail)
            b_before = self.modes.sum(self.modes.seen, self.q) + self._tail_sum()
            d_u = delta + b - b_before
            b, u_next = b_before, u
            d_current[t] = (moved.resistance * d_u).to(kind)
            self._add(resistance=d_u * inputs[t].to(b.dtype))
            self._back_in_carried(t, a, w, d_u, at_s)
            if moved.echoes:
                back = d_current[t] @ moved.matrix if moved.dense else moved.own * d_current[t]
                d_back = back.to(b.dtype)
        return self._found(d_current, d_s, u_next, d_back)

    def _step(
        self, t: int, u: Tensor, u_next: Tensor, v: Tensor, s: Tensor, b: Tensor, held: Tensor | None,
        d_back: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Return what of b still goes through the modes, d_s, delta and how the modes changed after it."""
        moved, options, arriving = self.moved, self.options, self.arriving
        if arriving.a.numel():
            self.d_a = self.d_a + arriving.a[t]
        if moved.opposed:
            if arriving.w.numel():
                self.d_w = self.d_w + arriving.w[t]
            self.d_after = self.d_after + moved.pull * self.d_w
        jump = _jump(options, v, s, moved.fall)
        self._add(pull=self.d_w * (v + jump))
        d_jump = b + self.d_after
        d_s = self.d_a + d_back
        if arriving.spikes.numel():
            d_s = d_s + arriving.spikes[t]
        hard = options.reset == RESETS["value"]
        if options.reset != RESETS["none"]:
            self._add(fall=d_jump * s * (1.0 if hard else -1.0))
            if not options.detach:
                d_s = d_s + d_jump * (moved.fall - v if hard else -moved.fall)
        change = u + jump - u_next
        if held is not None:
            d_s = torch.where(held, self.zero, d_s)
        at_level = -self._slope(t) * d_s
        self.at_level = at_level
        self._add(threshold=at_level)
        delta = self.d_after - at_level
        if hard:
            delta = delta - d_jump * s
        if arriving.before.numel():
            delta = delta + arriving.before[t]
        if options.restart:  # what comes back through erased modes came from the potential after reset
            fired = s > HALF
            change = torch.where(fired, change + v - u, change)
            delta = torch.where(fired, delta + b, delta)
            b = torch.where(fired, self.zero, b)
        self.d_after = self.zero
        if held is not None:
            delta = self._held(held, b, delta)
        return b, d_s, delta, change

    def _held(self, held: Tensor, b: Tensor, delta: Tensor) -> Tensor:
        """Give the gradient of a held potential to what held it, a drive of (held - v) / (1 - E(dt))."""
        twice = self.modes.sum(self.modes.seen * (1 - self.modes.loss), self.q)
        if self.tail is not None:
            twice = twice + self.modes.sum(1 - self.modes.loss, self.tail)
        pull = (b - twice) / self.modes.fresh
        self.d_after = torch.where(held, delta + pull, self.zero)
        return torch.where(held, -pull, delta)

    def _slope(self, t: int) -> Tensor:
        """Return the derivative of the step."""
        if not self.options.form:
            return self.derivative[t].to(self.zero.dtype)
        *numbers, factor = self.options.form
        x = self.derivative[t] - self.moved.threshold.to(self.derivative.dtype)
        return (factor * reciprocal(x, *numbers)).to(self.zero.dtype)

    def _tail_sum(self) -> Tensor:
        return self.zero if self.tail is None else self.tail.sum(0)

    def _carried(self, t: int) -> tuple[Tensor, Tensor]:
        """Return adaptation and opposing drive before a step."""
        moved, made = self.moved, self.made
        a = (made.a[t - 1].to(self.zero.dtype) if t else moved.a) if moved.tires else self.zero
        w = (made.w[t - 1].to(self.zero.dtype) if t else moved.w) if moved.opposed else self.zero
        return a, w

    def _back_in_carried(self, t: int, a: Tensor, w: Tensor, d_u: Tensor, at_s: Tensor) -> None:
        moved = self.moved
        if moved.tires:
            self._add(lift=self.at_level * a, stay=self.d_a * a + self.d_w * w)
            self.d_a = moved.stay * self.d_a + moved.lift * self.at_level
        if moved.opposed:
            self.d_w = moved.stay * self.d_w - d_u

    def _add(self, **parts: Tensor) -> None:
        for name, part in parts.items():
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def _found(self, d_current: Tensor, d_s: Tensor, u_first: Tensor, d_back: Tensor) -> list[Tensor]:
        moved, modes = self.moved, self.modes
        d_z = modes.seen * self.q + (0.0 if self.tail is None else self.tail)
        empty = moved.current.new_empty(0)
        found = dict.fromkeys(Moved._fields, empty) | {"current": d_current}
        for name, total in self.sums.items():
            constant = getattr(moved, name)
            if constant.numel():
                found[name] = total.sum_to_size(constant.shape)
        if self.grown is not None:
            start = moved.z if len(moved.z) else moved.v.unsqueeze(0)
            whole = (1 - modes.loss) * (self.grown + (start - u_first) * self.q)
            found["weight"] = whole.sum_to_size(modes.weight.shape).reshape(moved.weight.shape)
        found["z"], found["v"] = d_z[: len(moved.z)], self.d_after
        if not len(moved.z):
            found["v"] = found["v"] + d_z.sum(0)
        found |= {"a": self.d_a if moved.tires else empty, "w": self.d_w if moved.opposed else empty}
        if moved.echoes:
            found |= self._echoed(d_current, d_back)
        return [*found.values(), d_s]

    def _echoed(self, d_current: Tensor, d_back: Tensor) -> dict[str, Tensor]:
        """Return the gradients in the weights of what comes back, and in the spikes before the first step."""
        moved, spikes = self.moved, self.made.spikes
        last = torch.cat([moved.last.unsqueeze(0), spikes[:-1]])
        found = {"last": d_back.to(moved.last.dtype)}
        if moved.dense:
            width = len(moved.matrix)
            return found | {"matrix": d_current.reshape(-1, width).t() @ last.reshape(-1, width)}
        d_own = (d_current.double() * last).sum(0)
        return found | {"own": d_own.sum_to_size(moved.own.shape)}


def keeps(moved: Moved, options: Options) -> frozenset[str]:
    """Return what the adjoint asks for of what was made; see `Backend`."""
    kept = {"clamp", "a", "w", "total", "spikes"}
    if options.reset == RESETS["value"] or options.restart or moved.opposed:
        kept |= {"before"}
    return frozenset(kept)


def reason(current: Tensor, dense: bool) -> str | None:
    """Return None: it runs everywhere."""
    return None


BACKEND = Backend(forward, adjoint, keeps, reason)
