"""TensorBoard, for those who have it: what the engine measures, as curves to look at meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "tensorboard"
Show = Callable[[Mapping[str, float]], None]


def writer() -> Callable[[str], Any]:
    """Return what writes curves for TensorBoard.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ImportError(
            '`--tensorboard` needs tensorboard, which is not installed; run: pip install "fracspike[logging]"'
        ) from error
    made: Callable[[str], Any] = SummaryWriter
    return made


@contextmanager
def board(folder: Path) -> Iterator[Show]:
    """Give a function that writes a record of the engine's history for TensorBoard.

    Args:
        folder: the curves go to its folder ``tensorboard``; those of a training that is resumed go on.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    with writer()(str(folder / NAME)) as open_board:

        def show(record: Mapping[str, float]) -> None:
            for name, value in record.items():
                if name != "epoch":
                    open_board.add_scalar(name.replace("_", "/", 1), value, int(record["epoch"]))
            open_board.flush()

        yield show
