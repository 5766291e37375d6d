"""Other libraries' models, and plain networks, with fractional neurons in place of theirs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.neurons import FractionalCubaLIF, FractionalIF, FractionalLIF, RecurrentFractionalLIF
from fracspike.solvers import checks, mittag_leffler

from .peers import Step, read, refuse_hooks
from .time_distributed import TimeDistributed

#: what ``activations=True`` replaces
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardtanh, nn.Tanh, nn.Sigmoid)
#: where torch has the layers that need the batch in front; linear and elementwise layers take sequences
FOLDED_MODULES = ("conv", "batchnorm", "instancenorm", "pooling", "flatten", "padding", "upsampling", "fold")
FOLDED = (
    *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)


def convert(
    model: nn.Module,
    *,
    alpha: float | Mapping[str, float] = 0.7,
    activations: bool | Sequence[type[nn.Module]] = False,
    time_distributed: bool | None = None,
    **options: Any,
) -> nn.Module:
    r"""Return a copy of a model whose spiking layers are fractional; its weights are kept.

    Replaced are ``Leaky``, ``RLeaky``, ``Synaptic`` and ``Lapicque`` of snnTorch, ``LIFNode``,
    ``ParametricLIFNode`` and ``IFNode`` of SpikingJelly, and, if asked for, plain activations. What one
    step does is kept, and the memory of the steps before becomes a power law: with :math:`\beta` the decay
    of a step and :math:`g` the effect of a unit of input within it,

    .. math:: \tau = -dt / \ln\beta, \qquad R = g / (1 - E_\alpha(-(dt/\tau)^\alpha))

    At ``alpha=1`` the copy gives the same spikes as the model. snnTorch adds the input undecayed
    (:math:`g = 1`), and takes a soft reset off one step later, undecayed (``reset_scale`` of the copy makes
    up for that); SpikingJelly has :math:`\beta = 1 - 1/\tau_{SJ}`, and :math:`g = 1/\tau_{SJ}` with
    ``decay_input=True``, 1 without. What the peers learn is learnt here (but :math:`R` stays as it is).

    The copy takes whole sequences, ``(T, B, *)``: where the model took a step at a time, layers that need
    the batch in front are wrapped in :class:`TimeDistributed`. A loop over time in a ``forward`` of its own
    must be taken out by hand; a copy that is still given single steps says so.

    Args:
        model: the model; it is left as it is.
        alpha: order of every layer, or of each by its name in ``model.named_modules()``.
        activations: true to replace activations as well, or the classes of those to replace.
        time_distributed: whether to wrap layers in TimeDistributed; by default where the model takes a step
            at a time (snnTorch, SpikingJelly's ``step_mode="s"``, and activations).
        **options: further arguments of :class:`FractionalLIF` for every new layer, such as ``reset_memory``,
            ``learn``, ``dt``; they come before what is read off the model.

    Returns:
        The copy, in the training mode and on the device of the model.

    Raises:
        TypeError: if ``model`` is no module, or a spiking layer has no counterpart.
        ValueError: if nothing was found to replace, a layer to replace has hooks or an option without
            counterpart, or the model mixes single steps and sequences.

    >>> plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    >>> spiking = convert(plain, activations=True, alpha=0.6, tau=4.0)
    >>> spiking(torch.ones(5, 2, 1, 8, 8)).shape
    torch.Size([5, 2, 10])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a module, got {type(model).__name__}")
    wanted = _activation_types(activations)
    names = {module: name for name, module in model.named_modules()}
    steps: dict[nn.Module, Step] = {}
    inside: set[nn.Module] = set()  # parts of layers that are replaced whole
    for module, name in names.items():
        if module not in inside and (step := read(module, name or "model")) is not None:
            steps[module] = step
            inside |= set(module.modules())
    plain = [module for module in names if type(module) in wanted]
    if not steps and not plain:
        raise ValueError(
            "`model` must have layers to replace, of snnTorch or SpikingJelly, got none; "
            "for plain activations pass activations=True"
        )
    fold = _takes_steps(steps) if time_distributed is None else time_distributed
    orders = _orders(alpha, [names[module] for module in (*steps, *plain)])
    # a deep copy takes what it finds in its memo as copied already: that is where the new layers go in
    memo: dict[int, Any] = {}
    for module, step in steps.items():
        memo[id(module)] = _like(module, _neuron(step, orders[names[module]], names[module], options), model)
    for module in plain:
        refuse_hooks(module, names[module] or "model")
        memo[id(module)] = _like(module, FractionalLIF(alpha=orders[names[module]], **options), model)
    for new in memo.values():
        new.register_forward_pre_hook(_only_sequences)
    for module in _to_fold(model) if fold else ():
        if id(module) not in memo:
            wrapped = TimeDistributed(copy.deepcopy(module, memo))
            memo[id(module)] = wrapped.train(module.training)
    converted: nn.Module = copy.deepcopy(model, memo)
    return converted


class ReturnsPotential(nn.Module):
    """A fractional layer that returns what snnTorch's returns: ``spikes, mem`` or ``spikes, syn, mem``.

    Each is a whole sequence ``(T, B, *)``. A ``mem`` that is passed in is the potential to start from; an
    empty one, as ``init_leaky()`` returns it, means rest.

    Args:
        neuron: the layer.
        returns: what to return beside the spikes: names in its simulation.
    """

    def __init__(self, neuron: FractionalLIF, returns: Sequence[str]) -> None:
        super().__init__()
        self.neuron = neuron
        self.returns = tuple(returns)

    def forward(self, current: Tensor, *states: Tensor | None) -> tuple[Tensor, ...]:
        """Return spikes and potentials for a current ``(T, B, *)``."""
        *others, mem = states or (None,)
        if any(other.numel() and bool(other.any()) for other in others if other is not None):
            raise ValueError("only the potential may be given to start from, the synapse starts at zero")
        start = None
        if mem is not None and mem.numel():
            start = self.neuron.initial_state(current[0], v=mem)
        run = self.neuron.simulate(current, start)
        extra = [run.variables[n] if n in run.variables else getattr(run, n) for n in self.returns]
        return (run.spikes, *extra)

    def reset_mem(self) -> Any:
        """Return empty states, which mean rest: one tensor, or as many as there are."""
        empty = tuple(torch.empty(0) for _ in self.returns)
        return empty[0] if len(empty) == 1 else empty

    def init_rleaky(self) -> tuple[Tensor, Tensor]:
        """Return empty states for spikes and potential."""
        return torch.empty(0), torch.empty(0)

    init_leaky = init_synaptic = init_lapicque = reset_mem


def _neuron(step: Step, alpha: float, name: str, options: dict[str, Any]) -> nn.Module:
    if bool((step.decay <= 0).any()) or (step.synapse is not None and bool((step.synapse <= 0).any())):
        raise ValueError(
            f"`{name}` forgets all within a step (beta = 0, tau = 1), so no memory is there to make "
            "fractional; give it a decay above 0"
        )
    order = torch.tensor(float(options.get("alpha", alpha)), dtype=torch.float64)
    dt = float(options.get("dt", 1.0))
    arguments: dict[str, Any] = {
        "alpha": alpha,
        "threshold": step.threshold,
        "v_rest": step.v_rest,
        "surrogate": step.surrogate,
        "reset": step.reset,
        "learn": step.learn,
    }
    reset = options.get("reset", step.reset)
    if reset == "value":
        arguments["v_reset"] = step.v_reset
    if reset != "none":
        arguments["detach_reset"] = step.detach_reset
    kind: Callable[..., FractionalLIF] = FractionalLIF
    gain = step.gain
    if bool((step.decay == 1).all()):
        kind = FractionalIF
        tau = torch.as_tensor(options.get("tau", dt), dtype=torch.float64)
        arguments |= {"tau": tau, "resistance": gain * (tau / dt) ** order * math.gamma(1 + float(order))}
    else:
        tau = torch.as_tensor(options.get("tau", -dt / torch.log(step.decay)), dtype=torch.float64)
        left = _left(order, tau, dt)
        arguments |= {"tau": tau, "resistance": gain / (1 - left)}
        if step.late and reset == "subtract":
            arguments["reset_scale"] = 1 / left
    if step.synapse is not None:
        kind = FractionalCubaLIF
        arguments["tau_syn"] = -dt / torch.log(step.synapse)
        arguments["resistance"] = arguments["resistance"] / (1 - step.synapse)
    if step.recurrent is not None:
        kind = RecurrentFractionalLIF
        arguments["recurrent"] = copy.deepcopy(step.recurrent)
    neuron = kind(**{**arguments, **options})
    return ReturnsPotential(neuron, step.returns) if step.returns else neuron


def _left(alpha: Tensor, tau: Tensor, dt: float) -> Tensor:
    """Return what is left of a unit jump after one step."""
    return mittag_leffler(-((dt / tau) ** alpha), alpha)


def _like(old: nn.Module, new: nn.Module, model: nn.Module) -> nn.Module:
    tensors = (*old.parameters(), *old.buffers(), *model.parameters(), *model.buffers())
    return new.to(next((t.device for t in tensors), torch.device("cpu"))).train(old.training)


def _activation_types(activations: bool | Sequence[type[nn.Module]]) -> tuple[type[nn.Module], ...]:
    if isinstance(activations, bool):
        return ACTIVATIONS if activations else ()
    types: tuple[Any, ...] = tuple(activations)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"`activations` must be true, false or classes such as nn.ReLU, got {kind!r}")
    return types


