"""Fashion-MNIST: 70000 images of clothes, 28 x 28 pixels, ten classes.

Xiao, Rasul and Vollgraf (2017), arXiv 1708.07747; idx files, compressed with gzip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import idx
from .places import Remote, Source, damaged, folder

CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28
MOST = 2**26  # bytes in a file when it is unpacked: the training images have 47 MB
FILES = {"training": "train", "test": "t10k"}
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
ORIGIN = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
SOURCE = Source(
    name="fashion-mnist",
    title="Fashion-MNIST",
    licence="MIT",
    files=tuple(SHA256),
    remotes=tuple(Remote(name, ORIGIN + name, digest) for name, digest in SHA256.items()),
    places=("/usr/share/datasets/fashion-mnist",),  # Debian's package dataset-fashion-mnist
    largest=2**25,  # the training images have 26 MB
)

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load(place: str | Path | None = None) -> dict[str, Part]:
    """Return images and labels.

    Args:
        place: a folder with the four files; by default wherever :func:`fracspike.data.folder`
            finds them, or the user's cache after a download of 30 MB.

    Returns:
        For ``"training"`` and ``"test"``: images ``(N, 28, 28)`` from 0 to 255, labels ``(N,)``.

    Raises:
        ValueError: if a file is missing, damaged, truncated, or does not go with the other.
        OSError: if there is no folder and the files cannot be fetched.
    """
    found = folder(SOURCE, place)
    return {part: _part(found, stem) for part, stem in FILES.items()}


def _part(place: Path, stem: str) -> Part:
    images = idx.read(place, f"{stem}-{KINDS[0]}.gz", SOURCE, dimensions=3, most=MOST)
    labels = idx.read(place, f"{stem}-{KINDS[1]}.gz", SOURCE, dimensions=1, most=MOST)
    if images.shape[1:] != (SIDE, SIDE):
        raise damaged(place / f"{stem}-{KINDS[0]}.gz", SOURCE, f"images of shape {images.shape[1:]}")
    if labels.shape != images.shape[:1] or not len(labels):
        raise damaged(
            place / f"{stem}-{KINDS[1]}.gz", SOURCE, f"{len(labels)} labels for {len(images)} images"
        )
    if labels.max() >= len(CLASSES):
        raise damaged(place / f"{stem}-{KINDS[1]}.gz", SOURCE, f"a label of {labels.max()}")
    return images, labels
