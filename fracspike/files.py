"""Writing results so that nothing on disk is ever lost: to a temporary file, then renamed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

UNFINISHED = ".fracspike-unfinished-"  # how a file is called until it is whole; nobody else calls his so
_LEFTOVER = re.compile(re.escape(UNFINISHED) + r".+-[a-z0-9_]{8}(\..*)?")


class DiskFullError(OSError):
    """There was no space to write a file; the file that was there before is untouched.

    Args:
        path: what should have been written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.errno = errno.ENOSPC
        self.filename = str(path)

    def __str__(self) -> str:
        return (
            f"disk full: {self.filename} cannot be written; what was there before is kept: free some space, "
            "then go on (a training with --resume)"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error comes from a full disk, or from a quota that is used up.

    Libraries raise errors of their own while they close the file, so the errors before are looked at too.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def output_folder(path: str | Path) -> Path:
    """Return ``path`` as an existing folder that can be written to.

    Raises:
        ValueError: if it cannot be made or written to.
        DiskFullError: if there is no space for it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(folder) from error
        raise ValueError(
            f"`out` must be a folder that can be written to, got {str(folder)!r} ({error.strerror}); "
            "choose another with --out"
        ) from error
    return folder


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, and rename it to ``path`` if all went well.

    A reader never sees half a file, and an older file survives any failure.

    Raises:
        DiskFullError: if there is no space for the new file.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f"{UNFINISHED}{path.stem}-", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        if is_disk_full(error) and not isinstance(error, DiskFullError):
            raise DiskFullError(path) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


class InUseError(ValueError):
    """Another process is writing to the same folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder meanwhile; given up whenever this process ends.

    Raises:
        InUseError: if another holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InUseError(
            f"`out` must not be in use by another process, but something is writing to {folder}; "
            "wait for it, or choose another with --out"
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, so that a renaming outlives a power cut."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, before: float) -> None:
    """Remove what a process that was killed left half-written; nobody else may be writing there.

    Args:
        folder: only files that lie directly in it, under the names that :func:`replacing` gives.
        before: start of the present run, as ``time.time()`` tells it: nothing younger is touched.
    """
    for path in folder.glob(f"{UNFINISHED}*"):
        if _LEFTOVER.fullmatch(path.name) is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                path.unlink()


def move_aside(folder: Path, names: Sequence[str]) -> Path | None:
    """Make way for new results without losing earlier ones: move them to a folder of their own in it.

    Args:
        folder: where they are; nobody else may be writing there.
        names: what to move, files or folders, in this order; what is not there is passed over.

    Returns:
        The folder, ``previous``, ``previous-2``, ...; None if there was nothing to move.
    """
    present = [folder / name for name in names if os.path.lexists(folder / name)]
    if not present:
        return None
    aside = unused(folder / "previous", Path.mkdir)
    for path in present:
        path.replace(aside / path.name)
    sync_folder(aside)
    sync_folder(folder)
    return aside


def unused(path: Path, make: Callable[[Path], object]) -> Path:
    """Return the first of ``NAME.SUFFIX``, ``NAME-2.SUFFIX``, ``NAME-3.SUFFIX``, ... that ``make`` can make.

    Args:
        path: ``NAME.SUFFIX``.
        make: makes a file or folder, or raises ``FileExistsError``.
    """
    for number in itertools.count(1):
        chosen = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            make(chosen)
            return chosen
    raise AssertionError("unreachable")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
