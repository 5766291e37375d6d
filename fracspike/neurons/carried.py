"""What the compiled loop carries from step to step for a layer, and why it cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import native
from .adaptive import Adaptation, FractionalALIF
from .lif import FractionalLIF
from .module import HALVES
from .recurrent import Echo, OneToOne, Recurrence
from .state import State

KNOWN = (FractionalLIF, FractionalALIF, Recurrence)  # whose feedback is compiled
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def obstacle(lif: FractionalLIF, current: Tensor) -> str | None:
    """Return why the feedback of a layer is not compiled; None if it is, or if there is none."""
    owners = [kind for kind in type(lif).__mro__ if "_feedback" in vars(kind)]
    if any(kind not in KNOWN for kind in owners):
        return f"{type(lif).__name__} has a step of its own, which is not compiled"
    if owners == [FractionalLIF]:
        return None
    if torch.compiler.is_compiling():
        return "torch.compile cannot take adaptation or recurrence through the compiled loop"
    if type(current.detach()) is not Tensor:
        return f"the current is a {type(current).__name__}, and adaptation or recurrence takes a plain tensor"
    return _weights(lif.recurrent, current) if isinstance(lif, Recurrence) else None


def _weights(module: nn.Module, current: Tensor) -> str | None:
    """Return why a recurrent module is not compiled; None if it is."""
    if type(module).forward not in (nn.Linear.forward, OneToOne.forward) or "forward" in vars(module):
        return f"recurrent={type(module).__name__} is not compiled, only nn.Linear and 'one_to_one'"
    if any(getattr(module, hooks) for hooks in HOOKS):
        return "the recurrent module has hooks, which the compiled loop does not call"
    weight, shape = module.weight, tuple(current.shape[1:])
    assert isinstance(weight, Tensor)
    dtype = torch.float32 if current.dtype in HALVES else current.dtype  # as the layer computes
    if weight.dtype != dtype or weight.device != current.device:
        return f"the recurrent weights are {weight.dtype} on {weight.device}, and the current is not"
    if isinstance(module, nn.Linear):
        fits = len(shape) > 0 and weight.shape == (shape[-1], shape[-1])
    else:
        fits = weight.dim() <= len(shape) and all(
            n in (1, m) for n, m in zip(reversed(weight.shape), reversed(shape), strict=False)
        )
    return None if fits else f"the recurrent weights {tuple(weight.shape)} do not keep the shape {shape}"


def feedback(lif: FractionalLIF, state: State) -> native.Feedback | None:
    """Return what the steps of a layer carry on from a state; None if nothing."""
    found: dict[str, Tensor | bool | None] = {}
    for part in lif._feedback(state, torch.float64).parts:
        if isinstance(part, Adaptation):
            found |= {"lift": part.beta, "stay": part.decay, "adaptation": part.state["adaptation"]}
            if "w" in part.state:
                found |= {"pull": part.pull, "w": part.state["w"]}
        elif isinstance(part, Echo):
            module = part.weights
            assert isinstance(module, nn.Linear | OneToOne)
            found |= {"weight": module.weight, "dense": isinstance(module, nn.Linear)}
            found |= {"bias": getattr(module, "bias", None), "last_spikes": part.state["last_spikes"]}
    return native.Feedback(**found) if found else None  # type: ignore[arg-type]


def extra(state: State, run: native.Sequence) -> dict[str, Tensor | State]:
    """Return what the state has beside potential and modes, after a run from it."""
    ends = {name: sequence[-1] for name, sequence in run.variables.items()} | {"last_spikes": run.spikes[-1]}
    return {name: ends.get(name, value) for name, value in state.extra.items()}
