"""How surrogates are drawn; `plots` takes names as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curve(Protocol):
    """What can be drawn."""

    def derivative(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def primitive(self, x: Tensor) -> Tensor: ...  # noqa: D102


def draw(
    members: Sequence[Curve],
    *,
    low: float = -2.0,
    high: float = 2.0,
    points: int = 801,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw several surrogates; see `plots.plot_surrogates`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
