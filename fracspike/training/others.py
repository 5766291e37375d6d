"""The other processes of a training: which of them died, and what one of them could not do."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

PATIENCE = 2.0  # seconds in which a process that closed its connections ends
LOST = re.compile(r"connection|closed|reset by peer|timed out|broken pipe", re.IGNORECASE)
LAUNCHER = "lightning_fabric.strategies.launchers.subprocess_script"


class ProcessDiedError(RuntimeError):
    """Another process of the training is gone, so that it cannot go on.

    Args:
        ranks: of those that are known to be gone; may be empty.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__(ranks)
        self.ranks = list(ranks)

    def __str__(self) -> str:
        who = " and ".join(f"process {rank}" for rank in self.ranks) or "another process"
        return f"{who} died; go on with --resume"


class Others:
    """Where the other processes are; made by all of them at once, when they are connected."""

    def __init__(self) -> None:
        self.own = torch.distributed.get_rank()
        self.where: list[tuple[str, int]] = [("", 0)] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(self.where, (socket.gethostname(), os.getpid()))

    def explain(self, error: RuntimeError) -> ProcessDiedError | None:
        """Return an error that names the processes that died, if that is why ``error`` was raised."""
        if LOST.search(str(error)) is None:
            return None
        end = time.monotonic() + PATIENCE
        while not (gone := self._gone()) and time.monotonic() < end:
            time.sleep(0.02)
        return ProcessDiedError(gone)

    def _gone(self) -> list[int]:
        here = socket.gethostname()
        return [
            rank
            for rank, (host, pid) in enumerate(self.where)
            if rank != self.own and host == here and not _runs(pid)
        ]


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may still have a number, until its parent looks."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists() and _answers(pid)
    except OSError:
        return _answers(pid)
    return status.rpartition(")")[2].split()[0] not in ("Z", "X", "x")


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def announce_deaths(say: Callable[[str], object] | None = None) -> None:
    """Let the launcher say which process died before it ends the training, which it does without a word.

    It looks at the processes that it started every few seconds. A training that exchanges something meanwhile
    fails earlier, and says so by itself.

    Args:
        say: is given the line; by default it goes to standard error.
    """
    logger = logging.getLogger(LAUNCHER)
    logger.setLevel(logging.INFO)
    if not any(isinstance(one, _Deaths) for one in logger.filters):
        logger.addFilter(_Deaths(say or (lambda text: sys.stderr.write(f"{text}\n"))))


class _Deaths(logging.Filter):
    """Turns the launcher's message into one of ours."""

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self.say = say

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log ``record`` as it is."""
        found = re.match(r"(?:\[rank: (\d+)\] )?Child process .*terminated", record.getMessage())
        if found is None:
            return True
        self.say(f"fracspike: {ProcessDiedError([int(found[1])] if found[1] else [])}")
        return False
