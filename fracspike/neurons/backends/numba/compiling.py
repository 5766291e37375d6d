"""How a kernel is compiled and kept on the disk: Numba's compiler, with a cache that cannot stop it.

What is kept may be cut off, of another version, or somebody else's, and the folder may be missing or read
only. Numba would raise at whatever it meets there. Here all of it means that there is nothing kept: the
kernel is compiled, and kept again where that is possible.
"""

# mypy: disable-error-code="no-untyped-call,untyped-decorator"

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numba import njit

from .vectors import OPTIONS

logger = logging.getLogger("fracspike")


def kernel(function: Callable[..., Any]) -> Any:
    """Have Numba compile a function when it is first called, and keep it.

    What a kernel is made of needs no keeping of its own: writing its machine code takes longer than what
    the next kernel saves.
    """
    dispatcher = njit(**OPTIONS)(function)
    try:
        dispatcher.enable_caching()
    except Exception as error:
        unkept(type(error).__name__)  # no folder that can be written to
    dispatcher._cache = Kept(dispatcher._cache)
    return dispatcher


class Kept:
    """A cache of Numba's that never raises, and that says when there is something to compile.

    Args:
        cache: what it is in front of.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return what is kept for a signature, None if there is nothing that can be used."""
        try:
            found = self._cache.load_overload(signature, target)
        except Exception as error:
            logger.debug("compiled code on the disk cannot be used: %r", error)
            with contextlib.suppress(Exception):
                self._cache.flush()  # its index would stop the next as well
            found = None
        if found is None:
            announce()
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what was compiled, if that is possible."""
        try:
            self._cache.save_overload(signature, compiled)
        except Exception as error:
            unkept(type(error).__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


@lru_cache(maxsize=1)
def announce() -> None:
    """Say, once in a process, that the first call takes long, and why."""
    text = (
        "compiling the neurons' loops for this processor, some ten seconds once for each kind of layer; "
        "`fracspike warmup` does it beforehand"
    )
    logger.info(text)
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"fracspike: {text}\n")


@lru_cache(maxsize=1)
def unkept(reason: str) -> None:
    """Say, once in a process, that compiled code is not kept."""
    logger.warning(
        "compiled code cannot be kept on the disk (%s), so every process compiles again; "
        "set NUMBA_CACHE_DIR to a folder that can be written to",
        reason,
    )
