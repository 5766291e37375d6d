"""Where data sets are: a folder that is given, ``FRACSPIKE_DATA``, the system's, or the user's cache.

Nothing is fetched into a folder of the user's own. What is fetched into the cache is compared with a
checksum before it gets its name, so an interrupted or damaged download is never taken for data.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

VARIABLE = "FRACSPIKE_DATA"
REASON = 200  # characters of a reader's own words that are shown


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched.

    Attributes:
        name: of the file in the data set's folder; of a folder, if it is an archive to unpack.
        url: where it is.
        sha256: of the file as it is fetched.
        unpack: for an archive (tar or zip), the folder inside it that becomes ``name``; else empty.
    """

    name: str
    url: str
    sha256: str
    unpack: str = ""


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: of its folder below ``FRACSPIKE_DATA`` and below the cache.
        title: one line.
        licence: under which it may be used.
        files: names that must be in its folder for it to be there at all.
        remotes: where they come from; empty if they cannot be fetched.
        places: folders where a package of the system puts it.
        largest: size in bytes that none of its files exceeds; more is never read.
    """

    name: str
    title: str
    licence: str
    files: Sequence[str]
    remotes: Sequence[Remote] = ()
    places: Sequence[str] = ()
    largest: int = 2**26


def cache_folder() -> Path:
    """Return the user's cache folder for fracspike, which need not exist."""
    return Path(str(_pooch().os_cache("fracspike")))


def folder(source: Source, given: str | Path | None = None) -> Path:
    """Return the folder that holds a data set, after fetching it into the cache if need be.

    Looked for in this order: ``given``; ``$FRACSPIKE_DATA/NAME``; where a package of the system
    puts it; the user's cache.

    Args:
        source: the data set.
        given: its own folder, or one that holds a folder of its name; then nothing else is tried.

    Returns:
        A folder that holds all of ``source.files``; what is in them is the loader's to judge.

    Raises:
        ValueError: if ``given`` is no folder or lacks a file.
        OSError: if the data set is nowhere and cannot be fetched.
        ImportError: if fetching it needs a package that is not installed.
    """
    if given is not None:
        return _given(source, Path(given).expanduser())
    places = [Path(place) for place in source.places]
    if root := os.environ.get(VARIABLE):
        places.insert(0, Path(root).expanduser() / source.name)
    for place in places:
        if not missing(source, place):
            return place
    cache = cache_folder() / source.name
    if missing(source, cache):
        _fetch(source, cache)
    return cache


def missing(source: Source, place: Path) -> list[str]:
    """Return which of the files of ``source`` are not in the folder ``place``."""
    return [name for name in source.files if not (place / name).exists()]


def file(place: Path, name: str, source: Source) -> bytes:
    """Return the content of a file.

    Args:
        place: the folder.
        name: of the file in it.
        source: the data set, named in the error; it says how large the file may be.

    Returns:
        Its bytes.

    Raises:
        ValueError: if it cannot be read, is no ordinary file, or is larger than ``source.largest``.
    """
    path = place / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device would never end
            raise damaged(path, source, "it is no ordinary file")
        with path.open("rb") as stream:
            content = stream.read(source.largest + 1)
    except OSError as error:
        raise damaged(path, source, error.strerror or "cannot be read") from error
    if len(content) > source.largest:
        raise damaged(path, source, f"larger than {source.largest} bytes, which no file of it is")
    return content


def damaged(path: Path, source: Source, reason: object) -> ValueError:
    """Return the error for a file that is not what it should be, to be raised by a loader.

    Args:
        path: the file.
        source: the data set.
        reason: what is wrong with it, such as ``"ends after 12 of 784 bytes"``; readers quote what they find,
            so only the start of it is shown, on one line.

    Returns:
        An error that says what to do; the file itself is never touched.
    """
    shown = " ".join(str(reason).split())
    shown = shown if len(shown) <= REASON else f"{shown[:REASON]}..."
    return ValueError(
        f"{path} is damaged or no file of {source.title} ({shown}); it is left as it is: "
        "remove it to have it fetched again, or give another folder with --data"
    )


def _given(source: Source, given: Path) -> Path:
    if not given.is_dir():
        raise ValueError(f"`data` must be a folder with {source.title}, got {str(given)!r}, which is none")
    for place in (given, given / source.name):
        if not missing(source, place):
            return place
    lacking = ", ".join(missing(source, given)[:4])
    raise ValueError(
        f"`data` must be a folder with {source.title}; {str(given)!r} lacks {lacking}; "
        "give another, or leave it out to have the data fetched"
    )


def _fetch(source: Source, cache: Path) -> None:
    if not source.remotes:
        raise FileNotFoundError(
            f"{source.title} is not on this machine and cannot be fetched; "
            f"give its folder with --data, or put it in a folder {source.name} below ${VARIABLE}"
        )
    pooch = _pooch()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for remote in source.remotes:
            if not (cache / remote.name).exists():
                _fetch_one(pooch, remote, cache)
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:  # requests' are OSErrors
        raise OSError(
            f"{source.title} could not be fetched: {' '.join(str(error).split())[:300]}; try again, or "
            f"get it by hand and give its folder with --data, or as {source.name} below ${VARIABLE}"
        ) from error


def _fetch_one(pooch: ModuleType, remote: Remote, cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as work:  # renamed when it is whole
        fetched = Path(pooch.retrieve(remote.url, f"sha256:{remote.sha256}", fname="file", path=work))
        if remote.unpack:
            unpacked = Path(work) / "unpacked"
            _unpack(fetched, unpacked)
            fetched = unpacked / remote.unpack
            if not fetched.exists():
                raise ValueError(f"{remote.url} holds no {remote.unpack}")
        fetched.replace(cache / remote.name)


def _unpack(archive: Path, into: Path) -> None:
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    else:
        shutil.unpack_archive(archive, into, "zip")


def _pooch() -> ModuleType:
    try:
        import pooch  # here, because a neuron needs no data set
    except ImportError as error:
        raise ImportError(
            'finding data sets needs pooch, which is not installed; run: pip install "fracspike[experiments]"'
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)
    module: ModuleType = pooch
    return module
