"""Files of every format that the library reads, damaged at random, and what may come of reading one.

Used by ``tests/test_damaged_files.py`` and, with more of them, by ``benchmarks/fuzz_files.py``.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import idx_files
import numpy as np
import torch
from scipy import sparse
from scipy.io import wavfile

from fracspike.data import fashion_mnist, fsdd, idx, planetoid
from fracspike.training import checkpoint

MEMORY = 100 * 2**20  # bytes that reading one of these small files may take at most


@dataclass(frozen=True)
class Format:
    """A kind of file: its name, one that is whole, and how the library reads it."""

    name: str
    whole: bytes
    read: Callable[[Path], object]
    packed: bool = False  # by gzip, so that damage inside is not found by gzip alone


def _wav() -> bytes:
    content = io.BytesIO()
    wavfile.write(content, fsdd.RATE, np.arange(-50, 50, dtype=np.int16))
    return content.getvalue()


def _checkpoint(path: Path) -> bytes:
    checkpoint.save(path, {"a": 1}, {"weights": torch.arange(12.0), "history": [{"loss": 1.0}]})
    return path.read_bytes()


def _graph(part: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        reader = planetoid._Reader(path.parent, "toy")
        return reader.matrix(part) if part == "allx" else reader.adjacency(part, 7)

    return read


def formats(work: Path) -> list[Format]:
    """Return every format; ``work`` is a folder for what must be written to be had."""
    graph = {0: [1, 1, 0], 1: [0, 6], 4: [2], 5: []}
    words = sparse.csr_matrix(np.eye(4, 3, dtype=np.float32))

    def images(path: Path) -> object:
        return idx.read(path.parent, path.name, fashion_mnist.SOURCE, dimensions=3, most=fashion_mnist.MOST)

    def labels(path: Path) -> object:
        return idx.read(path.parent, path.name, fashion_mnist.SOURCE, dimensions=1, most=fashion_mnist.MOST)

    return [
        Format("3_ann_0.wav", _wav(), lambda path: fsdd._wave(path.parent, path.name)),
        Format("images.gz", idx_files.idx(np.arange(3 * 784).reshape(3, 28, 28) % 251), images, packed=True),
        Format("labels.gz", idx_files.idx(np.arange(30) % 10), labels, packed=True),
        Format("ind.toy.graph", pickle.dumps(graph, protocol=2), _graph("graph")),
        Format("ind.toy.allx", pickle.dumps(words, protocol=2), _graph("allx")),
        Format(
            "checkpoint.pt",
            _checkpoint(work / "checkpoint.pt"),
            lambda path: checkpoint.load(path, {"a": 1}),
        ),
    ]


def _some(content: bytes, random: Random) -> tuple[int, int]:
    """Return where a short run of bytes begins, half of the time near the head, and how long it is."""
    near = random.random() < 0.5
    return random.randrange(min(len(content), 64) if near else len(content)), random.randint(1, 8)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: _some(content, random)[0]]


def _flipped(content: bytes, random: Random) -> bytes:
    spoilt = bytearray(content)
    for _ in range(random.randint(1, 8)):
        spoilt[_some(content, random)[0]] ^= 1 << random.randrange(8)
    return bytes(spoilt)


def _overwritten(content: bytes, random: Random) -> bytes:
    at, count = _some(content, random)
    filling = random.choice([b"\0" * count, b"\xff" * count, random.randbytes(count)])
    return content[:at] + filling + content[at + count :]


def _removed(content: bytes, random: Random) -> bytes:
    at, count = _some(content, random)
    return content[:at] + content[at + count :]


def _inserted(content: bytes, random: Random) -> bytes:
    at, count = _some(content, random)
    return content[:at] + random.randbytes(count) + content[at:]


def _foreign(content: bytes, random: Random) -> bytes:
    return random.choice(
        [b"", random.randbytes(random.randint(1, 400)), content + content, json.dumps({"a": 1}).encode()]
    )


DAMAGES = (_cut, _flipped, _overwritten, _removed, _inserted, _foreign)


def spoil(form: Format, random: Random) -> bytes:
    """Return the content of a file of a format, damaged in one way."""
    damage = random.choice(DAMAGES)
    if form.packed and random.random() < 0.6:
        return gzip.compress(damage(gzip.decompress(form.whole), random), mtime=0)
    return damage(form.whole, random)


def complaint(form: Format, content: bytes, folder: Path) -> str:
    """Return what is wrong with how a damaged file is read; empty if all is well.

    All is well where the file is taken (damage in the values cannot be seen without a checksum), or refused
    in one line that names it; within bounds of memory, and without changing it.
    """
    path = folder / form.name
    path.write_bytes(content)
    tracemalloc.start()
    wrong = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            form.read(path)
    except ValueError as error:
        if form.name not in str(error) or "\n" in str(error) or len(str(error)) > 1000:
            wrong = f"not one line with the file's name: {str(error)[:300]!r}"
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if not wrong and peak > MEMORY:
        wrong = f"{peak / 2**20:.0f} MiB of memory"
    if not wrong and path.read_bytes() != content:
        wrong = "the file was changed"
    return wrong


def bombs() -> list[tuple[str, bytes]]:
    """Return small gzip files that unpack to 256 MiB: of zeros, and with the head of an array of images."""
    many = 2**28 // 784
    head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (many, 28, 28))
    false = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1, 28, 28))
    huge = b"\0\0\x08\x03" + b"\xff" * 12
    zeros = gzip.compress(bytes(2**28), compresslevel=1, mtime=0)
    return [
        (name, gzip.compress(start, mtime=0) + zeros)
        for name, start in [("zeros", b""), ("announced", head), ("more", false), ("huge", huge)]
    ]
