"""What this machine measured, kept beside the results before the storage is told of it.

A storage can go away between a measurement and its being stored; hours of work must not go with it. A folder
of results belongs to one sweep, so that two of them cannot mix.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fracspike.files import write_json

from .grid import Point

OWNER = "sweep.json"
MEASURED = "measured.json"


def own(folder: Path, identity: str, shown: str) -> None:
    """Take a folder for a sweep, or see that it belongs to it.

    Args:
        folder: exists.
        identity: of the sweep, as its storage knows it.
        shown: its storage, without a password.

    Raises:
        ValueError: if another sweep writes to it, or something that is no sweep is called like its file.
    """
    path = folder / OWNER
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", encoding="utf-8") as whole:
        json.dump({"sweep": identity, "storage": shown}, whole, indent=2)
        whole.flush()
        os.fsync(whole.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(whole.name, path)  # all of it or nothing, and by one process only
    owner = _content(path)
    if owner.get("sweep") != identity:
        theirs = owner.get("storage", "an unknown place")
        raise ValueError(
            f"{folder} holds the results of another sweep, kept in {theirs}; "
            "choose another --out, or another --name"
        )


def place(folder: Path, point: Mapping[str, Any]) -> Path:
    """Return the folder of a point, which need not exist; the same in every grid that has the point."""
    text = json.dumps(sorted(point.items()))
    return folder / "trials" / hashlib.sha256(text.encode()).hexdigest()[:16]


def save(at: Path, point: Point, metrics: Mapping[str, float], seconds: float) -> None:
    """Keep a measurement in the folder of its point."""
    write_json(at / MEASURED, {"point": point, "metrics": dict(metrics), "seconds": round(seconds, 3)})


def load(at: Path, point: Mapping[str, Any]) -> tuple[dict[str, float], float] | None:
    """Return the measurement kept in the folder of a point, if there is one that is whole."""
    content = _content(at / MEASURED)
    metrics, seconds = content.get("metrics"), content.get("seconds", "")
    if content.get("point") != point or not isinstance(metrics, dict) or not metrics:
        return None
    if not all(map(_number, [seconds, *metrics.values()])):
        return None
    return {str(name): float(value) for name, value in metrics.items()}, float(seconds)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _content(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
