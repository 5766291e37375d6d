"""Write the tables and figures of docs/surrogates.md from the code: ``python docs/make_surrogates.py``."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fracspike import surrogate
from fracspike.neurons import FractionalLIF
from fracspike.surrogate import registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
PAGE = HERE / "surrogates.md"
FIGURES = HERE / "figures"

# The parameter that the last figure varies (by default the first one, by factors of 2), and its values.
VARIED: dict[str, tuple[str, tuple[float, ...]]] = {
    "fast_sigmoid": ("slope", (2.0, 5.0, 25.0)),
    "leaky_rectangle": ("c", (0.01, 0.1, 0.3)),
    "leaky_relu": ("leak", (0.0, 0.1, 0.5)),
    "log_tailed_relu": ("alpha", (0.0, 0.2, 0.5)),
    "multi_gaussian": ("h", (0.0, 0.15, 0.5)),
    "noisy_threshold": ("scale", (2.0, 5.0, 10.0)),
    "q_pseudo_spike": ("q", (1.5, 2.0, 5.0)),
    "sparse_fast_sigmoid": ("B", (-1.0, 0.0, 1.0)),
    "squarewave_fourier": ("n", (1, 2, 4)),
}
# Where the defaults draw a needle.
SHOWN: dict[str, dict[str, float]] = {
    "fast_sigmoid": {"slope": 5.0},
    "sparse_fast_sigmoid": {"slope": 2.0, "B": 0.5},
}


def number(value: float) -> str:
    """Return a short text for a number."""
    return "∞" if math.isinf(value) else f"{value:.4g}"


def formula(family: type[surrogate.Surrogate]) -> str:
    """Return the formula of a class's docstring as LaTeX for a Markdown table, else its first sentence."""
    text = inspect.getdoc(family) or ""
    match = re.search(r"\.\. math::(.*?)\n\n", text, re.DOTALL)
    if match is None:
        return text.partition("\n")[0].replace("|", r"\|")
    text = " ".join(match.group(1).split())
    return "$" + text.replace("|", r"\vert ") + "$"


def family_table() -> str:
    """Return one line per registered family."""
    lines = [
        "| name | class and defaults | derivative g, primitive G | peak | area |",
        "|---|---|---|---|---|",
    ]
    for name in surrogate.names():
        s = surrogate.get(name)
        lines.append(f"| `{name}` | `{s!r}` | {formula(type(s))} | {number(s.peak())} | {number(s.area())} |")
    return "\n".join(lines)


def alias_table() -> str:
    """Return one line per name of another library."""
    lines = ["| name, with its library's parameters | is | g(0) | s(0) |", "|---|---|---|---|"]
    zero = torch.zeros((), dtype=torch.float64)
    for name in surrogate.aliases():
        theirs = registry._peers[name].parameters()
        call = ", ".join(f"{key}={parameter.default!r}" for key, parameter in theirs.items())
        s = surrogate.get(name).eval()
        lines.append(
            f"| `{name}`({call}) | `{s!r}` | {number(s.derivative(zero).item())} | {int(s(zero).item())} |"
        )
    return "\n".join(lines)


def fill(page: str) -> str:
    """Return ``page`` with the text between each pair of markers replaced by its table."""
    for marker, table in (("families", family_table()), ("aliases", alias_table())):
        begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
        head, _, rest = page.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"the page lacks the markers {begin} and {end}")
        page = f"{head}{begin}\n{table}\n{end}{tail}"
    return page


def draw(axes: Axes, s: surrogate.Surrogate, low: float = -2.0, high: float = 2.0, **style: object) -> None:
    """Draw one derivative."""
    x = torch.linspace(low, high, 801, dtype=torch.float64)
    with torch.no_grad():
        axes.plot(x, s.derivative(x), **style)


