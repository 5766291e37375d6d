"""Arrays of bytes in idx files, as LeCun describes them for MNIST.

Two zero bytes, the type (8: unsigned byte), the number of dimensions, their sizes as big-endian 32-bit
numbers, the values; compressed with gzip. The head is read first, and no more is unpacked than it announces:
a few megabytes of gzip may hold gigabytes of zeros.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .places import Source, damaged, file

MAGIC = b"\0\0\x08"


def read(place: Path, name: str, source: Source, *, dimensions: int, most: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file compressed with gzip.

    Args:
        place: the folder.
        name: of the file in it.
        source: the data set, named in errors.
        dimensions: how many the array must have.
        most: values that the file may announce; more are refused before any is read.

    Returns:
        The array, in the shape that the file says.

    Raises:
        ValueError: if the file is missing, damaged, truncated, too large, or of another type.
    """
    packed = io.BytesIO(file(place, name, source))
    shape: tuple[int, ...] = ()
    values, wrong = b"", ""
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            wrong = _unlike(stream.read(4), dimensions)
            if not wrong:
                shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
                if math.prod(shape) > most:
                    wrong = f"{math.prod(shape)} values are announced, where at most {most} are expected"
                else:  # one more than announced, so that the end and gzip's own checksum are reached
                    values = stream.read(math.prod(shape) + 1)
    except struct.error as error:
        raise damaged(place / name, source, "ends within its head") from error
    except Exception as error:  # bytes at random make gzip raise nearly anything
        raise damaged(place / name, source, str(error) or type(error).__name__) from error
    if not wrong and len(values) != math.prod(shape):
        count = str(len(values)) if len(values) < math.prod(shape) else "more"
        wrong = f"{count} values where {math.prod(shape)} are announced"
    if wrong:
        raise damaged(place / name, source, wrong)
    return np.frombuffer(values, np.uint8).reshape(shape)


def _unlike(start: bytes, dimensions: int) -> str:
    """Return what the first four bytes of a file have that an idx file of bytes has not, or nothing."""
    if len(start) < 4 or start[:3] != MAGIC:
        return "no idx file of unsigned bytes"
    return "" if start[3] == dimensions else f"{start[3]} dimensions where {dimensions} are expected"
