"""The two functions to call: they lay tensors out, make room, choose block and warps, and start a kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import adjoint as back
from . import forward as ahead
from .coefficients import Coefficients
from .problem import RESETS, STEPS, Arriving, Constants, Gradients, Made, Options, Start, Wants

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
#: neurons of a layer up to which a program takes so many of them; more of them share 64
SIZES = ((1 << 14, 16), (1 << 16, 32))
LARGEST = 64
AHEAD = 4  # steps by which sequences are asked for before they are read
UNROLL = 4  # steps that the loop over time takes at once where a step is short


def forward(
    drive: Tensor,
    coefficients: Coefficients,
    constants: Constants,
    start: Start,
    options: Options,
    *,
    noise: Tensor | None = None,
    potential: bool = True,
    over: bool = False,
    modes: bool = True,
) -> Made:
    """Run a sequence; potentials are measured from rest.

    Args:
        drive: current ``(T, M)`` or ``(T, B, *)``, in any strides, of which M neurons are made.
        coefficients: from `tabulate`, in the dtype that `Options.computed_in` says.
        constants: of the neurons.
        start: where it starts.
        options: what is no tensor.
        noise: added to ``slope * over`` before the step, ``(T, M)``.
        potential: whether the potential before reset is kept, which the adjoint needs for most options.
        over: whether the potential above threshold is kept.
        modes: whether the modes at the end are wanted.

    Raises:
        ValueError: if a tensor does not fit the drive.
    """
    T, M = len(drive), drive[0].numel()
    _check(drive, coefficients, constants, start, options)
    kept = options.kept_in(drive.dtype)
    block, warps = blocking(M, coefficients, options)
    programs = triton.cdiv(M, block)

    def sequence(wanted: bool, dtype: torch.dtype = kept) -> Tensor | None:
        return torch.empty((T, M), dtype=dtype, device=drive.device) if wanted else None

    held = options.period > 0
    made = Made(
        spikes=torch.empty((T, M), dtype=drive.dtype, device=drive.device),
        before=sequence(potential),
        over=sequence(over),
        clamp=sequence(held),
        adaptation=sequence(start.adaptation is not None),
        opposing=sequence(start.opposing is not None),
        modes=drive.new_empty((coefficients.modes, M), dtype=torch.float64) if modes else None,
        hold=drive.new_empty(M, dtype=torch.int32) if held else None,
        v=drive.new_empty(M, dtype=kept),
        wrong=drive.new_empty(programs, dtype=torch.float32),
    )
    laid, stride, layout = lay_out(drive)
    given = ahead.Given(
        drive=laid,
        noise=_row(noise),
        **_tables(coefficients),
        **_constants(constants, coefficients.loss.dtype),
        v=_row(start.v),
        modes=None if start.modes is None else start.modes.contiguous(),
        hold=None if start.hold is None else start.hold.to(torch.int32).contiguous(),
        adaptation=_row(start.adaptation),
        opposing=_row(start.opposing),
        last=_row(start.last),
    )
    with _on(drive):
        ahead.forward_kernel[(programs,)](
            given,
            ahead.Taken(*made),
            layout,
            stride,
            _columns(coefficients),
            T,
            M,
            coefficients.modes,
            options.slope,
            options.period,
            **_common(coefficients, options, start, block, kept),
            HOLD=held,
            COMPENSATED=coefficients.compensated,
            num_warps=warps,
            enable_fp_fusion=True,
        )
    return made


def adjoint(
    drive: Tensor,
    coefficients: Coefficients,
    constants: Constants,
    start: Start,
    options: Options,
    made: Made,
    arriving: Arriving,
    *,
    derivative: Tensor | None = None,
    wants: Wants | None = None,
) -> Gradients:
    """Return the gradients, from those that arrive.

    Args:
        drive: as in `forward`, and so are the next four.
        coefficients: as said.
        constants: as said.
        start: as said.
        options: as said.
        made: what `forward` made.
        arriving: gradients in that.
        derivative: of the spikes in the potential, ``(T, M)``; None for that of ``options.form``.
        wants: which gradients are wanted beside those in drive and constants.

    Raises:
        ValueError: if what the adjoint needs was not kept.
    """
    T, M = len(drive), drive[0].numel()
    wants = wants or Wants()
    _check(drive, coefficients, constants, start, options)
    _check_made(made, derivative, options)
    kept, dtype = options.kept_in(drive.dtype), coefficients.loss.dtype
    block, warps = blocking(M, coefficients, options)
    programs = triton.cdiv(M, block)
    rows = sum(coefficients.tiles)
    shared = coefficients.columns == 1
    # a hard step without noise follows from the potential; others are read
    loads = options.step == "soft" or derivative is not None or constants.own is not None
    taken = back.Taken(
        drive=torch.empty((T, M), dtype=drive.dtype, device=drive.device),
        spikes=torch.empty((T, M), dtype=drive.dtype, device=drive.device) if wants.spikes else None,
        weights=drive.new_empty((programs if shared else rows, rows if shared else M), dtype=dtype)
        if wants.weights
        else None,
        modes=drive.new_empty((coefficients.modes, M), dtype=torch.float64) if wants.start else None,
        sums=drive.new_empty((len(back.SUMS), M), dtype=dtype),
    )
    laid, stride, layout = lay_out(drive)
    at_spikes, spikes_stride, spikes_layout = _lay_out(arriving.spikes)
    at_before, before_stride, before_layout = _lay_out(arriving.before)
    given = back.Given(
        drive=laid,
        **_tables(coefficients),
        **_constants(constants, dtype),
        v=_row(start.v),
        modes=None if start.modes is None else start.modes.contiguous(),
        adaptation_start=_row(start.adaptation),
        opposing_start=_row(start.opposing),
        last=_row(start.last),
        before=made.before,
        spikes=made.spikes if loads else None,
        clamp=made.clamp,
        adaptation=made.adaptation,
        opposing=made.opposing,
        derivative=_row(derivative),
        at_spikes=at_spikes,
        at_before=at_before,
        at_adaptation=_row(arriving.adaptation),
        at_opposing=_row(arriving.opposing),
        at_modes=None if arriving.modes is None else arriving.modes.contiguous(),
        at_v=_row(arriving.v),
    )
    with _on(drive):
        back.adjoint_kernel[(programs,)](
            given,
            taken,
            layout,
            stride,
            spikes_layout,
            spikes_stride,
            before_layout,
            before_stride,
            _columns(coefficients),
            T,
            M,
            coefficients.modes,
            *(options.form or (1.0, 0.0, 0.0, 0.0)),
            **_common(coefficients, options, start, block, kept),
            DETACH=options.detach,
            EXACT=coefficients.compensated,
            num_warps=warps,
            enable_fp_fusion=True,
        )
    return _gathered(drive, coefficients, constants, start, taken)


def _gathered(
    drive: Tensor, coefficients: Coefficients, constants: Constants, start: Start, taken: back.Taken
) -> Gradients:
    """Give what the kernel wrote the shapes of what it is a gradient in."""
    sums = dict(zip(back.SUMS, taken.sums, strict=True))
    present = {
        "stay": start.adaptation,
        "lift": start.adaptation,
        "adaptation": start.adaptation,
        "pull": start.opposing,
        "opposing": start.opposing,
        "own": constants.own,
    }
    found: dict[str, Any] = {
        name: None if name in present and present[name] is None else value for name, value in sums.items()
    }
    weights = taken.weights
    if weights is not None:
        if coefficients.columns == 1:
            weights = weights.sum(0, dtype=torch.float64).unsqueeze(1)
        else:
            weights = weights.reshape(len(weights), -1, coefficients.columns).sum(1, dtype=torch.float64)
        weights = weights[: coefficients.modes - coefficients.outside]
        if coefficients.outside:
            weights = torch.cat([weights, torch.zeros_like(weights[:1])])
    if taken.modes is not None and coefficients.outside:
        taken.modes[-1].zero_()
    last = None
    if constants.own is not None:
        columns = constants.own.reshape(-1)
        last = (taken.drive[0].reshape(-1, columns.numel()) * columns).reshape(-1)
    return Gradients(
        drive=taken.drive.reshape(drive.shape),
        spikes=taken.spikes,
        weights=weights,
        start=taken.modes,
        last=last,
        **found,
    )


def blocking(neurons: int, coefficients: Coefficients, options: Options) -> tuple[int, int]:
    """Return neurons of a program, and its warps.

    Few neurons are spread over as many programs as there can be, the modes of a neuron over the lanes of a
    warp; many share programs, a neuron or two to a lane. Double precision and coefficients of their own take
    twice the registers.
    """
    block = next((size for most, size in SIZES if neurons <= most), LARGEST)
    double = coefficients.loss.dtype == torch.float64
    if double or coefficients.columns > 1:
        block = max(block // 2, 16)
    return options.block or block, options.warps or (4 if double else 1)


def lay_out(sequence: Tensor) -> tuple[Tensor, int, tuple[int, int, int] | None]:
    """Return a sequence, its stride in time, and how the neurons of a step lie: see `equations.place`.

    Without a copy, unless they lie in more than two dimensions that cannot be taken as one.
    """
    groups: list[tuple[int, int]] = []
    for size, stride in zip(sequence.shape[1:], sequence.stride()[1:], strict=True):
        if size == 1:
            continue
        if groups and groups[-1][1] == size * stride:
            groups[-1] = groups[-1][0] * size, stride
        else:
            groups.append((size, stride))
    if len(groups) > 2:
        return lay_out(sequence.contiguous())
    stride = sequence.stride(0)
    if not groups or (len(groups) == 1 and groups[0][1] == 1):
        return sequence, stride, None
    (size, inner) = groups[-1]
    outer = groups[0][1] if len(groups) == 2 else 0
    return sequence, stride, (size, outer, inner)


def _lay_out(sequence: Tensor | None) -> tuple[Tensor | None, int, tuple[int, int, int] | None]:
    return (None, 0, None) if sequence is None else lay_out(sequence)


def _row(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.contiguous()


def _columns(coefficients: Coefficients) -> int | None:
    return None if coefficients.columns == 1 else coefficients.columns


def _tables(coefficients: Coefficients) -> dict[str, Any]:
    c = coefficients
    pairs = {name: (value, value.numel()) for name, value in (("fresh", c.fresh), ("kept", c.kept))}
    return {"loss": c.loss, "seen": c.seen, **pairs}


def _constants(constants: Constants, dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: None if value is None else (value.detach().to(dtype).reshape(-1).contiguous(), value.numel())
        for name, value in constants._asdict().items()
    }


def _common(
    coefficients: Coefficients, options: Options, start: Start, block: int, kept: torch.dtype
) -> dict[str, Any]:
    """Return what both kernels are compiled for."""
    carries = start.adaptation is not None or start.last is not None
    short = not (carries or options.period or options.restart)
    return {
        "TILES": coefficients.tiles,
        "BLOCK": block,
        "ACC": TYPES[coefficients.loss.dtype],
        "KEPT": TYPES[kept],
        "STEP": STEPS[options.step],
        "RESET": RESETS[options.reset],
        "LEAKY": options.leaky,
        "RESTART": options.restart,
        "AHEAD": AHEAD,
        "UNROLL": options.unroll or (UNROLL if short else 1),
    }


def _on(drive: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(drive.device) if drive.is_cuda else nullcontext()


def _check(
    drive: Tensor, coefficients: Coefficients, constants: Constants, start: Start, options: Options
) -> None:
    """Raise ValueError if a tensor does not fit the drive."""
    size = drive[0].numel()
    expected = options.computed_in(drive.dtype)
    if coefficients.loss.dtype != expected:
        raise ValueError(
            f"`coefficients` must be {expected} for a drive of {drive.dtype}, got {coefficients.loss.dtype}; "
            "pass dtype=options.computed_in(drive.dtype) to tabulate"
        )
    if coefficients.outside != options.leaky:
        raise ValueError(
            f"`coefficients` must be made with leaky={options.leaky}, got leaky={coefficients.outside}"
        )
    columns = {"coefficients": coefficients.columns}
    columns |= {name: value.numel() for name, value in constants._asdict().items() if value is not None}
    for name, count in columns.items():
        if count == 0 or size % count:
            raise ValueError(f"`{name}` must be of one number or of a part of {size} neurons, got {count}")
    for name, value in start._asdict().items():
        shape = (coefficients.modes, size) if name == "modes" else (size,)
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"`start.{name}` must have shape {shape}, got {tuple(value.shape)}")
    pairs = (("stay", "adaptation"), ("lift", "adaptation"), ("pull", "opposing"), ("own", "last"))
    for constant, state in pairs:
        if (getattr(constants, constant) is None) != (getattr(start, state) is None):
            raise ValueError(f"`{constant}` must be given with `start.{state}`, got one without the other")


def _check_made(made: Made, derivative: Tensor | None, options: Options) -> None:
    """Raise ValueError if the adjoint needs what was not kept, or a derivative that is not there."""
    follows = derivative is None and options.step != "never"
    if follows and not options.form:
        raise ValueError("`derivative` must be given without `options.form`, got None")
    asks = follows or options.reset == "value" or options.restart or made.opposing is not None
    if asks and made.before is None:
        raise ValueError("`made` must hold the potential, got None; pass potential=True to forward")
