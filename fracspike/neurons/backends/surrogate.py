"""What a surrogate asks of a backend: the step that decides on a spike, and its derivative afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fracspike.surrogate import NoisyThreshold, Reciprocal, Surrogate

from ..problem import Made, Moved, Step

CHUNK = 1 << 18  # elements for which the derivative is evaluated at once: they stay in the cache
QUIET = 1 << 15  # elements from which on torch uses threads of its own
# elements up to which those would disturb: they go on waiting, busily, when the adjoint begins
MEDIUM = 1 << 22
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
REPLACEABLE = ("forward", "derivative", "primitive", "g", "G", "form", "factor", "draw", "given")
NO_STEP = "its surrogate is no step of the sign of its argument"


class MismatchError(Exception):
    """The surrogate does not step as the backend did."""

    def __str__(self) -> str:
        return NO_STEP


# -- before a sequence is run -------------------------------------------------------------------------------


#: of a layer that has no spikes
NEVER = Step(
    "never", 1.0, None, None, lambda x, _: torch.zeros_like(x), lambda x, _: torch.zeros_like(x), False, True
)


def obstacle(surrogate: nn.Module, current: Tensor) -> str | None:
    """Return why no backend but the loop in torch can step for a surrogate; None if they can."""
    if known(surrogate):
        return None
    if any(getattr(surrogate, hooks) for hooks in HOOKS):
        return "the surrogate has hooks, which are called step by step"
    if torch.compiler.is_compiling():
        return "a surrogate that is not one of fracspike's is traced step by step"
    return None if _probe(surrogate, current) else NO_STEP


def known(surrogate: nn.Module) -> bool:
    """Return whether a surrogate is one of ours, with nothing of it replaced and no hooks."""
    return (
        isinstance(surrogate, Surrogate)
        and type(surrogate).forward in (Surrogate.forward, NoisyThreshold.forward)
        and not any(getattr(surrogate, hooks) for hooks in HOOKS)
        and not any(name in vars(surrogate) for name in REPLACEABLE)
    )


def plan(surrogate: nn.Module, current: Tensor) -> Step:
    """Return how a backend shall step for a surrogate.

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
        return *surrogate.form(), surrogate.factor()
    return ()


def _noisy(surrogate: NoisyThreshold, current: Tensor, trained: bool) -> Step:
    noise = surrogate.draw(current)
    hard, concrete = surrogate.hard, surrogate.mode == "concrete"
    temperature = surrogate.temperature if concrete else 1.0
    slope: Any = surrogate.scale / temperature
    if isinstance(slope, Tensor):
        slope = slope.detach()
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


# -- afterwards ---------------------------------------------------------------------------------------------


def slopes(step: Step, made: Made, moved: Moved) -> Tensor:
    """Return the derivative of the step on whole sequences, ``(T, *shape)``.

    Raises:
        MismatchError: if the surrogate's spikes are not those that were made.
    """
    over, level = _over(made, moved)
    if torch.compiler.is_compiling():  # the compiler fuses better than chunks would
        return _slopes(step, over, level, step.noise, made.spikes)
    result = torch.empty_like(over)
    chunk = QUIET - 1 if over.numel() <= MEDIUM else CHUNK
    rows = max(1, chunk // max(1, over[0].numel()))
    for start in range(0, len(over), rows):
        part = slice(start, start + rows)
        noise = None if step.noise is None else step.noise[part]
        result[part] = _slopes(step, over[part], level, noise, made.spikes[part])
    return result


def _over(made: Made, moved: Moved) -> tuple[Tensor, Tensor | None]:
    """Return a sequence of potentials, and the threshold that lies below them if that is still to go off."""
    if moved.tires:
        return made.over, None
    return made.before, moved.threshold.to(made.before.dtype)


def _slopes(step: Step, over: Tensor, level: Tensor | None, noise: Tensor | None, expected: Tensor) -> Tensor:
    x = over if level is None else over - level
    if step.derivative is not None:
        return step.derivative(x, noise)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        spikes = step.spikes(x, noise)
        if not step.certain and not torch.equal(spikes.detach(), expected):
            raise MismatchError
        if not spikes.requires_grad:  # a step without any surrogate
            return torch.zeros_like(x)
        found: Tensor | None = torch.autograd.grad(spikes.sum(), x, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found


def smooth(step: Step, made: Made, moved: Moved) -> Tensor:
    """Return the spikes with their graph in the surrogate's own parameters alone."""
    over, level = _over(made, moved)
    return step.spikes(over if level is None else over - level, step.noise)


def check(step: Step, made: Made, moved: Moved) -> None:
    """Raise MismatchError unless the surrogate gives the spikes that were made."""
    if not step.certain:
        with torch.no_grad():
            over, level = _over(made, moved)
            if not torch.equal(step.spikes(over if level is None else over - level, step.noise), made.spikes):
                raise MismatchError
