"""Cora and Citeseer as Planetoid published them: papers, the words they use, and who cites whom.

The files are pickles of Python 2, and a pickle may run any code it likes. These are read by an
unpickler that knows NumPy arrays, lists, dictionaries and one sparse matrix, and refuses the rest.

Source: Yang, Cohen and Salakhutdinov (2016), Revisiting semi-supervised learning with graph
embeddings, ICML; files of github.com/kimiyoung/planetoid.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fracspike.solvers import checks

from .places import Remote, Source, damaged, file, folder

GRAPHS = ("cora", "citeseer")
ORIGIN = (
    "https://raw.githubusercontent.com/kimiyoung/planetoid/af6abf468a772cc055bec88c52e4d6f51b7c37e3/data/"
)
SHA256 = {
    "ind.cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "ind.cora.y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    "ind.citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
    "ind.citeseer.y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "ind.citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "ind.citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
}
SOURCE = Source(
    name="planetoid",
    title="Planetoid's Cora and Citeseer",
    licence="MIT",
    files=tuple(SHA256),
    largest=2**22,
    remotes=tuple(Remote(name, ORIGIN + name, digest) for name, digest in SHA256.items()),
)
UNLABELLED = -1


@dataclass(frozen=True)
class Graph:
    """Papers and their citations.

    Attributes:
        features: which words a paper uses, sparse ``(N, F)``, zeros and ones.
        adjacency: who cites whom or is cited, sparse and symmetric ``(N, N)``, zeros and ones; no
            paper cites itself.
        labels: ``(N,)`` classes from 0; -1 for the papers of which nothing is known.
        classes: how many classes there are.
    """

    features: sparse.csr_matrix
    adjacency: sparse.csr_matrix
    labels: NDArray[np.int64]
    classes: int


class _Matrix:
    """Stands in for SciPy's sparse matrix while a pickle is read: attributes, no behaviour."""


def _rebuilt(kind: object, shape: object, code: object) -> NDArray[Any]:
    """Return the empty array that a pickle then fills; it may ask for any size, and gets none."""
    return np.empty(0)


