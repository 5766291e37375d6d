"""A training on disk: written whole or not at all, and read with suspicion.

The newest checkpoint and the one before it are kept. Each is written to a temporary file, forced to
the disk, then renamed, and so is the renaming; whenever the process or the machine stops, there is a
whole one.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fracspike.files import replacing, sync_folder

FORMAT = 2
NAME = "checkpoint.pt"
BEFORE = "checkpoint.before.pt"  # of the same training
PREVIOUS = "checkpoint.previous.pt"  # of an earlier one
DAMAGED = "checkpoint.damaged.pt"


def save(path: Path, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is kept under another name, and survives any failure.

    Args:
        path: where to; the folder exists.
        config: what the training depends on; must be the same to go on from here.
        state: tensors, numbers, texts, lists and dictionaries of such.
    """
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, "config": config, "state": state}, temporary)
        if path.exists():
            with replacing(path.with_name(BEFORE)) as second:
                _second_name(path, second)


def load(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint, or the one before if it is damaged; no content is ever changed.

    Args:
        path: where it is.
        config: what it must have been made with.

    Returns:
        The state.

    Raises:
        ValueError: if there is none, it is damaged and so is the one before, or it was made with another
            ``config``.

    Warns:
        UserWarning: if the one before is taken; the damaged one then has another name.
    """
    if not exists(path):
        raise ValueError(f"no checkpoint to resume from at {path}; start without --resume")
    try:
        content = _read(path)
    except ValueError as error:
        content = _instead(path, error)
    made_with = content["config"]
    different = [
        f"{name}={made_with.get(name)} (now {config.get(name)})"
        for name in sorted({*made_with, *config})
        if made_with.get(name) != config.get(name)
    ]
    if different:
        raise ValueError(
            f"the checkpoint {path} was made with {', '.join(different)}; "
            "give the same options, or start without --resume"
        )
    state: dict[str, Any] = content["state"]
    return state


def exists(path: Path) -> bool:
    """Tell whether there is a checkpoint, or the one before it, to be loaded from ``path``."""
    return path.exists() or path.with_name(BEFORE).exists()


def damaged(path: Path, reason: object) -> ValueError:
    """Return the error that says what to do with a checkpoint that is no use."""
    return ValueError(
        f"the checkpoint {path} is damaged or not one of fracspike's ({reason}); it is left as it is: "
        "put back a copy, or start without --resume, which keeps it under another name"
    )


def _instead(path: Path, error: ValueError) -> dict[str, Any]:
    """Return the checkpoint before a damaged one, which makes way so that it is not taken for a good one."""
    before = path.with_name(BEFORE)
    try:
        content = _read(before)
    except ValueError:
        raise error from None
    aside = path.with_name(DAMAGED)
    if path.exists():
        path.replace(aside)
    before.replace(path)
    sync_folder(path.parent)
    warnings.warn(
        f"the newest checkpoint {path} was damaged and is now {aside.name}; going on from the one before it",
        stacklevel=2,
    )
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    try:
        # torch.load itself takes weights with flipped bits without a word
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(part.file_size for part in archive.infolist()) > len(raw):
                raise ValueError("it announces more than it holds")  # torch stores, it does not compress
            broken = archive.testzip()
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes at random make these raise nearly anything
        raise damaged(path, type(error).__name__) from error
    if broken is not None:
        raise damaged(path, f"checksum of {broken}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damaged(path, f"no checkpoint of format {FORMAT}")
    if not all(isinstance(content.get(part), dict) for part in ("config", "state")):
        raise damaged(path, "a part is missing")
    return content


def set_aside(path: Path) -> Path | None:
    """Make way for a new training without losing an earlier one.

    Args:
        path: where the new checkpoint will be written.

    Returns:
        Where an earlier checkpoint is now, if there was one.
    """
    if not path.exists():
        return None
    previous = path.replace(path.with_name(PREVIOUS))
    path.with_name(BEFORE).unlink(missing_ok=True)
    return previous


def _second_name(path: Path, second: Path) -> None:
    """Give a file a second name; where that cannot be, copy it."""
    second.unlink()
    with contextlib.suppress(OSError):
        os.link(path, second)
        return
    shutil.copyfile(path, second)
