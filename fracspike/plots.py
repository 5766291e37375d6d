"""Figures that more than one part of the library draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def blank(rows: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of ``rows`` x ``columns`` axes, sized for a page."""
    from matplotlib.figure import Figure  # here, because most of the library needs no plotting

    figure = Figure(figsize=(4.8 * columns if columns > 1 else 7, max(4.0, 1.7 * rows)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex="col" if rows > 1 else False)
    figure.suptitle(title)
    return figure, list(axes.flat)


def draw_trace(ax: Axes, time: ArrayLike, voltage: ArrayLike, spikes: ArrayLike, threshold: float) -> None:
    """Draw a membrane potential, its threshold and a tick for each spike time."""
    ax.plot(time, voltage, lw=0.8)
    ax.axhline(threshold, ls="--", lw=0.7, color="grey", label="threshold")
    ax.eventplot(spikes, lineoffsets=1.15 * threshold, linelengths=0.15 * abs(threshold), colors="C3")
    ax.set(xlabel="time (ms)", ylabel="membrane potential")
