"""What came of a sweep: a table of every point, the means over seeds, and a figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from fracspike.experiments.report import versions
from fracspike.files import replacing, write_json
from fracspike.plots import blank

from . import kept
from .grid import SEED, Grid, Point, Value, label
from .patience import StoreError
from .store import Done, Store, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mean:
    """A metric at a point of the grid, over the seeds.

    Attributes:
        point: values of the axes but the seed.
        metric: its name.
        mean: over the seeds.
        spread: standard deviation over the seeds (n - 1); None of a single one.
        count: seeds.
    """

    point: Point
    metric: str
    mean: float
    spread: float | None
    count: int


def means(done: Iterable[Done]) -> list[Mean]:
    """Return mean and spread over the seeds of each metric, point by point in the order of the grid."""
    groups: dict[tuple[tuple[str, Value], ...], list[Done]] = {}
    for one in sorted(done, key=lambda one: one.index):
        key = tuple((name, value) for name, value in one.point.items() if name != SEED)
        groups.setdefault(key, []).append(one)
    result = []
    for key, members in groups.items():
        for metric in members[0].metrics:
            values = [one.metrics[metric] for one in members if metric in one.metrics]
            spread = stdev(values) if len(values) > 1 else None
            result.append(Mean(dict(key), metric, fmean(values), spread, len(values)))
    return result


def standing(store: Store, folder: Path) -> View:
    """Return how a sweep stands; if its storage does not answer, from what is known on this machine.

    Args:
        store: the sweep.
        folder: of its results.
    """
    try:
        return store.view()
    except StoreError:
        view, done = store.last, dict(store.last.done)
    for index, point in enumerate(store.points):
        full = store.full(point)
        measured = None if index in done else kept.load(kept.place(folder, full), full)
        if measured is not None:
            done[index] = Done(index, point, *measured)
    return View(done, {i: d for i, d in view.failed.items() if i not in done}, view.running)


def write(folder: Path, name: str, grid: Grid, view: View) -> None:
    """Write ``sweep.csv``, ``results.json`` and ``sweep.png``, in this order.

    Args:
        folder: exists.
        name: of what was swept.
        grid: its points.
        view: what is done and what has failed.
    """
    rows = sorted([*view.done.values(), *view.failed.values()], key=lambda one: one.index)
    metrics = list(dict.fromkeys(metric for one in rows for metric in one.metrics))
    with replacing(folder / "sweep.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["point", *grid.axes, *metrics, "seconds", "error"])
        for one in rows:
            measured = [one.metrics.get(metric, "") for metric in metrics]
            writer.writerow([one.index, *one.point.values(), *measured, one.seconds, one.error])
    found = means(view.done.values())
    content: dict[str, Any] = {
        "sweep": name,
        "grid": {axis: list(values) for axis, values in grid.axes.items()},
        "points": len(grid),
        "done": len(view.done),
        "failed": len(view.failed),
        "rows": [
            {"point": m.point, "metric": m.metric, "mean": m.mean, "spread": m.spread, "seeds": m.count}
            for m in found
        ],
        "seconds": round(sum(one.seconds for one in rows), 2),
        "versions": versions(),
    }
    write_json(folder / "results.json", content)
    if found:  # last: the numbers are on the disk, whatever becomes of the figure
        figure = draw(name, grid, found)
        with replacing(folder / "sweep.png") as path:
            figure.savefig(path, dpi=110)


def draw(name: str, grid: Grid, found: Sequence[Mean]) -> Figure:
    """Draw each metric against the first axis, a line for each value of the others.

    Args:
        name: of what was swept.
        grid: its axes say what is drawn against what.
        found: means and spreads over the seeds.

    Returns:
        A figure of one panel for each metric; bars are one standard deviation over the seeds.
    """
    axes = [axis for axis in grid.varied() if axis != SEED] or [next(iter(grid.axes))]
    metrics = list(dict.fromkeys(m.metric for m in found))
    seeds = len(grid.axes.get(SEED, [0]))
    over = f", mean and standard deviation over {seeds} seeds" if seeds > 1 else ""
    figure, panels = blank(1, len(metrics), f"{name}{over}")
    figure.set_size_inches(max(5.5, 4.4 * len(metrics)), 4.2)
    for panel, metric in zip(panels, metrics, strict=True):
        _panel(panel, axes, grid, [m for m in found if m.metric == metric])
        panel.set(xlabel=axes[0], ylabel=metric.replace("_", " "))
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(axes) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _panel(panel: Axes, axes: Sequence[str], grid: Grid, found: Sequence[Mean]) -> None:
    values = grid.axes[axes[0]]
    numeric = all(isinstance(value, int | float) for value in values)
    place: Mapping[Value, Any] = {value: value if numeric else i for i, value in enumerate(values)}
    lines: dict[str, list[Mean]] = {}
    for mean in found:
        rest = {axis: mean.point[axis] for axis in axes[1:]}
        lines.setdefault(label(rest), []).append(mean)
    for text, members in lines.items():
        at = [place[m.point.get(axes[0], values[0])] for m in members]
        height = [m.mean for m in members]
        spread = [m.spread or 0.0 for m in members]
        panel.errorbar(at, height, spread, fmt="o-", ms=4, lw=1.2, capsize=3, label=text or None)
    if not numeric:
        panel.set_xticks(range(len(values)), [str(value) for value in values])


def table(view: View) -> str:
    """Return the means over the seeds as text, aligned, for a terminal."""
    found = means(view.done.values())
    metrics = list(dict.fromkeys(m.metric for m in found))
    by_point: dict[str, dict[str, Mean]] = {}
    for mean in found:
        by_point.setdefault(label(mean.point), {})[mean.metric] = mean
    cells = [["", *metrics]]
    for text, of in by_point.items():
        cells.append([text, *(_cell(of[metric]) if metric in of else "-" for metric in metrics)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(mean: Mean) -> str:
    return f"{mean.mean:.4g}" + (f" +- {mean.spread:.2g}" if mean.spread is not None else "")
