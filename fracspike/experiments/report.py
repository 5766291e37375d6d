"""What an experiment reports: published beside measured, with a tolerance fixed before the run."""

from __future__ import annotations

import csv
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

import fracspike
from fracspike.files import output_folder, replacing, write_json
from fracspike.solvers import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Value = float | int | str  # of a parameter


@dataclass(frozen=True)
class Row:
    """One compared quantity.

    Attributes:
        quantity: what, with its unit.
        published: the published value; None if there is none.
        source: where it was published: paper with table or figure, or program.
        measured: ours.
        tolerance: largest allowed difference; None if the row only informs.
    """

    quantity: str
    published: float | None
    source: str
    measured: float
    tolerance: float | None = None

    @property
    def within(self) -> bool | None:
        """Whether the measured value agrees with the published; None where nothing was promised."""
        if self.tolerance is None or self.published is None:
            return None
        return abs(self.measured - self.published) <= self.tolerance


@dataclass(frozen=True)
class Run:
    """What an experiment is given: where to write, how much to do, and which seed.

    Attributes:
        folder: where to write.
        quick: do less, to see that it works.
        full: do all, where the default is cut down; not with ``quick``.
        seed: of every random draw.
        data: folder of the data set, as the user gave it; None to find it.
        only: the parts to do, by name; all if there are none.

    Raises:
        TypeError: if ``seed`` is no whole number.
        ValueError: if both ``quick`` and ``full`` are asked for, or ``seed`` is out of range.
    """

    folder: Path
    quick: bool = False
    seed: int = 0
    full: bool = False
    data: Path | None = None
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.positive_int("seed", self.seed, at_least=0)
        if self.quick and self.full:
            raise ValueError("`quick` and `full` must not both be set, got both; leave one out")

    def progress(self, items: Iterable[T], what: str) -> Iterable[T]:
        """Go through ``items`` with a progress bar, shown only on a terminal."""
        bar: Iterable[T] = tqdm(list(items), desc=what, leave=False, disable=None)
        return bar

    def chosen(self, parts: Mapping[str, T]) -> dict[str, T]:
        """Return those of ``parts`` that are to be done, in their own order.

        Raises:
            ValueError: with the known names, if one that is wanted is none of them.

        >>> Run(Path(), only=("b",)).chosen({"a": 1, "b": 2})
        {'b': 2}
        """
        wanted = {checks.one_of("only", name, parts) for name in self.only} or set(parts)
        return {name: part for name, part in parts.items() if name in wanted}

    def save_figure(self, name: str, figure: Figure) -> None:
        """Write ``figure`` as ``name``.png and let go of it."""
        with replacing(self.folder / f"{name}.png") as path:
            figure.savefig(path, dpi=110)
        figure.clear()

    def save_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write ``rows`` as ``name``.csv."""
        with replacing(self.folder / f"{name}.csv") as path, path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)


@dataclass(frozen=True)
class Experiment:
    """A published claim that one command checks.

    Attributes:
        name: what the command line calls it.
        title: one line.
        source: the paper.
        duration: about how long it takes on two cores, as text.
        run: does the work and returns the rows.
        parameters: what ``fracspike sweep`` may vary, with the values that hold otherwise.
        trial: measures one point of a sweep: given all parameters and a seed, returns numbers by name
            (such as ``{"test_accuracy": 0.88}``), the same for the same arguments; None if the
            experiment cannot be swept.
        check: raises ValueError or TypeError for parameters that ``trial`` cannot measure, without measuring;
            a sweep calls it for every point before the first is measured.
        parts: names of what can be done alone, by ``fracspike reproduce NAME --only PART``.
    """

    name: str
    title: str
    source: str
    duration: str
    run: Callable[[Run], list[Row]]
    parameters: Mapping[str, Value] = field(default_factory=dict)
    trial: Callable[[Mapping[str, Value], int], Mapping[str, float]] | None = None
    parts: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Value]], None] | None = None


def command(name: str, run: Run) -> str:
    """Return the command that does the same again, but for the folders of this machine."""
    words = [f"fracspike reproduce {name}"]
    words += [f"--{flag}" for flag in ("quick", "full") if getattr(run, flag)]
    words += [f"--only {part}" for part in run.only]
    words += [f"--seed {run.seed}"] if run.seed else []
    return " ".join(words)


def write_results(experiment: Experiment, run: Run, rows: Sequence[Row], seconds: float) -> Path:
    """Write ``results.json`` and return its path."""
    content: dict[str, Any] = {
        "experiment": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "command": command(experiment.name, run),
        "quick": run.quick,
        "full": run.full,
        "rows": [{**asdict(row), "within": row.within} for row in rows],
        "seed": run.seed,
        "seconds": round(seconds, 2),
        "versions": versions(),
    }
    path = run.folder / "results.json"
    write_json(path, content)
    return path


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    return {
        "fracspike": fracspike.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }


def prepare(
    experiment: Experiment,
    out: str | Path,
    *,
    quick: bool,
    seed: int,
    full: bool = False,
    data: str | Path | None = None,
    only: Sequence[str] = (),
) -> Run:
    """Return the run of ``experiment`` that writes to ``out/NAME``; fails at once if it cannot."""
    if only and not experiment.parts:
        raise ValueError(f"`only` must be left out for {experiment.name!r}, which is done whole")
    for name in only:
        checks.one_of("only", name, experiment.parts)
    run = Run(
        folder=Path(out) / experiment.name,
        quick=quick,
        seed=seed,
        full=full,
        data=None if data is None else Path(data),
        only=tuple(only),
    )
    output_folder(run.folder)
    return run


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, aligned, for a terminal."""
    marks = {None: "", True: "ok", False: "OUTSIDE"}
    cells = [("quantity", "published", "measured", "tolerance", "")] + [
        (
            row.quantity,
            _number(row.published),
            _number(row.measured),
            _number(row.tolerance),
            marks[row.within],
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
