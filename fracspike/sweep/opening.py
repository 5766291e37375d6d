"""Opening a storage: a database that SQLAlchemy reaches, or the journal in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .address import Address

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

TRIES = 5


def open_storage(address: Address) -> BaseStorage:
    """Return the storage at an address.

    Raises:
        ValueError: if there is none; the message holds no password, nor does an error behind it.
        ImportError: if Optuna, or the driver of the database, is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            'sweeps need optuna, which is not installed; run: pip install "fracspike[experiments]"'
        ) from error
    # it warns of a lost connection with the driver's whole text, which patience.py tells in one masked line
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in address.url:
        from optuna.storages.journal import JournalFileBackend

        path = str(Path(address.url))
        return _again(lambda: optuna.storages.JournalStorage(JournalFileBackend(path)), address)
    more: dict[str, object] = {"pool_pre_ping": True}  # a connection that was dropped meanwhile is made anew
    if address.url.startswith("sqlite"):
        more = {"connect_args": {"timeout": 120}}  # one process writes at a time: the others wait for it
    return _again(
        lambda: optuna.storages.get_storage(optuna.storages.RDBStorage(address.url, engine_kwargs=more)),
        address,
    )


def _again(make: Callable[[], BaseStorage], address: Address) -> BaseStorage:
    """Open a storage; once more if others, who do the same at this moment, are in the way."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(0.1 * 2**attempt)
        missing = ""
        try:
            return make()
        except ImportError as error:
            missing = address.hide(str(error))
        except Exception as error:  # drivers raise what they like
            problem = address.hide(" ".join(str(error).split()))[:200]
        if missing:  # raised here, where no error with the address in it is attached
            raise ImportError(f"the driver of {address.url.partition(':')[0]} is not installed: {missing}")
    raise ValueError(
        f"`storage` must be a database or the path of a journal, got {str(address)!r}: {problem}"
    )
