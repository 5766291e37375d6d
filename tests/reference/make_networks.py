"""Run snnTorch, SpikingJelly and spikeDE on the network of tests/networks.py, and write networks.json.

Run by hand where these libraries are installed: ``python tests/reference/make_networks.py``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import networks

torch.compile = lambda function=None, **_: function or (lambda f: f)  # spikeDE compiles on import


def conversion(library: str, name: str, arguments: dict[str, object], scale: float) -> torch.Tensor:
    path = {"snntorch": "snntorch", "spikingjelly": "spikingjelly.activation_based.neuron"}[library]
    layer = getattr(importlib.import_module(path), name)
    extra = {"init_hidden": True} if library == "snntorch" else {}
    net = networks.network(layer(**arguments, **extra), layer(**arguments, **extra), scale)
    return torch.stack([net(x) for x in networks.samples()])


def system(method: str, interpolation: str, dt: float, orders: tuple[float, float]) -> torch.Tensor:
    spikede = importlib.import_module("spikeDE")
    net = spikede.SNNWrapper(
        networks.network(spikede.LIFNeuron(tau=2.0), spikede.LIFNeuron(tau=2.0), scale=3.0),
        integrator="odeint" if method == "euler" else "fdeint",
        alpha=list(orders),
        alpha_mode="per_layer",
        interpolation_method=interpolation,
    )
    net._set_neuron_shapes((1, networks.INPUTS))
    times = torch.arange(networks.STEPS) * dt
    return net(networks.samples(), times, method=method)


def main() -> None:
    versions = {name: importlib.metadata.version(name) for name in ("snntorch", "spikingjelly")}
    spikes = {}
    for cases, run in ((networks.CASES, conversion), (networks.SYSTEMS, system)):
        for name, arguments in cases.items():
            with torch.no_grad():
                out = run(*arguments)
            spikes[name] = networks.pack(out)
            print(f"{name}: rate {out.mean():.3f}", file=sys.stderr)  # noqa: T201
    path = Path(__file__).with_name("networks.json")
    path.write_text(json.dumps({"versions": versions, "spikes": spikes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
