"""From a problem to the kernels and back: neurons in one dimension, and which of the loops runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...problem import KINDS, Arriving, Fixed, Made, Moved, Options
from ...state import check_drive
from ..base import like_made
from . import blocked, buffers, general
from .carry import Carry, Course, nothing
from .coefficients import columns, split, sum_to
from .sizes import BLOCK, LANES
from .threads import arrays, blocks_in_threads

ADDS = ((0.0, 0.0), (0.0, -1.0), (-1.0, 1.0))  # with a spike, by reset: times v, times v_reset


class Flat(NamedTuple):
    """A problem's tensors with all neurons in one dimension, M of them; see `Moved` and `Fixed`."""

    current: Tensor
    resistance: Tensor
    threshold: Tensor
    fall: Tensor
    z: Tensor
    v: Tensor
    noise: Tensor
    hold: Tensor

    @classmethod
    def of(cls, moved: Moved, fixed: Fixed) -> Flat:
        """Return a problem's tensors so; a noise that is none has no rows."""
        shape, size = moved.shape, math.prod(moved.shape)
        current = moved.current.reshape(-1, size).contiguous()

        def row(value: Tensor) -> Tensor:
            return value.double().expand(shape).reshape(size).contiguous()

        return cls(
            current=current,
            resistance=row(moved.resistance),
            threshold=row(moved.threshold),
            fall=row(moved.fall),
            z=moved.z.reshape(len(moved.z), size).contiguous(),
            v=row(moved.v),
            noise=fixed.noise.reshape(-1, size).contiguous() if fixed.noisy else current[:0],
            hold=fixed.hold.reshape(size).contiguous(),
        )

    def start(self, count: int) -> Tensor:
        """Return the modes at the start: those given, or with no past each the potential."""
        return self.z if len(self.z) else self.v.expand(count, *self.v.shape).contiguous()


def is_simple(moved: Moved, fixed: Fixed, options: Options) -> bool:
    """Return whether the blocked loop serves: a spike adds the same to all modes, and does no more."""
    carries = moved.tires or moved.echoes
    return not (
        carries or options.restart or options.period or (fixed.noisy and options.kind == KINDS["above"])
    )


# -- forward ------------------------------------------------------------------------------------------------


def forward(moved: Moved, fixed: Fixed, options: Options) -> Made:
    """Run a problem; see `Backend`.

    Raises:
        ValueError: if the current is not finite.
    """
    flat = Flat.of(moved, fixed)
    made = like_made(moved, fixed, options, buffers.empty)
    if is_simple(moved, fixed, options):
        _forward_blocked(moved, fixed, options, flat, made)
    else:
        _forward_general(moved, fixed, options, flat, made)
    return made


def _forward_blocked(moved: Moved, fixed: Fixed, options: Options, flat: Flat, made: Made) -> None:
    dtype = flat.current.dtype
    groups = split(fixed.loss, moved.weight, options.tol, moved.shape, dtype)
    r, level, fall = (row.to(dtype) for row in (flat.resistance, flat.threshold, flat.fall))
    if options.kind == KINDS["never"]:
        level = torch.full_like(level, math.inf)
    if not fixed.noisy:
        level = _bar(level, options.kind)
    size, soft = flat.current.shape[1], options.kind == KINDS["soft"]
    finite = blocked.forward_in_threads(
        (flat.current, flat.noise, r, level, fall, flat.z if len(flat.z) else flat.v.unsqueeze(0)),
        groups,
        (soft, float(fixed.slope) if soft or fixed.noisy else None, *ADDS[options.reset]),
        (_rows(made.before, flat), _rows(made.spikes, flat), made.z.reshape(len(made.z), size)),
    )
    if not finite:
        check_drive(moved.current, moved.resistance)
    made.hold.copy_(fixed.hold)


def _bar(level: Tensor, kind: int) -> Tensor:
    """Return above what a neuron spikes, whose threshold is the level."""
    return torch.nextafter(level, level.new_tensor(-math.inf)) if kind == KINDS["at_least"] else level


def _rows(sequence: Tensor, flat: Flat) -> Tensor:
    """Return a sequence ``(T, M)``, or ``(0, M)`` if it is none."""
    size = flat.current.shape[1]
    return sequence.reshape(-1, size) if sequence.dim() > 1 else sequence.new_empty((0, size))


def _forward_general(moved: Moved, fixed: Fixed, options: Options, flat: Flat, made: Made) -> None:
    check_drive(moved.current, moved.resistance)
    decay, weight = _modes(moved, fixed)
    start = flat.start(len(weight))
    end = torch.empty_like(start)
    carry, course, width = _carry(moved, flat, made)
    inputs = arrays(
        flat.current, flat.resistance, decay, weight, flat.threshold, flat.fall, flat.noise, start, flat.v,
        flat.hold,
    )  # fmt: skip
    numbers = (
        options.kind, float(fixed.slope), options.reset, options.restart, options.period, width,
    )  # fmt: skip
    outputs = arrays(
        *(_rows(x, flat) for x in (made.before, made.spikes, made.clamp)), end, made.hold.reshape(-1)
    )
    arguments = (*inputs, carry, *numbers, *outputs, course)
    blocks_in_threads(general.forward, arguments, math.ceil(flat.current.shape[1] / width))
    made.z.copy_(end[: len(made.z)].reshape(made.z.shape))


