"""Neuron parameters: scalar or per neuron, fixed or learnable, always inside their range."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fracspike.solvers import checks


class UnitInterval(nn.Module):
    r"""Maps the real line onto (0, 1) by :math:`\sigma(p)`, for the Caputo order."""

    def forward(self, p: Tensor) -> Tensor:
        """Return the constrained value."""
        return torch.sigmoid(p)

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the unconstrained value that gives ``value``."""
        return torch.logit(value)


class Above(nn.Module):
    r"""Maps the real line onto :math:`(\text{floor}, \infty)` by :math:`\text{floor} + e^p`."""

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, p: Tensor) -> Tensor:
        """Return the constrained value."""
        return self.floor + torch.exp(p)

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the unconstrained value that gives ``value``."""
        return torch.log(value - self.floor)


def expand(name: str, value: float | Tensor, size: tuple[int, ...] | None) -> Tensor:
    """Return ``value`` as a float64 tensor, a scalar or of shape ``size``.

    Float64, whatever the layer computes in: kernels are built from these numbers in float64,
    and 0.7 stored in float32 would be another order.
    """
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    if size is None or tensor.shape == size:
        return tensor
    if tensor.dim() > 0:
        raise ValueError(
            f"`{name}` must be a number or have shape {size} (`size`), got {tuple(tensor.shape)}"
        )
    return tensor.expand(size).clone()


def register(module: nn.Module, name: str, value: Tensor, range_: nn.Module | None, learnable: bool) -> None:
    """Register ``value`` on ``module``: a buffer, or a parameter kept inside ``range_``."""
    if not learnable:
        module.register_buffer(name, value)
        return
    if isinstance(range_, UnitInterval) and bool((value >= 1).any()):
        raise ValueError(
            f"a learnable `{name}` must start inside (0, 1), got 1; start at 0.99, or keep it fixed"
        )
    module.register_parameter(name, nn.Parameter(value))
    if range_ is not None:
        parametrize.register_parametrization(module, name, range_)


def size_tuple(size: object) -> tuple[int, ...] | None:
    """Return ``size`` as a tuple of whole numbers; None stays None."""
    if size is None:
        return None
    dims = size if isinstance(size, tuple | list | torch.Size) else (size,)
    return tuple(checks.positive_int("size", n) for n in dims)
