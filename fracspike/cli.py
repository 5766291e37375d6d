"""The command line: thin, every command is a call of the library."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

import fracspike
from fracspike.files import DiskFullError, is_disk_full, output_folder
from fracspike.sweep.command import sweep
from fracspike.training.command import train
from fracspike.warm import warmup


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(fracspike.__version__, prog_name="fracspike")
@click.pass_context
def cli(context: click.Context) -> None:
    """Fractional-order spiking neurons: reproduce papers, train networks, simulate neurons."""
    if context.invoked_subcommand is None:  # no arguments at all
        click.echo(context.get_help())


@cli.command()
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="List the experiments and exit.")
@click.option("--out", default="results", show_default=True, help="Folder; results go to OUT/NAME.")
@click.option("--quick", is_flag=True, help="A smaller run of the same experiment.")
@click.option("--full", is_flag=True, help="All of it, where the default is cut down; may take hours.")
@click.option("--seed", default=0, show_default=True, help="Seed of every random draw.")
@click.option("--data", default=None, help="Folder of the data set; by default it is found or fetched.")
@click.option("--only", multiple=True, metavar="PART", help="Do this part alone, or several; see --list.")
def reproduce(
    name: str | None,
    show_list: bool,
    out: str,
    quick: bool,
    full: bool,
    seed: int,
    data: str | None,
    only: tuple[str, ...],
) -> None:
    """Run a published experiment and compare it with the published numbers.

    Writes results.json, tables and figures; the exit status is 0 only if every row that has a
    tolerance is within it.
    """
    from fracspike import experiments
    from fracspike.experiments import report

    if show_list:
        for known in experiments.MODULES:
            entry = experiments.get(known)
            click.echo(f"{entry.name:16} {entry.title} ({entry.duration})\n{'':16} {entry.source}")
            if entry.parts:
                click.echo(f"{'':16} --only {', '.join(entry.parts)}")
        return
    if name is None:
        raise click.UsageError("name an experiment, or pass --list to see them")
    experiment = experiments.get(name)
    run = report.prepare(experiment, out, quick=quick, seed=seed, full=full, data=data, only=only)
    click.echo(f"{experiment.title}\n{experiment.source}\nabout {experiment.duration}; seed {seed}")
    start = time.perf_counter()
    rows = experiment.run(run)
    seconds = time.perf_counter() - start
    path = report.write_results(experiment, run, rows, seconds)
    click.echo("\n" + report.table(rows))
    click.echo(f"\n{seconds:.1f} s; results, tables and figures in {path.parent}")
    outside = [row for row in rows if row.within is False]
    if outside:
        raise click.ClickException(f"{len(outside)} of {len(rows)} rows lie outside their tolerance")


@cli.command()
@click.option("--alpha", default=0.6, show_default=True, help="Caputo order in (0, 1].")
@click.option("--tau", default=20.0, show_default=True, help="Membrane time constant (ms).")
@click.option("--current", default=1.5, show_default=True, help="Constant current.")
@click.option("--duration", default=500.0, show_default=True, help="Simulated time (ms).")
@click.option("--dt", default=0.1, show_default=True, help="Time step (ms).")
@click.option("--threshold", default=1.0, show_default=True)
@click.option("--reset", default="subtract", show_default=True, help="subtract, value or none.")
@click.option("--reset-memory", default="jump", show_default=True, help="jump, restart, overwrite, current.")
@click.option("--surrogate", default="sigmoid", show_default=True, help="Surrogate, such as atan:alpha=2.")
@click.option("--refractory", default=0.0, show_default=True, help="Refractory period (ms).")
@click.option(
    "--method", default=None, help="exact, or a solver's name; by default what fits the reset memory."
)
@click.option("--out", default="results", show_default=True, help="Folder; results go to OUT/simulate.")
def simulate(out: str, **options: float | str | None) -> None:
    """Simulate one neuron: spike times, trace and figure."""
    from fracspike.single import simulate_one

    folder = output_folder(Path(out) / "simulate")
    spikes = simulate_one(folder, **options)  # type: ignore[arg-type]
    click.echo(f"{len(spikes)} spikes" + (f", first at {spikes[0]:g} ms" if len(spikes) else ""))
    click.echo(f"trace.csv, spikes.csv and trace.png in {folder}")


cli.add_command(train)
cli.add_command(sweep)
cli.add_command(warmup)


def main() -> None:
    """Run the command line; every expected failure is one line and a non-zero exit status."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        click.echo("fracspike: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"fracspike: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (ValueError, TypeError, RuntimeError, OSError, ImportError, ArithmeticError, MemoryError) as error:
        click.echo(f"fracspike: {_said(error)}", err=True)
        sys.exit(1)


def _said(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and is_disk_full(error) and not isinstance(error, DiskFullError):
        return f"disk full: {error.filename or 'nothing can be written any more'}"
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"not enough memory for what was asked for; ask for less{f' ({text})' if text else ''}"
    return text or type(error).__name__
