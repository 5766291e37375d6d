"""Fashion-MNIST: clothes, read row by row, or shown as a current that lasts.

Xiao, Rasul and Vollgraf (2017), arXiv 1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fracspike.data import fashion_mnist

from .blocks import EachStep, Lasting, Raster, Rate, Still, neurons, scaled
from .noise import Dropout
from .task import Data, Images, Options, Task, split

SIDE, CLASSES = fashion_mnist.SIDE, fashion_mnist.CLASSES
VALIDATION = 0.1  # of the training images
SPARSE = 8.0  # factor of the initial weights where the inputs are spikes
STEPS = 6  # for which an image is shown at once
TAU = {"rows": 8.0, "dense": 2.0, "conv": 2.0}  # steps


def load(seed: int, folder: Path | None = None) -> Data:
    """Return the images as rows, ``(28, N, 28)`` between 0 and 1.

    Args:
        seed: decides which of the 60000 training images are for validation.
        folder: with the four idx files; None to find or fetch them.

    Returns:
        54000 images for training, 6000 for validation, every class in proportion, and the 10000 test images.

    Raises:
        ValueError: if a file is missing, damaged or truncated.
        OSError: if there is no folder and the files cannot be fetched.
    """
    parts = fashion_mnist.load(folder)
    known, test = (_images(*parts[part]) for part in ("training", "test"))
    training, validation, _ = split(known.inputs, known.labels, (VALIDATION, 0.0), seed)
    return Data(training, validation, test)


def _images(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Images:
    pixels = torch.as_tensor(images.copy(), dtype=torch.float32) / 255
    return Images(pixels.transpose(0, 1), torch.as_tensor(labels.astype(np.int64)))


def network(options: Options) -> nn.Module:
    """Return one of three networks of two spiking layers.

    - ``dense``: the whole image as a current that lasts for six steps, and the rate of each neuron;
    - ``rows``: a row of the image per time step, and one linear map that sees at which step a
      neuron spiked;
    - ``conv``: as ``dense``, with two convolutions of 16 and 32 channels and stride 2, and a layer of
      ``hidden`` neurons.

    Args:
        options: ``network``, ``hidden``, ``alpha`` and ``surrogate`` are used.

    Returns:
        A module ``(28, N, 28) -> (N, 10)``.
    """
    return NETWORKS[options.network](options)


def _rows(options: Options) -> nn.Module:
    hidden, tau = options.hidden, TAU["rows"]
    return nn.Sequential(
        scaled(nn.Linear(SIDE, hidden)),
        neurons(options, tau),
        Dropout(0.2),
        scaled(nn.Linear(hidden, hidden), SPARSE),
        neurons(options, tau),
        Dropout(0.2),
        Raster(),
        nn.Linear(SIDE * hidden, len(CLASSES)),
    )


def _dense(options: Options) -> nn.Module:
    hidden, tau = options.hidden, TAU["dense"]
    return nn.Sequential(
        Still(),
        nn.Flatten(),
        scaled(nn.Linear(SIDE**2, hidden)),
        Lasting(STEPS),
        neurons(options, tau),
        Dropout(0.2),
        scaled(nn.Linear(hidden, hidden)),
        neurons(options, tau),
        Dropout(0.2),
        Rate(),
        nn.Linear(hidden, len(CLASSES)),
    )


def _conv(options: Options) -> nn.Module:
    hidden, tau = options.hidden, TAU["conv"]
    return nn.Sequential(
        Still(),
        scaled(nn.Conv2d(1, 16, 5, stride=2, padding=2), 4.0),
        Lasting(STEPS),
        neurons(options, tau),
        EachStep(scaled(nn.Conv2d(16, 32, 3, stride=2, padding=1), SPARSE)),
        neurons(options, tau),
        nn.Flatten(2),
        Dropout(0.2),
        scaled(nn.Linear(32 * (SIDE // 4) ** 2, hidden), SPARSE),
        neurons(options, tau),
        Dropout(0.2),
        Rate(),
        nn.Linear(hidden, len(CLASSES)),
    )


NETWORKS = {"dense": _dense, "rows": _rows, "conv": _conv}  # the first is the default

TASK = Task(
    name="fashion-mnist",
    title="Fashion-MNIST, read row by row or seen at once by a fractional spiking network",
    source="Xiao, Rasul and Vollgraf (2017), arXiv 1708.07747: 70000 images of clothes",
    classes=CLASSES,
    load=load,
    network=network,
    networks=tuple(NETWORKS),
    defaults={"epochs": 10, "lr": 2e-3, "batch_size": 128},
)
