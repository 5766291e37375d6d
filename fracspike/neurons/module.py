"""What every neuron is as a torch module, beside its maths: precision, pickling, a size given later."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy
from torch.nn.utils import parametrize

from fracspike.solvers import Memory

from .state import check_current

LAZY = "lazy"
NO_SIZE = "`size` 'lazy' has no shape yet; pass one input through the layer, or load a state_dict, first"
HALVES = (torch.float16, torch.bfloat16)
Simulate = TypeVar("Simulate", bound=Callable[..., Any])


class NeuronModule(nn.Module):
    """Base of all neurons.

    - Parameters stay in float64 through ``.half()``, ``.to(dtype)`` and the like, which move them to
      another device only: kernels are built from them in float64, and 0.7 rounded to bfloat16 is another
      order. What the layer computes in follows its input.
    - A neuron with learnable parameters can be pickled, copied and saved whole.
    - ``size="lazy"`` leaves the shape of learnable parameters to the first input, or the first
      ``load_state_dict``.
    """

    size: tuple[int, ...] | None
    method: str
    reset_memory: str
    dt: float
    memory: Memory
    _memory_text: str  # as it prints, since a compiler cannot
    _later: dict[str, float]  # what lazy parameters will be filled with, unconstrained

    def __init__(self) -> None:
        super().__init__()
        if torch.get_default_device().type == "meta":
            raise ValueError(
                f"{type(self).__name__} must be built on a device that holds values, got 'meta', since its "
                "constants are no weights to be filled in later; build it outside torch.device('meta')"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keeping_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        if recurse:
            for name, child in self.named_children():
                child._apply(keeping_dtype if name == "parametrizations" else fn)  # type: ignore[no-untyped-call]
        super()._apply(keeping_dtype, recurse=False)  # type: ignore[no-untyped-call]
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        # torch makes a class of its own for a module with parametrisations, which pickle cannot find
        if not parametrize.is_parametrized(self):
            return super().__reduce_ex__(protocol)
        state = dict(self.__dict__)
        state["_modules"] = {k: m for k, m in state["_modules"].items() if k != "parametrizations"}
        ranges = {
            name: (part[0], part.original)  # type: ignore[index]
            for name, part in cast(nn.ModuleDict, self.parametrizations).items()
        }
        order = list(self._modules)
        return _rebuild, (parametrize.type_before_parametrizations(self), state, ranges, order)

    def _make_lazy(self, learned: set[str]) -> None:
        """Leave the shape of the learned parameters, scalars so far, open.

        Raises:
            ValueError: if one is no scalar.
        """
        later = self.__dict__.setdefault("_later", {})
        for name in sorted(learned):
            owner, attribute = self._holder(name)
            value = cast(Tensor, getattr(owner, attribute))
            if value.dim():
                raise ValueError(
                    f"`{name}` must be a number if `size` is 'lazy', got shape {tuple(value.shape)}; "
                    "leave out `size`"
                )
            later[name] = float(value.detach())
            empty = UninitializedParameter(dtype=value.dtype, device=value.device)  # type: ignore[call-arg]
            owner.register_parameter(attribute, empty)  # type: ignore[arg-type]

    @property
    def _model(self) -> str:
        return parametrize.type_before_parametrizations(self).__name__

    def _origin(self, constants: Iterable[str]) -> dict[str, float | str | Tensor]:
        """Return what a state remembers of the neuron that made it."""
        made: dict[str, float | str | Tensor] = {
            "model": self._model,
            "method": self.method,
            "reset_memory": self.reset_memory,
            "dt": self.dt,
            "memory": self._memory_text,
        }
        return made | {name: getattr(self, name).detach().clone() for name in constants}

    @property
    def _learned(self) -> set[str]:
        """Names of the learned constants."""
        constrained = self.parametrizations if parametrize.is_parametrized(self) else ()
        return {*self._parameters, *cast(nn.ModuleDict, constrained)}

    def sources(self, *names: str) -> list[Tensor]:
        """Return the tensors that constants follow from: themselves, or what is learned of them."""
        return [cast(Tensor, getattr(owner, name)) for owner, name in map(self._holder, names)]

    def _holder(self, name: str) -> tuple[nn.Module, str]:
        """Return the module that holds the learned parameter ``name``, and what it is called there."""
        if parametrize.is_parametrized(self, name):
            return cast(nn.ModuleDict, self.parametrizations)[name], "original"
        return self, name

    def _give_size(self, shape: tuple[int, ...]) -> None:
        """Give lazy parameters their shape; nothing to do where they have it."""
        later = self.__dict__.get("_later")
        if not later:
            return
        for name, value in later.items():
            owner, attribute = self._holder(name)
            parameter = getattr(owner, attribute)
            if is_lazy(parameter):
                parameter.materialize(shape)
                with torch.no_grad():
                    parameter.fill_(value)
        self._later = {}
        self.size = shape

    def _need_size(self) -> None:
        if self.__dict__.get("_later"):
            raise ValueError(NO_SIZE)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._need_size()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self.__dict__.get("_later", {}):
            path = f"parametrizations.{name}.original" if self._holder(name)[0] is not self else name
            if (saved := state_dict.get(prefix + path)) is not None:
                self._give_size(tuple(saved.shape))
                break
        super()._load_from_state_dict(state_dict, prefix, *args)


def _rebuild(
    cls: type[NeuronModule], state: dict[str, Any], ranges: dict[str, Any], order: list[str]
) -> NeuronModule:
    module = cls.__new__(cls)
    module.__dict__.update(state)
    for name, (range_, original) in ranges.items():
        module.register_parameter(name, nn.Parameter(torch.ones((), dtype=original.dtype)))
        parametrize.register_parametrization(module, name, range_, unsafe=True)
        cast(nn.ModuleDict, module.parametrizations)[name].register_parameter("original", original)
    module._modules = {name: module._modules[name] for name in order}
    return module


def in_single(simulate: Simulate) -> Simulate:
    """Let ``simulate`` compute in float32 where the input is half precision, and outside autocast.

    A sum over a past of hundreds of steps is lost in 8 bits of mantissa. Spikes and potentials come back in
    the dtype of the input; the state stays in float32, to go on from without loss.
    """

    @wraps(simulate)
    def wrapped(self: NeuronModule, current: Any, *args: Any, **kwargs: Any) -> Any:
        check_current(current, None)
        self._give_size(tuple(current.shape[2:]))
        kind = current.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return wrapped(self, current, *args, **kwargs)
        if current.dtype not in HALVES:
            return simulate(self, current, *args, **kwargs)
        run = simulate(self, current.float(), *args, **kwargs)
        return replace(
            run,
            spikes=run.spikes.to(current.dtype),
            voltage=run.voltage.to(current.dtype),
            pre_reset=run.pre_reset.to(current.dtype),
            variables={name: value.to(current.dtype) for name, value in run.variables.items()},
        )

    return cast(Simulate, wrapped)
