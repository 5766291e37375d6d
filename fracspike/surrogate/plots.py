"""Pictures of surrogates: the function and its gradient side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Surrogate
from .drawing import draw
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
    members = [get(s) if isinstance(s, str) else s for s in surrogates]
    return draw(members, low=low, high=high, points=points, labels=labels, title=title)
