"""Time and peak memory of the solvers against the number of steps, beside other libraries in the same run.

Run ``python benchmarks/solvers.py --spikede PATH --torchfde PATH`` with the paths of checkouts; ``FDEint``
is measured if it is installed.  The work: D^alpha y = cos(t) - k y on [0, 1] for 4096 states with a rate k
each, alpha = 0.6, float32; the gradient is that of a weighted sum of the whole solution in y0, alpha and k
(torchfde and spikeDE's l1 is the scheme that is called l1_explicit here; torchfde gives no gradient in alpha,
and FDEint's method is abm).

Every case is a process of its own.  Its memory is the growth of the peak resident set over a warm-up of 8
steps, in its first repeat; its time is the least over the repeats, of which there are as many as fit into two
seconds if that is more, as processor time where one thread is used, which other load on the machine disturbs
less, else as elapsed time.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from fracspike.solvers import Blocked, Exponentials, Full, Memory, Window, fdeint
from fracspike.solvers.weights import gamma, l1_weights

ROOT = Path(__file__).resolve().parent.parent
ALPHA = 0.6
MEMORIES: dict[str, Memory] = {
    "Full": Full(),
    "Window(128)": Window(128),
    "Blocked": Blocked(),
    "Exponentials": Exponentials(1e-6),
}
SHORT = 2.0  # seconds for which a case is repeated at least
LEAN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "8192"}  # every tensor a mapping: shows a peer without fragmentation
Case = dict[str, Any]
Solver = Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, int, Tensor], Tensor]


# -- what is run, in a process of its own ------------------------------------------------------------------


def solver(case: Case) -> Solver:
    """Return ``solve(rhs, y0, steps, alpha)`` of a case."""
    library, path = case["library"], case.get("path")
    if path:
        sys.path.insert(0, path)
    if library == "fracspike":

        def solve(rhs: Any, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
            t = torch.linspace(0, 1, steps + 1)
            memory = MEMORIES[case["memory"]]
            y: Tensor = fdeint(rhs, y0, t, alpha, method=case["method"], memory=memory)
            return y

        return solve
    if library == "spikede":
        integrate = importlib.import_module("spikeDE.solver").l1_integrate_tuple

        def solve_spikede(rhs: Any, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
            t = torch.linspace(0, 1, steps + 1)
            states = integrate(lambda t, y: (rhs(t, y[0]),), (y0,), [alpha], t)
            return torch.stack(states[0])

        return solve_spikede
    if library == "torchfde":
        peer = importlib.import_module("torchfde").fdeint

        def solve_torchfde(rhs: Any, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
            end, h = torch.tensor(1.0), torch.tensor(1 / steps)
            order = float(alpha.detach())
            y: Tensor = peer(rhs, y0, order, end, h, "l1", options={"return_history": True})
            return y

        return solve_torchfde
    if library == "fdeint":
        integrate_pece = importlib.import_module("FDEint").FDEint

        def solve_pece(rhs: Any, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
            t = torch.linspace(0, 1, steps + 1)
            y: Tensor = integrate_pece(lambda t, y: rhs(t[0, 0], y), t, y0, alpha)
            return y

        return solve_pece
    return by_loops


def by_loops(rhs: Callable[[Tensor, Tensor], Tensor], y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
    """Solve by a Python loop over all pairs of steps, without any gradient."""
    h, weights = 1 / steps, l1_weights(alpha.double(), steps + 1).tolist()
    gain = float(h**ALPHA * gamma(2 - alpha.double()))
    states, changes = [y0], list[Tensor]()
    for n in range(steps):
        y = states[-1] + gain * rhs(torch.tensor(n * h), states[-1])
        for m, change in enumerate(reversed(changes), 1):
            y = y - weights[m] * change
        changes.append(y - states[-1])
        states.append(y)
    return torch.stack(states)


def one_pass(solve: Solver, steps: int, states: int, *, backward: bool) -> tuple[float, float]:
    """Return seconds forward and backward of one solve."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    y0, k = (torch.rand(states, generator=generator).requires_grad_(backward) for _ in range(2))
    alpha = torch.tensor(ALPHA, requires_grad=backward)
    with torch.set_grad_enabled(backward):
        start = clock()
        y = solve(lambda t, y: torch.cos(t) - k * y, y0, steps, alpha)
        forward = clock() - start
    if not backward:
        return forward, 0.0
    direction = torch.ones_like(y)
    start = clock()
    torch.autograd.backward(y, direction)
    return forward, clock() - start


