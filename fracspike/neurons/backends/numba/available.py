"""Whether anything can be compiled here, and the first call's way to say that it cannot."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import lru_cache

import torch

#: what the first call outside a compiler found out
_found: dict[str, str | None] = {"reason": None}


def missing() -> str | None:
    """Return why nothing can be compiled in this process, in words; None if it can.

    Where that is not for want of Numba, a warning says so once. A graph of `torch.compile` cannot try it, and
    takes what an earlier call has found, or that nothing is missing.
    """
    if torch.compiler.is_compiling():
        return _found["reason"]
    return _missing()


@lru_cache(maxsize=1)
def _missing() -> str | None:
    reason = _obstacle()
    if reason is not None:
        _found["reason"] = reason
    return reason


def _obstacle() -> str | None:
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed"
    reason = None
    try:
        if importlib.import_module("numba").config.DISABLE_JIT:
            reason = "NUMBA_DISABLE_JIT is set, which switches Numba's compiler off"
        for name in ("blocked", "general"):
            importlib.import_module(f".{name}", __package__)
    except Exception as error:  # a Numba that does not fit NumPy, or this processor
        reason = reason or f"Numba cannot be used here ({type(error).__name__}: {error})"
    if reason is not None:
        warnings.warn(
            f"neurons run in the slower loop in torch, because {reason}", RuntimeWarning, stacklevel=3
        )
    return reason
