"""Figures: rasters, membranes, memory kernels, firing rates.

Each function returns a matplotlib figure of its own: no window opens, nothing stays behind in a global
list, and ``figure.savefig`` writes it. Matplotlib is imported when the first is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fracspike.solvers import checks, mittag_leffler

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


def raster(spikes: Tensor, *, dt: float = 1.0, sample: int = 0, title: str = "", unit: str = "") -> Figure:
    """Draw a tick for every spike of every neuron over time, and below how many spiked at each step.

    Args:
        spikes: ``(T, B, *)``.
        dt: time step.
        sample: which of the batch to draw.
        title: text above.
        unit: of ``dt``, for the axis.

    Raises:
        ValueError: if the shape has no batch, or the sample is not in it.

    >>> raster(torch.eye(5).unsqueeze(1)).axes[0].get_ylabel()
    'neuron'
    """
    fired = _of_sample("spikes", spikes, sample).flatten(1) > 0
    time = _times(len(fired), dt)
    figure, axes = blank(2, 1, title)
    figure.set_size_inches(7, 4)
    top, bottom = axes
    top.sharex(bottom)
    step, neuron = (index.numpy() for index in fired.nonzero(as_tuple=True))
    size = max(1.0, min(40.0, 1.2e4 / fired.shape[1] / 10))
    top.scatter(time[step], neuron, marker="|", s=size, linewidths=0.8, color="k")
    top.set(ylabel="neuron", ylim=(-0.5, fired.shape[1] - 0.5), xlim=(0.0, float(time[-1])))
    top.tick_params(labelbottom=False)
    bottom.step(time, fired.double().mean(1).numpy(), where="pre", lw=0.9)
    bottom.set(xlabel=_label("time", unit), ylabel="share", ylim=(0.0, None))
    grid = top.get_gridspec()
    assert grid is not None
    grid.set_height_ratios([3, 1])
    return figure


def membrane(
    voltage: Tensor,
    spikes: Tensor | None = None,
    *,
    threshold: float | None = None,
    dt: float = 1.0,
    sample: int = 0,
    neurons: Sequence[int] = (0, 1, 2),
    title: str = "",
    unit: str = "",
) -> Figure:
    """Draw the potential of some neurons, one panel each, with threshold and spikes.

    Args:
        voltage: potentials ``(T, B, *)``; before reset they show what the spike was decided on.
        spikes: ``(T, B, *)``, drawn as ticks above.
        threshold: drawn as a dashed line.
        dt: time step.
        sample: which of the batch to draw.
        neurons: which neurons, counted over all trailing dimensions; those that do not exist are left out.
        title: text above.
        unit: of ``dt``, for the axis.

    >>> len(membrane(torch.rand(20, 1, 8), threshold=1.0, neurons=[0, 5]).axes)
    2
    """
    v = _of_sample("voltage", voltage, sample).flatten(1)
    fired = None if spikes is None else _of_sample("spikes", spikes, sample).flatten(1)
    if fired is not None and fired.shape != v.shape:
        raise ValueError(f"`spikes` must have the shape of `voltage`, got {tuple(fired.shape)}")
    chosen = [n for n in neurons if n < v.shape[1]]
    if not chosen or min(chosen) < 0:
        raise ValueError(f"`neurons` must lie in 0..{v.shape[1] - 1}, got {list(neurons)}")
    time = _times(len(v), dt)
    figure, axes = blank(len(chosen), 1, title)
    for ax, n in zip(axes, chosen, strict=True):
        ax.plot(time, v[:, n].numpy(), lw=0.9)
        top = float(v[:, n].max()) if threshold is None else max(threshold, float(v[:, n].max()))
        if threshold is not None:
            ax.axhline(threshold, ls="--", lw=0.7, color="grey")
        if fired is not None:
            span = top - float(v[:, n].min()) or 1.0
            at = time[fired[:, n].numpy() > 0]
            ax.eventplot(at, lineoffsets=top + 0.12 * span, linelengths=0.12 * span, colors="C3")
        ax.set(ylabel=f"neuron {n}", xlim=(0.0, float(time[-1])))
    axes[-1].set_xlabel(_label("time", unit))
    figure.supylabel("membrane potential")
    return figure


def kernel(
    alpha: float | Sequence[float], *, tau: float = 1.0, dt: float = 0.05, steps: int = 2000, unit: str = ""
) -> Figure:
    r"""Draw the memory kernel :math:`E_\alpha(-(t/\tau)^\alpha)` beside the exponential.

    Args:
        alpha: order or orders.
        tau: membrane time constant.
        dt: time step.
        steps: how many steps to draw.
        unit: of ``tau`` and ``dt``, for the axis.

    >>> len(kernel([0.4, 0.8]).axes)
    2
    """
    orders = [alpha] if isinstance(alpha, int | float) else list(alpha)
    for order in orders:
        checks.order("alpha", order)
    scale = float(checks.real("tau", tau, above=0.0))
    step = float(checks.real("dt", dt, above=0.0))
    count = checks.positive_int("steps", steps)
    time = torch.arange(1, count + 1, dtype=torch.float64) * step
    figure, axes = blank(1, 2, "what is left of a unit jump of the potential")
    near = time <= 5 * scale
    for ax, part in zip(axes, (near, torch.ones_like(near)), strict=True):
        t = time[part]
        for order in orders:
            left = mittag_leffler(-((t / scale) ** order), torch.tensor(order, dtype=torch.float64))
            ax.plot(t, left, label=f"alpha {order:g}")
        ax.plot(t, torch.exp(-t / scale), "k--", lw=0.9, label="exponential")
        ax.set_xlabel(_label("time", unit))
    smallest = min(
        float(mittag_leffler(-((time[-1:] / scale) ** a), torch.tensor(a, dtype=torch.float64)))
        for a in orders
    )
    axes[1].set(xscale="log", yscale="log", ylim=(max(smallest / 3, 1e-8), 1.5))
    axes[0].set_ylim(0, 1)
    axes[0].legend(fontsize="small")
    return figure


def rates(spikes: Tensor | dict[str, Tensor], *, dt: float = 1.0, bins: int = 30, unit: str = "") -> Figure:
    """Draw how firing rates are distributed over neurons, the mean over the batch, one curve for each layer.

    Args:
        spikes: ``(T, B, *)``, or several by name.
        dt: time step.
        bins: number of bins.
        unit: of ``dt``, for the axis.

    >>> rates({"hidden": torch.zeros(10, 2, 5)}).axes[0].get_ylabel()
    'share of neurons'
    """
    layers = {"": spikes} if isinstance(spikes, Tensor) else dict(spikes)
    step = float(checks.real("dt", dt, above=0.0))
    figure, axes = blank(1, 1, "firing rates")
    values = []
    for train in layers.values():
        checks.all_finite("spikes", train)
        values.append((train.detach().double().sum(0) / (len(train) * step)).mean(0).flatten().cpu().numpy())
    top = max(float(v.max()) for v in values) or 1.0 / step
    for name, v in zip(layers, values, strict=True):
        share = [1.0 / len(v)] * len(v)
        label = f"{name}: mean {v.mean():.3g}, silent {(v == 0).mean():.0%}".removeprefix(": ")
        axes[0].hist(v, bins=bins, range=(0.0, top), weights=share, histtype="step", lw=1.4, label=label)
    axes[0].set(xlabel=f"spikes per {unit or 'unit of time'}", ylabel="share of neurons")
    axes[0].legend()
    return figure


def _times(steps: int, dt: float) -> NDArray[np.floating]:
    return float(checks.real("dt", dt, above=0.0)) * np.arange(1, steps + 1)


def _label(what: str, unit: str) -> str:
    return f"{what} ({unit})" if unit else what


def _of_sample(name: str, value: Tensor, sample: int) -> Tensor:
    checks.all_finite(name, value)
    if value.dim() < 3:
        raise ValueError(
            f"`{name}` must have shape (T, B, *), got {tuple(value.shape)}; for one sample use .unsqueeze(1)"
        )
    if not -value.shape[1] <= sample < value.shape[1]:
        raise ValueError(f"`sample` must lie in 0..{value.shape[1] - 1}, got {sample}")
    return value.detach()[:, sample].cpu()
