"""Data sets: found on disk, fetched with a checksum, read with suspicion.

A loader is one file here and one line in ``LOADERS``; it holds its ``SOURCE`` and a function ``load``
whose first argument is the folder (``None``: wherever :func:`folder` finds it).
"""

from __future__ import annotations

import importlib
from types import ModuleType

from fracspike.solvers import checks

from .places import Remote, Source, cache_folder, damaged, file, folder

#: name of a data set -> module that reads it; imported only when asked for
LOADERS = {
    "fashion-mnist": "fracspike.data.fashion_mnist",
    "fsdd": "fracspike.data.fsdd",
    "planetoid": "fracspike.data.planetoid",
}


def loader(name: str) -> ModuleType:
    """Return the module that reads the data set called ``name``.

    Args:
        name: a key of ``LOADERS``.

    Returns:
        A module with ``SOURCE`` and ``load``.

    Raises:
        ValueError: with the known names, if there is none.

    >>> loader("fashion-mnist").SOURCE.licence
    'MIT'
    """
    checks.one_of("data set", name, LOADERS)
    return importlib.import_module(LOADERS[name])


__all__ = ["LOADERS", "Remote", "Source", "cache_folder", "damaged", "file", "folder", "loader"]
