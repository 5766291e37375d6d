"""What a surrogate asks of the kernel: the step that decides on a spike, and its derivative afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fracspike.surrogate import NoisyThreshold, Reciprocal, Surrogate

CHUNK = 1 << 18  # elements for which the derivative is evaluated at once: they stay in the cache
QUIET = 1 << 15  # elements from which on torch uses threads of its own
# elements up to which those would disturb: they go on waiting, busily, when the adjoint begins
MEDIUM = 1 << 22


@dataclass(frozen=True)
class Step:
    """How a spike is decided, and how it is differentiated.

    Attributes:
        kind: "at_least", "above" or "soft", see the kernels; "never" spikes at no potential.
        slope: what x is multiplied by before the step.
        noise: as the surrogate drew it, ``(T, B, *)``, or None.
        shift: what is added to ``slope * x`` before the step, None without noise.
        spikes: x and noise to spikes, with their graph.
        derivative: x and noise to the derivative of the spikes in x; None to ask autograd for it.
        trained: whether the surrogate has parameters that want a gradient.
        certain: whether the surrogate is known to step as ``kind`` says; if not, it must be checked.
        form: the numbers of `Reciprocal.form`, what multiplies the derivative, and 1 if a spike is made above
            0 only, else 0; none where a loop may not evaluate it, because there is more to it.
    """

    kind: str
    slope: float
    noise: Tensor | None
    shift: Tensor | None
    spikes: Callable[[Tensor, Tensor | None], Tensor]
    derivative: Callable[[Tensor, Tensor | None], Tensor] | None
    trained: bool
    certain: bool
    form: tuple[float, ...] = ()

    def flat_shift(self, current: Tensor) -> Tensor:
        """Return the shift in the shape of a current ``(T, M)``; ``(0, M)`` if there is none."""
        if self.shift is None:
            return current.new_empty((0, current.shape[1]))
        return self.shift.reshape(current.shape)

    def slopes(
        self, before: Tensor, threshold: Tensor, expected: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Return the derivative on whole sequences, ``(T, *)``, in ``out`` if given (it may be ``before``).

        Raises:
            MismatchError: if the surrogate's spikes are not the ``expected`` ones.
        """
        if torch.compiler.is_compiling():  # the compiler fuses better than chunks would
            return self._slopes(before, threshold, self.noise, expected)
        result = torch.empty_like(before) if out is None else out
        chunk = QUIET - 1 if before.numel() <= MEDIUM else CHUNK
        rows = max(1, chunk // max(1, before[0].numel()))
        for start in range(0, len(before), rows):
            part = slice(start, start + rows)
            noise = None if self.noise is None else self.noise[part]
            result[part] = self._slopes(before[part], threshold, noise, expected[part])
        return result

    def _slopes(self, before: Tensor, threshold: Tensor, noise: Tensor | None, expected: Tensor) -> Tensor:
        x = before - threshold
        if self.derivative is not None:
            return self.derivative(x, noise)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            spikes = self.spikes(x, noise)
            if not self.certain and not torch.equal(spikes.detach(), expected):
                raise MismatchError
            if not spikes.requires_grad:  # a step without any surrogate
                return torch.zeros_like(x)
            found: Tensor | None = torch.autograd.grad(spikes.sum(), x, allow_unused=True)[0]
        return torch.zeros_like(x) if found is None else found

    def check(self, before: Tensor, threshold: Tensor, expected: Tensor) -> None:
        """Raise MismatchError unless the surrogate gives the ``expected`` spikes."""
        if not self.certain:
            with torch.no_grad():
                if not torch.equal(self.spikes(before - threshold, self.noise), expected):
                    raise MismatchError


class MismatchError(Exception):
    """The surrogate does not step as the kernel did."""

    def __str__(self) -> str:
        return NO_STEP


NO_STEP = "its surrogate is no step of the sign of its argument"


def obstacle(surrogate: nn.Module, current: Tensor) -> str | None:
    """Return why the kernel cannot step for a surrogate, in words; None if it can."""
    return None if known(surrogate) or _probe(surrogate, current) else NO_STEP


def known(surrogate: nn.Module) -> bool:
    """Return whether a surrogate is one of ours, with its forward unchanged."""
    return isinstance(surrogate, Surrogate) and type(surrogate).forward in (
        Surrogate.forward,
        NoisyThreshold.forward,
    )


def plan(surrogate: nn.Module, current: Tensor) -> Step:
    """Return how the kernel shall step for a surrogate.

    Noise is drawn here, for all steps at once: the same numbers in the same order as step by step.
    """
    trained = any(p.requires_grad for p in surrogate.parameters())
    if isinstance(surrogate, NoisyThreshold) and surrogate.training:
        return _noisy(surrogate, current, trained)
    if isinstance(surrogate, Surrogate) and known(surrogate):
        return Step(
            kind="above" if surrogate.strict else "at_least",
            slope=1.0,
            noise=None,
            shift=None,
            spikes=lambda x, noise: surrogate(x),
            derivative=lambda x, noise: surrogate.derivative(x),
            trained=trained,
            certain=True,
            form=() if trained else _form(surrogate),
        )
    return Step(
        kind=_probe(surrogate, current) or "at_least",
        slope=1.0,
        noise=None,
        shift=None,
        spikes=lambda x, noise: surrogate(x),
        derivative=None,
        trained=trained,
        certain=False,
    )


def _form(surrogate: Surrogate) -> tuple[float, ...]:
    kind = type(surrogate)
    if isinstance(surrogate, Reciprocal) and (kind.g, kind.derivative) == (
        Reciprocal.g,
        Surrogate.derivative,
    ):
        return *surrogate.form(), surrogate.factor(), float(surrogate.strict)
    return ()


def _noisy(surrogate: NoisyThreshold, current: Tensor, trained: bool) -> Step:
    noise = surrogate.draw(current)
    hard, concrete = surrogate.hard, surrogate.mode == "concrete"
    with torch.no_grad():
        temperature = float(surrogate.temperature) if concrete else 1.0
        slope = float(surrogate.scale) / temperature
    return Step(
        kind=("above" if surrogate.strict else "at_least") if hard else "soft",
        slope=slope,
        noise=noise,
        shift=noise / temperature if concrete and noise is not None else noise,
        spikes=surrogate.given,
        derivative=None,
        trained=trained,
        certain=True,
    )


def _probe(surrogate: nn.Module, current: Tensor) -> str | None:
    """Return which step a callable makes on a few numbers, None if it makes none."""
    x = current.new_zeros((5, *current.shape[1:]))
    x += current.new_tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0]).reshape(-1, *([1] * (current.dim() - 1)))
    try:
        with torch.no_grad():
            spikes = surrogate(x)
    except Exception:  # whatever it is, the loop over time will meet it and say so
        return None
    for kind, expected in (("at_least", x >= 0), ("above", x > 0), ("never", torch.zeros_like(x))):
        if (
            isinstance(spikes, Tensor)
            and spikes.shape == x.shape
            and torch.equal(spikes, expected.to(x.dtype))
        ):
            return kind
    return None
