"""The kernels as operators of torch: `torch.compile` sees them whole, autograd knows their gradient.

Three operators. ``fracspike::potential`` runs a sequence and has no gradient. Then the derivative of the
spike is evaluated on the whole tensor of potentials, by whatever surrogate there is, in torch. Then
``fracspike::spikes`` takes both and *is* the layer for autograd: forward it reads the spikes off, backward it
runs the adjoint (``fracspike::adjoint``) with that derivative. No surrogate need be known to a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .threads import arrays, blocks_in_threads

LANES = 64  # neurons of a block, as in the kernels
KINDS = {"at_least": 0, "above": 1, "soft": 2}
RESETS = {"none": 0, "subtract": 1, "value": 2}


def _blocks(current: Tensor) -> int:
    return -(-current.shape[1] // LANES)


@torch.library.custom_op("fracspike::potential", mutates_args=(), device_types="cpu")
def potential(
    current: Tensor,
    resistance: Tensor,
    decay: Tensor,
    weight: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    noise: Tensor,
    z: Tensor,
    v: Tensor,
    hold: Tensor,
    kind: int,
    slope: float,
    reset: int,
    restart: bool,
    period: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return potential before reset, spikes, clamp, modes and holds at the end.

    The arguments are those of :func:`fracspike.neurons.native.kernels.forward`, as tensors.
    """
    from . import kernels

    before, s, clamp, z_out, hold_out = _like_potential(current, z, hold, period)
    inputs = arrays(current, resistance, decay, weight, threshold, v_reset, noise, z, v, hold)
    outputs = arrays(before, s, clamp, z_out, hold_out)
    options = (kind, slope, reset, restart, period)
    blocks_in_threads(kernels.forward, (*inputs, *options, *outputs), _blocks(current))
    return before, s, clamp, z_out, hold_out


