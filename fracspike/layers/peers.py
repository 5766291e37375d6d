"""Other libraries' spiking layers, read into one description of what a step of them does.

A layer is known by the name of its class and package, so that neither library needs to be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fracspike.surrogate import registry


@dataclass(frozen=True)
class Step:
    r"""What one step of a memoryless neuron does.

    .. math:: v \leftarrow v_\text{rest} + \beta (v - v_\text{rest}) + g\, I

    Attributes:
        decay: :math:`\beta` in (0, 1]; 1 for no leak.
        gain: :math:`g`, how far a unit of input moves the potential within the step.
        threshold: where it spikes.
        surrogate: what makes the spike.
        reset: ``"subtract"``, ``"value"`` or ``"none"``.
        v_rest: resting potential, at which it starts.
        v_reset: potential after a hard reset.
        late: whether a soft reset is taken off one step later, undecayed by that step.
        detach_reset: whether gradients stop at the reset.
        learn: which parameters it trains, by our names.
        synapse: decay of a synaptic filter before the membrane, ``i <- synapse i + I``; None without.
        recurrent: what spikes pass through on their way back to the layer, one step later; None without.
        returns: what the layer returns beside the spikes, by the names of our records.
        steps: ``"s"`` if it takes a step at a time, ``"m"`` if a sequence.
    """

    decay: Tensor
    gain: Tensor
    threshold: Tensor
    surrogate: Callable[[Tensor], Tensor]
    reset: str
    v_rest: float = 0.0
    v_reset: float = 0.0
    late: bool = False
    detach_reset: bool = False
    learn: tuple[str, ...] = ()
    synapse: Tensor | None = None
    recurrent: nn.Module | None = None
    returns: tuple[str, ...] = ()
    steps: str = "s"


def library_of(module: nn.Module) -> str:
    """Return the package that a module's class comes from, such as ``"snntorch"``."""
    return type(module).__module__.partition(".")[0]


def read(module: nn.Module, name: str) -> Step | None:
    """Return the step of a spiking layer of another library; None if it is no such layer.

    Raises:
        TypeError: if it is one, but none that is known here.
        ValueError: if it has an option that no fractional layer has.
    """
    reader = READERS.get(f"{library_of(module)}.{type(module).__name__}")
    if reader is not None:
        refuse_hooks(module, name)
        return reader(module, name)
    ancestry = [f"{cls.__module__}.{cls.__name__}" for cls in type(module).__mro__]
    if any(
        path.startswith(("snntorch._neurons", "spikingjelly.activation_based.neuron")) for path in ancestry
    ):
        raise TypeError(
            f"`{name}` is a {library_of(module)} {type(module).__name__}, which has no counterpart here; "
            f"known are {', '.join(READERS)}"
        )
    return None


def refuse_hooks(module: nn.Module, name: str) -> None:
    """Refuse a layer to be replaced whose calls are hooked: its hooks expect its own inputs and outputs."""
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    hooked = [f"{kind} hooks" for kind in kinds if getattr(module, f"_{kind}_hooks", None)]
    if hooked:
        raise ValueError(
            f"`{name}`, a {type(module).__name__}, has {' and '.join(hooked)}, which the layer in its "
            "place would not call; remove them first, and register them on the converted layer"
        )


def _snntorch(
    layer: Any, name: str, decay: Tensor, gain: Tensor | float = 1.0, synapse: Tensor | None = None
) -> Step:
    for option in ("inhibition", "state_quant"):
        if getattr(layer, option, False):
            raise ValueError(
                f"`{name}` has {option}, which no fractional layer has; set {option}=False first"
            )
    if bool((torch.as_tensor(getattr(layer, "graded_spikes_factor", 1.0)) != 1).any()):
        raise ValueError(
            f"`{name}` has graded_spikes_factor != 1; put the factor into the next layer's weights"
        )
    if _trained(layer, "graded_spikes_factor"):
        raise ValueError(
            f"`{name}` has learn_graded_spikes_factor=True, which no fractional layer has; "
            "set it to False first, the next layer's weights learn the factor"
        )
    late = bool(getattr(layer, "reset_delay", True))
    potential = "pre_reset" if late else "voltage"
    tells = layer.output or not layer.init_hidden
    learn = [ours for theirs, ours in SNNTORCH_LEARN.items() if _trained(layer, theirs)]
    return Step(
        decay=decay.detach().double().clamp(0, 1),
        gain=torch.as_tensor(gain, dtype=torch.float64).detach(),
        threshold=layer.threshold.detach().double(),
        surrogate=_snntorch_surrogate(layer.spike_grad),
        reset={"subtract": "subtract", "zero": "value", "none": "none"}[layer.reset_mechanism],
        late=late,
        detach_reset=late,  # snnTorch detaches the late reset alone
        learn=tuple(learn),
        synapse=None if synapse is None else synapse.detach().double().clamp(0, 1),
        returns=(("synaptic_current", potential) if synapse is not None else (potential,)) if tells else (),
    )


SNNTORCH_LEARN = {"beta": "tau", "threshold": "threshold", "alpha": "tau_syn"}


def _leaky(layer: Any, name: str) -> Step:
    return _snntorch(layer, name, layer.beta)


def _synaptic(layer: Any, name: str) -> Step:
    _refuse_lossy_zero(layer, name)
    return _snntorch(layer, name, layer.beta, synapse=layer.alpha)


