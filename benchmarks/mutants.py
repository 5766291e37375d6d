"""Break the code in many small ways, one at a time, and say which breaks no test notices.

    pip install cosmic-ray
    python benchmarks/mutants.py solvers [--count 70] [--seed 0]

A mutant that survives points at a promise that no test keeps. Either a test is missing, or the mutant means
the same as the original; those are listed, each with the reason, in ``results/mutants_equivalent.csv``, and
are not run again. All verdicts are written to ``results/mutants_GROUP.csv``.

Places are drawn at random from the files of a group, and of each place one of the changes that Cosmic Ray's
operators make there, or one of `mutation.Scaled`. Cosmic Ray's own runner would import torch for every
mutant, which takes longer than the tests. Here one process collects the tests, measures each, and forks for
every mutant; the child puts the change into the functions as they are in memory. What passes so, or cannot
be put in (a default, a constant of the module), is imported anew from a scratch copy in another fork. Tests
that name the changed module come first, then the quickest, up to a budget of processor time.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import itertools
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from mutation import Mutant, changes, drawn, patch

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
FAULT = 77  # exit status of a child in which this script failed, and no test
TOLD = os.fdopen(os.dup(1), "w")  # where verdicts go, while the tests' own output goes nowhere
#: imported once, before the forks: all that the package and its tests need of others
LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torchdiffeq",
    "numba",
    "scipy.special",
    "scipy.integrate",
    "scipy.signal",
    "matplotlib.pyplot",
    "mpmath",
    "click",
    "tqdm",
    "lightning_fabric",
)


@dataclass(frozen=True)
class Group:
    """Files to change, and the tests that judge them, by the names of their files."""

    folder: str
    tests: str
    files: str = "*"
    never: str = ""

    def paths(self) -> list[Path]:
        """Return the files that are changed."""
        found = [
            path for name in self.files.split() for path in sorted((ROOT / self.folder).rglob(f"{name}.py"))
        ]
        return [path for path in found if path.stem not in self.never.split()]

    def arguments(self) -> list[str]:
        """Return what pytest is called with."""
        return [f"tests/test_{name}.py" for name in self.tests.split()]


GROUPS = {
    "solvers": Group(
        "solvers",
        "modes mittag_leffler memory_and_gradient order integrate solver_interface implicit saved_states "
        "solver_failures solver_dense shared_memory",
    ),
    "neurons": Group(
        "fracspike/neurons",
        "neurons neuron_models neuron_gradients adaptation adapting crossings recording lif saved_states",
        # not the compiled kernels, which take minutes to compile
        files="loop membrane reset parameters state adaptive recurrent nonlinear izhikevich adex orders "
        "readout current_based",
    ),
    "surrogate": Group(
        "fracspike/surrogate",
        "surrogate_values surrogate_module surrogate_registry surrogate_noisy surrogate_docs",
        never="plots",  # how a figure looks
    ),
    "training": Group(
        "fracspike/training",
        "training training_faults engine tasks digits cli damaged_files data",
        never="board figures",
    ),
}


class Quickest:
    """A pytest plugin that runs the quickest tests, measures them, and knows the first that failed."""

    def __init__(self, seconds: dict[str, float] | None, chosen: argparse.Namespace, file: str = "") -> None:
        self.seconds, self.chosen, self.file = seconds, chosen, file
        self.measured, self.failed, self.failures = dict[str, float](), "", list[str]()

    def sorted(self, items: list[pytest.Item], file: str) -> list[pytest.Item]:
        """Return tests that name the changed module first, then by time, until the budget is spent."""
        known, module = self.seconds or {}, Path(file).stem
        named = {place for place in {item.path for item in items} if module in place.read_text().lower()}
        items = [item for item in items if item.nodeid in known]
        items.sort(key=lambda item: (item.path not in named, known[item.nodeid]))
        total = itertools.accumulate(known[item.nodeid] for item in items)
        return [item for item, spent in zip(items, total, strict=True) if spent < self.chosen.budget]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take a few of the cases of each test to be measured, or those to be run."""
        if self.seconds is not None:
            items[:] = self.sorted(items, self.file)
            return
        cases: dict[str, list[pytest.Item]] = {}
        for item in items:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
        items[:] = [i for some in cases.values() for i in some[:: math.ceil(len(some) / self.chosen.cases)]]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Take the time of processors, children's included: others may use them too."""
        start = sum(os.times()[:4])
        if self.seconds is None:
            signal.signal(signal.SIGPROF, lambda *_: pytest.skip("too slow to be used"))
            signal.setitimer(signal.ITIMER_PROF, self.chosen.slowest)
        result = yield
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        self.measured[item.nodeid] = sum(os.times()[:4]) - start
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed."""
        if report.failed:
            self.failed = self.failed or report.nodeid
            self.failures.append(report.nodeid)


class Patched(Quickest):
    """A pytest plugin that, once the tests are collected, forks for each mutant and patches functions there.

    Nothing is imported again, so a mutant that is caught costs little more than the test that catches it. A
    mutant that passes is not settled: import ran the original.
    """

    def __init__(self, copy: Path, mutants: list[Mutant], chosen: argparse.Namespace) -> None:
        super().__init__(None, chosen)
        self.copy, self.mutants = copy, mutants
        self.open: list[int] = []
        self.by: dict[int, str] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure the tests, then run the mutants."""
        _, kept = in_child(self.copy, lambda: self._run(session.items, stop=False), 1800.0)
        self.seconds = {name: taken for name, taken in kept["seconds"].items() if taken < self.chosen.slowest}
        if wrong := [
            name for name in kept["failures"] if name in self.seconds
        ]:  # not one that was interrupted
            self.failed, self.seconds = wrong[0], None
            return True
        print(f"{len(self.seconds)} of {len(kept['seconds'])} tests are quick enough", file=TOLD, flush=True)
        for number, mutant in enumerate(self.mutants):
            try:
                changed = list(changes(self.copy / mutant.file, mutant.source))
            except NotImplementedError:
                self.open.append(number)
                continue

            def run(changed: list[tuple[str, int, CodeType]] = changed, mutant: Mutant = mutant) -> Quickest:
                patch(self.copy / mutant.file, changed)
                return self._run(self.sorted(session.items, mutant.file), stop=True)

            outcome, kept = in_child(self.copy, run, self.chosen.limit)
            if outcome == "passed":
                self.open.append(number)
            else:
                self.by[number] = kept.get("failed", "timeout")
                tell(number, mutant, "killed", self.by[number])
        return True

    def _run(self, items: list[pytest.Item], *, stop: bool) -> Quickest:
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if stop and self.failed:
                break
        return self


