"""A storage that may be away for a while: asked again, ever more slowly, until it answers.

A database that is restarted drops every connection, and refuses new ones for a time. What it was asked
meanwhile is asked again. An answer that got lost may belong to a request that was carried out: what is called
through :meth:`Patient.ask` must come to the same when it is carried out twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .address import Address

T = TypeVar("T")
LONGEST = 600.0  # seconds without an answer after which a storage is given up
FIRST, SLOWEST = 0.25, 15.0  # seconds between tries
#: classes of errors, by name and those they derive from, after which a storage may answer again; by name,
#: because they belong to whichever driver is installed
PASSING = {
    "ConnectionError",
    "DisconnectionError",
    "InterfaceError",
    "InternalError",
    "OperationalError",
    "OSError",
    "PendingRollbackError",
    "ResourceClosedError",
    "TimeoutError",
}
LASTING = ("no such table", "not a database", "readonly database", "does not exist")


class StoreError(RuntimeError):
    """A storage does not answer, or answers nonsense; the message holds no password."""


class Patient:
    """Asks a storage.

    Args:
        address: of the storage, named in messages.
        longest: seconds without an answer after which it is given up.
        on_return: called when it has answered again after a failure.
    """

    def __init__(
        self,
        address: Address,
        longest: float = LONGEST,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self.address, self.longest, self.on_return = address, longest, on_return
        self._lock = threading.RLock()

    def ask(self, question: Callable[[], T], *, once: bool = False) -> T:
        """Return what ``question`` returns, asked again after each failure that may pass.

        Args:
            question: asks the storage.
            once: do not ask again.

        Raises:
            StoreError: if it goes on failing, or fails in a way that does not pass. Errors of Optuna that are
                answers, such as :class:`optuna.exceptions.UpdateFinishedTrialError`, are raised as they are.
        """
        start, pause, failure = time.monotonic(), FIRST, None
        while True:
            problem = ""
            try:
                answer = question()
            except Exception as error:  # drivers raise what they like
                if _is_answer(error):
                    raise
                problem, passing = self._said(error), passes(error)
            if not problem:
                if failure:
                    self._tell(f"{self.address} answers again")
                    self.on_return()
                return answer
            waited = time.monotonic() - start
            if once or not passing or waited >= self.longest:
                self.on_return()
                raise StoreError(self._last_word(problem, waited, passing))
            if not failure:
                self._tell(f"{self.address} does not answer ({problem}); trying again for {self.longest:g} s")
            failure = problem
            time.sleep(min(pause, max(0.0, self.longest - waited)))
            pause = min(2 * pause, SLOWEST)

    def _last_word(self, problem: str, waited: float, passing: bool) -> str:
        after = f" for {waited:.0f} s" if passing else ""
        return (
            f"the storage {self.address} failed{after}: {problem}; what was measured is kept: "
            "the same command goes on from there"
        )

    def _said(self, error: BaseException) -> str:
        # Optuna's error says only that there was one; the driver's is its cause
        said = (
            error.__cause__ if type(error).__name__ == "StorageInternalError" and error.__cause__ else error
        )
        text = str(getattr(said, "orig", None) or said)
        return self.address.hide(" ".join(text.split()))[:200] or type(said).__name__

    def _tell(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(f"fracspike: {text}\n")
            sys.stderr.flush()


def passes(error: BaseException) -> bool:
    """Tell whether a failure may be over when one asks again."""
    cause = error.__cause__
    said = f"{error} {cause or ''}".lower()
    if any(word in said for word in LASTING):
        return False
    if cause is not None and type(error).__name__ == "StorageInternalError":  # Optuna's name for any error
        error = cause
    return any(kind.__name__ in PASSING for kind in type(error).__mro__)


def _is_answer(error: BaseException) -> bool:
    from optuna.exceptions import OptunaError, StorageInternalError

    known = isinstance(error, OptunaError) and not isinstance(error, StorageInternalError)
    return known or isinstance(error, KeyError)  # there is no such study or trial
