"""Cora and Citeseer as Planetoid published them: papers, the words they use, and who cites whom.

The files are pickles of Python 2, and a pickle may run any code it likes. These are read by an
unpickler that knows NumPy arrays, lists, dictionaries and one sparse matrix, and refuses the rest.

Source: Yang, Cohen and Salakhutdinov (2016), Revisiting semi-supervised learning with graph
embeddings, ICML; files of github.com/kimiyoung/planetoid (MIT licence).
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fracspike.solvers import checks

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
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




#: all that a file may name; what is not here is refused, whatever it is
_KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    **{(module, "list"): list for module in ("__builtin__", "builtins")},
    **{(module, "csr_matrix"): _Matrix for module in ("scipy.sparse.csr", "scipy.sparse._csr")},
    **{
        (module, "_reconstruct"): np.empty(0).__reduce__()[0]
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module}.{name}, which no data file needs") from None


def read_pickle(path: Path) -> Any:
    """Return the content of one of the pickled files.

    Args:
        path: of the file.

    Raises:
        ValueError: if there is no such file, or it is damaged, or holds more than plain data.
    """
    raw = _read(path)
    try:
        return _Unpickler(io.BytesIO(raw), encoding="latin1").load()
    except Exception as error:  # bytes at random make these raise nearly anything
        raise _damaged(path, error) from error


def load_folder(name: str, folder: Path) -> Graph:
    """Read a graph from a folder with the eight files ``ind.NAME.*``.

    The papers of Citeseer that are missing from its test files (15 of 3327) have no word, no
    citation and no class; they keep their place, labelled -1.

    Args:
        name: such as ``"cora"``.
        folder: where the files are.

    Raises:
        ValueError: if a file is missing, damaged, or does not fit the others.
    """
    paths = {part: folder / f"ind.{name}.{part}" for part in PARTS}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise ValueError(
            f"the folder {folder} lacks {', '.join(missing)}; a Planetoid graph has the files "
            f"ind.{name}.{{{','.join(PARTS)}}}"
        )
    known, known_labels = _matrix(paths["allx"]), _one_hot(paths["ally"])
    tested, tested_labels = _matrix(paths["tx"]), _one_hot(paths["ty"])
    order = _indices(paths["test.index"])
    _check_fit(paths["allx"], known, paths["ally"], known_labels)
    _check_fit(paths["tx"], tested, paths["ty"], tested_labels)
    _check_fit(paths["tx"], tested, paths["test.index"], order)
    if tested.shape[1] != known.shape[1] or tested_labels.shape[1] != known_labels.shape[1]:
        raise ValueError(f"{paths['tx']} or {paths['ty']} has another width than allx or ally; get them again")
    if order.min() != known.shape[0] or len(np.unique(order)) != len(order):
        raise _damaged(paths["test.index"], "its papers do not follow those of allx")
    papers = int(order.max()) + 1
    features = sparse.lil_matrix((papers, known.shape[1]), dtype=np.float32)
    features[: known.shape[0]] = known
    features[order] = tested
    one_hot = np.zeros((papers, known_labels.shape[1]))
    one_hot[: known.shape[0]], one_hot[order] = known_labels, tested_labels
    labels = np.where(one_hot.sum(1) == 1, one_hot.argmax(1), UNLABELLED)
    return Graph(features.tocsr(), _adjacency(paths["graph"], papers), labels, one_hot.shape[1])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"the data file {path} cannot be read: {error.strerror}") from error


def _damaged(path: Path, reason: object) -> ValueError:
    text = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
    return ValueError(f"the data file {path} is damaged or not one of Planetoid's ({text}); get it again")


def _matrix(path: Path) -> sparse.csr_matrix:
    content = read_pickle(path)
    state = getattr(content, "__dict__", {})
    try:
        shape = state.get("_shape", state.get("shape"))
        matrix = sparse.csr_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
        finite = bool(np.isfinite(matrix.data).all())
    except Exception as error:
        raise _damaged(path, error) from error
    if not finite or not isinstance(content, _Matrix):
        raise _damaged(path, "no matrix of finite numbers")
    return matrix


def _one_hot(path: Path) -> NDArray[Any]:
    content = read_pickle(path)
    if not isinstance(content, np.ndarray) or content.ndim != 2 or content.dtype.kind not in "iuf":
        raise _damaged(path, "no table of classes")
    if not np.isin(content, (0, 1)).all() or (content.sum(1) > 1).any():
        raise _damaged(path, "a paper has more than one class")
    return content


def _indices(path: Path) -> NDArray[np.int64]:
    try:
        order = np.array([int(line) for line in _read(path).decode("ascii").split()], dtype=np.int64)
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from error
    if not len(order):
        raise _damaged(path, "it is empty")
    return order


def _adjacency(path: Path, papers: int) -> sparse.csr_matrix:
    content = read_pickle(path)
    if not isinstance(content, Mapping):
        raise _damaged(path, "no table of citations")
    try:
        pairs = np.array([(int(a), int(b)) for a, cited in content.items() for b in cited], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from error
    if pairs.ndim != 2 or pairs.min() < 0 or pairs.max() >= papers:
        raise _damaged(path, f"a citation lies outside the {papers} papers")
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    once = sparse.coo_matrix((np.ones(len(pairs), np.float32), pairs.T), shape=(papers, papers)).tocsr()
    both = once + once.T
    both.data[:] = 1.0  # the files name many citations twice
    return both.tocsr()


def _check_fit(path: Path, table: Any, other: Path, beside: Any) -> None:
    if table.shape[0] != beside.shape[0]:
        raise ValueError(
            f"{path.name} has {table.shape[0]} rows and {other.name} {beside.shape[0]}; they belong "
            f"together: get both again"
        )
