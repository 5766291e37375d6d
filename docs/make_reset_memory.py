"""Draw the figure of docs/reset-memory.md and print its counts: ``python docs/make_reset_memory.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fracspike import FractionalLIF
from fracspike.solvers import Exponentials

FIGURE = Path(__file__).parent / "figures" / "reset_memory.png"
ALPHAS = (0.5, 0.8, 0.95)
STEPS = (0.2, 0.1, 0.05, 0.025, 0.01, 0.005, 0.0025)
DRIVE, THRESHOLD, TIME = 1.5, 1.0, 20.0
#: tau**alpha of the neuron, its reset, and how it is drawn
MEMORIES = {
    "current": (2.0, "subtract", "C3", "s"),
    "overwrite": (1.0, "subtract", "C1", "^"),
    "restart": (1.0, "value", "C2", "o"),
    "jump": (1.0, "value", "C0", "D"),
}


def neurons(memory: str, dt: float) -> FractionalLIF:
    """Return a layer of one neuron for each alpha."""
    tau_alpha, reset, _, _ = MEMORIES[memory]
    alpha = torch.tensor(ALPHAS, dtype=torch.float64)
    kept = Exponentials(1e-8) if dt < 0.02 else None
    return FractionalLIF(
        alpha, tau_alpha ** (1 / alpha), THRESHOLD, dt, reset=reset, reset_memory=memory, memory=kept
    )


def run(memory: str, dt: float, time: float = TIME) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spikes and potentials, ``(T, 3)``, under constant drive from rest."""
    current = torch.full((round(time / dt), len(ALPHAS)), DRIVE, dtype=torch.float64)
    with torch.no_grad():
        result = neurons(memory, dt).simulate(current)
    return result.spikes, result.voltage


def counts() -> dict[str, np.ndarray]:
    """Return the spike counts of each memory, one row for each step and one column for each alpha."""
    return {m: np.array([run(m, dt)[0].sum(0).tolist() for dt in STEPS], dtype=int) for m in MEMORIES}


def draw_counts(ax: Axes, found: dict[str, np.ndarray], column: int) -> None:
    """Draw spike counts against the step for one alpha."""
    for memory, (_, _, color, marker) in MEMORIES.items():
        ax.loglog(STEPS, found[memory][:, column], marker + "-", ms=4, lw=1, color=color, label=memory)
    ax.plot(STEPS, TIME / np.array(STEPS), ":", lw=0.8, color="grey", label="one per step")
    ax.set(title=f"alpha = {ALPHAS[column]:g}", xlabel="time step dt", ylim=(2, 1e4))
    ax.invert_xaxis()
    ax.grid(which="major", lw=0.3)


def draw_traces(ax: Axes, column: int) -> None:
    """Draw the potentials of the four memories below one another."""
    dt = 0.02
    for row, (memory, (_, _, color, _)) in enumerate(reversed(MEMORIES.items())):
        spikes, voltage = run(memory, dt, 12.0)
        time = dt * np.arange(1, len(voltage) + 1)
        fired = time[spikes[:, column].numpy() > 0]
        ax.plot(time, voltage[:, column].numpy() - 1.5 * row, lw=0.7, color=color)
        ax.vlines(fired, 1.08 - 1.5 * row, 1.28 - 1.5 * row, lw=0.5, color=color)
    ax.set(xlabel="time", xlim=(0, 12))
    if column == 0:  # the others share it
        ax.set_yticks([0.5 - 1.5 * row for row in range(len(MEMORIES))], list(reversed(MEMORIES)))


def draw() -> dict[str, np.ndarray]:
    """Write the figure and return the counts."""
    found = counts()
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, len(ALPHAS), sharey="row", height_ratios=(1.2, 1))
    for column in range(len(ALPHAS)):
        draw_counts(axes[0, column], found, column)
        draw_traces(axes[1, column], column)
    axes[0, 0].set_ylabel("spikes in 20 time units")
    axes[1, 0].set_ylabel("potential, dt = 0.02")
    axes[0, -1].legend(fontsize=7, loc="center right", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle("One constant drive, four ways for a reset to enter the memory")
    figure.savefig(FIGURE, dpi=80)
    return found


if __name__ == "__main__":
    for memory, rows in draw().items():
        for column, alpha in enumerate(ALPHAS):
            print(memory, alpha, *rows[:, column])  # noqa: T201
