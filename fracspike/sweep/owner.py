"""Whether the worker of a trial is still alive.

On one machine that is known at once, from the process and the time it started. Of other machines it
is known by a counter that each worker moves: one that has not moved for a while, by the observer's own
clock, belongs to a worker that is gone. No two machines' clocks are compared.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEAT = 10.0  # seconds between moves of the counter
GRACE = 90.0  # seconds without a move after which a worker of another machine is taken for dead


def me() -> dict[str, Any]:
    """Return what tells this process from every other, as numbers and texts."""
    return {"machine": machine(), "pid": os.getpid(), "started": started(os.getpid())}


def machine() -> str:
    """Return what tells this machine, since it was started, from every other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()  # a container has process numbers of its own
    except OSError:
        return platform.node()  # and started() knows nothing: the counter decides
    return f"{platform.node()} {boot} {space}"


def started(pid: int) -> str:
    """Return when a process on this machine started; empty if it is gone or that is unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *rest = text[text.rindex(")") + 2 :].split()  # the name before may hold anything
    return "" if state in "ZX" else rest[18]


class Watch:
    """Remembers when each worker's counter last moved.

    Args:
        grace: seconds.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self._seen: dict[int, tuple[object, float]] = {}

    def forget(self) -> None:
        """Grant every worker its grace anew: while a storage was away, no counter could move."""
        self._seen.clear()

    def alive(self, number: int, owner: Mapping[str, Any], beat: object) -> bool:
        """Tell whether the worker of a trial is alive.

        Args:
            number: of the trial.
            owner: what :func:`me` returned there.
            beat: its counter.
        """
        if owner["machine"] == machine() and owner["started"]:
            return started(int(owner["pid"])) == str(owner["started"])
        before, since = self._seen.get(number, (None, 0.0))
        if before != beat or number not in self._seen:
            self._seen[number] = beat, time.monotonic()
            return True
        return time.monotonic() - since < self.grace
