"""Elementwise building blocks that stay exact at 0 and finite at the ends of the number range."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitude(x: Tensor) -> Tensor:
    """Return |x| with derivative +1 (not 0) at x = 0, so that an odd function of it is smooth there."""
    return torch.where(x < 0, -x, x)


def sign(x: Tensor) -> Tensor:
    """Return -1 where x < 0, else 1."""
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def bounded(y: Tensor) -> Tensor:
    """Clamp to a quarter of the number range: what overflowed to infinity is a number again."""
    most = torch.finfo(y.dtype).max / 4
    return y.clamp(-most, most)


def affine(y: Tensor, slope: float | Tensor, offset: float | Tensor) -> Tensor:
    """Return ``slope * y + offset``, in one pass over memory when both are plain numbers."""
    if isinstance(slope, float) and isinstance(offset, float):
        return torch.rsub(y, offset, alpha=-slope)
    return y * slope + offset


def mix(step: Tensor, zero: float | Tensor, one: float | Tensor) -> Tensor:
    """Return ``zero`` where ``step`` is 0 and ``one`` where it is 1, both exactly."""
    # zero + (one - zero) * step would round the difference.
    y = affine(step, -zero, zero)
    return torch.add(y, step, alpha=one) if isinstance(one, float) else y + step * one
