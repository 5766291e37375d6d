"""Damaged files of every format: taken, or refused in one line that names them, within bounds of memory."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random

import damaged_files
import idx_files
import numpy as np
import pytest
import torch
from damaged_files import complaint, formats
from scipy.io import wavfile

from fracspike.data import Source, fashion_mnist, fsdd, places
from fracspike.training import checkpoint


def test_damaged_at_random(tmp_path: Path) -> None:
    """Sixty of them; ``benchmarks/fuzz_files.py`` reads as many as it is asked to."""
    random = Random(7)
    for form in formats(tmp_path):
        assert complaint(form, form.whole, tmp_path) == ""
        for _ in range(10):
            content = damaged_files.spoil(form, random)
            assert complaint(form, content, tmp_path) == "", (form.name, content)


def test_a_recording_cut_or_spoilt_anywhere_in_its_head(tmp_path: Path) -> None:
    form = formats(tmp_path)[0]
    for length in range(48):
        assert complaint(form, form.whole[:length], tmp_path) == "", length
    for at in range(44):
        for byte in (0, 1, 0x7F, 0xFF):
            content = form.whole[:at] + bytes([byte]) + form.whole[at + 1 :]
            assert complaint(form, content, tmp_path) == "", (at, byte)


@pytest.mark.parametrize("dimensions", [0, 2, 4, 33, 65, 255])
def test_a_wrong_number_of_dimensions(tmp_path: Path, dimensions: int) -> None:
    head = struct.pack(f">HBB{dimensions}I", 0, 8, dimensions, *[1] * dimensions)
    place = idx_files.write(tmp_path / "set", 4, 2)
    (place / "t10k-images-idx3-ubyte.gz").write_bytes(damaged_files.gzip.compress(head + b"\0"))
    with pytest.raises(ValueError, match=rf"t10k-images.*{dimensions} dimensions where 3 are expected"):
        fashion_mnist.load(place)


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    form = formats(tmp_path)[1]
    for name, content in damaged_files.bombs():
        assert complaint(form, content, tmp_path) == "", name
        with pytest.raises(ValueError, match=r"images\.gz is damaged or no file of"):
            form.read(tmp_path / form.name)


def test_no_more_is_read_than_a_file_of_the_set_can_have(tmp_path: Path) -> None:
    source = Source("toy", "the toy set", "none", ("a",), largest=1000)
    (tmp_path / "a").write_bytes(bytes(1000))
    assert len(places.file(tmp_path, "a", source)) == 1000
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"a is damaged .* \(larger than 1000 bytes"):
        places.file(tmp_path, "a", source)


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    source = Source("toy", "the toy set", "none", ("a",))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "endless"):
        with pytest.raises(ValueError, match=rf"{name} is damaged .* \(it is no ordinary file\)"):
            places.file(tmp_path, name, source)


def test_what_a_reader_quotes_is_cut_short(tmp_path: Path) -> None:
    source = Source("toy", "the toy set", "none", ("a",))
    message = str(places.damaged(tmp_path / "a", source, "one\ntwo " + "9" * 10_000))
    assert "(one two 999" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 1000


def test_a_checkpoint_that_unpacks_to_more_than_it_holds(tmp_path: Path) -> None:
    form = formats(tmp_path)[-1]
    checkpoint.save(tmp_path / "large.pt", {"a": 1}, {"weights": torch.zeros(2**20)})
    with (
        zipfile.ZipFile(tmp_path / "large.pt") as stored,
        zipfile.ZipFile(tmp_path / form.name, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in stored.infolist():
            packed.writestr(part.filename, stored.read(part))
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
        form.read(tmp_path / form.name)


@pytest.mark.parametrize(
    "asked", [pickle.LONG_BINPUT + b"\0\0\0\x10", pickle.BYTEARRAY8 + b"\0\0\0\0\1\0\0\0"]
)
def test_a_pickle_of_a_few_bytes_that_asks_for_gigabytes(tmp_path: Path, asked: bytes) -> None:
    form = next(one for one in formats(tmp_path) if one.name == "ind.toy.graph")
    content = pickle.PROTO + b"\5" + pickle.EMPTY_DICT + asked + pickle.STOP
    assert complaint(form, content, tmp_path) == ""
    with pytest.raises(ValueError, match=r"ind\.toy\.graph is damaged"):
        form.read(tmp_path / form.name)


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n((I268435456\nttR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I268435456\ntS'b'\ntR.",
    ],
)
def test_a_pickled_array_cannot_be_larger_than_its_file(tmp_path: Path, content: bytes) -> None:
    form = next(one for one in formats(tmp_path) if one.name == "ind.toy.graph")
    assert complaint(form, content, tmp_path) == ""
    with pytest.raises(ValueError, match=r"ind\.toy\.graph is damaged"):
        form.read(tmp_path / form.name)


@pytest.mark.parametrize("name", ["٣_ann_0.wav", "3_ann_00.wav", "3_ann_.wav", "3_ann_9999999.wav"])
def test_a_recording_by_another_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "recordings").mkdir()
    wavfile.write(tmp_path / "recordings" / name, 8000, np.ones(4, np.int16))
    with pytest.raises(ValueError, match=r"the name is not \{digit\}_\{speaker\}_\{index\}\.wav"):
        fsdd.load(tmp_path)
