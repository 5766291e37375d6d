"""The spike itself: a Heaviside step forward, a chosen derivative backward, as autograd Functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def heaviside(x: Tensor, strict: bool = False) -> Tensor:
    """Heaviside step in the dtype of ``x``: 1 where x >= 0 (x > 0 if strict), else 0; NaN stays NaN.

    Args:
        x: membrane potential minus threshold, any floating dtype and shape.
        strict: whether ``x == 0`` gives 0 (snnTorch, Norse) instead of 1.

    Returns:
        A tensor of zeros and ones, shaped like ``x``.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import heaviside
        >>> heaviside(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0., 1., 1.])
    """
    # Rounding a clamped value takes no Boolean tensor and no cast, and unlike a comparison keeps NaN.
    if strict:
        return x.clamp(0.0, 1.0).ceil_()
    return x.clamp(-1.0, 0.0).floor_().add_(1.0)


class CompiledSpikeFunction(torch.autograd.Function):
    """`SpikeFunction` without forward-mode differentiation, which torch.compile cannot trace."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, derivative: Callable[[Tensor], Tensor], strict: bool = False) -> Tensor:
        """Return ``heaviside(x, strict)``."""
        return heaviside(x, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep ``x``, the only tensor that the backward pass needs."""
        x, ctx.derivative = inputs[:2]
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """Return the incoming gradient times ``derivative(x)``."""
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.derivative(x), None, None


class SpikeFunction(CompiledSpikeFunction):
    """Heaviside step whose derivative is a given function: ``SpikeFunction.apply(x, derivative, strict)``.

    Forward returns ``heaviside(x, strict)``; backward multiplies by ``derivative(x)``.  As ``derivative``
    is made of differentiable operations, second derivatives are those of the surrogate.  Saves ``x`` only.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import SpikeFunction
        >>> x = torch.tensor([-0.5, 0.5], requires_grad=True)
        >>> SpikeFunction.apply(x, lambda x: torch.exp(-x.abs()), False).sum().backward()
        >>> x.grad
        tensor([0.6065, 0.6065])
    """

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Tensor:
        """Return the tangent of ``x`` times ``derivative(x)``."""
        (x,) = ctx.saved_tensors
        tangent: Tensor = grad_inputs[0] * ctx.derivative(x)
        return tangent


class CompiledSmoothSpikeFunction(torch.autograd.Function):
    """`SmoothSpikeFunction` without forward-mode differentiation, which torch.compile cannot trace."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spike: Tensor, smooth: Tensor) -> Tensor:
        """Return ``spike``."""
        return spike.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: the graph of ``smooth`` holds what its own backward pass needs."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        """Hand the gradient to ``smooth``."""
        return None, grad_outputs[0]


class SmoothSpikeFunction(CompiledSmoothSpikeFunction):
    """Value of one tensor, gradient of another: ``SmoothSpikeFunction.apply(spike, smooth)``.

    Forward returns ``spike`` exactly; every derivative is that of ``smooth``, with respect to whatever
    ``smooth`` was computed from.  The two must have one shape.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import SmoothSpikeFunction, heaviside
        >>> x = torch.tensor([-0.5, 0.5], requires_grad=True)
        >>> s = SmoothSpikeFunction.apply(heaviside(x), torch.sigmoid(x))
        >>> s.sum().backward()
        >>> s.tolist(), x.grad
        ([0.0, 1.0], tensor([0.2350, 0.2350]))
    """

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Tensor:
        """Return the tangent of ``smooth``."""
        tangent: Tensor = grad_inputs[1].clone()
        return tangent


# torch looks up the signature of forward in every call; building it anew would take half of a small call.
for _function in (CompiledSpikeFunction, CompiledSmoothSpikeFunction):
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[union-attr]


def spike(x: Tensor, derivative: Callable[[Tensor], Tensor], strict: bool = False) -> Tensor:
    """Apply `SpikeFunction`, or its traceable twin under torch.compile."""
    function = CompiledSpikeFunction if torch.compiler.is_compiling() else SpikeFunction
    result: Tensor = function.apply(x, derivative, strict)  # type: ignore[no-untyped-call]
    return result


def smooth_spike(value: Tensor, smooth: Tensor) -> Tensor:
    """Apply `SmoothSpikeFunction`, or its traceable twin under torch.compile."""
    function = CompiledSmoothSpikeFunction if torch.compiler.is_compiling() else SmoothSpikeFunction
    result: Tensor = function.apply(value, smooth)  # type: ignore[no-untyped-call]
    return result
