"""How a kernel is run: its blocks shared between threads."""

from __future__ import annotations

import _thread
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALL = 1 << 17  # numbers in a sequence up to which one thread is enough
SHARES = 8  # pieces of work for each thread, so that a thread that is held up does not hold up all


def arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """Return contiguous tensors as arrays on the same memory."""
    return [np.ascontiguousarray((t.detach() if t.requires_grad else t).numpy()) for t in tensors]


@lru_cache(maxsize=1)
def sources() -> NDArray[Any]:
    """Return an empty array whose type names what the kernels are built from.

    Numba keeps a compiled kernel on the disk for as long as the file that defines it, and the types of its
    arguments, stay the same; a change in a file from which it takes functions would go unseen.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return np.zeros(0, [("v" + digest.hexdigest()[:16], np.int8)])


def blocks_in_threads(
    kernel: Callable[..., None], arguments: Sequence[Any], blocks: int, *, alone: bool = False
) -> None:
    """Call ``kernel(sources(), *arguments, first, last)`` until all blocks are done."""
    size = blocks if alone else -(-blocks // (SHARES * min(torch.get_num_threads(), blocks)))
    version = sources()

    def work(start: int) -> None:
        kernel(version, *arguments, start, min(start + size, blocks))

    in_threads(work, range(0, blocks, size), alone=alone)


def in_threads(work: Callable[[int], None], pieces: Sequence[int], *, alone: bool = False) -> None:
    """Call ``work`` on every piece, in as many threads as torch uses, or ``alone`` in this one.

    Threads of Python, and not those of OpenMP or Numba: a process may then fork at any time (data loaders
    do), any thread may call, one thread is no special case, and on a busy machine nothing waits at a barrier.
    What is called must release the interpreter lock, as kernels and torch do. A thread is not waited for
    until it has taken a piece: torch's threads go on waiting for work, busily, for some milliseconds, and one
    that is woken beside them begins late.
    """
    queue = iter(pieces)  # hands out each piece once
    finished = threading.Semaphore(0)
    failures: list[BaseException] = []

    def serve() -> None:
        for piece in queue:
            try:
                if not failures:
                    work(piece)
            except BaseException as error:
                failures.append(error)
            finally:
                finished.release()

    for _ in range(0 if alone else min(torch.get_num_threads(), len(pieces)) - 1):
        crew.call(serve)
    serve()
    for _ in pieces:
        finished.acquire()
    if failures:
        raise failures[0]


class Crew:
    """Threads that sleep until they are called, each made when none is idle.

    One that is made anew may begin milliseconds late, on the core of the one that made it; one that is woken
    begins in a fraction of that. Any thread may call: to take a hand, or to put it back, is one operation of
    a list. After a fork those of the parent are gone, and others are made.
    """

    def __init__(self) -> None:
        self._idle: list[_Hand] = []

    def call(self, task: Callable[[], None]) -> None:
        """Have ``task``, which must not raise, run in a thread, and return at once."""
        process = os.getpid()
        while True:
            try:
                hand = self._idle.pop()
            except IndexError:
                hand = _Hand(process, self._idle.append)
            if hand.process == process:
                hand.wake(task)
                return


class _Hand:
    """One thread, and what it is to do.

    Args:
        process: where it lives.
        rest: called with the hand when it has nothing to do.
    """

    def __init__(self, process: int, rest: Callable[[_Hand], None]) -> None:
        self.process = process
        self._rest = rest
        self._task: Callable[[], None] | None = None
        self._sleep = _thread.allocate_lock()
        self._sleep.acquire()
        _thread.start_new_thread(self._live, ())  # threading.Thread.start waits until it runs

    def wake(self, task: Callable[[], None]) -> None:
        """Have ``task`` done."""
        self._task = task
        self._sleep.release()

    def _live(self) -> None:
        while True:
            self._sleep.acquire()
            task, self._task = self._task, None
            assert task is not None
            task()
            del task  # and with it the memory of sequences
            self._rest(self)


crew = Crew()
