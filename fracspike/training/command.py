"""``fracspike train``: options in, progress and a summary out; the work is done in ``run``."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .engine import check_save_every
from .machine import DEVICES, PRECISIONS, is_helper
from .others import ProcessDiedError
from .task import Options, Task

if TYPE_CHECKING:
    from .classify import Epoch
    from .run import Outcome

DEFAULT = Options()
LOG_EVERY = 5  # epochs, where there is no terminal to draw a progress bar on
OWN = "by default the task's own"


def option(flag: str, kind: type, text: str) -> Callable[..., Any]:
    """Return a command line option that is None if it is not given."""
    return click.option(flag, type=kind, default=None, help=text)


class _WithTasks(click.Command):
    """A command whose help ends with the tasks; they are imported only for that."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tasks, each with its title and networks."""
        from fracspike import training

        with formatter.section("Tasks"):
            formatter.write_dl([(name, _described(training.get(name))) for name in training.TASKS])


def _described(task: Task) -> str:
    networks = f" (--network {', '.join(task.networks)})" if task.networks else ""
    return f"{task.title}{networks}"


@click.command(cls=_WithTasks)
@click.argument("task")
@option("--epochs", int, f"Passes through the training images; {OWN}, {DEFAULT.epochs} for digits.")
@option("--alpha", float, f"Caputo order in (0, 1]; {OWN}, {DEFAULT.alpha} for digits.")
@option("--lr", float, f"Learning rate of Adam; {OWN}, {DEFAULT.lr} for digits.")
@option("--batch-size", int, f"Images per step, over all processes; {OWN}, {DEFAULT.batch_size} for digits.")
@option("--hidden", int, f"Neurons per hidden layer; {OWN}, {DEFAULT.hidden} for digits.")
@option("--surrogate", str, f"Surrogate gradient, by name; {OWN}, {DEFAULT.surrogate} for digits.")
@option("--network", str, "Which of the task's networks, where there are several.")
@click.option("--seed", default=DEFAULT.seed, show_default=True, help="Seed of every random draw.")
@option("--patience", int, "Stop after so many epochs without a better one.")
@option("--clip", float, "Largest norm of the gradient.")
@option("--accumulate", int, "Compute each batch in so many parts, over all processes.")
@option("--precision", click.Choice(list(PRECISIONS)), "32, or bf16 for autocast.")  # type: ignore[arg-type]
@click.option("--device", type=click.Choice(list(DEVICES)), default="cpu", show_default=True)
@click.option("--processes", default=1, show_default=True, help="Processes; torchrun brings its own.")
@option("--threads", int, f"Threads of each process; by default {DEFAULT.threads}.")
@option("--data", str, "Folder of the data set; by default it is found or fetched.")
@click.option("--out", default="runs", show_default=True, help="Folder; results go to OUT/TASK.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT/TASK; same options.")
@click.option("--save-every", default=60.0, show_default=True, help="Seconds, for checkpoints in an epoch.")
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard to OUT/TASK/tensorboard.")
@click.option("--compare", "control", is_flag=True, help="Train the memoryless control, alpha = 1, too.")
def train(
    task: str,
    out: str,
    resume: bool,
    control: bool,
    device: str,
    processes: int,
    data: str | None,
    save_every: float,
    tensorboard: bool,
    **options: float | int | str | None,
) -> None:
    """Train a fractional spiking network on real data, TASK; for example: digits.

    Keeps a checkpoint after every epoch, and within long ones; a training that is there already is moved
    to a folder of its own, unless --resume goes on with it. Writes results.json, history.csv and
    figures; the test images are named once, with the weights that were best on the validation images.
    """
    from fracspike import training

    from . import run

    entry = training.get(task)
    chosen = entry.options(**options)
    if control and chosen.alpha == 1:
        raise ValueError("`--compare` needs `alpha` below 1, got 1: it is the control itself")
    check_save_every(save_every)
    folder = Path(out) / entry.name
    jobs = [(chosen, folder)]
    if control:
        jobs.append((replace(chosen, alpha=1.0), folder / run.CONTROL))
    kept = partial(_kept, entry, jobs)
    with _speaking(), _interruptible(kept):
        machine = training.Machine(device, chosen.precision, processes)
        click.echo(
            f"{entry.title}\n{entry.source}\nseed {chosen.seed}; a checkpoint after each epoch in {folder}"
        )
        outcomes = {}
        for job, place in jobs:
            # the control has not begun where the training was stopped before it
            again = resume and (place == folder or run.can_resume(place))
            with _progress(job) as (on_epoch, on_step):
                outcomes[f"alpha {job.alpha:g}"] = run.train(
                    entry,
                    job,
                    place,
                    resume=again,
                    data=None if data is None else Path(data),
                    machine=machine,
                    tensorboard=tensorboard,
                    save_every=save_every,
                    on_epoch=on_epoch,
                    on_step=on_step,
                )
        click.echo("\n" + summary(outcomes.values()))
        if control and machine.leads:
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


Shows = tuple[Callable[["Epoch"], None], Callable[[float], None]]


@contextmanager
def _progress(options: Options) -> Iterator[Shows]:
    """Give functions that show epochs and steps: as a bar on a terminal, else as a line now and then."""
    from tqdm import tqdm

    name = f"alpha {options.alpha:g}"
    # Given here because tqdm draws nothing on a terminal that does not know its own size.
    size = {"ncols": min(shutil.get_terminal_size().columns, 110), "nrows": 20}
    with tqdm(total=options.epochs, desc=name, unit="epoch", disable=None, **size) as bar:

        def on_step(done: float) -> None:
            if bar.n == 0:
                bar.initial = bar.n = int(done - 1e-9)  # those before a resumption took no time now
            bar.update(round(done - bar.n, 2))

        def on_epoch(epoch: Epoch) -> None:
            text = f"loss {epoch.training_loss:.3f}, validation {epoch.validation_accuracy:.1%}"
            bar.set_postfix_str(text)
            if bar.disable and (epoch.epoch % LOG_EVERY == 0 or epoch.epoch == options.epochs):
                click.echo(f"{name}, epoch {epoch.epoch} of {options.epochs}: {text}")

        yield on_epoch, on_step


def _kept(task: Task, jobs: Iterable[tuple[Options, Path]]) -> list[Path]:
    """Return the folders that hold a checkpoint of these trainings."""
    from . import run

    return [place for options, place in jobs if run.kept(task, options, place)]


@contextmanager
def _interruptible(kept: Callable[[], Sequence[Path]]) -> Iterator[None]:
    """Say on Ctrl-C what is on disk: the checkpoint of the last whole epoch, or later, or none yet."""
    try:
        yield
    except KeyboardInterrupt:
        places = " and ".join(map(str, kept()))
        said = (
            f"the checkpoint in {places} is kept: the same command with --resume goes on from it"
            if places
            else "there is no checkpoint of this training yet: start it again"
        )
        click.echo(f"\nfracspike: interrupted; {said}", err=True)
        raise SystemExit(130) from None


@contextmanager
def _speaking() -> Iterator[None]:
    """Let warnings be one line each; and of several processes only the leading one speak."""
    with contextlib.ExitStack() as stack:
        if is_helper():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = lambda message, *_: click.echo(f"fracspike: {message}", err=True)
        try:
            yield
        except Exception as error:
            if is_helper():  # the leading process says it, unless it is gone
                if isinstance(error, ProcessDiedError) and error.ranks == [0] and is_helper(1):
                    click.echo(f"fracspike: {error}", file=sys.__stderr__)
                raise SystemExit(1) from None
            raise