def measure(case: Case) -> Case:
    """Run a case in this process."""
    torch.set_num_threads(case["threads"])
    solve = solver(case)

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    one_pass(solve, 8, case["states"], backward=case["backward"])
    before, started, grown = peak(), time.perf_counter(), 0
    times: list[tuple[float, float]] = []
    spent = 0.0
    while not times or (spent < case["seconds"] and (len(times) < case["repeats"] or spent < SHORT)):
        times.append(one_pass(solve, case["steps"], case["states"], backward=case["backward"]))
        grown, spent = grown or peak() - before, time.perf_counter() - started
    best = min(times, key=sum)
    return {"forward_s": best[0], "backward_s": best[1], "peak_mb": grown / 2**20}


# -- which cases are run -----------------------------------------------------------------------------------


def spawn(case: Case) -> Case | None:
    """Run a case in its own process, on its own; None if it fails or exceeds its time."""
    environment = {**os.environ, **case.get("environment", {}), "OMP_NUM_THREADS": str(case["threads"])}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10 * case["seconds"] + 60
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        click.echo(f"{case['name']}: {done.stderr.strip().splitlines()[-1]}", err=True)
        return None
    return {**case, **json.loads(done.stdout.splitlines()[-1])}


def kinds(spikede: str | None, torchfde: str | None) -> Iterator[Case]:
    """Give one case for each line of the figure, without its number of steps; what the targets need first."""
    for backward in (True, False):
        if spikede:
            case = {"library": "spikede", "path": spikede, "backward": backward}
            yield {"name": "spikeDE l1", **case}
        for method in ("l1_explicit", "l1") if backward else ("l1_explicit",):
            for memory in reversed(MEMORIES):
                case = {"library": "fracspike", "method": method, "memory": memory, "backward": backward}
                yield {"name": f"{method} {memory}", **case}
        for memory in ("Exponentials", "Full") if backward else ():
            case = {"library": "fracspike", "method": "trapezoid", "memory": memory, "backward": True}
            yield {"name": f"trapezoid {memory}", **case}
        if torchfde:
            case = {"library": "torchfde", "path": torchfde, "backward": backward}
            yield {"name": "torchfde l1", **case}
        if importlib.util.find_spec("FDEint"):
            yield {"name": "FDEint PECE", "library": "fdeint", "backward": backward}
            ours = {"library": "fracspike", "method": "abm", "memory": "Full", "backward": backward}
            yield {"name": "abm Full", **ours}
    yield {"name": "l1_explicit by loops", "library": "loops", "backward": False}
    if spikede:
        case = {"library": "spikede", "path": spikede, "backward": True}
        yield {"name": "spikeDE l1, lean malloc", **case, "environment": LEAN_MALLOC}


def sweep(kind: Case, steps: list[int], common: Case) -> Iterator[Case]:
    """Measure one kind at growing numbers of steps, as long as the next is expected within the time."""
    last = 0.0
    for n in steps:
        row = spawn({**kind, **common, "steps": n})
        if row is None:
            return
        total = row["forward_s"] + row["backward_s"]
        click.echo(
            f"{kind['name']:26}{'f+b' if kind['backward'] else 'fwd':5}{n:7}"
            f"{row['forward_s']:10.3f}{row['backward_s']:10.3f}{row['peak_mb']:10.1f}"
        )
        row.pop("environment", None)
        row.pop("path", None)
        yield row
        growth = max(2.0, total / last) if last else 4.0
        room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
        if growth * total > common["seconds"] or 4 * row["peak_mb"] > 0.8 * room:
            return  # peers grow with the square, and the machine must not run out of memory
        last = total


# -- what follows from the figures -------------------------------------------------------------------------


def exponent(rows: list[Case], key: Callable[[Case], float]) -> float:
    """Return the slope of the least-squares line through log(key) against log(steps)."""
    x = [math.log(row["steps"]) for row in rows]
    y = [math.log(max(key(row), 1e-9)) for row in rows]
    centre, middle = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - centre) * (b - middle) for a, b in zip(x, y, strict=True))
    return above / sum((a - centre) ** 2 for a in x)


