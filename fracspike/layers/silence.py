"""Layers that never spike: what follows them learns nothing from the data, and nothing else says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.neurons import FractionalLI, FractionalLIF, FractionalNeuron, Simulation

Neuron = FractionalLIF | FractionalNeuron
CONSTANTS = ("resistance", "threshold")


class Silence:
    """Looks for layers that were used and never spiked.

    Args:
        model: its spiking layers are looked at, under their names in ``named_modules()``.

    >>> net = nn.Sequential(nn.Linear(3, 4), FractionalLIF(threshold=9.0))
    >>> silence = Silence(net)
    >>> with silence.watching():
    ...     out = net(torch.ones(10, 2, 3))
    >>> silence.layers()
    ['1']
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, Neuron) and not isinstance(layer, FractionalLI)
        }
        self._spiked: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every call of the layers and of their ``simulate`` meanwhile; changes no result."""
        hooks = [layer.register_forward_hook(self._called(name)) for name, layer in self._layers.items()]
        free = {name: layer for name, layer in self._layers.items() if "simulate" not in vars(layer)}
        for name, layer in free.items():
            layer.simulate = self._simulating(name, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer in free.values():
                del layer.simulate

    def _called(self, name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            self.note(name, given[0] if given else None, made)

        return hook

    def _simulating(self, name: str, layer: Neuron) -> Any:
        simulate = layer.simulate

        def simulating(current: Tensor, *args: Any, **kwargs: Any) -> Simulation:
            run = simulate(current, *args, **kwargs)
            self.note(name, current, run.spikes)
            return run

        return simulating

    @torch.no_grad()
    def note(self, name: str, current: Any, spikes: Any) -> None:
        """Take one pass of a layer into account.

        Args:
            name: of the layer; one that never spikes by its nature is passed over.
            current: its input.
            spikes: its output.
        """
        if name not in self._layers or not isinstance(spikes, Tensor) or not spikes.numel():
            return
        if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
            return  # a graph, or a transform of torch.func, cannot look at values
        self._spiked[name] = _either(self._spiked.get(name), (spikes != 0).any())
        if isinstance(current, Tensor):
            size = current.detach().abs().max()
            self._largest[name] = torch.maximum(self._largest.get(name, size), size)

    def flags(self) -> Tensor:
        """Return for each spiking layer whether it was used and spiked: ``(layers, 2)``, 0 or 1."""
        used = [[float(name in self._spiked), float(self._spiked.get(name, False))] for name in self._layers]
        return torch.tensor(used).reshape(-1, 2)

    def layers(self, flags: Tensor | None = None) -> list[str]:
        """Return the names of the layers that were used and never spiked.

        Args:
            flags: the sum of the flags of several processes; by default those of this one.
        """
        flags = self.flags() if flags is None else flags
        return [
            n for n, (used, spiked) in zip(self._layers, flags.tolist(), strict=True) if used and not spiked
        ]

    def warn(self, names: list[str], when: str, *, stacklevel: int = 2) -> None:
        """Warn of silent layers, once for all of them, with what to change; say nothing if there are none.

        Args:
            names: of the silent layers.
            when: where they were looked at, such as ``"in the first 8 batches"``.
            stacklevel: as in ``warnings.warn``, of the caller.
        """
        if names:
            which = ", ".join(self._about(name) for name in names)
            warnings.warn(
                f"{'this layer' if len(names) == 1 else 'these layers'} never spiked {when}: {which}; what "
                f"comes after a silent layer learns nothing from the data: {self._remedy(names)}",
                stacklevel=stacklevel + 1,
            )

    def _remedy(self, names: list[str]) -> str:
        has = {c for c in CONSTANTS for name in names if hasattr(self._layers[name], c)}
        resistance = "its `resistance` or " if "resistance" in has else ""
        threshold = ", or lower its `threshold`" if "threshold" in has else ""
        return f"raise {resistance}the scale of its input (of the weights before it){threshold}"

    def _about(self, name: str) -> str:
        layer = self._layers[name]
        facts = {c: getattr(layer, c) for c in CONSTANTS if isinstance(getattr(layer, c, None), Tensor)}
        if name in self._largest:
            facts["largest input"] = self._largest[name]
        return f"{name or 'the model itself'} ({', '.join([_kind(layer), *_texts(facts)])})"


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__.removeprefix("Parametrized")  # so torch calls what learns a constant


def _texts(facts: Mapping[str, Tensor]) -> list[str]:
    made = []
    for name, value in facts.items():
        low, high = float(value.detach().min()), float(value.detach().max())
        made.append(f"{name} {low:.3g}" if low == high else f"{name} {low:.3g} to {high:.3g}")
    return made


def _either(before: Tensor | None, now: Tensor) -> Tensor:
    return now if before is None else before.to(now.device) | now
