"""Tiny idx files, as Fashion-MNIST has them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def idx(array: NDArray[Any]) -> bytes:
    """An array of unsigned bytes in that format."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def write(place: Path, training: int, test: int) -> Path:
    """A folder of so many images, of which each pixel is known; labels go round."""
    place.mkdir()
    for stem, count in (("train", training), ("t10k", test)):
        images = np.arange(count * 784).reshape(count, 28, 28) % 251
        (place / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (place / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return place
