"""Data sets: where they are looked for, how they are fetched, and what is said of bad ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import idx_files
import numpy as np
import pytest
import torch
from idx_files import idx

from fracspike import data
from fracspike.data import Remote, Source, fashion_mnist, places

TOY = Source("toy", "the toy set", "none", ("a.txt",))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no other place."""
    place = tmp_path / "cache"
    monkeypatch.setattr(places, "cache_folder", lambda: place)
    monkeypatch.delenv(places.VARIABLE, raising=False)
    return place


def put(place: Path, content: str = "hello") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "a.txt").write_text(content)
    return place


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which this machine serves it."""
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield root, f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


class TestPlaces:
    def test_the_order_is_given_then_variable_then_system_then_cache(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system = put(tmp_path / "system")
        source = Source("toy", "the toy set", "none", ("a.txt",), places=(str(system),))
        put(cache / "toy")
        assert data.folder(TOY) == cache / "toy"
        assert data.folder(source) == system
        by_variable = put(tmp_path / "root" / "toy")
        monkeypatch.setenv(places.VARIABLE, str(tmp_path / "root"))
        assert data.folder(source) == by_variable
        given = put(tmp_path / "given")
        assert data.folder(source, given) == given
        assert data.folder(source, tmp_path / "root") == by_variable

    def test_a_given_folder_is_the_only_one_tried(self, cache: Path, tmp_path: Path) -> None:
        put(cache / "toy")
        with pytest.raises(ValueError, match=r"`data` must be a folder with the toy set, got .*none'"):
            data.folder(TOY, tmp_path / "none")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty' lacks a.txt"):
            data.folder(TOY, tmp_path / "empty")

    def test_what_cannot_be_fetched_says_where_it_is_looked_for(self, cache: Path) -> None:
        with pytest.raises(OSError, match=r"not on this machine .* --data, or .* \$FRACSPIKE_DATA"):
            data.folder(TOY)

    def test_cache_folder_is_the_users(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        assert tmp_path in data.cache_folder().parents


class TestFetching:
    def source(self, url: str, content: bytes, **more: str) -> Source:
        remote = Remote("a.txt", f"{url}/file", hashlib.sha256(content).hexdigest(), **more)
        return Source("toy", "the toy set", "none", ("a.txt",), (remote,))

    def test_a_file_is_fetched_once(self, cache: Path, server: tuple[Path, str]) -> None:
        root, url = server
        (root / "file").write_bytes(b"precious")
        source = self.source(url, b"precious")
        assert (data.folder(source) / "a.txt").read_bytes() == b"precious"
        (root / "file").unlink()
        assert data.folder(source) == cache / "toy"
        assert [path.name for path in (cache / "toy").iterdir()] == ["a.txt"]

    def test_an_archive_is_unpacked(self, cache: Path, server: tuple[Path, str]) -> None:
        root, url = server
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as tar:
            info = tarfile.TarInfo("set-1.0/recordings")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        (root / "file").write_bytes(content.getvalue())
        source = self.source(url, content.getvalue(), unpack="set-1.0/recordings")
        assert (data.folder(source) / "a.txt").read_bytes() == b"abc"

    @pytest.mark.parametrize("served", [b"precios", b"prec", None], ids=["flipped", "truncated", "missing"])
    def test_a_bad_download_is_never_taken_for_data(
        self, cache: Path, server: tuple[Path, str], served: bytes | None
    ) -> None:
        root, url = server
        if served is not None:
            (root / "file").write_bytes(served)
        with pytest.raises(OSError, match=r"the toy set could not be fetched: .*--data"):
            data.folder(self.source(url, b"precious"))
        assert list((cache / "toy").iterdir()) == []


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Six images of which each pixel is known."""
    return idx_files.write(tmp_path / "fashion-mnist", training=4, test=2)


class TestFashionMnist:
    def test_every_pixel_and_label_is_where_it_belongs(self, fashion: Path) -> None:
        for place in (fashion, fashion.parent):
            parts = fashion_mnist.load(place)
            for part, count in (("training", 4), ("test", 2)):
                images, labels = parts[part]
                assert images.tolist() == (np.arange(count * 784).reshape(count, 28, 28) % 251).tolist()
                assert labels.tolist() == list(range(count))

    @pytest.mark.parametrize(
        ("name", "spoil", "said"),
        [
            ("train-images-idx3-ubyte.gz", lambda c: c[:-20], "damaged"),
            ("train-images-idx3-ubyte.gz", lambda c: b"", "damaged"),
            ("train-images-idx3-ubyte.gz", lambda c: c[:40] + bytes([c[40] ^ 255]) + c[41:], "damaged"),
            ("train-images-idx3-ubyte.gz", lambda c: gzip.compress(b"hello"), "no idx file"),
            (
                "train-images-idx3-ubyte.gz",
                lambda c: gzip.compress(gzip.decompress(c)[:-5]),
                "3131 values where 3136",
            ),
            (
                "train-images-idx3-ubyte.gz",
                lambda c: idx(np.zeros((4, 27, 28))),
                r"images of shape \(27, 28\)",
            ),
            ("t10k-labels-idx1-ubyte.gz", lambda c: idx(np.zeros(3)), "3 labels for 2 images"),
            ("t10k-labels-idx1-ubyte.gz", lambda c: idx(np.full(2, 10)), "a label of 10"),
        ],
    )
    def test_a_bad_file_is_named_and_left_alone(
        self, fashion: Path, name: str, spoil: Callable[[bytes], bytes], said: str
    ) -> None:
        content = spoil((fashion / name).read_bytes())
        (fashion / name).write_bytes(content)
        with pytest.raises(ValueError, match=said) as caught:
            fashion_mnist.load(fashion)
        assert name in str(caught.value)
        assert (fashion / name).read_bytes() == content

    def test_a_missing_file_is_named(self, fashion: Path) -> None:
        (fashion / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(ValueError, match=r"lacks t10k-labels-idx1-ubyte\.gz"):
            fashion_mnist.load(fashion)

    def test_debians_package_is_read(self) -> None:
        if not Path(fashion_mnist.SOURCE.places[0]).is_dir():
            pytest.skip("Debian's package dataset-fashion-mnist is not installed")
        parts = fashion_mnist.load(fashion_mnist.SOURCE.places[0])
        for part, count in (("training", 60000), ("test", 10000)):
            images, labels = parts[part]
            assert images.shape == (count, 28, 28)
            assert torch.bincount(torch.tensor(labels)).tolist() == [count // 10] * 10
