"""A grid of trainings that is kept on disk one by one, so that an interruption loses only the one at work."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fracspike.files import output_folder, write_json

from .report import Run, versions

Cell = Mapping[str, Any]


def measure(
    out: Run, cells: Iterable[Cell], work: Callable[[Cell], Mapping[str, Any]], what: str
) -> list[dict[str, Any]]:
    """Measure every cell, or take what an earlier, interrupted run of the same command measured.

    A kept result counts only if the cell, the seed and all versions are the same: then measuring
    it again would give the same.

    Args:
        out: where to keep the results, in a folder ``cells``.
        cells: what tells one training from another, as plain values.
        work: measures a cell; returns plain values.
        what: the cells, named on the progress bar.

    Returns:
        Each cell with its results and the ``seconds`` that it took.

    >>> import tempfile
    >>> calls = []
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for _ in range(2):
    ...         done = measure(Run(Path(place)), [{"x": 3}], lambda c: calls.append(c) or {"y": 9}, "squares")
    >>> done[0]["y"], len(calls)
    (9, 1)
    """
    folder = output_folder(out.folder / "cells")
    return [_measure_one(folder, dict(cell), work) for cell in out.progress(cells, what)]


def _measure_one(
    folder: Path, cell: dict[str, Any], work: Callable[[Cell], Mapping[str, Any]]
) -> dict[str, Any]:
    key = json.dumps({**cell, **versions()}, sort_keys=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    kept = _kept(path, cell)
    if kept is not None:
        return kept
    start = time.perf_counter()
    result = {**cell, **work(cell), "seconds": 0.0}
    result["seconds"] = round(time.perf_counter() - start, 2)
    write_json(path, result)
    return result


def _kept(path: Path, cell: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it is damaged: measured again
        return None
    same = isinstance(content, dict) and all(content.get(name) == value for name, value in cell.items())
    return content if same and "seconds" in content else None