def seconds(row: Case) -> float:
    """Return the whole time of a case."""
    return float(row["forward_s"] + row["backward_s"])


def megabytes(row: Case) -> float:
    """Return the peak memory of a case."""
    return float(row["peak_mb"])


def conclusions(rows: list[Case], states: int) -> list[tuple[str, float, str, bool]]:
    """Return what was promised: the quantity, its value, the target, and whether it is met."""
    found: list[tuple[str, float, str, bool]] = []

    def pick(name: str, steps: int, *, backward: bool = True) -> Case | None:
        wanted = (name, steps, backward)
        return next((r for r in rows if (r["name"], r["steps"], r["backward"]) == wanted), None)

    def add(quantity: str, value: float, sign: str, target: float) -> None:
        met = value >= target if sign == ">=" else value <= target
        found.append((quantity, value, f"{sign} {target:g}", met))

    peer_targets = (("Full", 512, 40.0), ("Exponentials", 1024, 100.0))
    for memory, steps, target in peer_targets:
        for method in ("l1_explicit", "l1"):
            ours = pick(f"{method} {memory}", steps)
            for peer in ("spikeDE l1", "spikeDE l1, lean malloc"):
                theirs = pick(peer, steps)
                if ours and theirs:
                    title = f"{peer} / {method} {memory}, N = {steps}"
                    if "lean" not in peer:
                        add(f"time: {title}", seconds(theirs) / seconds(ours), ">=", target)
                    add(f"memory: {title}", megabytes(theirs) / megabytes(ours), ">=", target)
    for method in ("l1", "l1_explicit"):
        name = f"{method} Exponentials"
        long = [r for r in rows if r["name"] == name and r["backward"] and r["steps"] >= 1024]
        if len(long) > 1:
            span = f"{name}, N = {long[0]['steps']} to {long[-1]['steps']}"
            add(f"growth exponent of time: {span}", exponent(long, seconds), "<=", 1.1)
            add(f"growth exponent of memory: {span}", exponent(long, megabytes), "<=", 1.1)
        for row in long:
            if row["steps"] >= 2048:
                sequence = row["steps"] * states * 4 / 2**20
                title = f"peak memory in sequences: {name}, N = {row['steps']}"
                add(title, megabytes(row) / sequence, "<=", 5.0)
    ratios = [(r["backward_s"] / r["forward_s"], r) for r in rows if r["backward"] and "method" in r]
    if ratios:
        worst, row = max(ratios, key=lambda pair: pair[0])
        add(f"backward / forward, largest: {row['name']}, N = {row['steps']}", worst, "<=", 4.0)
    loops = [r for r in rows if r["library"] == "loops"]
    for method in ("l1_explicit", "l1"):
        blocked = pick(f"{method} Blocked", 8192, backward=False)
        if loops and blocked:
            scaled = seconds(loops[-1]) * (8192 / loops[-1]["steps"]) ** 2
            title = f"loops (scaled from N = {loops[-1]['steps']}) / {method} Blocked, N = 8192, forward"
            add(f"time: {title}", scaled / seconds(blocked), ">=", 10.0)
    for peer, name in (("torchfde l1", "l1_explicit Full"), ("FDEint PECE", "abm Full")):
        both = [(pick(peer, r["steps"]), r) for r in rows if r["name"] == name and r["backward"]]
        known = [(theirs, ours) for theirs, ours in both if theirs]
        if known:
            theirs, ours = known[-1]
            title = f"{peer} / {name}, N = {ours['steps']}"
            found.append((f"time: {title}", seconds(theirs) / seconds(ours), "", True))
            found.append((f"memory: {title}", megabytes(theirs) / megabytes(ours), "", True))
    return found


