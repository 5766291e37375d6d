"""From a problem to the Triton kernels and back. Triton is imported by the first sequence."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..problem import KINDS, RESETS, Arriving, Fixed, Made, Moved, Options
from .base import Backend

STEPS = {number: name for name, number in KINDS.items()}
RESET_NAMES = {number: name for name, number in RESETS.items()}
OLDEST = 7, 0  # compute capability for which Triton compiles


def forward(moved: Moved, fixed: Fixed, options: Options) -> Made:
    """Run a problem; see `Backend`."""
    from fracspike.neurons.backends import triton

    run = _Run(moved, fixed, options)
    made = triton.forward(
        run.drive,
        run.coefficients,
        run.constants,
        run.start,
        run.options,
        noise=_flat(fixed.noise) if fixed.noisy else None,
        over=moved.tires,
        modes=len(moved.z) > 0,
    )
    empty, shape = moved.current.new_empty(0), moved.current.shape

    def sequence(x: Tensor | None) -> Tensor:
        return empty if x is None else x.reshape(shape)

    return Made(
        spikes=sequence(made.spikes),
        before=sequence(made.before),
        z=moved.z if made.modes is None else made.modes.reshape(moved.z.shape),
        hold=fixed.hold.clone() if made.hold is None else made.hold.reshape(moved.shape).to(fixed.hold.dtype),
        clamp=sequence(made.clamp),
        over=sequence(made.over),
        a=sequence(made.adaptation),
        w=sequence(made.opposing),
        total=empty,
    )


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
    from fracspike.neurons.backends import triton

    run = _Run(moved, fixed, options)
    wanted = dict(zip(Moved._fields, wants, strict=False))
    before = derivative if options.form else made.before
    found = triton.adjoint(
        run.drive,
        run.coefficients,
        run.constants,
        run.start,
        run.options,
        triton.Made(
            spikes=_flat(made.spikes) if made.spikes.numel() else made.spikes,
            before=_some(before),
            over=None,
            clamp=_some(made.clamp),
            adaptation=_some(made.a),
            opposing=_some(made.w),
            modes=None,
            hold=None,
            v=run.start.v,
            wrong=run.start.v,
        ),
        triton.Arriving(
            spikes=arriving.spikes if arriving.spikes.numel() else None,
            before=arriving.before if arriving.before.numel() else None,
            adaptation=_some(arriving.a),
            opposing=_some(arriving.w),
            modes=arriving.z.reshape(len(arriving.z), -1) if arriving.z.numel() else None,
        ),
        derivative=None if options.form or options.kind == KINDS["never"] else _flat(derivative),
        wants=triton.Wants(wanted["weight"], wants[-1], wanted["z"] and len(moved.z) > 0),
    )
    d_s = moved.current.new_empty(0) if found.spikes is None else found.spikes.reshape(moved.current.shape)
    return [*_gradients(moved, found), d_s]


class _Run:
    """What both kernels take."""

    def __init__(self, moved: Moved, fixed: Fixed, options: Options) -> None:
        from fracspike.neurons.backends import triton

        shape, self.drive = moved.shape, moved.current
        slope = 1.0 if not fixed.noisy and options.kind != KINDS["soft"] else float(fixed.slope)
        self.options = triton.Options(
            step=STEPS[options.kind],
            reset=RESET_NAMES[options.reset],
            restart=options.restart,
            period=options.period,
            detach=options.detach,
            slope=slope,
            form=options.form,
        )
        dtype = self.options.computed_in(self.drive.dtype)
        loss, weight = (_columns(x, shape) for x in (fixed.loss, moved.weight))
        self.coefficients = triton.tabulate(loss, weight, dtype, slow=options.slow)
        self.constants = triton.Constants(
            resistance=_constant(moved.resistance, shape),
            threshold=_constant(moved.threshold, shape),
            fall=_constant(moved.fall, shape),
            stay=_constant(moved.stay, shape) if moved.tires else None,
            lift=_constant(moved.lift, shape) if moved.tires else None,
            pull=_constant(moved.pull, shape) if moved.opposed else None,
            own=_constant(moved.own, shape) if moved.echoes else None,
        )
        kept = self.options.kept_in(self.drive.dtype)
        self.start = triton.Start(
            v=moved.v.reshape(-1).to(kept),
            modes=moved.z.reshape(len(moved.z), -1) if len(moved.z) else None,
            hold=fixed.hold.reshape(-1) if options.period else None,
            adaptation=moved.a.reshape(-1).to(kept) if moved.tires else None,
            opposing=moved.w.reshape(-1).to(kept) if moved.opposed else None,
            last=moved.last.reshape(-1) if moved.echoes else None,
        )


def _gradients(moved: Moved, found: Any) -> list[Tensor]:
    """Return the kernels' gradients in the shapes of the problem."""
    empty, shape = moved.current.new_empty(0), moved.shape

    def constant(x: Tensor | None, like: Tensor) -> Tensor:
        return empty if x is None else x.reshape(shape).sum_to_size(like.shape).to(like.dtype)

    def state(x: Tensor | None, like: Tensor) -> Tensor:
        return empty if x is None else x.reshape(like.shape).to(like.dtype)

    weight = empty
    if found.weights is not None:
        weight = _shrunk(found.weights, moved.weight)
    return [
        found.drive,
        constant(found.resistance, moved.resistance),
        constant(found.threshold, moved.threshold),
        constant(found.fall, moved.fall),
        weight,
        empty if found.start is None else found.start.reshape(moved.z.shape),
        state(found.v, moved.v),
        constant(found.lift, moved.lift),
        constant(found.stay, moved.stay),
        constant(found.pull, moved.pull),
        state(found.adaptation, moved.a),
        state(found.opposing, moved.w),
        constant(found.own, moved.own),
        empty,
        state(found.last, moved.last),
    ]


