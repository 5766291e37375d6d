"""TensorBoard, for those who have it: what the engine measures, as curves to look at meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Show = Callable[[Mapping[str, float]], None]


@contextmanager
def board(folder: Path) -> Iterator[Show]:
    """Give a function that writes a record of the engine's history for TensorBoard.

    Args:
        folder: the curves go to its folder ``tensorboard``; those of a training that is resumed go on.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ImportError(
            '`--tensorboard` needs tensorboard, which is not installed; run: pip install "fracspike[logging]"'
        ) from error
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def show(record: Mapping[str, float]) -> None:
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name.replace("_", "/", 1), value, int(record["epoch"]))
            writer.flush()

        yield show
