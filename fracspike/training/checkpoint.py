"""A training on disk: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from fracspike.files import replacing

FORMAT = 1
NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save(path: Path, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before survives any failure.

    Args:
        path: where to; the folder exists.
        config: what the training depends on; must be the same to go on from here.
        state: tensors, numbers, texts, lists and dictionaries of such.
    """
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, "config": config, "state": state}, temporary)


def load(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint; the file is never changed.

    Args:
        path: where it is.
        config: what it must have been made with.

    Returns:
        The state.

    Raises:
        ValueError: if there is none, it is damaged, or it was made with another ``config``.
    """
    if not path.exists():
        raise ValueError(f"no checkpoint to resume from at {path}; start without --resume")
    content = _read(path)
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


def damaged(path: Path, reason: object) -> ValueError:
    """Return the error that says what to do with a checkpoint that is no use."""
    return ValueError(
        f"the checkpoint {path} is damaged or not one of fracspike's ({reason}); it is left as it is: "
        "put back a copy, or start without --resume, which keeps it under another name"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    try:
        # torch.load itself takes weights with flipped bits without a word
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
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
    return path.replace(path.with_name(PREVIOUS))
