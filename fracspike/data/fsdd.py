"""The Free Spoken Digit Dataset: 3000 recordings of English digits, 8 kHz, six speakers.

Jackson, Souza, Flaks, Pan, Nicolas and Thite (2018), Zenodo, doi:10.5281/zenodo.1342401. A file is called
``{digit}_{speaker}_{index}.wav``; the official test set is those of index 0 to 4.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from .places import Source, damaged, file, folder

RATE = 8000  # Hz
CLASSES = tuple(str(digit) for digit in range(10))
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[a-z]+)_(?P<index>0|[1-9][0-9]{0,5})\.wav")
TEST_INDICES = 5  # the first of each speaker and digit are the official test set
SOURCE = Source(
    name="fsdd",
    title="the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset)",
    licence="CC BY-SA 4.0",
    files=("recordings",),
    largest=2**20,  # 65 seconds; the longest digit takes two
)


@dataclass(frozen=True)
class Recordings:
    """Spoken digits, sorted by digit, speaker and index.

    Attributes:
        waves: one array a recording, float32 between -1 and 1, 8 kHz.
        digits: what is said, ``(N,)``.
        speakers: by whom, ``N`` names.
        indices: number of the recording among those of its speaker and digit, ``(N,)``.
    """

    waves: list[NDArray[np.float32]]
    digits: NDArray[np.int64]
    speakers: tuple[str, ...]
    indices: NDArray[np.int64]

    def official_split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the official training set, and of the test set (index 0 to 4)."""
        test = self.indices < TEST_INDICES
        return np.flatnonzero(~test), np.flatnonzero(test)


def load(place: str | Path | None = None) -> Recordings:
    """Read all recordings.

    Args:
        place: a folder with the folder ``recordings``; by default wherever
            :func:`fracspike.data.folder` finds it.

    Returns:
        All recordings.

    Raises:
        ValueError: if a file is damaged, truncated, foreign, or missing among the others.
        OSError: if there is no such folder.
    """
    recordings = folder(SOURCE, place) / "recordings"
    found = sorted(_parse(path) for path in recordings.glob("*.wav"))
    if not found:
        raise damaged(recordings, SOURCE, "no .wav file in it")
    _check_complete(recordings, found)
    return Recordings(
        waves=[_wave(recordings, f"{digit}_{speaker}_{index}.wav") for digit, speaker, index in found],
        digits=np.array([digit for digit, _, _ in found]),
        speakers=tuple(speaker for _, speaker, _ in found),
        indices=np.array([index for _, _, index in found]),
    )


Name = tuple[int, str, int]


def _parse(path: Path) -> Name:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise damaged(path, SOURCE, "the name is not {digit}_{speaker}_{index}.wav")
    return int(match["digit"]), match["speaker"], int(match["index"])


def _check_complete(recordings: Path, found: list[Name]) -> None:
    """Every speaker says every digit equally often, so a gap is a missing file."""
    speakers = {speaker for _, speaker, _ in found}
    there, takes = set(found), 1 + max(index for _, _, index in found)
    for digit in range(len(CLASSES)):
        for speaker in sorted(speakers):
            for index in range(takes):
                if (digit, speaker, index) not in there:
                    raise damaged(recordings, SOURCE, f"{digit}_{speaker}_{index}.wav is missing")


def _wave(recordings: Path, name: str) -> NDArray[np.float32]:
    content = io.BytesIO(file(recordings, name, SOURCE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a truncated file is only warned of
            rate, samples = wavfile.read(content)
    except Exception as error:  # bytes at random make SciPy raise nearly anything
        raise damaged(
            recordings / name, SOURCE, f"no WAV file: {str(error) or type(error).__name__}"
        ) from error
    if rate != RATE:
        raise damaged(recordings / name, SOURCE, f"sampled at {rate} Hz, not at {RATE}")
    if samples.dtype != np.int16 or samples.ndim != 1 or not len(samples):
        shape = "x".join(str(n) for n in samples.shape)
        raise damaged(
            recordings / name, SOURCE, f"{shape} samples of {samples.dtype}, not one channel of int16"
        )
    wave: NDArray[np.float32] = (samples / -np.iinfo(np.int16).min).astype(np.float32)
    return wave
