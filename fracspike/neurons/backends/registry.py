"""Which backends there are; a new one is a module with a `Backend` and a line here.

None of these modules imports what it runs on (Numba, Triton) before its first sequence.
"""

from __future__ import annotations

from . import numba, on_gpu, torch_loop
from .base import Backend

BACKENDS: dict[str, Backend] = {
    "native": numba.BACKEND,
    "torch": torch_loop.BACKEND,
    "triton": on_gpu.BACKEND,
}


def find(name: str) -> Backend:
    """Return a backend."""
    return BACKENDS[name]
