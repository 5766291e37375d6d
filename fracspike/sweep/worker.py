"""One worker: takes free points, measures them, until all are settled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fracspike.files import output_folder

from .owner import BEAT
from .store import Claim, Store
from .target import Target

POLL = 1.0  # seconds between looks at what the others do, when there is nothing free


def work(
    store: Store,
    target: Target,
    folder: Path,
    on_done: Callable[[Claim, dict[str, float]], None] = lambda claim, metrics: None,
) -> None:
    """Measure points until each is done or has failed, also those of workers that die meanwhile.

    Args:
        store: says which.
        target: says how.
        folder: where each trial gets a folder of its own.
        on_done: told of each point that was measured here.
    """
    while True:
        claim = store.claim()
        if claim is not None:
            _measure(store, target, folder, claim, on_done)
        elif store.view().settled == len(store.points):
            return
        else:
            time.sleep(POLL)


def _measure(
    store: Store,
    target: Target,
    folder: Path,
    claim: Claim,
    on_done: Callable[[Claim, dict[str, float]], None],
) -> None:
    start = time.perf_counter()
    try:
        with _beating(store, claim):
            metrics = target.measure(claim.point, output_folder(folder / f"{claim.index:05d}"))
    except (KeyboardInterrupt, SystemExit):
        store.release(claim)
        raise
    except Exception as error:  # one point that cannot be measured must not end the sweep
        store.give_up(claim, f"{type(error).__name__}: {error}", time.perf_counter() - start)
        return
    if store.complete(claim, metrics, time.perf_counter() - start):
        on_done(claim, metrics)


@contextmanager
def _beating(store: Store, claim: Claim) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT):
            count += 1
            store.beat(claim, count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
