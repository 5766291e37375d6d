"""Draw the figure of docs/neurons.md, a response of every neuron: ``python docs/make_neurons.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fracspike.neurons import NEURONS

FIGURE = Path(__file__).parent / "figures" / "neurons.png"
ALPHAS = (1.0, 0.7)
#: arguments, height of a current step, time shown, and where spikes are drawn, for each neuron
SHOWN: dict[str, tuple[dict[str, Any], float, float, float]] = {
    "if": ({"tau": 10.0, "dt": 0.1}, 0.8, 60, 1.15),
    "lif": ({"tau": 10.0, "dt": 0.1}, 1.5, 60, 1.15),
    "alif": ({"tau": 10.0, "dt": 0.1, "beta": 0.15, "tau_adaptation": 60.0}, 2.0, 60, 1.9),
    "cuba_lif": ({"tau": 10.0, "dt": 0.1, "tau_syn": 8.0}, 1.5, 60, 1.15),
    "li": ({"tau": 10.0, "dt": 0.1}, 0.8, 60, 1.15),
    "recurrent_lif": ({"tau": 10.0, "dt": 0.1, "size": (1,), "recurrent": "one_to_one"}, 1.5, 60, 1.15),
    "recurrent_alif": (
        {"tau": 10.0, "dt": 0.1, "size": (1,), "recurrent": "one_to_one", "beta": 0.15},
        2.0,
        60,
        1.9,
    ),
    "izhikevich": ({"dt": 0.1}, 15.0, 150, 40.0),
    "adex": ({"dt": 0.1}, 1000.0, 150, -36.0),
}


def draw_response(ax: Axes, name: str) -> None:
    """Draw the potential of a neuron for a current that is on for two thirds of the time."""
    kwargs, height, time, level = SHOWN[name]
    steps = round(time / kwargs["dt"])
    current = torch.zeros(steps, 1)
    current[steps // 12 : steps * 9 // 12] = height
    for row, alpha in enumerate(ALPHAS):
        layer = NEURONS[name](alpha, **kwargs)
        if name.startswith("recurrent"):
            torch.nn.init.constant_(layer.recurrent.weight, 10.0)
        with torch.no_grad():
            run = layer.simulate(current)
        t = kwargs["dt"] * torch.arange(1, steps + 1)
        ax.plot(t, run.voltage[:, 0], lw=0.8, color=f"C{row}", label=f"alpha = {alpha:g}")
        fired = t[run.spikes[:, 0] > 0]
        ax.plot(fired, torch.full_like(fired, level * (1 + 0.08 * row)), "|", ms=5, color=f"C{row}")
    ax.axvspan(time / 12, time * 9 / 12, color="0.94", lw=0)
    ax.set_title(NEURONS[name].__name__, fontsize=9)
    ax.tick_params(labelsize=7)


def draw() -> None:
    """Write the figure."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(3, 3)
    for ax, name in zip(axes.flat, NEURONS, strict=True):
        draw_response(ax, name)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("time (the last two: ms, mV)", fontsize=8)
    figure.suptitle("A step of current (grey): potential and spikes, without and with memory")
    figure.savefig(FIGURE, dpi=72)


if __name__ == "__main__":
    draw()
