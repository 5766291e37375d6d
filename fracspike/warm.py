"""``fracspike warmup``: compile what neurons run in, and keep it on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import torch

from fracspike.neurons import FractionalALIF, FractionalLIF, RecurrentFractionalLIF

SHAPE = 4, 2, 32
#: one layer of each kind that has a loop of its own
LAYERS: dict[str, Callable[[], FractionalLIF]] = {
    "FractionalLIF": lambda: FractionalLIF(backend="native"),
    "FractionalLIF with learnt parameters": lambda: FractionalLIF(backend="native", learn=("alpha", "tau")),
    "FractionalLIF with a refractory period": lambda: FractionalLIF(backend="native", refractory=2.0),
    "FractionalALIF": lambda: FractionalALIF(backend="native"),
    "RecurrentFractionalLIF": lambda: RecurrentFractionalLIF(backend="native", size=SHAPE[-1:]),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@click.command()
@click.option("--dtype", type=click.Choice([*DTYPES, "all"]), default="float32", show_default=True)
def warmup(dtype: str) -> None:
    """Compile and cache the kernels, so that the first layer of a run does not wait for it."""
    names = list(DTYPES) if dtype == "all" else [dtype]
    parts = [(kind, layer) for kind in names for layer in LAYERS]
    for number, (kind, layer) in enumerate(parts, 1):
        click.echo(f"[{number}/{len(parts)}] {layer}, {kind} ... ", nl=False)
        start = time.perf_counter()
        run(layer, DTYPES[kind])
        click.echo(f"{time.perf_counter() - start:.1f} s")
    click.echo("compiled code is on the disk; the first call of a later process takes it from there")


def run(name: str, dtype: torch.dtype) -> None:
    """Run a layer of `LAYERS` forward, with and without a state, and backward."""
    layer = LAYERS[name]().to(dtype)
    current = torch.ones(SHAPE, dtype=dtype, requires_grad=True)
    torch.autograd.backward(layer(current).sum())
    simulation = layer.simulate(current)
    torch.autograd.backward((simulation.spikes + simulation.voltage).sum())
    with torch.no_grad():
        layer(current)
