"""Finding a surrogate by name: our own names, those of other libraries, and anything `surrogate=` accepts."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from fracspike.solvers.checks import real

from .base import Surrogate

Family = TypeVar("Family", bound=type[Surrogate])

_families: dict[str, type[Surrogate]] = {}
_peers: dict[str, Peer] = {}
_by_key: dict[str, str] = {}  # spelling without case and punctuation -> registered name


@dataclass(frozen=True)
class Peer:
    """Another library's surrogate: our family, and our parameters from theirs (whose defaults it carries)."""

    family: type[Surrogate]
    translate: Callable[..., dict[str, Any]]
    strict: bool

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the peer's own parameters, by name, with its defaults."""
        return dict(inspect.signature(self.translate).parameters)

    def build(self, name: str, given: dict[str, Any]) -> Surrogate:
        """Return our surrogate for the peer's parameters; our options (``normalize``, ...) pass through."""
        theirs, options = self.parameters(), self.family._options
        for key in given:
            if key not in theirs and key not in options:
                accepted = [*theirs, *options]
                near = difflib.get_close_matches(key, accepted, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{name!r} has no parameter {key!r}; it accepts {', '.join(accepted)}{hint}")
        own = {key: value for key, value in given.items() if key in theirs}
        for key, value in own.items():
            if not isinstance(theirs[key].default, bool | str):
                real(key, value)
        passed_on = {key: value for key, value in given.items() if key not in theirs}
        try:
            return self.family(**{"strict": self.strict, **self.translate(**own), **passed_on})
        except ZeroDivisionError:
            raise ValueError(f"the parameters of {name!r} must be > 0, got {own}") from None
        except ValueError as error:
            # The check speaks of our parameters; say which of theirs it was.
            raise ValueError(f"{error} (from {name!r} with {own})" if own else str(error)) from None


def _key(name: str) -> str:
    library, dot, rest = name.rpartition(".")
    rest = re.sub(r"[^a-z0-9]", "", rest.lower()).removesuffix("surrogate")
    return re.sub(r"[^a-z0-9]", "", library.lower()) + dot + rest


def _claim(name: str) -> None:
    taken = _by_key.get(_key(name))
    if taken is not None:
        raise ValueError(f"the surrogate name {name!r} is taken by {taken!r}; register under another name")
    _by_key[_key(name)] = name


@overload
def register(family: Family) -> Family: ...
@overload
def register(family: str | None = None) -> Callable[[Family], Family]: ...
def register(family: Any = None) -> Any:
    """Make a `Surrogate` subclass known by name: ``@register`` or ``@register("name")``.

    Args:
        family: the class, or its name; by default the class name in snake case.

    Returns:
        The class (or a decorator), so that it can be used as one.

    Raises:
        TypeError: if the class is no `Surrogate`, or defines neither ``g`` nor ``G``.
        ValueError: if the name is taken.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import Surrogate, get, register
        >>> @register
        ... class Laplace(Surrogate):
        ...     width: float = 1.0
        ...     def g(self, x):
        ...         return torch.exp(-x.abs() / self.width)
        >>> get("laplace", width=2.0)
        Laplace(width=2.0)
    """
    if family is None or isinstance(family, str):
        return lambda cls: _register(cls, family)
    return _register(family, None)


def _register(cls: Any, name: str | None) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, Surrogate)):
        raise TypeError(f"`register` takes a subclass of Surrogate, got {cls!r}")
    if cls.g is Surrogate.g and cls.G is Surrogate.G:
        raise TypeError(f"{cls.__name__} must define g(self, x), the derivative, or G(self, x)")
    chosen = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    _claim(chosen)
    cls.name = chosen
    _families[chosen] = cls
    return cls


def register_peer(
    name: str, family: type[Surrogate], translate: Callable[..., dict[str, Any]], *, strict: bool
) -> None:
    """Make another library's name known: ``translate`` has its parameters and returns those of ``family``."""
    _claim(name)
    _peers[name] = Peer(family, translate, strict)


def names() -> list[str]:
    """Return the canonical names, sorted.

    Example:
        >>> from fracspike.surrogate import names
        >>> "atan" in names()
        True
    """
    return sorted(_families)


def aliases() -> dict[str, str]:
    """Return other libraries' names, each with the canonical name of its family.

    Example:
        >>> from fracspike.surrogate import aliases
        >>> aliases()["norse.super"]
        'fast_sigmoid'
    """
    return {name: _peers[name].family.name for name in sorted(_peers)}


def peer_parameters(name: str) -> list[str]:
    """Return the names of the parameters of another library's surrogate, such as ``"snntorch.atan"``.

    Example:
        >>> from fracspike.surrogate.registry import peer_parameters
        >>> peer_parameters("snntorch.atan")
        ['alpha']
    """
    return list(_peers[_lookup(name)].parameters())


def family_of(name: str) -> type[Surrogate]:
    """Return the class registered under a canonical name."""
    return _families[_lookup(name)]


