"""Which code runs a layer: a loop over time in torch, or a compiled one; and why."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = ("auto", "torch", "native", "triton")


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