def _modes(moved: Moved, fixed: Fixed) -> tuple[Tensor, Tensor]:
    """Return decays and weights, ``(K, 1)`` or both ``(K, M)``."""
    decay, weight = columns(1 - fixed.loss, moved.shape), columns(moved.weight, moved.shape)
    if decay.shape != weight.shape:
        decay, weight = (x.expand(len(x), math.prod(moved.shape)).contiguous() for x in (decay, weight))
    return decay, weight


def _carry(moved: Moved, flat: Flat, made: Made, *, back: bool = False) -> tuple[Carry, Course, int]:
    """Return what the kernels carry from step to step, its course, and how many neurons make a block."""
    if not (moved.tires or moved.echoes):
        return *nothing(flat.current.numpy().dtype), BLOCK
    shape, size = moved.shape, math.prod(moved.shape)

    def row(value: Tensor) -> Tensor:
        return value.double().expand(shape).reshape(size) if value.numel() else value.double()

    matrix, width = flat.current.new_empty((0, 0)), BLOCK
    if moved.dense:
        width = shape[-1]
        matrix = moved.matrix if back else moved.matrix.t()
        matrix = functional.pad(matrix, (0, -matrix.shape[1] % LANES))
    lasting = (moved.lift, moved.stay, moved.pull, moved.a, moved.w, moved.own)
    carry = Carry(*arrays(*map(row, lasting), matrix, moved.last.reshape(-1)))
    course = Course(*arrays(*(_rows(x, flat) for x in (made.over, made.a, made.w, made.total))))
    return carry, course, width


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
    flat = Flat.of(moved, fixed)
    given = [_rows(x, flat).contiguous() for x in (arriving.spikes, arriving.before, arriving.a, arriving.w)]
    if not arriving.spikes.numel():
        given[0] = torch.zeros_like(flat.current)
    run = _adjoint_general
    if is_simple(moved, fixed, options) and not arriving.z.numel():
        run = _adjoint_blocked
    wanted = dict(zip(Moved._fields, wants, strict=False)), wants[-1]
    found, d_s = run(
        (moved, fixed, options, flat), made, _rows(derivative, flat), (*given, arriving.z), wanted
    )
    return [*found, d_s]


Given = tuple[Moved, Fixed, Options, Flat]
Wanted = tuple[dict[str, bool], bool]


def _adjoint_blocked(
    given: Given, made: Made, derivative: Tensor, arriving: Sequence[Tensor], wanted: Wanted
) -> tuple[Moved, Tensor]:
    moved, fixed, options, flat = given
    current, size = flat.current, flat.current.shape[1]
    groups = split(fixed.loss, moved.weight, options.tol, moved.shape, current.dtype)
    r, level, fall = (row.to(current.dtype) for row in (flat.resistance, flat.threshold, flat.fall))
    start = flat.z if len(flat.z) else flat.v.unsqueeze(0)
    d_start, d_sums = torch.empty_like(start), flat.v.new_empty((3, size))
    d_current = buffers.empty(current.shape, current)
    d_s = buffers.empty((len(current) if wanted[1] else 0, size), current)
    form, spikes = options.form, _rows(made.spikes, flat)
    d_weight = blocked.adjoint_in_threads(
        (current, r, level, _bar(level, options.kind) if form else level, fall, start),
        groups,
        (
            derivative,
            spikes[:0] if form else spikes,
            _rows(made.before, flat),
            *arriving[:2],
        ),
        form,
        (*ADDS[options.reset], 0.0 if options.detach else 1.0),
        (d_current, d_sums, d_start, d_s),
        wanted[0]["weight"],
    )
    found = _shaped(moved, flat, d_current, d_sums, d_start, torch.from_numpy(d_weight), wanted[0]["weight"])
    return found, d_s.reshape(-1, *moved.shape)


