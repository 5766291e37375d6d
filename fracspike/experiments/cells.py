"""A grid of trainings that is kept on disk one by one, so that an interruption loses next to nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fracspike.files import output_folder, write_json

from .report import Run, versions

#: what the row is called that says how long all cells took, over all goes
TIME = "time of all trainings (s)"
Cell = Mapping[str, Any]
Work = Callable[[Cell, Path], Mapping[str, Any]]


def measure(out: Run, cells: Iterable[Cell], work: Work, what: str) -> list[dict[str, Any]]:
    """Measure every cell, or take what an earlier, interrupted run of the same command measured.

    A kept result counts only if the cell and all versions are the same: then measuring it again
    would give the same.

    Args:
        out: where to keep the results, in a folder ``cells``.
        cells: what tells one training from another, seed included, as plain values.
        work: measures a cell; returns plain values. It is also given a folder of its own for
            checkpoints, which is removed when it has returned.
        what: the cells, named on the progress bar.

    Returns:
        Each cell with its results.

    >>> import tempfile
    >>> calls = []
    >>> def work(cell, folder):
    ...     calls.append(cell)
    ...     return {"y": cell["x"] ** 2}
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for _ in range(2):
    ...         done = measure(Run(Path(place)), [{"x": 3}], work, "cells")
    >>> done, len(calls)
    ([{'x': 3, 'y': 9}], 1)
    """
    folder = output_folder(out.folder / "cells")
    return [_measure_one(folder, dict(cell), work) for cell in out.progress(cells, what)]


def _measure_one(folder: Path, cell: dict[str, Any], work: Work) -> dict[str, Any]:
    depends = {"cell": cell, "versions": versions()}
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.json"
    kept = _kept(path, depends)
    if kept is None:
        kept = dict(work(cell, folder / name))
        write_json(path, {**depends, "result": kept})
        shutil.rmtree(folder / name, ignore_errors=True)
    return {**cell, **kept}


def _kept(path: Path, depends: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # there is none, or it is damaged: measured again
        return None
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in depends.items()):
        return None
    result = content.get("result")
    return result if isinstance(result, dict) else None
