"""Which code runs a layer: a loop over time in torch, or a compiled one; and why."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

BACKENDS = ("auto", "torch", "native")


@dataclass(frozen=True)
class Choice:
    """What runs a layer, and the reason in words.

    >>> print(Choice("torch", "backend='torch' was asked for"))
    torch: backend='torch' was asked for
    """

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


def obstacle(current: Tensor) -> str | None:
    """Return why a compiled loop cannot run on such a current, whatever the layer; None if it can."""
    if current.device.type != "cpu":
        return f"the current is on {current.device.type}, and compiled loops run on the CPU"
    if torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func is active, which must see every step"
    if not torch.compiler.is_compiling() and importlib.util.find_spec("numba") is None:
        return "Numba is not installed"
    return None