def collected(copy: Path, group: Group, plugin: Quickest) -> Quickest:
    """Run pytest with a plugin on the copy, in this process, which must not have imported the package."""
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tests")]
    os.environ["PYTHONPATH"] = str(copy)
    with Path("/dev/null").open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    status = pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", *group.arguments()], plugins=[plugin]
    )
    plugin.failed = plugin.failed or ("import" if status else "")
    return plugin


def in_child(copy: Path, run: Callable[[], Quickest], limit: float) -> tuple[str, dict[str, Any]]:
    """Run tests in a fork; return "passed", "failed" or "timeout", and what the plugin knows."""
    note = copy / f"note{os.getpid()}.json"
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            plugin = run()
            kept = {"failed": plugin.failed, "failures": plugin.failures, "seconds": plugin.measured}
            if isinstance(plugin, Patched):
                kept |= {"open": plugin.open, "by": plugin.by, "quick": plugin.seconds}
            note.write_text(json.dumps(kept))
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=TOLD)
            TOLD.flush()
            os._exit(FAULT)
    end, found = time.monotonic() + limit, (0, 0)
    while found[0] == 0 and time.monotonic() < end:
        time.sleep(0.05)
        found = os.waitpid(child, os.WNOHANG)
    if found[0] == 0:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout", {}
    if os.waitstatus_to_exitcode(found[1]) == FAULT:
        raise RuntimeError("this script failed in a child, see above")
    kept = json.loads(note.read_text()) if note.exists() else {"failed": "exit", "failures": ["exit"]}
    return ("failed" if kept["failed"] else "passed"), kept


