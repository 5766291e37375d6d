"""How a kernel is run: its blocks shared between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARES = 4  # pieces of work for each thread, so that a thread that is held up does not hold up all


def arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """Return contiguous tensors as arrays on the same memory."""
    return [np.ascontiguousarray(t.detach().numpy()) for t in tensors]


def in_threads(kernel: Callable[..., None], arguments: Sequence[Any], blocks: int) -> None:
    """Call ``kernel(*arguments, first, last)`` until all blocks are done, in as many threads as torch uses.

    Threads of Python, started here and gone when the call returns, and not those of Numba: a process may
    then fork at any time (data loaders do), any thread may call, and one thread is no special case. The
    kernels release the interpreter lock. Starting a thread costs some 50 microseconds.
    """
    workers = min(torch.get_num_threads(), blocks)
    if workers <= 1:
        kernel(*arguments, 0, blocks)
        return
    size = -(-blocks // (SHARES * workers))
    pieces = iter([(start, min(start + size, blocks)) for start in range(0, blocks, size)])
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for first, last in pieces:  # an iterator over a list hands out each piece once
                kernel(*arguments, first, last)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
