"""Pictures of surrogates: the function and its gradient side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .base import Surrogate
from .registry import get

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_surrogates(
    surrogates: Sequence[Surrogate | str],
    *,
    low: float = -2.0,
    high: float = 2.0,
    points: int = 801,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw several surrogates: on the left the spike and each primitive, on the right each derivative.

    Args:
        surrogates: surrogates, or names for `get`.
        low: left end of the x axis (membrane potential minus threshold).
        high: right end of it.
        points: how many points to draw.
        labels: legend entries, by default the ``repr`` of each surrogate.
        title: text above both panels.

    Returns:
        The matplotlib figure; call its ``savefig``.

    Raises:
        ValueError: if there is nothing to draw, or ``labels`` and ``surrogates`` differ in number.

    Example:
        >>> from fracspike.surrogate import plot_surrogates
        >>> figure = plot_surrogates(["atan", "sigmoid"])
        >>> len(figure.axes)
        2
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    members = [get(s) if isinstance(s, str) else s for s in surrogates]
    if not members:
        raise ValueError("`surrogates` must hold at least one surrogate, got none")
    names = [repr(s) for s in members] if labels is None else list(labels)
    if len(names) != len(members):
        raise ValueError(f"`labels` must hold {len(members)} entries, one per surrogate, got {len(names)}")
    if not low < high:
        raise ValueError(f"`low` must be < `high`, got {low} and {high}")
    x = torch.linspace(low, high, points, dtype=torch.float64)
    # No pyplot: a figure of its own neither opens a window nor stays behind in a global list.
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(x, (x >= 0).to(x.dtype), color="0.6", linewidth=2.5, label="spike H(x)")
    with torch.no_grad():
        for member, label in zip(members, names, strict=True):
            (line,) = right.plot(x, member.derivative(x), label=label)
            try:
                left.plot(x, member.primitive(x), color=line.get_color(), label=label)
            except NotImplementedError:
                continue
    left.set(title="function", xlabel="x = v - threshold", ylabel="s(x) and primitive G(x)")
    right.set(title="gradient", xlabel="x = v - threshold", ylabel="surrogate derivative g(x)")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(title)
    return figure