#: all that a file may name; what is not here is refused, whatever it is
_KNOWN = {
    ("numpy", "ndarray"): None,  # only ever handed to _reconstruct; the real one makes arrays of any size
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    **{(module, "list"): list for module in ("__builtin__", "builtins")},
    **{(module, "csr_matrix"): _Matrix for module in ("scipy.sparse.csr", "scipy.sparse._csr")},
    **{(module, "_reconstruct"): _rebuilt for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module}.{name}, which no data need") from None


def _check_sizes(raw: bytes) -> None:
    """Look through a pickle without carrying it out: a few bytes of it may ask for gigabytes.

    Raises:
        ValueError: if it announces more bytes than there are, or numbers what it remembers beyond them.
    """
    for code, argument, _ in pickletools.genops(raw):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(raw):
            raise ValueError(f"it remembers {argument} things in {len(raw)} bytes")


def load(place: str | Path | None = None, name: str = "cora") -> Graph:
    """Return a graph.

    The 15 of Citeseer's 3327 papers that are missing from its test files have no word and no class;
    they keep their place and their citations, labelled -1.

    Args:
        place: a folder with the files; by default wherever :func:`fracspike.data.folder` finds them,
            or the user's cache after a download of 2 MB.
        name: ``"cora"`` or ``"citeseer"``.

    Raises:
        ValueError: if the name is unknown, or a file is missing, damaged, truncated, holds more than
            plain data, or does not go with the others.
        OSError: if there is no folder and the files cannot be fetched.
    """
    checks.one_of("name", name, GRAPHS)
    return _Reader(folder(SOURCE, place), name).graph()


@dataclass(frozen=True)
class _Reader:
    """Reads the files of one graph."""

    place: Path
    name: str

    def graph(self) -> Graph:
        """Put the parts together: first the papers of allx, then those of tx in the order of test.index."""
        known, tested = self.matrix("allx"), self.matrix("tx")
        known_labels, tested_labels = self.one_hot("ally"), self.one_hot("ty")
        order = self.indices("test.index")
        self.check("ally", len(known_labels) == known.shape[0], f"{len(known_labels)} classes")
        self.check("ty", len(tested_labels) == tested.shape[0], f"{len(tested_labels)} classes")
        self.check("test.index", len(order) == tested.shape[0], f"{len(order)} papers")
        self.check("test.index", order.min() == known.shape[0], "does not follow the papers of allx")
        self.check("test.index", len(np.unique(order)) == len(order), "names a paper twice")
        self.check("tx", tested.shape[1] == known.shape[1], f"{tested.shape[1]} words")
        self.check("ty", tested_labels.shape[1] == known_labels.shape[1], "other classes than ally")
        papers = int(order.max()) + 1
        self.check("test.index", papers <= 2 * (known.shape[0] + len(order)), "leaves out most papers")
        features = sparse.lil_matrix((papers, known.shape[1]), dtype=np.float32)
        features[: known.shape[0]], features[order] = known, tested
        one_hot = np.zeros((papers, known_labels.shape[1]))
        one_hot[: known.shape[0]], one_hot[order] = known_labels, tested_labels
        labels = np.where(one_hot.sum(1) == 1, one_hot.argmax(1), UNLABELLED)
        return Graph(features.tocsr(), self.adjacency("graph", papers), labels, one_hot.shape[1])

    def matrix(self, part: str) -> sparse.csr_matrix:
        state = getattr(self.unpickled(part), "__dict__", {})
        try:
            shape = state.get("_shape", state.get("shape"))
            matrix = sparse.csr_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)
            matrix.check_format(full_check=True)
            finite = bool(np.isfinite(matrix.data).all())
        except Exception as error:  # SciPy raises nearly anything for parts that do not fit
            raise self.damaged(part, f"no sparse matrix: {error}") from error
        self.check(part, finite and min(matrix.shape) > 0, "not finite, or empty")
        return matrix

    def one_hot(self, part: str) -> NDArray[Any]:
        content = self.unpickled(part)
        table = isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "iuf"
        self.check(part, table and content.size > 0, "no table of classes")
        self.check(part, bool(np.isin(content, (0, 1)).all()), "an entry is neither 0 nor 1")
        self.check(part, bool((content.sum(1) <= 1).all()), "a paper has more than one class")
        return np.asarray(content)

    def indices(self, part: str) -> NDArray[np.int64]:
        try:
            order = np.array([int(line) for line in self.raw(part).split()], dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise self.damaged(part, str(error)) from error
        self.check(part, len(order) > 0, "empty")
        return order

    def adjacency(self, part: str, papers: int) -> sparse.csr_matrix:
        content = self.unpickled(part)
        self.check(part, isinstance(content, Mapping) and len(content) > 0, "no table of citations")
        try:
            pairs = np.array([(int(a), int(b)) for a, cited in content.items() for b in cited], np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.damaged(part, str(error)) from error
        inside = len(pairs) > 0 and pairs.min() >= 0 and pairs.max() < papers
        self.check(part, inside, f"a citation lies outside the {papers} papers")
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        once = sparse.coo_matrix((np.ones(len(pairs), np.float32), pairs.T), shape=(papers, papers)).tocsr()
        both = once + once.T
        both.data[:] = 1.0  # the files name many citations twice
        return both.tocsr()

    def unpickled(self, part: str) -> Any:
        raw = self.raw(part)
        try:
            _check_sizes(raw)
            return _Unpickler(io.BytesIO(raw), encoding="latin1").load()
        except Exception as error:  # bytes at random make these raise nearly anything
            raise self.damaged(part, f"{type(error).__name__}: {error}") from error

    def raw(self, part: str) -> bytes:
        name = f"ind.{self.name}.{part}"
        content = file(self.place, name, SOURCE)
        same = hashlib.sha256(content).hexdigest() == SHA256.get(name)
        self.check(part, same or name not in SHA256, "its checksum is another")
        return content

    def check(self, part: str, fine: bool, reason: str) -> None:
        if not fine:
            raise self.damaged(part, reason)

    def damaged(self, part: str, reason: str) -> ValueError:
        return damaged(self.place / f"ind.{self.name}.{part}", SOURCE, reason)
