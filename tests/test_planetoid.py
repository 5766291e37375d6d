"""Planetoid's graphs: what is in them, and what is said of files that are not."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fracspike import data
from fracspike.data import planetoid

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


@pytest.mark.parametrize(
    ("name", "papers", "words", "citations", "classes"),
    [("cora", 2708, 1433, 5278, 7), ("citeseer", 3327, 3703, 4552, 6)],  # as the graphs are known
)
def test_the_published_graphs(
    shared_data: Path, name: str, papers: int, words: int, citations: int, classes: int
) -> None:
    graph = planetoid.load(shared_data, name)
    assert graph.features.shape == (papers, words)
    assert set(np.unique(graph.features.data)) == {1.0}
    assert graph.adjacency.shape == (papers, papers)
    assert graph.adjacency.nnz == 2 * citations
    assert (graph.adjacency != graph.adjacency.T).nnz == 0
    assert graph.adjacency.diagonal().sum() == 0
    assert graph.classes == classes


def test_the_papers_that_citeseer_lacks_have_no_class(shared_data: Path) -> None:
    graph = planetoid.load(shared_data, "citeseer")
    unknown = graph.labels == planetoid.UNLABELLED
    assert unknown.sum() == 15
    assert graph.features[unknown].nnz == 0
    assert graph.adjacency[unknown].nnz == 16  # cited all the same


def test_labels_and_words_are_in_the_order_of_the_citations(shared_data: Path) -> None:
    """Papers cite their own field: four of five citations do, where chance would be one in six."""
    for name in planetoid.GRAPHS:
        graph = planetoid.load(shared_data, name)
        citing, cited = graph.adjacency.nonzero()
        assert (graph.labels[citing] == graph.labels[cited]).mean() > 0.7
        shared = graph.features[citing].multiply(graph.features[cited]).sum(1).mean()
        strangers = graph.features[citing].multiply(graph.features[np.roll(cited, 1000)]).sum(1).mean()
        assert shared > 1.5 * strangers


def test_a_flipped_bit_is_found_by_the_checksum(shared_data: Path, tmp_path: Path) -> None:
    place = _copy(shared_data, tmp_path)
    path = place / "ind.cora.allx"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"ind\.cora\.allx is damaged.*checksum"):
        planetoid.load(place, "cora")


def test_a_missing_file_is_named(shared_data: Path, tmp_path: Path) -> None:
    place = _copy(shared_data, tmp_path)
    (place / "ind.cora.graph").unlink()
    with pytest.raises(ValueError, match=r"lacks ind\.cora\.graph"):
        planetoid.load(place, "cora")


def _copy(shared_data: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    for name in planetoid.SOURCE.files:
        shutil.copyfile(shared_data / "planetoid" / name, place / name)
    return place


def test_an_unknown_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="`name` must be one of 'citeseer', 'cora'"):
        planetoid.load(None, "pubmed")


def test_it_is_a_data_set_by_name() -> None:
    assert data.loader("planetoid") is planetoid
    assert len(planetoid.SOURCE.remotes) == 2 * len(PARTS)


# ---------------------------------------------------------------------------------------------
# A graph of seven papers, two of them to test, one of which is missing: no checksum protects it


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    words = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    classes = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    parts: dict[str, Any] = {
        "x": sparse.csr_matrix(words[:2]),
        "y": classes[:2],
        "allx": sparse.csr_matrix(words),
        "ally": classes,
        "tx": sparse.csr_matrix(np.array([[1, 1, 1], [0, 1, 1]], np.float32)),
        "ty": np.array([[0, 1], [1, 0]]),
        "graph": defaultdict(list, {0: [1, 1, 0], 1: [0, 6], 4: [2], 5: []}),
    }
    for part, content in parts.items():
        _put(tmp_path, part, content)
    (tmp_path / "ind.toy.test.index").write_text("6\n4\n")
    return tmp_path


def _put(place: Path, part: str, content: Any) -> None:
    (place / f"ind.toy.{part}").write_bytes(pickle.dumps(content, protocol=4))


def read(place: Path) -> planetoid.Graph:
    return planetoid._Reader(place, "toy").graph()


def test_parts_are_put_together_in_the_order_of_the_index(toy: Path) -> None:
    graph = read(toy)
    assert graph.features.toarray().tolist() == [
        [1, 0, 1],
        [0, 1, 0],
        [1, 1, 0],
        [0, 0, 1],
        [0, 1, 1],
        [0, 0, 0],
        [1, 1, 1],
    ]
    assert graph.labels.tolist() == [0, 1, 0, 1, 0, -1, 1]
    pairs = sorted(zip(*(end.tolist() for end in graph.adjacency.nonzero()), strict=True))
    assert pairs == [(0, 1), (1, 0), (1, 6), (2, 4), (4, 2), (6, 1)]


class Evil:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("part", ["allx", "ally", "graph"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(toy: Path, part: str, protocol: int) -> None:
    mark = toy / "was-run"
    raw = pickle.dumps({0: [Evil(mark)]}, protocol=protocol)
    (toy / f"ind.toy.{part}").write_bytes(raw)
    with pytest.raises(ValueError, match=r"damaged or no file.*asks for (posix|nt)\.mkdir"):
        read(toy)
    assert not mark.exists()
    pickle.loads(raw)  # it would have
    assert mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "numpy.load", "os.system"])
def test_nothing_else_is_reachable(toy: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    (toy / "ind.toy.graph").write_bytes(f"c{module}\n{attribute}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match=f"asks for {name}"):
        read(toy)


@pytest.mark.parametrize("part", PARTS[2:])
def test_truncated_files_are_refused(toy: Path, part: str) -> None:
    path = toy / f"ind.toy.{part}"
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            read(toy)


@pytest.mark.parametrize(
    ("part", "content", "reason"),
    [
        ("allx", np.zeros((4, 3)), "no sparse matrix"),
        ("tx", sparse.csr_matrix(np.ones((2, 4))), "4 words"),
        ("tx", sparse.csr_matrix(np.full((2, 3), np.nan)), "not finite"),
        ("ally", [1, 2, 3, 4], "no table of classes"),
        ("ally", np.ones((3, 2)), "more than one class"),
        ("ally", np.eye(3)[:, :2], "3 classes"),
        ("ty", np.array([[0, 2], [1, 0]]), "neither 0 nor 1"),
        ("ty", np.array([[0, 1, 0], [1, 0, 0]]), "other classes"),
        ("graph", [1, 2], "no table of citations"),
        ("graph", {0: [7]}, "outside the 7 papers"),
        ("graph", {0: ["a"]}, "invalid literal"),
        ("graph", {0: 3}, "not iterable"),
    ],
)
def test_files_that_do_not_fit_are_refused(toy: Path, part: str, content: Any, reason: str) -> None:
    _put(toy, part, content)
    with pytest.raises(ValueError, match=f"damaged.*{reason}"):
        read(toy)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4\nsix", "invalid literal"),
        ("4\n6\n5", "3 papers"),
        ("4\n4", "twice"),
        ("5\n6", "does not follow"),
        ("4\n999999999", "leaves out"),
    ],
)
def test_a_wrong_index_is_refused(toy: Path, text: str, reason: str) -> None:
    (toy / "ind.toy.test.index").write_text(text)
    with pytest.raises(ValueError, match=rf"test\.index is damaged.*{reason}"):
        read(toy)
