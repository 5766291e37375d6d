"""One small layer of every registered neuron, and a current that makes it spike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fracspike.neurons import NEURONS

N = 3  # neurons of each layer

#: what each neuron is built with beside its defaults, and the mean of a current that makes it spike
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "if": ({"tau": 4.0}, 1.0),
    "lif": ({}, 1.6),
    "alif": ({"beta": 0.4, "coupling": 0.2}, 2.4),
    "cuba_lif": ({"alpha_syn": 0.8}, 2.2),
    "li": ({}, 1.0),
    "recurrent_lif": ({"size": (N,)}, 1.6),
    "recurrent_alif": ({"size": (N,), "beta": 0.4}, 2.2),
    "izhikevich": ({"dt": 0.5}, 40.0),
    "adex": ({"dt": 0.5}, 2000.0),
}
LINEAR = [name for name in CASES if name not in ("izhikevich", "adex")]
SPIKING = [name for name in CASES if name != "li"]
#: which parameters each can learn, beside the orders
LEARNABLE: dict[str, tuple[str, ...]] = {
    "if": ("alpha", "tau", "threshold", "resistance"),
    "lif": ("alpha", "tau", "threshold", "resistance"),
    "alif": ("alpha", "tau", "threshold", "beta", "tau_adaptation", "coupling"),
    "cuba_lif": ("alpha", "tau", "threshold", "tau_syn", "alpha_syn"),
    "li": ("alpha", "tau", "resistance"),
    "recurrent_lif": ("alpha", "tau", "threshold"),
    "recurrent_alif": ("alpha", "tau", "threshold", "beta", "tau_adaptation"),
    "izhikevich": ("alpha", "a", "b", "c", "d", "peak"),
    "adex": ("alpha", "C", "tau_w", "Delta_T", "V_r"),
}


def build(name: str, **kwargs: Any) -> nn.Module:
    """A layer in float64; its random weights are the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NEURONS[name](**({"alpha": 0.7} | CASES[name][0] | kwargs)).double()


def current(name: str, steps: int, *shape: int, seed: int = 0) -> Tensor:
    """A current ``(steps, *shape)``, float64, that makes the neuron spike now and then."""
    generator = torch.Generator().manual_seed(seed)
    return (
        CASES[name][1] * 2 * torch.rand(steps, *(shape or (2, N)), dtype=torch.float64, generator=generator)
    )