def _takes_steps(steps: Mapping[nn.Module, Step]) -> bool:
    modes = {step.steps for step in steps.values()}
    if len(modes) > 1:
        raise ValueError(
            "`model` must take single steps or sequences throughout, got layers with step_mode 's' and 'm'; "
            "set one mode, or pass time_distributed"
        )
    return modes != {"m"}


def _orders(alpha: float | Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    if not isinstance(alpha, Mapping):
        value = checks.order("alpha", alpha)
        return {name: float(value) for name in names}
    if set(alpha) != set(names):
        raise ValueError(f"`alpha` must name every layer to replace, {sorted(names)}; got {sorted(alpha)}")
    return {name: float(checks.order("alpha", alpha[name])) for name in names}


def _to_fold(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that need the batch in front, but none of those that fold time themselves."""
    if isinstance(module, TimeDistributed) or getattr(module, "step_mode", "s") == "m":
        return
    if type(module).__name__ in ("SeqToANNContainer", "TLastSeqToANNContainer", "MultiStepContainer"):
        return
    paths = [cls.__module__ for cls in type(module).__mro__]
    if isinstance(module, FOLDED) or any(
        path == f"torch.nn.modules.{m}" for path in paths for m in FOLDED_MODULES
    ):
        yield module
        return
    for child in module.children():
        yield from _to_fold(child)


def _only_sequences(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    x = arguments[0] if arguments else None
    if isinstance(x, Tensor) and x.dim() < 3:
        raise ValueError(
            f"a converted network takes whole sequences (T, B, *), got {tuple(x.shape)} in "
            f"{type(module).__name__}; pass all steps at once, and take a loop over time out of `forward`"
        )
