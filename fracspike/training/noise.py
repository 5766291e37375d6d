"""Randomness within a network that does not depend on how a batch is shared out.

A batch may be computed in parts, one after another or by several processes at once. The modules here
draw for the whole batch in every part and take their rows, so the noise of a sample is the same
however many parts there are. Other modules that draw (such as ``torch.nn.Dropout``) work too, but
their noise then depends on the number of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

Draw = Callable[[Tensor, Generator | None], Tensor]


@dataclass(frozen=True)
class Rows:
    """Which samples of a batch are computed, and what draws for all of them."""

    start: int
    stop: int
    total: int
    generator: Generator


_rows: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def rows(chosen: Rows) -> Iterator[None]:
    """Say which rows of the batch are computed meanwhile."""
    token = _rows.set(chosen)
    try:
        yield
    finally:
        _rows.reset(token)


def for_whole_batch(x: Tensor, draw: Draw, dim: int = 1) -> Tensor:
    """Return random numbers for ``x``, drawn for the batch that it is a part of.

    Args:
        x: samples along dimension ``dim``.
        draw: fills an empty tensor with random numbers, from the generator it is given.
        dim: of the batch; 1 where time comes first.

    Returns:
        A tensor like ``x``.
    """
    now = _rows.get()
    if now is None:
        return draw(torch.empty_like(x), None)
    shape = list(x.shape)
    shape[dim] = now.total
    whole = draw(x.new_empty(shape), now.generator)
    return whole.narrow(dim, now.start, now.stop - now.start)


class Noise(nn.Module):
    """Adds Gaussian noise while training.

    Args:
        deviation: its standard deviation.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` of shape ``(T, B, *)``, with noise in training mode."""
        if not self.training:
            return x
        return x + self.deviation * for_whole_batch(x, lambda e, g: e.normal_(generator=g))


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` for inputs ``(T, B, *)``, the same however a batch is shared out."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` of shape ``(T, B, *)``, with a share of it set to 0 in training mode."""
        if _rows.get() is None or not self.training or self.p == 0:
            return super().forward(x)
        keep = 1.0 - self.p
        return x * for_whole_batch(x, lambda e, g: e.bernoulli_(keep, generator=g).div_(keep))
