r"""What a spike does to the potential: the reset rules, one function each.

Each takes the potential before reset, the spike value ``s`` (which may be soft or carry a
surrogate gradient) and returns the potential after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Levels(Protocol):
    """The potentials that a reset rule may refer to."""

    v_rest: Tensor
    v_reset: Tensor
    threshold: Tensor
    reset_scale: Tensor


def subtract(v: Tensor, s: Tensor, at: Levels) -> Tensor:
    r"""Soft reset, :math:`v - c\,(\theta - v_\text{rest})\, s`: off goes the threshold's height above rest.

    The scale c is 1, unless a neuron of another library has it otherwise.
    """
    return v - height(at).to(v.dtype) * s


def height(at: Levels) -> Tensor:
    r"""Return what a soft reset takes off, :math:`c\,(\theta - v_\text{rest})`."""
    return at.reset_scale * (at.threshold - at.v_rest)


def to_value(v: Tensor, s: Tensor, at: Levels) -> Tensor:
    r"""Hard reset, :math:`v + (v_\text{reset} - v)\, s`."""
    return v + (at.v_reset.to(v.dtype) - v) * s


def none(v: Tensor, s: Tensor, at: Levels) -> Tensor:
    """No reset."""
    return v


RESETS: dict[str, Callable[[Tensor, Tensor, Levels], Tensor]] = {
    "subtract": subtract,
    "value": to_value,
    "none": none,
}
