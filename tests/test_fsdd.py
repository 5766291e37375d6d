"""Spoken digits: read as they are, and refused with a reason where they are not what they should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from fracspike.data import fsdd


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two speakers who say every digit seven times, in a few samples each."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in range(7):
                samples = np.array([digit, -index, 100, -32768], dtype=np.int16)
                wavfile.write(folder / f"{digit}_{speaker}_{index}.wav", 8000, samples)
    return tmp_path


def test_recordings_are_read_in_order(place: Path) -> None:
    found = fsdd.load(place)
    assert len(found.waves) == len(found.speakers) == 140
    assert found.waves[0].dtype == np.float32
    assert found.digits.tolist() == sorted(found.digits.tolist())
    where = 3 * 14 + 7 + 2
    assert (found.digits[where], found.speakers[where], found.indices[where]) == (3, "bob", 2)
    assert found.waves[where].tolist() == [3 / 32768, -2 / 32768, 100 / 32768, -1.0]


def test_official_test_set_is_index_0_to_4(place: Path) -> None:
    found = fsdd.load(place)
    training, test = found.official_split()
    assert sorted([*training, *test]) == list(range(140))
    assert set(found.indices[test].tolist()) == {0, 1, 2, 3, 4}
    assert set(found.indices[training].tolist()) == {5, 6}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])  # two samples


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is no recording, whatever its name says")


def stereo(path: Path) -> None:
    wavfile.write(path, 8000, np.zeros((5, 2), dtype=np.int16))


def other_rate(path: Path) -> None:
    wavfile.write(path, 44100, np.zeros(5, dtype=np.int16))


def floats(path: Path) -> None:
    wavfile.write(path, 8000, np.zeros(5, dtype=np.float32))


def silent(path: Path) -> None:
    wavfile.write(path, 8000, np.zeros(0, dtype=np.int16))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncated, "EOF prematurely"),
        (empty, ""),
        (text, ""),
        (stereo, "5x2 samples of int16, not one channel"),
        (other_rate, "sampled at 44100 Hz, not at 8000"),
        (floats, "5 samples of float32, not one channel of int16"),
        (silent, ""),
        (Path.unlink, "4_ann_3.wav is missing"),
        (lambda path: path.rename(path.with_name("four.wav")), r"the name is not \{digit\}_\{speaker\}"),
    ],
)
def test_bad_files_are_named_and_left_alone(
    place: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(place / "recordings" / "4_ann_3.wav")
    before = {path: path.read_bytes() for path in sorted(place.rglob("*.wav"))}
    with pytest.raises(ValueError, match=f"damaged or no file of the Free Spoken Digit Dataset .*{reason}"):
        fsdd.load(place)
    assert before == {path: path.read_bytes() for path in sorted(place.rglob("*.wav"))}


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks recordings"):
        fsdd.load(tmp_path)
    (tmp_path / "recordings").mkdir()
    with pytest.raises(ValueError, match=r"no \.wav file in it"):
        fsdd.load(tmp_path)


def test_where_there_is_none_the_error_says_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACSPIKE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Free Spoken Digit Dataset .* give its folder with --data"):
        fsdd.load()


def test_the_real_set_is_whole(shared_data: Path) -> None:
    found = fsdd.load(shared_data)
    assert len(found.waves) == 3000
    assert len(set(found.speakers)) == 6
    assert np.bincount(found.digits).tolist() == [300] * 10
    assert [len(part) for part in found.official_split()] == [2700, 300]
    seconds = sum(len(wave) for wave in found.waves) / fsdd.RATE
    assert 0.3 < seconds / 3000 < 0.6  # the mean length of a digit