def _adjoint_general(
    given: Given, made: Made, derivative: Tensor, arriving: Sequence[Tensor], wanted: Wanted
) -> tuple[Moved, Tensor]:
    moved, fixed, options, flat = given
    if options.form:
        *numbers, factor = options.form
        derivative = factor * _reciprocal(derivative - flat.threshold.to(derivative.dtype), *numbers)
    decay, weight = _modes(moved, fixed)
    start = flat.start(len(weight))
    carry, course, width = _carry(moved, flat, made, back=True)
    current = _rows(made.total, flat) if moved.echoes else flat.current
    size, shared = current.shape[1], decay.shape[1] == 1
    blocks = math.ceil(size / width)
    d_current = buffers.empty(current.shape, current)
    d_s = buffers.empty((len(current) if wanted[1] else 0, size), current)
    sums, d_v, d_start = flat.v.new_empty((3, size)), torch.empty_like(flat.v), torch.empty_like(start)
    rows = (blocks, len(weight)) if shared else (len(weight), size)
    d_weight = flat.v.new_zeros(rows if wanted[0]["weight"] else (0, 0))
    d_carry = sums.new_empty((5 if moved.tires else 0, size))
    grad_s, grad_v, grad_a, grad_w, grad_z = arriving
    tail = grad_z.reshape(-1, size).contiguous() if grad_z.numel() else flat.z[:0]
    spikes = _rows(made.spikes, flat)
    inputs = arrays(
        current, flat.resistance, decay, weight, flat.threshold, flat.fall, start, derivative, spikes,
        _rows(made.before, flat), _rows(made.clamp, flat),
    )  # fmt: skip
    kinds = (options.reset, options.restart, options.detach, width)
    given_s, given_v, given_z, given_a, given_w = arrays(grad_s, grad_v, tail, grad_a, grad_w)
    outputs = arrays(d_current, sums[0], d_weight, sums[1], sums[2], d_start, d_v, d_s, d_carry)
    none = given_s[:0]
    blocks_in_threads(
        general.adjoint,
        (*inputs, carry, course, *kinds, given_s, given_v, given_z, Course(none, given_a, given_w, none),
         *outputs),
        blocks,
    )  # fmt: skip
    if shared and wanted[0]["weight"]:
        d_weight = d_weight.sum(0).unsqueeze(1)
    found = _shaped(moved, flat, d_current, sums, d_start, d_weight, wanted[0]["weight"], d_v)
    if moved.tires:
        d_lift, d_stay, d_pull, d_a, d_w = d_carry
        found = found._replace(
            lift=_like(d_lift, moved.lift, moved), stay=_like(d_stay, moved.stay, moved),
            a=_like(d_a, moved.a, moved),
        )  # fmt: skip
        if moved.opposed:
            found = found._replace(pull=_like(d_pull, moved.pull, moved), w=_like(d_w, moved.w, moved))
    return _echoed(found, moved, made, flat, d_current), d_s.reshape(-1, *moved.shape)


def _reciprocal(x: Tensor, p: float, q: float, r: float) -> Tensor:
    return 1 / (p + (q * x.abs() + r) ** 2)


def _shaped(
    moved: Moved,
    flat: Flat,
    d_current: Tensor,
    sums: Tensor,
    d_start: Tensor,
    d_weight: Tensor,
    moves: bool,
    d_v: Tensor | None = None,
) -> Moved:
    """Return the gradients that every layer has, in the shapes of the problem; the rest is empty."""
    if not len(flat.z):  # every mode began at the potential
        d_v = d_start.sum(0) if d_v is None else d_v + d_start.sum(0)
    empty = d_current.new_empty(0)
    d_resistance, d_threshold, d_fall = (
        _like(x, like, moved)
        for x, like in zip(sums, (moved.resistance, moved.threshold, moved.fall), strict=True)
    )
    if moves:
        last = torch.zeros(max(0, len(moved.weight) - len(d_weight)), d_weight.shape[1], dtype=torch.float64)
        d_weight = sum_to(torch.cat([d_weight, last]), moved.weight, moved.shape)
    return Moved(
        current=d_current.reshape(moved.current.shape),
        resistance=d_resistance,
        threshold=d_threshold,
        fall=d_fall,
        weight=d_weight,
        z=d_start[: len(flat.z)].reshape(moved.z.shape),
        v=(torch.zeros_like(flat.v) if d_v is None else d_v).reshape(moved.shape),
        lift=empty, stay=empty, pull=empty, a=empty, w=empty, own=empty, matrix=empty, last=empty,
    )  # fmt: skip


def _like(found: Tensor, constant: Tensor, moved: Moved) -> Tensor:
    """Return a gradient ``(M,)`` as one in a constant."""
    return found.reshape(moved.shape).sum_to_size(constant.shape).to(constant.dtype)


def _echoed(found: Moved, moved: Moved, made: Made, flat: Flat, d_current: Tensor) -> Moved:
    """Add the gradients in own weights, matrix and last spikes, from that in what came back."""
    if not moved.echoes:
        return found
    spikes = _rows(made.spikes, flat)
    if not moved.dense:
        last = moved.last.reshape(-1)
        d_own = (d_current[1:] * spikes[:-1]).sum(0, dtype=torch.float64) + d_current[0] * last
        own = moved.own.double().expand(moved.shape).reshape(-1)
        d_last = (own * d_current[0]).to(last).reshape(moved.last.shape)
        return found._replace(own=_like(d_own, moved.own, moved), last=d_last)
    width = len(moved.matrix)
    first = d_current[0].reshape(-1, width)
    d_matrix = d_current[1:].reshape(-1, width).t() @ spikes[:-1].reshape(-1, width)
    d_matrix = d_matrix + first.t() @ moved.last.reshape(-1, width)
    return found._replace(matrix=d_matrix, last=(first @ moved.matrix).reshape(moved.last.shape))