def _flat(sequence: Tensor) -> Tensor:
    return sequence.reshape(len(sequence), -1)


def _some(sequence: Tensor) -> Tensor | None:
    return _flat(sequence) if sequence.dim() > 1 else None


def _constant(value: Tensor, shape: torch.Size) -> Tensor:
    """Return one number, or one for each of the last neurons, as many as differ."""
    if value.numel() == 1:
        return value.reshape(1)
    while value.dim() and value.shape[0] == 1:
        value = value.squeeze(0)
    return value.expand(shape[len(shape) - value.dim() :]).reshape(-1)


def _columns(value: Tensor, shape: torch.Size) -> Tensor:
    """Return ``(K, *constant)`` as ``(K, 1)``, or ``(K, n)`` for the last n neurons."""
    if value.numel() == len(value):
        return value.reshape(-1, 1)
    while value.shape[1] == 1:
        value = value.squeeze(1)
    return value.expand(len(value), *shape[len(shape) - value.dim() + 1 :]).reshape(len(value), -1)


def _shrunk(found: Tensor, like: Tensor) -> Tensor:
    """Return a gradient ``(K, n)`` as one in weights ``(K, *constant)``: undoes `_columns`."""
    if found.shape[1] == like[0].numel():
        return found.reshape(like.shape)
    if like.numel() == len(like):
        return found.sum(1).reshape(like.shape)
    inner = list(like.shape[1:])
    while inner and inner[0] == 1:
        inner.pop(0)
    lead = found.shape[1] // math.prod(inner)
    return found.reshape(len(found), lead, -1).sum(1).reshape(like.shape)


def keeps(moved: Moved, options: Options) -> frozenset[str]:
    """Return what the adjoint asks for of what was made; see `Backend`."""
    kept = {"clamp", "a", "w"}
    if options.reset == RESETS["value"] or options.restart or moved.opposed:
        kept |= {"before"}
    if options.kind == KINDS["soft"] or not options.form or moved.echoes:
        kept |= {"spikes"}
    return frozenset(kept)


def reason(current: Tensor, dense: bool) -> str | None:
    """Return why the kernels cannot run on a current; None if they can."""
    if current.device.type != "cuda":
        return f"the current is on {current.device.type!r}, and Triton kernels run on a CUDA device"
    if dense:
        return "recurrence from all neurons to all has no Triton kernel"
    return _missing(current.device.index or 0)


@lru_cache(maxsize=8)
def _missing(device: int) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"Triton compiles for compute capability 7.0 and later, and this device has {capability}"
    return None


BACKEND = Backend(forward, adjoint, keeps, reason)
