"""A fractional layer as part of a coupled system: its right-hand side, and the system in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor
from torch.nn.utils import parametrize

from fracspike.neurons import FractionalIF, FractionalLI, FractionalLIF
from fracspike.neurons.reset import RESETS

KINDS = (FractionalLIF, FractionalIF, FractionalLI)


def rate_of(
    layer: FractionalLIF, v: Tensor, current: Tensor, lookahead: float, spike: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return :math:`D^\alpha v` of a layer and its spikes, the reset a negative input.

    The spikes are decided here, unless they are given.
    """
    rate = (layer.tau**-layer.alpha).to(v.dtype)
    drive = layer.resistance.to(v.dtype) * current
    if not isinstance(layer, FractionalIF):
        drive = drive + layer.v_rest.to(v.dtype) - v
    flow = rate * drive
    if isinstance(layer, FractionalLI):
        return flow, v
    charged = v + lookahead * flow
    if spike is None:
        spike = layer.surrogate(charged - layer.threshold.to(v.dtype))
    fed_back = spike.detach() if layer.detach_reset else spike
    return flow + rate * (RESETS[layer.reset](charged, fed_back, layer) - charged), spike


@contextmanager
def in_place(layers: dict[str, FractionalLIF], cell: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let ``cell(name, current)`` stand in for the layers, for as long as the context lasts."""
    for name, layer in layers.items():
        if "forward" in vars(layer):
            raise ValueError(
                f"`{name}` has a `forward` of its own, as within record(), which a system does not call; "
                "take spikes and potentials from the Solution, outside record()"
            )
    for name, layer in layers.items():
        layer.forward = partial(cell, name)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


def check_layer(name: str, layer: FractionalLIF) -> None:
    """Refuse a layer that has what no system can have."""
    kind = parametrize.type_before_parametrizations(layer)
    if kind not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise TypeError(f"a system takes layers of {known}, got {kind.__name__} in `{name}`")
    if layer.terms > 1:
        raise ValueError(f"a system takes layers of one order, got {layer.terms} in `{name}`")
    if layer.refractory > 0:
        raise ValueError(f"a system has no refractory periods, got {layer.refractory:g} in `{name}`; pass 0")
