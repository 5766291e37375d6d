"""``fracspike sweep``: a grid in, a table and a figure out; any number of workers in between."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .address import VARIABLE, Address
from .patience import LONGEST

if TYPE_CHECKING:
    from .store import Claim, Store, View
    from .target import Target

LOOK = 1.0  # seconds between looks at what the workers have done


class _Listing(click.Command):
    """A command whose help ends with what can be swept."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the targets, each with the axes that it has."""
        from . import target

        with formatter.section("Targets"):
            formatter.write_dl(
                [
                    (name, f"{one.title}. Axes: {', '.join(one.kinds)}.")
                    for name, one in target.known().items()
                ]
            )
            formatter.write_text("package.module:NAME, an Experiment or a Task of your own.")


@click.command(cls=_Listing)
@click.argument("target")
@click.option("--grid", "first", multiple=True, metavar="AXIS=VALUES ...", help="The grid, axis by axis.")
@click.argument("axes", nargs=-1, metavar="[AXIS=VALUES]...")
@click.option("--workers", default=1, show_default=True, help="Processes that measure at once.")
@click.option("--name", default=None, help="Of the sweep, of which a storage holds many; by default TARGET.")
@click.option(
    "--storage",
    default=None,
    envvar=VARIABLE,
    show_envvar=True,
    help="sqlite:///PATH, postgresql://... or the path of a journal; by default OUT/NAME/sweep.db. An "
    "address with a password belongs into the variable: all users of a machine can read a command line.",
)
@click.option(
    "--wait",
    default=LONGEST,
    show_default=True,
    help="Seconds for which a storage that does not answer is asked again.",
)
@click.option("--data", default=None, help="Folder of the data set; by default it is found or fetched.")
@click.option("--out", default="sweeps", show_default=True, help="Folder; results go to OUT/NAME.")
@click.option("--resume", is_flag=True, help="Go on with a sweep that is there; try again what failed.")
@click.option("--only-work", is_flag=True, hidden=True)
def sweep(
    target: str,
    first: Sequence[str],
    axes: Sequence[str],
    workers: int,
    name: str | None,
    storage: str | None,
    wait: float,
    data: str | None,
    out: str,
    resume: bool,
    only_work: bool,
) -> None:
    """Measure TARGET at every point of a grid, once each; for example:

    \b
    fracspike sweep digits --grid alpha=0.3:1.0:0.1 surrogate=atan,sigmoid seed=0:5 --workers 2

    VALUES are a list; a range of whole numbers as in Python (0:5 is 0, 1, 2, 3, 4); or a range with a
    decimal point and both ends (0.3:1.0:0.1). The same command run again joins the sweep, or goes on
    with it after an interruption, on this machine or on others that share the storage. A grid may be
    extended later, and corrected where nothing was measured.
    """  # noqa: D301, D415
    from fracspike.experiments.report import versions
    from fracspike.files import output_folder
    from fracspike.solvers import checks

    from . import kept, results
    from .grid import Grid
    from .store import Store
    from .target import find
    from .worker import work

    checks.positive_int("workers", workers)
    checks.real("wait", wait, at_least=0.0)
    found = find(target, None if data is None else Path(data))
    name = _file_name(name or found.name)
    grid = Grid.parse([*first, *axes], found.kinds)
    if not only_work:
        found.check_grid(grid)
    folder = output_folder(Path(out) / name)
    address = Address(storage or f"sqlite:///{folder / 'sweep.db'}")
    store = Store(
        address,
        name,
        grid,
        target=target,
        defaults=found.defaults,
        about={"versions": versions()},
        join=resume,
        patience=wait,
    )
    kept.own(folder, store.identity, str(address))
    if only_work:
        work(store, found, folder)
        return
    before = store.view()
    grown = "; the grid was another before" if store.grown else ""
    click.echo(f"{found.title}\n{grid}, of which {before.settled} are done{grown}; kept in {address}")
    stopped: KeyboardInterrupt | RuntimeError | None = None
    try:
        if workers == 1:
            _alone(store, found, folder)
        else:
            same = _same(target, [*first, *axes], data, out, name, wait)
            _together(store, same, {**os.environ, VARIABLE: address.url}, workers)
    except (KeyboardInterrupt, RuntimeError) as error:
        stopped = error
        store.patient.longest = 0.0  # what the storage does not tell now, this machine knows
    view = results.standing(store, folder)
    results.write(folder, name, grid, view)
    if isinstance(stopped, RuntimeError):
        raise stopped
    if stopped is not None:
        click.echo(
            f"\nfracspike: interrupted; {view.settled} of {len(grid)} points are done and kept: "
            "the same command goes on from there",
            err=True,
        )
        raise SystemExit(130)
    click.echo("\n" + results.table(view))
    click.echo(f"\nsweep.csv, sweep.png and results.json in {folder}")
    _complain(view, len(grid))


def _file_name(name: str) -> str:
    """Return a name that a folder can have.

    Raises:
        ValueError: if it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}", name):
        raise ValueError(
            f"`name` must hold letters, digits, points, dashes and spaces, at most 100, got {name!r}; "
            "choose another with --name"
        )
    return name


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

        work(store, found, folder, show)


def _same(target: str, axes: Sequence[str], data: str | None, out: str, name: str, wait: float) -> list[str]:
    """Return the command of a worker of the same sweep; it finds the storage in its environment."""
    more = [] if data is None else ["--data", data]
    grid = [part for axis in axes for part in ("--grid", axis)]
    command = [sys.executable, "-m", "fracspike", "sweep", target, *grid, *more]
    return [*command, "--name", name, "--out", out, "--wait", str(wait), "--only-work"]


def _together(store: Store, command: Sequence[str], environment: Mapping[str, str], workers: int) -> None:
    """Start workers and wait for them, showing what is done.

    Raises:
        RuntimeError: if they all ended before the sweep was done.
    """
    from tqdm import tqdm

    processes = [subprocess.Popen(command, env=environment) for _ in range(workers)]
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
