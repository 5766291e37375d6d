"""The random states that a training depends on, and the order of its data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor


def state() -> dict[str, Any]:
    """Return the states of torch's, NumPy's and Python's global generators, as plain things."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def restore(states: dict[str, Any]) -> None:
    """Set the generators to what :func:`state` returned.

    Raises:
        KeyError: if one is missing.
    """
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))


@contextmanager
def preserved() -> Iterator[None]:
    """Give the caller's random states back in the end, whatever was drawn meanwhile."""
    before = state()
    try:
        yield
    finally:
        restore(before)


def seed_everything(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def of_device(device: torch.device) -> Generator:
    """Return torch's global generator for a device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator: Generator = torch.cuda.default_generators[index]
        return generator
    return torch.default_generator


class Shuffle:
    """The order of the samples in each epoch: a function of the seed and the epoch alone.

    Epoch e has the e-th permutation that a generator with this seed draws.

    >>> Shuffle(4, seed=1).order(2).tolist() == Shuffle(4, seed=1).order(2).tolist()
    True
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._restart()

    def _restart(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._drawn = 0

    def order(self, epoch: int) -> Tensor:
        """Return the indices of the samples in the order of epoch ``epoch``, from 0."""
        if epoch < self._drawn:
            self._restart()
        while True:
            self._drawn += 1
            order = torch.randperm(self.count, generator=self._generator)
            if self._drawn > epoch:
                return order


def mix(numbers: Sequence[int]) -> int:
    """Return a seed that looks like chance.

    Args:
        numbers: as many in every call that must give another seed; each from 0 to below 2**32.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
