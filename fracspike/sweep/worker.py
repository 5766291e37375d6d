"""One worker: takes free points, measures them, until all are settled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fracspike.files import output_folder

from . import kept
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
        folder: of the results, where each point gets a folder of its own below ``trials``.
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
    full = store.full(claim.point)
    place = kept.place(folder, full)
    known = kept.load(place, full)  # of a worker that could not tell the storage
    if known is not None:
        metrics, seconds = known
    else:
        try:
            with _beating(store, claim):
                metrics = target.measure(claim.point, output_folder(place))
        except (KeyboardInterrupt, SystemExit):
            store.release(claim)
            raise
        except Exception as error:  # one point that cannot be measured must not end the sweep
            store.give_up(claim, f"{type(error).__name__}: {error}", time.perf_counter() - start)
            return
        seconds = time.perf_counter() - start
        kept.save(place, full, metrics, seconds)
    if store.complete(claim, metrics, seconds):
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
