"""Handwritten digits, read row by row.

Each of the 1797 images of 8 x 8 pixels is presented over eight time steps, one row per step, as a
current. What a neuron knows of the rows before is in its membrane and its memory.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .blocks import Raster, neurons, scaled
from .noise import Dropout, Noise
from .task import Data, Options, Task, split

ROWS = COLUMNS = 8
CLASSES = tuple(str(digit) for digit in range(10))
VALIDATION, TEST = 0.1, 0.2
TAU = 4.0  # rows: half an image
NOISE = 0.2  # standard deviation, where black is 0 and white is 1


def load(seed: int, folder: Path | None = None) -> Data:
    """Return scikit-learn's bundled digits, ``(8, N, 8)`` between 0 and 1, split by ``seed``.

    Args:
        seed: decides which image falls into which part.
        folder: must be None, as the images come with scikit-learn.

    Returns:
        70 % for training, 10 % for validation, 20 % for testing, every digit in proportion.

    Raises:
        ValueError: if a folder is given.
        ImportError: if scikit-learn, which brings the images, is not installed.
    """
    if folder is not None:
        raise ValueError("`data` must not be given for 'digits', which come with scikit-learn; leave it out")
    try:
        from sklearn.datasets import load_digits  # here, because a neuron needs no data set
    except ImportError as error:
        raise ImportError(
            "`digits` needs scikit-learn, which brings the images and is not installed; "
            'run: pip install "fracspike[experiments]"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, ROWS, COLUMNS) / 16
    return split(images.transpose(0, 1), torch.as_tensor(labels), (VALIDATION, TEST), seed)


def network(options: Options) -> nn.Module:
    """Return a network of two spiking layers whose raster is read by one linear map.

    The map sees at which row a neuron spiked, not only how often. Without that, a network without
    recurrent connections hardly tells the rows apart (about 87 % of the test images are right).

    Args:
        options: ``hidden``, ``alpha`` and ``surrogate`` are used.

    Returns:
        A module ``(8, N, 8) -> (N, 10)``.

    Raises:
        ValueError: if the surrogate is unknown or alpha is out of range.
    """
    hidden = options.hidden
    return nn.Sequential(
        Noise(NOISE),
        scaled(nn.Linear(COLUMNS, hidden)),
        neurons(options, TAU),
        Dropout(0.2),
        scaled(nn.Linear(hidden, hidden)),
        neurons(options, TAU),
        Dropout(0.2),
        Raster(),
        nn.Linear(ROWS * hidden, len(CLASSES)),
    )


TASK = Task(
    name="digits",
    title="Handwritten digits, read row by row by a fractional spiking network",
    source="scikit-learn load_digits: 1797 images of the UCI set 'Optical Recognition of Handwritten Digits'",
    classes=CLASSES,
    load=load,
    network=network,
)
