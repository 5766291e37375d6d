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

from fracspike.files import replacing, sync_folder, unused

FORMAT = 2
NAME = "checkpoint.pt"
BEFORE = "checkpoint.before.pt"  # of the same training
DAMAGED = "checkpoint.damaged.pt"  # the second one is checkpoint.damaged-2.pt
OWN = (
    BEFORE,
    NAME,
)  # in this order it is safe to move them: the one before alone would be taken for the newest


def save(path: Path, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is kept under another name, and survives any failure.

    Args:
        path: where to; the folder exists.
        config: what the training depends on; must be the same to go on from here.
        state: tensors, numbers, texts, lists and dictionaries of such.

    Raises:
        DiskFullError: if there is no space for it.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as file:  # so that an error of the disk is told as such
            torch.save({"format": FORMAT, "config": config, "state": state}, file)
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
        UserWarning: if the one before is taken; a damaged one then has another name.
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
            "give the same options, or start without --resume, which moves it aside"
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
        "put back a copy, or start without --resume, which moves it aside"
    )


def _instead(path: Path, error: ValueError) -> dict[str, Any]:
    """Return the checkpoint before the newest; a damaged newest one makes way."""
    before, missing = path.with_name(BEFORE), not path.exists()
    try:
        content = _read(before)
    except ValueError as second:
        raise (second if missing else error) from None
    said = f"there is no newest checkpoint {path}"
    if not missing:
        aside = unused(path.with_name(DAMAGED), lambda made: made.touch(exist_ok=False))
        path.replace(aside)
        said = f"the newest checkpoint {path} was damaged and is now {aside.name}"
    before.replace(path)
    sync_folder(path.parent)
    warnings.warn(f"{said}; going on from the one before it", stacklevel=2)
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


def _second_name(path: Path, second: Path) -> None:
    """Give a file a second name; where that cannot be, copy it."""
    second.unlink()
    with contextlib.suppress(OSError):
        os.link(path, second)
        return
    shutil.copyfile(path, second)
