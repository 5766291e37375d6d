"""What the transforms of ``torch.func`` (vmap, grad, jvp, ...) make of a tensor, and how to look behind it.

Inside a transform a tensor is wrapped: a batch looks like one of its members, and its values cannot be asked
for. Checks and iterations must ask, so they look at the values behind all wrappers, of the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

#: within it tensors are made and computed with as if there were no transform
Outside = torch._C._DisableFuncTorch


def wrapping() -> bool:
    """Return whether a transform is under way."""
    return _functorch.maybe_current_level() is not None


def active() -> bool:
    """Return whether a transform, or forward-mode differentiation, is under way."""
    return wrapping() or forward_ad._current_level >= 0


def values(x: Tensor) -> Tensor:
    """Return the values of ``x`` without wrappers and graph: ``(*)``, or ``(*, batches)`` inside vmap."""
    batches = []
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_batchedtensor(x):
            batches.append(_functorch.maybe_get_bdim(x))
        x = _functorch.get_unwrapped(x)
    with Outside():
        x = x.detach()
        for dim in reversed(batches):  # the innermost first: it counts the dimensions of all others
            x = x.movedim(dim, -1)
        return x


def differentiated(x: Tensor) -> bool:
    """Return whether derivatives in ``x`` may be asked for; inside a transform they always may."""
    return active() or (x.requires_grad and torch.is_grad_enabled())
