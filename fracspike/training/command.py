"""``fracspike train``: options in, progress and a summary out; the work is done in ``run``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .task import Options

if TYPE_CHECKING:
    from .loop import Epoch
    from .run import Outcome

DEFAULT = Options()
LOG_EVERY = 5  # epochs, where there is no terminal to draw a progress bar on


@click.command()
@click.argument("task")
@click.option(
    "--epochs", default=DEFAULT.epochs, show_default=True, help="Passes through the training images."
)
@click.option("--alpha", default=DEFAULT.alpha, show_default=True, help="Caputo order in (0, 1].")
@click.option("--lr", default=DEFAULT.lr, show_default=True, help="Learning rate of Adam.")
@click.option("--batch-size", default=DEFAULT.batch_size, show_default=True, help="Images per step.")
@click.option("--hidden", default=DEFAULT.hidden, show_default=True, help="Neurons per hidden layer.")
@click.option(
    "--surrogate", default=DEFAULT.surrogate, show_default=True, help="Surrogate gradient, by name."
)
@click.option("--seed", default=DEFAULT.seed, show_default=True, help="Seed of every random draw.")
@click.option("--out", default="runs", show_default=True, help="Folder; results go to OUT/TASK.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT/TASK; same options.")
@click.option("--compare", "control", is_flag=True, help="Train the memoryless control, alpha = 1, too.")
def train(task: str, out: str, resume: bool, control: bool, **options: float | int | str) -> None:
    """Train a fractional spiking network on real data, TASK; for example: digits.

    Keeps a checkpoint after every epoch. Writes results.json, history.csv and figures; the test
    images are named once, with the weights that were best on the validation images.
    """
    from fracspike import training

    from . import run

    chosen = Options(**options)  # type: ignore[arg-type]
    entry = training.get(task)
    if control and chosen.alpha == 1:
        raise ValueError("`--compare` needs `alpha` below 1, got 1: it is the control itself")
    folder = Path(out) / entry.name
    jobs = [(chosen, folder, resume)]
    if control:
        beside = folder / "control"
        if not resume:  # now, so that --resume after an interruption cannot meet the one of an earlier run
            run.set_aside(beside)
        jobs.append((replace(chosen, alpha=1.0), beside, resume and run.can_resume(beside)))
    click.echo(
        f"{entry.title}\n{entry.source}\nseed {chosen.seed}; a checkpoint after each epoch in {folder}"
    )
    outcomes = {}
    for job, place, again in jobs:
        with _progress(job) as show, _interruptible(place):
            outcomes[f"alpha {job.alpha:g}"] = run.train(entry, job, place, resume=again, on_epoch=show)
    click.echo("\n" + summary(outcomes.values()))
    if control:
        run.compare(entry, outcomes, folder)
    click.echo(f"\nresults, history and figures in {folder}")


def summary(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes as text, aligned, for a terminal.

    Args:
        outcomes: one for each line.
    """
    lines = [f"{'alpha':8}{'best epoch':>12}{'training':>12}{'validation':>12}{'test':>12}{'seconds':>10}"]
    for outcome in outcomes:
        best, order = outcome.best, outcome.options.alpha
        shares = (best.training_accuracy, best.validation_accuracy, outcome.test_accuracy)
        cells = "".join(f"{f'{100 * share:.1f} %':>12}" for share in shares)
        control = "  memoryless control" if order == 1 else ""
        lines.append(f"{order:<8g}{best.epoch:>12}{cells}{outcome.seconds:>10.1f}{control}")
    return "\n".join(lines)


@contextmanager
def _progress(options: Options) -> Iterator[Callable[[Epoch], None]]:
    """Give a function that shows each epoch: as a bar on a terminal, else as a line now and then."""
    from tqdm import tqdm

    name = f"alpha {options.alpha:g}"
    # Given here because tqdm draws nothing on a terminal that does not know its own size.
    size = {"ncols": min(shutil.get_terminal_size().columns, 110), "nrows": 20}
    with tqdm(total=options.epochs, desc=name, unit="epoch", disable=None, **size) as bar:

        def show(epoch: Epoch) -> None:
            if bar.n == 0:
                bar.initial = bar.n = epoch.epoch - 1  # those before a resumption took no time now
            text = f"loss {epoch.training_loss:.3f}, validation {epoch.validation_accuracy:.1%}"
            bar.set_postfix_str(text, refresh=False)
            bar.update()
            if bar.disable and (epoch.epoch % LOG_EVERY == 0 or epoch.epoch == options.epochs):
                click.echo(f"{name}, epoch {epoch.epoch} of {options.epochs}: {text}")

        yield show


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost; the checkpoint of the last whole epoch is on disk."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"\nfracspike: interrupted; the checkpoint in {folder} is kept: "
            "the same command with --resume goes on from it",
            err=True,
        )
        raise SystemExit(130) from None