def _like_potential(
    current: Tensor, z: Tensor, hold: Tensor, period: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    before, s = (torch.empty_like(current, memory_format=torch.contiguous_format) for _ in range(2))
    clamp = current.new_empty((len(current) if period else 0, current.shape[1]))
    return before, s, clamp, torch.empty_like(z), torch.empty_like(hold)


@potential.register_fake
def _(
    current: Tensor, resistance: Any, decay: Any, weight: Any, threshold: Any, v_reset: Any, noise: Any,
    z: Tensor, v: Any, hold: Tensor, kind: Any, slope: Any, reset: Any, restart: Any, period: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _like_potential(current, z, hold, period)


@torch.library.custom_op("fracspike::spikes", mutates_args=(), device_types="cpu")
def spikes(
    current: Tensor,
    resistance: Tensor,
    decay: Tensor,
    weight: Tensor,
    tangent: Tensor,
    along: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    z: Tensor,
    v: Tensor,
    before: Tensor,
    s: Tensor,
    derivative: Tensor,
    smooth: Tensor,
    clamp: Tensor,
    z_out: Tensor,
    reset: int,
    restart: bool,
    detach: bool,
    want_v: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return spikes, potential before reset (if wanted) and modes at the end, as functions of all they follow from.

    Args:
        current: and the next three as in `potential`.
        tangent: directions ``(P, K, 1)`` or ``(P, K, M)`` in which the weights can move.
        along: ``(P, M)``, how far they have: what carries the gradient, and no value is taken from it.
        threshold: and the next three as in `potential`.
        before: from `potential`, and so are ``s``, ``clamp`` and ``z_out``.
        s: as said.
        derivative: of the step in the potential, ``(T, M)``.
        smooth: what carries the gradient in a surrogate's own parameters, ``(T, M)``; empty if there are none.
        clamp: as said.
        z_out: as said.
        reset: kind of reset.
        restart: whether a spike erases the modes.
        detach: whether no gradient flows through the spike in the reset.
        want_v: whether the potential is wanted; without it, an empty tensor is returned.
    """
    return s.clone(), before.clone() if want_v else before.new_empty(0), z_out.clone()


@spikes.register_fake
def _(
    current: Tensor, resistance: Any, decay: Any, weight: Any, tangent: Any, along: Any, threshold: Any,
    v_reset: Any, z: Any, v: Any, before: Tensor, s: Tensor, derivative: Any, smooth: Any, clamp: Any, z_out: Tensor, reset: Any, restart: Any,
    detach: Any, want_v: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(s), torch.empty_like(before) if want_v else before.new_empty(0), torch.empty_like(z_out)


@torch.library.custom_op("fracspike::adjoint", mutates_args=(), device_types="cpu")
def adjoint(
    current: Tensor,
    resistance: Tensor,
    decay: Tensor,
    weight: Tensor,
    tangent: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    z: Tensor,
    derivative: Tensor,
    s: Tensor,
    before: Tensor,
    clamp: Tensor,
    reset: int,
    restart: bool,
    detach: bool,
    want_s: bool,
    grad_s: Tensor,
    grad_v: Tensor,
    grad_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients in current, resistance, along, threshold, v_reset, z, v and the spikes all told."""
    from . import kernels

    outputs = _like_adjoint(current, tangent, threshold, z, want_s)
    parts = (current, resistance, decay, weight, tangent, threshold, v_reset, z, derivative, s, before, clamp)
    options = (reset, restart, detach)
    incoming = arrays(grad_s, grad_v, grad_z)
    blocks_in_threads(
        kernels.adjoint, (*arrays(*parts), *options, *incoming, *arrays(*outputs)), _blocks(current)
    )
    return outputs


def _like_adjoint(
    current: Tensor, tangent: Tensor, threshold: Tensor, z: Tensor, want_s: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = current.shape[1]
    d_current = torch.empty_like(current, memory_format=torch.contiguous_format)
    d_along = threshold.new_empty((len(tangent), size))
    d_s = current.new_empty((len(current) if want_s else 0, size))
    d_resistance, d_threshold, d_v_reset, d_v = (threshold.new_empty(size) for _ in range(4))
    return d_current, d_resistance, d_along, d_threshold, d_v_reset, torch.empty_like(z), d_v, d_s


@adjoint.register_fake
def _(
    current: Tensor, resistance: Any, decay: Any, weight: Any, tangent: Tensor, threshold: Tensor, v_reset: Any,
    z: Tensor, derivative: Any, s: Any, before: Any, clamp: Any, reset: Any, restart: Any, detach: Any,
    want_s: bool, grad_s: Any, grad_v: Any, grad_z: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _like_adjoint(current, tangent, threshold, z, want_s)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    (
        current, resistance, decay, weight, tangent, _, threshold, v_reset, z, _, before, _, derivative, smooth,
        clamp, _,
        reset, restart, detach, _,
    ) = inputs  # fmt: skip
    if reset != RESETS["value"] and not restart:
        before = before.new_empty((0, before.shape[1]))  # the adjoint does not ask for it
    ctx.save_for_backward(
        current, resistance, decay, weight, tangent, threshold, v_reset, z, derivative, output[0], before, clamp
    )
    ctx.options = (reset, restart, detach)
    ctx.want_s = smooth.numel() > 0
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    z, s = saved[7], saved[9]
    grad_s, grad_v, grad_z = grads
    empty = s.new_empty((0, s.shape[1]))
    grad_s = torch.zeros_like(s) if grad_s is None else grad_s.contiguous()
    grad_v = empty if grad_v is None or grad_v.numel() == 0 else grad_v.contiguous()
    grad_z = empty.to(z) if grad_z is None else grad_z.contiguous()
    d_current, d_resistance, d_along, d_threshold, d_v_reset, d_z, d_v, d_s = adjoint(
        *saved, *ctx.options, ctx.want_s, grad_s, grad_v, grad_z
    )
    d_smooth = d_s if ctx.want_s else None
    return (
        d_current, d_resistance, None, None, None, d_along, d_threshold, d_v_reset, d_z, d_v,
        None, None, None, d_smooth, None, None, None, None, None, None,
    )  # fmt: skip


spikes.register_autograd(_backward, setup_context=_keep)


def _no_second(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError(
        "the native backend has no second derivative; build the layer with backend='torch', which has them all"
    )


adjoint.register_autograd(_no_second)