def _rleaky(layer: Any, name: str) -> Step:
    _refuse_lossy_zero(layer, name)
    return replace(_snntorch(layer, name, layer.beta), recurrent=layer.recurrent)


def _lapicque(layer: Any, name: str) -> Step:
    _refuse_lossy_zero(layer, name)
    capacitance = layer.C.detach().double()
    rate = layer.time_step / (layer.R.detach().double() * capacitance)
    return _snntorch(layer, name, 1 - rate, layer.time_step / capacitance)


def _refuse_lossy_zero(layer: Any, name: str) -> None:
    if layer.reset_mechanism == "zero":
        raise ValueError(
            f"`{name}` is a {type(layer).__name__} with reset_mechanism='zero', which drops the input of the "
            "step after a spike as well, as no fractional layer does; use reset_mechanism='subtract'"
        )


def _trained(layer: nn.Module, name: str) -> bool:
    return isinstance(getattr(layer, name, None), nn.Parameter)


def _snntorch_surrogate(function: Any) -> Callable[[Tensor], Tensor]:
    """Return ours for a snnTorch closure, with the parameters it holds; an unknown one passes through."""
    maker = getattr(function, "__qualname__", "").partition(".")[0]
    known = f"snntorch.{maker}"
    # "triangular" and "LSO" under these names do something else there: the callable itself goes through
    same = getattr(function, "__module__", "") == "snntorch.surrogate" and maker in SNNTORCH_SURROGATES
    if not same:
        passed: Callable[[Tensor], Tensor] = function
        return passed
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    wanted = registry.peer_parameters(known)
    return registry.get(known, **{n: _number(c.cell_contents) for n, c in cells if n in wanted})


SNNTORCH_SURROGATES = (
    "atan",
    "sigmoid",
    "fast_sigmoid",
    "SFS",
    "spike_rate_escape",
    "straight_through_estimator",
)


def _spikingjelly(layer: Any, name: str, decay: Tensor, gain: Tensor, learn: tuple[str, ...] = ()) -> Step:
    if getattr(layer, "store_v_seq", False):
        raise ValueError(
            f"`{name}` has store_v_seq=True, but a fractional layer has no v_seq; set store_v_seq=False "
            "first, and take the potentials from simulate() of the converted layer"
        )
    if not getattr(layer.surrogate_function, "spiking", True):
        raise ValueError(
            f"`{name}` has a surrogate_function with spiking=False, which gives no spikes but values "
            "between; set spiking=True first"
        )
    if type(layer).__name__.startswith("Simple") and layer.v_reset:
        raise ValueError(
            f"`{name}` is a {type(layer).__name__} with v_reset={layer.v_reset:g}, which starts at 0 and "
            f"not at its resting potential; use {type(layer).__name__.removeprefix('Simple')}, or v_reset=0"
        )
    hard = layer.v_reset is not None
    level = float(layer.v_reset) if hard else 0.0
    return Step(
        decay=decay,
        gain=gain,
        threshold=torch.tensor(float(layer.v_threshold), dtype=torch.float64),
        surrogate=_spikingjelly_surrogate(layer.surrogate_function),
        reset="value" if hard else "subtract",
        v_rest=level,
        v_reset=level,
        detach_reset=bool(layer.detach_reset),
        learn=learn,
        steps=layer.step_mode,
    )


def _lif_node(layer: Any, name: str) -> Step:
    rate = torch.tensor(1.0 / float(layer.tau), dtype=torch.float64)
    return _spikingjelly(layer, name, 1 - rate, rate if layer.decay_input else torch.ones_like(rate))


def _parametric_lif_node(layer: Any, name: str) -> Step:
    rate = layer.w.detach().double().sigmoid()
    learn = ("tau",) if layer.w.requires_grad else ()
    return _spikingjelly(layer, name, 1 - rate, rate if layer.decay_input else torch.ones_like(rate), learn)


def _if_node(layer: Any, name: str) -> Step:
    one = torch.ones((), dtype=torch.float64)
    return _spikingjelly(layer, name, one, one)


def _spikingjelly_surrogate(module: Any) -> Callable[[Tensor], Tensor]:
    """Return ours for a SpikingJelly surrogate, with its parameters; an unknown one passes through."""
    known = f"spikingjelly.{type(module).__name__}"
    if library_of(module) != "spikingjelly" or known not in registry.aliases():
        passed: Callable[[Tensor], Tensor] = module
        return passed
    wanted = registry.peer_parameters(known)
    return registry.get(known, **{n: _number(getattr(module, n)) for n in wanted if hasattr(module, n)})


def _number(value: object) -> Any:
    return value.item() if isinstance(value, Tensor) else value


READERS: dict[str, Callable[[Any, str], Step]] = {
    "snntorch.Leaky": _leaky,
    "snntorch.Lapicque": _lapicque,
    "snntorch.Synaptic": _synaptic,
    "snntorch.RLeaky": _rleaky,
    "spikingjelly.LIFNode": _lif_node,
    "spikingjelly.SimpleLIFNode": _lif_node,
    "spikingjelly.ParametricLIFNode": _parametric_lif_node,
    "spikingjelly.IFNode": _if_node,
    "spikingjelly.SimpleIFNode": _if_node,
}
