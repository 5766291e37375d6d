"""Errors, observed orders and gradients in alpha of the solvers, beside other libraries in the same run.

Run ``python benchmarks/accuracy.py --spikede PATH --torchfde PATH`` with the paths of checkouts; ``FDEint``
is measured if it is installed.  All is float64, alpha = 0.7, on [0, 1] (torchfde keeps its times in float32):

- relaxation: D^alpha y = -y from y(0) = 1, error at t = 1 against the Mittag-Leffler function;
- smooth: D^alpha y = 2 / Gamma(3 - alpha) t^(2 - alpha) + t^2 - y from rest, whose solution is t^2: error at
  t = 1, and the order observed between half the steps and all;
- gradient: d y(1) / d alpha of D^alpha y = 1 + cos(3 t) - y from rest by the library's own differentiation,
  relative to central finite differences of the same library's solution.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
from torch import Tensor

from fracspike.solvers import METHODS, Exponentials, Memory, fdeint, mittag_leffler

ROOT = Path(__file__).resolve().parent.parent
ALPHA = 0.7
F64 = torch.float64
Rhs = Callable[[Tensor, Tensor], Tensor]
Solve = Callable[[Rhs, Tensor, int, Tensor], Tensor]  # (rhs, y0, steps, alpha) -> y(1)


def ours(method: str, memory: Memory | None = None) -> Solve:
    """Return a solver of this library."""

    def solve(rhs: Rhs, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        y: Tensor = fdeint(rhs, y0, t, alpha, method=method, memory=memory)[-1]
        return y

    return solve


def spikede(name: str) -> Solve:
    """Return a solver of spikeDE."""
    integrate = getattr(importlib.import_module("spikeDE.solver"), f"{name}_integrate_tuple")

    def solve(rhs: Rhs, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        y: Tensor = integrate(lambda t, y: (rhs(t, y[0]),), (y0,), [alpha], t)[0][-1]
        return y

    return solve


def torchfde(name: str) -> Solve:
    """Return a solver of torchfde."""
    integrate = importlib.import_module("torchfde").fdeint

    def solve(rhs: Rhs, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
        y: Tensor = integrate(rhs, y0, alpha, torch.tensor(1.0), torch.tensor(1 / steps), name)
        return y

    return solve


def pece() -> Solve:
    """Return the solver of FDEint."""
    integrate = importlib.import_module("FDEint").FDEint

    def solve(rhs: Rhs, y0: Tensor, steps: int, alpha: Tensor) -> Tensor:
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        y: Tensor = integrate(lambda t, y: rhs(t[0, 0], y), t, y0, alpha, dtype=F64)[..., -1, :]
        return y

    return solve


def solvers(spikede_path: str | None, torchfde_path: str | None) -> Iterator[tuple[str, Solve]]:
    """Give every solver with its name."""
    for method in METHODS:
        yield f"fracspike {method}", ours(method)
    yield "fracspike l1, Exponentials(1e-6)", ours("l1", Exponentials(1e-6))
    for path, library, names in (
        (spikede_path, spikede, ("l1", "gl", "trap")),
        (torchfde_path, torchfde, ("l1", "gl", "trap", "predictor", "corrector")),
    ):
        if path:
            sys.path.insert(0, path)
            for name in names:
                yield f"{library.__name__} {name}", library(name)
    if importlib.util.find_spec("FDEint"):
        yield "FDEint", pece()


def relaxation(solve: Solve, steps: int) -> float:
    """Return the error of relaxation from 1."""
    y = solve(lambda t, y: -y, torch.ones(1, dtype=F64), steps, torch.tensor(ALPHA, dtype=F64))
    return abs(y.item() - mittag_leffler(torch.tensor(-1.0, dtype=F64), ALPHA).item())


def smooth(solve: Solve, steps: int) -> float:
    """Return the error where the solution is t^2."""
    factor = 2 / math.gamma(3 - ALPHA)
    rhs = lambda t, y: factor * t ** (2 - ALPHA) + t**2 - y  # noqa: E731
    return abs(solve(rhs, torch.zeros(1, dtype=F64), steps, torch.tensor(ALPHA, dtype=F64)).item() - 1)


def gradient(solve: Solve, steps: int) -> float:
    """Return the relative error of the gradient in alpha; NaN if the library gives none."""

    def end(alpha: Tensor) -> Tensor:
        return solve(lambda t, y: 1 + torch.cos(3 * t) - y, torch.zeros(1, dtype=F64), steps, alpha).sum()

    alpha = torch.tensor(ALPHA, dtype=F64, requires_grad=True)
    try:
        slope = torch.autograd.grad(end(alpha), alpha)[0].item()
    except RuntimeError:  # the solution is cut off from alpha
        return math.nan
    with torch.no_grad():
        difference = (end(alpha + 1e-5) - end(alpha - 1e-5)).item() / 2e-5
    return abs(slope / difference - 1)


def attempt(measure: Callable[[], float]) -> float:
    """Return what is measured; NaN, and say why, if the library cannot do it."""
    try:
        return measure()
    except Exception as failure:  # another library's: any
        click.echo(f"  {type(failure).__name__}: {failure}", err=True)
        return math.nan


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--spikede", "spikede_path", type=click.Path(exists=True), help="A checkout of spikeDE.")
@click.option("--torchfde", "torchfde_path", type=click.Path(exists=True), help="A checkout of torchfde.")
@click.option("--steps", default=256, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A .csv for the table.")
def main(spikede_path: str | None, torchfde_path: str | None, steps: int, out: Path | None) -> None:
    """Measure every solver."""
    names = ("solver", "relaxation", "smooth", "order", "gradient")
    rows = []
    click.echo(f"{names[0]:36}" + "".join(f"{name:>12}" for name in names[1:]))
    for name, solve in solvers(spikede_path, torchfde_path):
        errors = [attempt(lambda n=n, s=solve: smooth(s, n)) for n in (steps // 2, steps)]
        order = math.log2(errors[0] / errors[1]) if all(e > 0 for e in errors) else math.nan
        slope = attempt(lambda s=solve: gradient(s, steps // 4))
        row = (attempt(lambda s=solve: relaxation(s, steps)), errors[1], order, slope)
        click.echo(f"{name:36}" + "".join(f"{value:12.2g}" for value in row))
        rows.append((name, *(f"{value:.3g}" for value in row)))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([names, *rows])


if __name__ == "__main__":
    main()
