"""What a pass of a network depends on and changes beside its input and its weights."""

from __future__ import annotations

import torch
from torch import nn


class Moment:
    """The random numbers to come and the buffers of a network, as they are now.

    A second pass from the same moment draws the same numbers, and counts no statistics twice.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._generators = [(each, each.get_state()) for each in _generators(model)]
        self._buffers = [
            (part, name, buffer, buffer.detach().clone())
            for part in model.modules()
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]

    def drew(self) -> bool:
        """Return whether random numbers were drawn since."""
        return any(not torch.equal(each.get_state(), state) for each, state in self._generators)

    def restore(self) -> None:
        """Go back to this moment."""
        for generator, state in self._generators:
            generator.set_state(state)
        for part, name, buffer, value in self._buffers:
            buffer.data.copy_(value)  # .data: what a graph has saved of statistics is not used in training
            part._buffers[name] = buffer


def _generators(model: nn.Module) -> list[torch.Generator]:
    """Return torch's own generators, and those that parts of the model hold, as such or in a dictionary."""
    found: list[torch.Generator] = [torch.default_generator]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found += torch.cuda.default_generators
    for part in model.modules():
        held = list(vars(part).values())
        held += [value for each in held if isinstance(each, dict) for value in each.values()]
        found += [value for value in held if isinstance(value, torch.Generator)]
    return list({id(each): each for each in found}.values())
