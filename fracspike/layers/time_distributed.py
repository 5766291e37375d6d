"""Stateless layers on sequences: time is folded into the batch."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # torch names no public base class

from fracspike.neurons import FractionalLIF, FractionalNeuron

#: layers that carry something from one step to the next, or read the time axis themselves
STATEFUL = (nn.RNNBase, nn.RNNCellBase, FractionalLIF, FractionalNeuron)


class TimeDistributed(nn.Module):
    r"""Applies stateless layers to each step of a sequence at once: ``(T, B, *) -> (T, B, *)``.

    .. math:: y_n = f(x_n), \quad n = 0, \dots, T - 1

    Time is folded into the batch, ``(T, B, *) -> (T B, *)``, and unfolded again, so that a whole sequence
    is one call of the layer. Layers that mix the batch see all steps together: batch normalisation takes
    its statistics over time as well.

    Args:
        *modules: stateless layers, applied in order: linear, convolution, normalisation, pooling, dropout.

    Raises:
        TypeError: if there is none, or one is not a module, or one has a state in time.

    >>> import torch
    >>> conv = TimeDistributed(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2))
    >>> conv(torch.zeros(10, 2, 1, 8, 8)).shape
    torch.Size([10, 2, 4, 3, 3])
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        if not modules:
            raise TypeError("TimeDistributed needs at least one module, such as nn.Conv2d(1, 8, 3); got none")
        for module in modules:
            _check_stateless(module)
        self.module = modules[0] if len(modules) == 1 else nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layers' output for every step.

        Args:
            x: ``(T, B, *)``.

        Raises:
            ValueError: if ``x`` has no time or batch dimension, or the layers do not keep the batch.
        """
        dims = self._dims()
        if x.dim() < 2 or (dims is not None and x.dim() != dims):
            wanted = "(T, B, *)" if dims is None else f"(T, B, *), {dims} dimensions"
            raise ValueError(
                f"`x` must have shape {wanted}, got {tuple(x.shape)}; a single step is x.unsqueeze(0)"
            )
        steps, batch = x.shape[:2]
        y = cast(Tensor, self.module(x.flatten(0, 1)))
        if not isinstance(y, Tensor) or y.dim() == 0 or len(y) != steps * batch:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"the layers must keep the batch of {steps} x {batch} = {steps * batch} entries, got {got} "
                f"from {self.module.__class__.__name__}"
            )
        return y.reshape(steps, batch, *y.shape[1:])

    def _dims(self) -> int | None:
        """Return how many dimensions the input must have, where a convolution comes first and says so."""
        first = self.module[0] if isinstance(self.module, nn.Sequential) else self.module
        return len(first.kernel_size) + 3 if isinstance(first, _ConvNd) else None


def _check_stateless(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"TimeDistributed takes modules, got {module!r}; wrap a function in a module")
    for name, part in module.named_modules():
        keeps = isinstance(part, STATEFUL) or _peer_state(part)
        if keeps:
            where = f" (in `{name}`)" if name else ""
            raise TypeError(
                f"TimeDistributed takes stateless layers, got {type(part).__name__}{where}, which has a "
                "state in time; give it the sequence itself, outside TimeDistributed"
            )


def _peer_state(module: nn.Module) -> bool:
    """Whether a module is another library's stateful layer, known by where its class comes from."""
    return any(
        cls.__module__.startswith("snntorch._neurons")
        or (cls.__module__.startswith("spikingjelly.") and cls.__name__ == "MemoryModule")
        for cls in type(module).__mro__
    )
