"""What a reservoir hears of spoken digits: mel-frequency cepstral coefficients, by librosa."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fracspike.data import fsdd

CEPSTRA, FRAMES = 13, 25


@dataclass(frozen=True)
class Features:
    """What the reservoir hears.

    Attributes:
        frames: ``(N, 25, 13)``, float64.
        digits: ``(N,)``.
        ends: last frame of each word, ``(N,)``; after it all is zero.
    """

    frames: NDArray[np.float64]
    digits: NDArray[np.int64]
    ends: NDArray[np.int64]


@functools.lru_cache(maxsize=2)
def features(data: Path | None, takes: int) -> Features:
    """Return the MFCC of all recordings, in librosa's defaults: windows of 2048 samples every 512.

    Args:
        data: folder of the data set, None to find it.
        takes: recordings of each speaker and digit, the first ones.
    """
    try:
        import librosa  # here, because it is slow to import
    except ImportError as error:
        raise ImportError(
            'spoken digits need librosa, which is not installed; run: pip install "fracspike[experiments]"'
        ) from error
    recordings = fsdd.load(data)
    chosen = np.flatnonzero(recordings.indices < takes)
    frames = np.zeros((len(chosen), FRAMES, CEPSTRA))
    ends = np.zeros(len(chosen), dtype=np.int64)
    for row, i in enumerate(chosen):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="n_fft=2048 is too large")  # padded, as it should be
            mfcc = librosa.feature.mfcc(y=recordings.waves[i], sr=fsdd.RATE, n_mfcc=CEPSTRA).T[:FRAMES]
        frames[row, : len(mfcc)], ends[row] = mfcc, len(mfcc) - 1
    return Features(frames, recordings.digits[chosen], ends)