def save(figure: Figure, path: Path, dpi: int, colours: int = 64) -> None:
    """Write a figure with a palette of few colours, a third of the size."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    Image.open(buffer).convert("RGB").quantize(colours).save(path, optimize=True)


def problem(path: Path) -> None:
    """Why a surrogate is needed: the step, its own derivative, and a surrogate's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    step, zero, smooth = figure.subplots(1, 3, sharex=True)
    x = torch.linspace(-2, 2, 801)
    step.plot(x, surrogate.heaviside(x), color="C0")
    step.set(title="spike s = H(x)", xlabel="x = v - threshold", ylabel="s")
    zero.plot(x, torch.zeros_like(x), color="C3")
    zero.set(title="its derivative: 0 almost everywhere", xlabel="x = v - threshold", ylabel="ds/dx")
    zero.set_ylim(-0.1, 1.1)
    draw(smooth, surrogate.ATan(), color="C2", label="surrogate g (ATan)")
    smooth.set(title="what backward uses instead", xlabel="x = v - threshold", ylabel="g(x)")
    smooth.set_ylim(-0.1, 1.1)
    save(figure, path, dpi=80)


def gallery(path: Path) -> None:
    """Every surrogate with its defaults: derivative and, where there is one, primitive."""
    from matplotlib.figure import Figure

    members = [surrogate.get(name, **SHOWN.get(name, {})) for name in surrogate.names()]
    columns = 4
    rows = -(-len(members) // columns)
    figure = Figure(figsize=(10.0, 1.75 * rows), layout="constrained")
    x = torch.linspace(-2.5, 2.5, 801, dtype=torch.float64)
    grid = list(figure.subplots(rows, columns, sharex=True).flat)
    for axes, s in zip(grid, members, strict=False):
        axes.plot(x, s.derivative(x), color="C2", label="g")
        with contextlib.suppress(NotImplementedError):
            axes.plot(x, s.primitive(x), color="C0", linewidth=1.0, linestyle="--", label="G")
        changed = ", ".join(f"{key}={value:g}" for key, value in SHOWN.get(s.name, {}).items())
        axes.set_title(f"{s.name} ({changed})" if changed else s.name, fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in grid[len(members) :]:
        axes.set_axis_off()
    figure.axes[0].legend(fontsize=7)
    figure.supxlabel("x = v - threshold", fontsize=9)
    figure.suptitle("derivative g (solid) and primitive G (dashed), default parameters", fontsize=10)
    save(figure, path, dpi=75)


def shapes(path: Path) -> None:
    """Shapes compared with scale taken out: equal peak, then equal area, then the tails."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    peak, area, tails = figure.subplots(1, 3)
    for name in ("rectangle", "triangle", "erf", "sigmoid", "piecewise_exponential", "atan", "soft_sign"):
        unit = surrogate.get(name, normalize="peak")
        draw(peak, unit, linewidth=1.2)
        # The width that gives each the same area and the same peak: only the shape is left.
        narrow = unit.area()
        x = torch.linspace(-3, 3, 1201, dtype=torch.float64)
        area.plot(x, unit.derivative(x * narrow), label=name, linewidth=1.2)
        far = torch.logspace(-1, 2, 601, dtype=torch.float64)
        tails.loglog(far, unit.derivative(far * narrow).clamp(min=1e-30), linewidth=1.2)
    peak.set(title="defaults, peak 1", xlabel="x", ylabel="g")
    area.set(title="peak 1 and area 1", xlabel="x")
    tails.set(title="the same, tails", xlabel="x", ylim=(1e-6, 2))
    figure.legend(*area.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    save(figure, path, dpi=80)


def parameters(path: Path) -> None:
    """Effect of one parameter of each family that has one."""
    from matplotlib.figure import Figure

    shown = [name for name in surrogate.names() if registry.family_of(name)._shape]
    columns = 4
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(10.0, 1.9 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True).flat)
    for axes, name in zip(grid, shown, strict=False):
        first, field = next(iter(registry.family_of(name)._shape.items()))
        key, values = VARIED.get(name) or (first, tuple(float(field.default) * f for f in (0.5, 1.0, 2.0)))
        for value in values:
            given = {**({"slope": 2.0} if name == "sparse_fast_sigmoid" else {}), key: value}
            draw(axes, surrogate.get(name, **given), label=f"{value:g}", linewidth=1.2)
        axes.set_title(f"{name}: {key}", fontsize=9)
        axes.legend(fontsize=6)
        axes.tick_params(labelsize=7)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("x = v - threshold", fontsize=9)
    save(figure, path, dpi=75)


#: surrogates that are driven through a neuron, from a bounded support to long tails
DRIVEN = (
    "rectangle:width=0.5",
    "triangle:width=0.5",
    "sigmoid:alpha=8",
    "piecewise_exponential:alpha=2",
    "atan",
    "fast_sigmoid:slope=5",
)


def neuron(path: Path) -> None:
    """One neuron with each surrogate: the same spikes, but other gradients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    spikes, gradients = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.6))
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(120, 1, generator=generator, dtype=torch.float64)
    time = range(1, 121)
    for i, name in enumerate(DRIVEN):
        current = (1.1 + 0.5 * noise).requires_grad_()
        lif = FractionalLIF(alpha=0.7, tau=10.0, resistance=2.0, surrogate=name, detach_reset=True)
        run = lif.simulate(current)
        gradient = torch.autograd.grad(run.spikes.sum(), current)[0]
        if i == 0:
            spikes.plot(time, run.pre_reset.detach()[:, 0], color="black", linewidth=0.8)
            spikes.axhline(1.0, color="grey", linestyle="--", linewidth=0.7)
        fired = [t for t, spike in zip(time, run.spikes[:, 0], strict=True) if spike]
        spikes.eventplot(fired, lineoffsets=1.5 + 0.16 * i, linelengths=0.13, colors=f"C{i}")
        gradients.plot(time, gradient[:, 0], color=f"C{i}", linewidth=1.0, label=name)
    spikes.set(ylabel="v", title="the same spikes, whichever surrogate (FractionalLIF, alpha = 0.7)")
    gradients.set(xlabel="time step n", ylabel="d(spike count) / d current[n]", title="other gradients")
    figure.legend(*gradients.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    save(figure, path, dpi=80, colours=192)


def count(path: Path) -> None:
    """Spike count against a constant current, and what each surrogate takes for its slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    counts, through, detached = figure.subplots(1, 3, sharex=True)
    level = torch.linspace(0.0, 3.0, 301, dtype=torch.float64)
    slope = 0.0
    for axes, detach in ((through, False), (detached, True)):
        for i, name in enumerate(DRIVEN):
            current = level.clone().requires_grad_()
            lif = FractionalLIF(alpha=0.7, tau=10.0, surrogate=name, detach_reset=detach)
            total = lif(current.expand(100, -1)).sum(0)
            gradient = torch.autograd.grad(total.sum(), current)[0]
            axes.plot(level, gradient, color=f"C{i}", linewidth=1.0, label=name)
            slope = (total[-1] - total[120]).item() / (level[-1] - level[120]).item()
        axes.axhline(slope, color="black", linestyle="--", linewidth=0.8, label="mean slope above 1.2")
        axes.set(xlabel="constant current")
    counts.plot(level, total.detach(), color="black", linewidth=1.0)
    counts.set(title="spikes in 100 steps", xlabel="constant current", ylabel="spike count")
    through.set(title="its gradient", ylabel="d count / d current")
    detached.set(title="the same, detach_reset=True")
    figure.legend(*through.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    save(figure, path, dpi=80, colours=192)


def main() -> None:
    """Rewrite the page's tables and, unless told otherwise, its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if not arguments.tables_only:
        FIGURES.mkdir(exist_ok=True)
        for draw_figure in (problem, gallery, shapes, parameters, neuron, count):
            draw_figure(FIGURES / f"surrogates_{draw_figure.__name__}.png")


if __name__ == "__main__":
    main()
