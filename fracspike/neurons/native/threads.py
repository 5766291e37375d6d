"""How a kernel is run: its blocks shared between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALL = 1 << 17  # numbers in a sequence up to which one thread is enough
SHARES = 4  # pieces of work for each thread, so that a thread that is held up does not hold up all


def arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """Return contiguous tensors as arrays on the same memory."""
    return [np.ascontiguousarray(t.detach().numpy()) for t in tensors]


def blocks_in_threads(kernel: Callable[..., None], arguments: Sequence[Any], blocks: int) -> None:
    """Call ``kernel(*arguments, first, last)`` until all blocks are done."""
    size = -(-blocks // (SHARES * min(torch.get_num_threads(), blocks)))
    in_threads(lambda start: kernel(*arguments, start, min(start + size, blocks)), range(0, blocks, size))


def in_threads(work: Callable[[int], None], pieces: Sequence[int], *, alone: bool = False) -> None:
    """Call ``work`` on every piece, in as many threads as torch uses, or ``alone`` in this one.

    Threads of Python, started here and gone when the call returns, and not those of OpenMP or Numba: a
    process may then fork at any time (data loaders do), any thread may call, one thread is no special case,
    and on a busy machine nothing waits at a barrier. What is called must release the interpreter lock, as
    kernels and torch do. Starting a thread costs some 50 microseconds.
    """
    queue = iter(pieces)  # hands out each piece once
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            for piece in queue:
                work(piece)
        except BaseException as error:
            failures.append(error)

    count = 0 if alone else min(torch.get_num_threads(), len(pieces)) - 1
    threads = [threading.Thread(target=serve) for _ in range(count)]
    for thread in threads:
        thread.start()
    serve()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