def tell(number: int, mutant: Mutant, verdict: str, by: str) -> None:
    """Print a verdict and the difference."""
    print(f"{number} {verdict} {mutant.file}:{mutant.line} {by}", file=TOLD)
    print(f"  - {mutant.before}\n  + {mutant.after}", file=TOLD, flush=True)


def copied(work: Path) -> Path:
    """Copy the tree; the solvers, which stand at the top level, are linked to where they are imported."""
    copy = work / "tree"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "results", "runs")
    shutil.copytree(ROOT, copy, ignore=ignored)
    (copy / "fracspike" / "solvers").symlink_to(copy / "solvers")
    return copy


def main() -> None:
    """Draw mutants of one group, run them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="so many of the drawn are left out at the start")
    parser.add_argument("--cases", type=int, default=5, help="so many cases of each parametrised test")
    parser.add_argument("--slowest", type=float, default=0.5, help="seconds of the slowest test that is used")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of processor time for one mutant")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a mutant, by the clock")
    parser.add_argument("--files", help="only these of the group, by name")
    parser.add_argument("--tests", help="only these files of tests, by name")
    chosen = parser.parse_args()
    group = GROUPS[chosen.group]
    group = replace(group, files=chosen.files or group.files, tests=chosen.tests or group.tests)
    table = RESULTS / f"mutants_{chosen.group}.csv"
    with (RESULTS / "mutants_equivalent.csv").open(newline="") as lines:
        equivalent = {(row["file"], row["before"], row["after"]) for row in csv.DictReader(lines)}
    os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads must not be forked
    for name in LIBRARIES:
        importlib.import_module(name)
    sample = list(
        itertools.islice(drawn(ROOT, group.paths(), chosen.seed), chosen.skip, chosen.skip + chosen.count)
    )
    verdicts = {i: ("equivalent", "") for i, mutant in enumerate(sample) if mutant.key in equivalent}
    left = [i for i in range(len(sample)) if i not in verdicts]
    with tempfile.TemporaryDirectory() as work:
        copy = copied(Path(work))
        plugin = Patched(copy, [sample[i] for i in left], chosen)
        _, kept = in_child(copy, lambda: collected(copy, group, plugin), 36_000.0)
        if "quick" not in kept or kept["quick"] is None:
            sys.exit(f"the tests fail without a mutant: {kept['failed']}")
        verdicts |= {left[int(i)]: ("killed", by) for i, by in kept["by"].items()}
        sys.dont_write_bytecode = True  # what is cached is the original
        for number in (left[i] for i in kept["open"]):
            mutant = sample[number]
            place = copy / mutant.file
            original, stamp = place.read_text(), place.stat().st_mtime
            place.write_text(mutant.source)
            os.utime(place, (0, number))  # no cached bytecode is of this time
            again = Quickest(kept["quick"], chosen, mutant.file)
            outcome, found = in_child(copy, lambda again=again: collected(copy, group, again), chosen.limit)
            place.write_text(original)
            os.utime(place, (stamp, stamp))
            verdict = "survived" if outcome == "passed" else "killed"
            verdicts[number] = verdict, found.get("failed", "timeout")
            tell(number, mutant, *verdicts[number])
    with table.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["file", "line", "before", "after", "verdict", "by"])
        for number, mutant in enumerate(sample):
            writer.writerow([mutant.file, mutant.line, mutant.before, mutant.after, *verdicts[number]])
    print(dict(Counter(verdict for verdict, _ in verdicts.values())))


if __name__ == "__main__":
    main()
