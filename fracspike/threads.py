"""How many threads a stretch of work may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while, then give back what there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread for a while.

    For long loops of small steps: shared between threads, each step would wait for the slowest of
    them, and on a busy machine that costs hundreds of times the work itself.
    """
    with threads(1):
        yield
