"""A small network on which other libraries were run: numbers that need no random generator to repeat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

STEPS, BATCH, INPUTS, HIDDEN, OUTPUTS = 40, 3, 6, 8, 4

#: what was run: library, layer, arguments, and the scale of the weights (larger where the input is decayed)
CASES: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "snntorch subtract": ("snntorch", "Leaky", {"beta": 0.9}, 1.0),
    "snntorch zero": ("snntorch", "Leaky", {"beta": 0.8, "threshold": 0.7, "reset_mechanism": "zero"}, 1.0),
    "snntorch none": ("snntorch", "Leaky", {"beta": 0.5, "reset_mechanism": "none"}, 1.0),
    "snntorch zero at once": (
        "snntorch",
        "Leaky",
        {"beta": 0.9, "reset_mechanism": "zero", "reset_delay": False},
        1.0,
    ),
    "snntorch synaptic": ("snntorch", "Synaptic", {"alpha": 0.6, "beta": 0.9}, 1.0),
    "snntorch lapicque": ("snntorch", "Lapicque", {"R": 2.0, "C": 2.5}, 3.0),
    "spikingjelly lif": ("spikingjelly", "LIFNode", {"tau": 2.0}, 4.5),
    "spikingjelly undecayed": ("spikingjelly", "LIFNode", {"tau": 4.0, "decay_input": False}, 1.0),
    "spikingjelly soft": ("spikingjelly", "LIFNode", {"tau": 3.0, "v_reset": None}, 5.0),
    "spikingjelly below": ("spikingjelly", "LIFNode", {"tau": 3.0, "v_reset": -0.3, "v_threshold": 0.6}, 4.5),
    "spikingjelly plif": ("spikingjelly", "ParametricLIFNode", {"init_tau": 3.0}, 5.0),
    "spikingjelly if": ("spikingjelly", "IFNode", {}, 1.0),
    "spikingjelly if soft": ("spikingjelly", "IFNode", {"v_reset": None}, 1.0),
}

#: spikeDE's wrapper: its method, its interpolation, the time step, and the orders of the two layers
SYSTEMS: dict[str, tuple[str, str, float, tuple[float, float]]] = {
    "spikede gl": ("gl", "linear", 1.0, (0.5, 0.8)),
    "spikede gl half": ("gl", "cubic", 0.5, (0.6, 0.6)),
    "spikede l1": ("l1", "linear", 1.0, (0.5, 0.8)),
    "spikede pred": ("pred", "linear", 1.0, (0.7, 0.4)),
    "spikede euler": ("euler", "linear", 0.5, (1.0, 1.0)),
}


def numbers(*shape: int, seed: int) -> Tensor:
    """Numbers in [0, 1) that look random: Knuth's multiplicative hash of their index."""
    index = torch.arange(torch.Size(shape).numel()) + 1 + 100_003 * seed
    return (((index * 2_654_435_761) % 2**32).double() / 2**32).float().reshape(shape)


def samples() -> Tensor:
    return numbers(STEPS, BATCH, INPUTS, seed=1)


def linear(inputs: int, outputs: int, seed: int, scale: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(scale * (numbers(outputs, inputs, seed=seed) - 0.42))
        layer.bias.copy_(0.2 * numbers(outputs, seed=seed + 1))
    return layer


def network(first: nn.Module, second: nn.Module, scale: float = 1.0) -> nn.Sequential:
    return nn.Sequential(
        linear(INPUTS, HIDDEN, 2, scale), first, linear(HIDDEN, OUTPUTS, 4, 2 * scale), second
    )


def pack(spikes: Tensor) -> str:
    return "".join(str(int(s)) for s in spikes.flatten().tolist())


def unpack(text: str) -> Tensor:
    return torch.tensor([float(c) for c in text]).reshape(STEPS, BATCH, OUTPUTS)
