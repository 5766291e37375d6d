"""What a training looks like: learning curves, and what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fracspike.plots import blank

from .classify import Epoch, best_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(title: str, histories: Mapping[str, Sequence[Epoch]]) -> Figure:
    """Draw loss and error by epoch, one colour for each training.

    Args:
        title: above both panels.
        histories: the epochs of each training, by the name that the legend gives it.

    Returns:
        A figure of two panels; a circle marks the epoch whose weights were taken.
    """
    figure, (left, right) = blank(1, 2, title)
    figure.set_size_inches(9.6, 4.4)
    for colour, (name, history) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in history]
        best = best_of(history)
        for part, style in (("training", ":"), ("validation", "-")):
            losses = [getattr(epoch, f"{part}_loss") for epoch in history]
            errors = [100 * (1 - getattr(epoch, f"{part}_accuracy")) for epoch in history]
            look: dict[str, Any] = {"color": f"C{colour}", "ls": style, "lw": 1.2, "label": f"{name}{part}"}
            left.semilogy(epochs, losses, **look)
            right.plot(epochs, errors, **look)
        circle: dict[str, Any] = {"color": f"C{colour}", "marker": "o", "fillstyle": "none", "ls": ""}
        left.plot([best.epoch], [best.validation_loss], **circle)
        right.plot(
            [best.epoch], [100 * (1 - best.validation_accuracy)], **circle, label=f"{name}weights taken"
        )
    left.set(xlabel="epoch", ylabel="cross entropy")
    right.set(xlabel="epoch", ylabel="errors (%)")
    right.set_yscale("symlog", linthresh=1)  # from chance level to none at all, on one axis
    top = right.dataLim.y1
    ticks = [0, 0.5, 1, 2, 5, 10, 20, 50, 100]
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.set_ylim(0, max(1.0, 1.2 * top))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def confusion_matrix(title: str, counts: Tensor, classes: Sequence[str]) -> Figure:
    """Draw what was taken for what.

    Args:
        title: above the matrix.
        counts: rows are true classes, columns are answers.
        classes: their names.

    Returns:
        A figure; colour is the share of the true class, numbers are images.
    """
    figure, (ax,) = blank(1, 1, title)
    figure.set_size_inches(5.2, 5.2)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    ax.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)  # the root shows single mistakes
    for row, line in enumerate(counts.tolist()):
        for column, count in enumerate(line):
            if count:
                colour = "white" if shares[row, column] > 0.3 else "black"
                ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(classes))
    ax.set_xticks(ticks, classes)
    ax.set_yticks(ticks, classes)
    ax.set(xlabel="answer", ylabel="true class")
    return figure
