"""One neuron under constant current, with its trace on disk: behind ``fracspike simulate``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fracspike.files import replacing
from fracspike.neurons import FractionalLIF
from fracspike.plots import blank, draw_trace
from fracspike.solvers import checks
from fracspike.threads import one_thread

MOST_STEPS = 10**8  # that are simulated and written, a gigabyte of each trace


def _steps(duration: float, dt: float) -> int:
    steps = duration / dt
    if steps > MOST_STEPS:
        raise ValueError(
            f"`duration` must be at most {MOST_STEPS} steps of `dt`, got {duration:g} with `dt` {dt:g}; "
            "simulate for a shorter time, or with longer steps"
        )
    return round(steps)


@one_thread()
@torch.no_grad()
def simulate_one(
    folder: Path,
    *,
    alpha: float = 0.6,
    tau: float = 20.0,
    current: float = 1.5,
    duration: float = 500.0,
    dt: float = 0.1,
    threshold: float = 1.0,
    reset: str = "subtract",
    reset_memory: str = "jump",
    surrogate: str = "sigmoid",
    refractory: float = 0.0,
    method: str | None = None,
) -> NDArray[np.float64]:
    """Simulate a neuron, write ``trace.csv``, ``spikes.csv`` and ``trace.png``, return spike times (ms).

    Arguments are those of :class:`FractionalLIF`, times in ms; the current is constant.
    """
    lif = FractionalLIF(
        alpha=alpha,
        tau=tau,
        threshold=threshold,
        dt=dt,
        reset=reset,
        reset_memory=reset_memory,
        surrogate=surrogate,
        refractory=refractory,
        method=method,
    )
    steps = _steps(float(checks.real("duration", duration, at_least=dt)), dt)
    drive = torch.full((steps, 1), float(checks.real("current", current)), dtype=torch.float64)
    run = lif.simulate(drive)
    time = dt * np.arange(1, steps + 1)
    fired = run.spikes[:, 0].numpy() > 0.5
    with replacing(folder / "trace.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time_ms", "v_before_reset", "v", "spike"))
        columns = (run.pre_reset[:, 0].tolist(), run.voltage[:, 0].tolist(), fired.astype(int).tolist())
        writer.writerows(zip(time.round(6).tolist(), *columns, strict=True))
    with replacing(folder / "spikes.csv") as path:
        path.write_text("spike_time_ms\n" + "".join(f"{t:.6g}\n" for t in time[fired]))
    figure, axes = blank(1, 1, f"Fractional LIF, alpha {alpha:g}: {int(fired.sum())} spikes")
    draw_trace(axes[0], time, run.pre_reset[:, 0].numpy(), time[fired], threshold)
    with replacing(folder / "trace.png") as path:
        figure.savefig(path, dpi=110)
    return time[fired].astype(np.float64)