def draw(rows: list[Case], path: Path) -> None:
    """Draw time and peak memory, forward and backward, against the number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    styles = {
        "l1_explicit Full": ("C0", "o-"),
        "l1_explicit Window(128)": ("C2", "o-"),
        "l1_explicit Blocked": ("C1", "o-"),
        "l1_explicit Exponentials": ("C3", "o-"),
        "l1 Exponentials": ("C3", "s:"),
        "trapezoid Exponentials": ("C8", "d:"),
        "abm Full": ("C0", "^:"),
        "spikeDE l1": ("0.15", "x--"),
        "spikeDE l1, lean malloc": ("0.5", "+--"),
        "torchfde l1": ("C4", "x--"),
        "FDEint PECE": ("C5", "x--"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for name, (colour, style) in styles.items():
        line = [r for r in rows if r["name"] == name and r["backward"]]
        if not line:
            continue
        for axis, key in zip(axes, (seconds, megabytes), strict=True):
            values = [key(r) for r in line]
            axis.loglog([r["steps"] for r in line], values, style, color=colour, label=name, base=10, ms=5)
    for axis, title in zip(axes, ("time, forward + backward (s)", "peak memory (MiB)"), strict=True):
        axis.set_xlabel("number of steps N")
        axis.set_ylabel(title)
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def write(rows: list[Case], found: list[tuple[str, float, str, bool]], about: Case, folder: Path) -> None:
    """Write solvers.json and solvers.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("name", "library", "backward", "steps", "forward_s", "backward_s", "peak_mb")
    small = [{k: float(f"{r[k]:.4g}") if isinstance(r[k], float) else r[k] for k in keys} for r in rows]
    names = ("quantity", "value", "target", "met")
    targets = [dict(zip(names, (q, float(f"{v:.4g}"), t, m), strict=True)) for q, v, t, m in found]
    data = {"about": about, "targets": targets, "rows": small}
    (folder / "solvers.json").write_text(json.dumps(data, indent=1) + "\n")
    with (folder / "solvers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(small)


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--spikede", type=click.Path(exists=True), help="A checkout of spikeDE.")
@click.option("--torchfde", type=click.Path(exists=True), help="A checkout of torchfde.")
@click.option("--quick", is_flag=True, help="512 states, at most 1024 steps, nothing written but --out.")
@click.option("--longest", default=16384, show_default=True, help="Largest number of steps.")
@click.option("--states", default=4096, show_default=True)
@click.option("--seconds", "cap", default=10.0, show_default=True, help="Time a case should stay within.")
@click.option("--peer-seconds", default=60.0, show_default=True, help="The same for other libraries.")
@click.option("--repeats", default=2, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where solvers.json and .csv go.")
@click.option("--figure", type=click.Path(path_type=Path), help="Where the figure goes.")
@click.option("--case", hidden=True)
def main(
    spikede: str | None,
    torchfde: str | None,
    quick: bool,
    longest: int,
    states: int,
    cap: float,
    peer_seconds: float,
    repeats: int,
    threads: int,
    out: Path | None,
    figure: Path | None,
    case: str | None,
) -> None:
    """Measure everything, or one case if this is the process of a case."""
    if case:
        click.echo(json.dumps(measure(json.loads(case))))
        return
    if quick:
        states, longest, repeats, cap, peer_seconds = min(states, 512), min(longest, 1024), 1, 5.0, 10.0
    else:
        out = out or ROOT / "benchmarks" / "results"
        figure = figure or ROOT / "docs" / "figures" / "solvers_cost.png"
    about = {
        "work": f"D^0.6 y = cos(t) - k y, {states} states, float32, gradient in y0, alpha and k",
        "threads": threads,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    click.echo("\n".join(f"{key}: {value}" for key, value in about.items()))
    click.echo(f"{'':26}{'':5}{'steps':>7}{'forward s':>10}{'backward s':>10}{'peak MiB':>10}")
    steps = [2**e for e in range(7, 15) if 2**e <= longest]
    rows = []
    for kind in kinds(spikede, torchfde):
        allowed = cap if kind["library"] == "fracspike" else peer_seconds
        common = {"states": states, "threads": threads, "repeats": repeats, "seconds": allowed}
        rows += list(sweep(kind, steps, common))
        found = conclusions(rows, states)
        if out:  # after each kind, so that a run that is stopped leaves what it has
            write(rows, found, about, out)
    click.echo("")
    for quantity, value, target, met in found:
        verdict = "" if not target else "met" if met else "MISSED"
        click.echo(f"{quantity:88}{value:10.2f}  {target:8} {verdict}")
    if figure:
        draw(rows, figure)


if __name__ == "__main__":
    main()
