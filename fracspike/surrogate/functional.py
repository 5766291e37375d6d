"""Every surrogate as a function: ``functional.atan(x, alpha=2.0)`` is ``ATan(alpha=2.0)(x)``.

One function per registered name, made on first use, so that a surrogate registered later has one too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from .noisy import noisy_threshold
from .registry import family_of, names

__all__ = ["noisy_threshold"]


def __getattr__(name: str) -> Callable[..., Tensor]:
    if name not in names():
        raise AttributeError(f"no surrogate {name!r}; known are {', '.join(names())}")
    family = family_of(name)

    def function(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        spikes: Tensor = family(*args, **kwargs)(x)
        return spikes

    signature = inspect.signature(family)
    first = inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])  # type: ignore[attr-defined]
    about = (inspect.getdoc(family) or "").partition("Example:")[0]
    function.__doc__ = f"Return ``{family.__name__}(...)(x)``, the spikes of this surrogate.\n\n{about}"
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *names()})