def _lookup(name: str) -> str:
    found = _by_key.get(_key(name))
    if found is not None:
        return found
    near = difflib.get_close_matches(_key(name), _by_key, n=1, cutoff=0.5)
    hint = f", did you mean {_by_key[near[0]]!r}?" if near else ""
    library = name.partition(".")[0] + "."
    theirs = [peer for peer in sorted(_peers) if _key(peer).startswith(_key(library + "x")[:-1])]
    known = theirs if "." in name and theirs else names()
    raise ValueError(
        f"`surrogate` must be one of {', '.join(known)}"
        + ("" if known is theirs else " (other libraries' names: fracspike.surrogate.aliases())")
        + f"; got {name!r}{hint}"
    )


def get(name: str, **parameters: Any) -> Surrogate:
    """Build a surrogate by name.

    Args:
        name: a canonical name (see `names`), or another library's as "library.name" (see `aliases`), with
            that library's parameter names, defaults, amplitude and value at 0.  Case, underscores and a
            trailing "_surrogate" do not matter.  Parameters may follow: "atan:alpha=2,normalize=peak".
        **parameters: the family's (or that library's) parameters, and the options of `Surrogate`.

    Returns:
        The surrogate, an ``nn.Module``.

    Raises:
        ValueError: for an unknown name, with the known ones and the nearest, or a value out of range.
        TypeError: for an unknown parameter, with those accepted.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import get
        >>> get("atan", alpha=3.0)
        ATan(alpha=3.0)
        >>> get("snntorch.atan")
        ATan(alpha=2.0, strict=True)
        >>> get("fast_sigmoid:slope=10")
        FastSigmoid(slope=10.0)
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string, got {type(name).__name__}; `resolve` takes modules")
    bare, colon, tail = name.partition(":")
    found = _lookup(bare)
    in_name = _parse(name, tail) if colon else {}
    for key in in_name.keys() & parameters.keys():
        raise TypeError(f"`{key}` is given twice, in {name!r} and by keyword")
    given = {**in_name, **parameters}
    return _peers[found].build(found, given) if found in _peers else _families[found](**given)


def _parse(spec: str, tail: str) -> dict[str, Any]:
    """Read "param=value,param2=value" into a dictionary."""
    given: dict[str, Any] = {}
    for pair in tail.split(","):
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not (key.isidentifier() and equals and text):
            raise ValueError(f"cannot read {pair!r} in {spec!r}; write name:param=value,param=value")
        if key in given:
            raise ValueError(f"`{key}` is given twice in {spec!r}")
        try:
            given[key] = {"true": True, "false": False}.get(text.lower(), ast.literal_eval(text.capitalize()))
        except (ValueError, SyntaxError):
            given[key] = text
    return given


class Wrapped(nn.Module):
    """A plain callable ``x -> spikes`` as a module, with its result checked."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return ``function(x)``.

        Raises:
            TypeError: if it is no tensor.
            ValueError: if its shape is not that of ``x``.
        """
        spikes = self.function(x)
        if not isinstance(spikes, Tensor):
            raise TypeError(
                f"`surrogate` must map a tensor to spikes, but {self.function!r} returned "
                f"{type(spikes).__name__}; a factory must be called first, as in surrogate=atan()"
            )
        if spikes.shape != x.shape:
            raise ValueError(
                f"`surrogate` must keep the shape {tuple(x.shape)}, but {self.function!r} "
                f"returned {tuple(spikes.shape)}"
            )
        return spikes

    def extra_repr(self) -> str:
        """Name the function."""
        return getattr(self.function, "__qualname__", repr(self.function))


def resolve(spec: object) -> nn.Module:
    """Turn whatever `surrogate=` accepts into a module that maps x to spikes.

    Args:
        spec: a name for `get`, a `Surrogate` (or other module) class or instance, an autograd Function that
            takes x alone, or any callable from x to spikes, such as a snnTorch closure.

    Returns:
        The module itself where one is given, so that it can be shared; a plain callable comes wrapped.

    Raises:
        TypeError: for anything else, saying what is accepted.
        ValueError: for an unknown name.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import resolve
        >>> resolve("atan:alpha=3")
        ATan(alpha=3.0)
        >>> resolve(lambda x: (x > 0).to(x.dtype))(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    if isinstance(spec, str):
        return get(spec)
    if isinstance(spec, nn.Module):
        return spec
    if isinstance(spec, type):
        if issubclass(spec, torch.autograd.Function):
            return Wrapped(spec.apply)
        if issubclass(spec, nn.Module):
            try:
                return spec()
            except TypeError as error:
                raise TypeError(
                    f"`surrogate` was given the class {spec.__name__}, which needs arguments "
                    f"({error}); pass an instance"
                ) from None
    elif callable(spec):
        return Wrapped(spec)
    raise TypeError(
        "`surrogate` must be a name such as 'atan' or 'atan:alpha=2', a Surrogate class or instance, "
        f"an nn.Module, an autograd Function, or a callable x -> spikes; got {spec!r}"
    )
