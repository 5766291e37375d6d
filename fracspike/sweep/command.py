"""``fracspike sweep``: a grid in, a table and a figure out; any number of workers in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .store import Claim, Store, View
    from .target import Target

LOOK = 1.0  # seconds between looks at what the workers have done


@click.command()
@click.argument("experiment")
@click.option("--grid", "first", multiple=True, metavar="AXIS=VALUES ...", help="The grid, axis by axis.")
@click.argument("axes", nargs=-1, metavar="[AXIS=VALUES]...")
@click.option("--workers", default=1, show_default=True, help="Processes that measure at once.")
@click.option(
    "--storage",
    default=None,
    help="sqlite:///PATH, postgresql://... or the path of a journal; by default OUT/EXPERIMENT/sweep.db.",
)
@click.option("--data", default=None, help="Folder of the data set; by default it is found or fetched.")
@click.option("--out", default="sweeps", show_default=True, help="Folder; results go to OUT/EXPERIMENT.")
@click.option("--resume", is_flag=True, help="Go on with a sweep that is there; try again what failed.")
@click.option("--only-work", is_flag=True, hidden=True)
def sweep(
    experiment: str,
    first: Sequence[str],
    axes: Sequence[str],
    workers: int,
    storage: str | None,
    data: str | None,
    out: str,
    resume: bool,
    only_work: bool,
) -> None:
    r"""Measure EXPERIMENT at every point of a grid, once each; for example:

    \b
    fracspike sweep digits --grid alpha=0.3:1.0:0.1 surrogate=atan,sigmoid seed=0:5 --workers 2

    VALUES are a list; a range of whole numbers as in Python (0:5 is 0, 1, 2, 3, 4); or a range with a
    decimal point and both ends (0.3:1.0:0.1). The same command run again joins the sweep, or goes on
    with it after an interruption, on this machine or on others that share the storage.
    """  # noqa: D415
    from fracspike.experiments.report import versions
    from fracspike.files import output_folder
    from fracspike.solvers import checks

    from . import results, target
    from .grid import Grid
    from .store import Store
    from .worker import work

    checks.positive_int("workers", workers)
    found = target.find(experiment, None if data is None else Path(data))
    grid = Grid.parse([*first, *axes], found.kinds)
    folder = output_folder(Path(out) / found.name)
    storage = storage or f"sqlite:///{folder / 'sweep.db'}"
    store = Store(storage, found.name, grid, about={"versions": versions()}, join=resume)
    if only_work:
        work(store, found, folder / "trials")
        return
    before = store.view()
    click.echo(f"{found.title}\n{grid}, of which {before.settled} are done; kept in {storage}")
    try:
        if workers == 1:
            _alone(store, found, folder)
        else:
            _together(store, [*_same(experiment, first, axes, storage, data, out)], workers)
    except KeyboardInterrupt:
        done = store.view().settled
        results.write(folder, found.name, grid, store.view())
        click.echo(
            f"\nfracspike: interrupted; {done} of {len(grid)} points are done and kept: "
            "the same command goes on from there",
            err=True,
        )
        raise SystemExit(130) from None
    view = store.view()
    results.write(folder, found.name, grid, view)
    click.echo("\n" + results.table(view))
    click.echo(f"\nsweep.csv, sweep.png and results.json in {folder}")
    _complain(view, len(grid))


def _alone(store: Store, found: Target, folder: Path) -> None:
    from tqdm import tqdm

    from .grid import label
    from .worker import work

    with tqdm(total=len(store.points), initial=store.view().settled, unit="point", disable=None) as bar:

        def show(claim: Claim, metrics: dict[str, float]) -> None:
            text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            bar.update(store.view().settled - bar.n)
            bar.set_postfix_str(f"{label(claim.point)}: {text}")
            if bar.disable:
                click.echo(f"{store.view().settled} of {len(store.points)}: {label(claim.point)}: {text}")

        work(store, found, folder / "trials", show)


def _same(
    experiment: str,
    first: Sequence[str],
    axes: Sequence[str],
    storage: str,
    data: str | None,
    out: str,
) -> list[str]:
    """Return the command of a worker of the same sweep."""
    more = [] if data is None else ["--data", data]
    grid = [part for axis in [*first, *axes] for part in ("--grid", axis)]
    command = [sys.executable, "-m", "fracspike", "sweep", experiment, *grid, *more]
    return [*command, "--storage", storage, "--out", out, "--only-work"]


def _together(store: Store, command: Sequence[str], workers: int) -> None:
    """Start workers and wait for them, showing what is done.

    Raises:
        RuntimeError: if they all ended before the sweep was done.
    """
    from tqdm import tqdm

    processes = [subprocess.Popen(command) for _ in range(workers)]
    told: set[int] = set()
    try:
        with tqdm(total=len(store.points), initial=store.view().settled, unit="point", disable=None) as bar:
            while any(process.poll() is None for process in processes):
                with suppress(subprocess.TimeoutExpired, StopIteration):
                    next(p for p in processes if p.poll() is None).wait(LOOK)
                settled = store.view().settled
                if bar.disable and settled > bar.n:
                    click.echo(f"{settled} of {len(store.points)} points are done")
                bar.n = settled
                bar.refresh()
                for process in processes:
                    if process.poll() and process.pid not in told:
                        told.add(process.pid)
                        click.echo(
                            f"fracspike: worker {process.pid} ended with status {process.returncode}; "
                            "the others take up what it was at",
                            err=True,
                        )
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    view = store.view()
    if view.settled < len(store.points):
        raise RuntimeError(
            f"all workers ended with {view.settled} of {len(store.points)} points done; "
            "the same command goes on from there"
        )


def _complain(view: View, count: int) -> None:
    if view.failed:
        first = min(view.failed.values(), key=lambda one: one.index)
        raise click.ClickException(
            f"{len(view.failed)} of {count} points failed, the first of them {first.point} with "
            f"{first.error}; --resume tries them again"
        )
