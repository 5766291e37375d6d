"""Time and memory of a fractional layer beside memoryless layers and spikeDE, in the same run.

Run ``python benchmarks/neurons.py`` where snnTorch and SpikingJelly can be imported (``--peers PATH`` adds
a folder to the import path), and ``--spikede PATH`` with a checkout to add spikeDE; what is missing is left
out. The work of every case: forward and backward of a layer over ``(T, B, N)``, float32, the gradient that
of a weighted sum of the spikes, in the input (and for us in alpha and tau too). Ours has alpha 0.6 and a
memory of tolerance 1e-6. snnTorch's input is unbound once and its steps stacked; SpikingJelly runs in
multi-step mode.

The cases of a shape are timed in turn, round after round, so that other load falls on all alike; the least
of the rounds counts, as processor time with ``--threads 1``, which other load disturbs less. Everything from
the call to the end of the backward pass is counted: the choice of modes, the derivative of the spikes,
starting threads. Parameters differ in every round, as in training. The first call, which compiles or loads
from the disk, is printed by itself. Memory and spikeDE are measured in processes of their own.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from fracspike import FractionalLIF
from fracspike.neurons import NEURONS
from fracspike.solvers import Exponentials

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((1000, 64, 128), (1000, 64, 512), (1000, 16, 64), (1000, 1, 64))
TARGETS = {SHAPES[0]: 5, SHAPES[1]: 5, SHAPES[2]: 20, SHAPES[3]: 100}
SPIKEDE = {(512, 4096): 400, (1024, 4096): 800, (2048, 64): 20_000}
BACKENDS = (
    ("lif", SHAPES[2]),
    ("alif", SHAPES[2]),
    ("alif", SHAPES[0]),
    ("recurrent_lif", SHAPES[2]),
    ("recurrent_lif", SHAPES[0]),
)
LONG = (12_500, 50_000, 100_000)
Step = Callable[[Tensor], Tensor]
Row = dict[str, Any]


# -- the layers -------------------------------------------------------------------------------------------


def ours(
    backend: str = "auto", horizon: int = 1 << 17, kind: type[Any] = FractionalLIF, **own: Any
) -> FractionalLIF:
    """Return the fractional layer that is measured."""
    memory = Exponentials(1e-6, horizon=horizon)
    layer: FractionalLIF = kind(
        0.6, tau=2.0, surrogate="atan", learn=("alpha", "tau"), memory=memory, backend=backend, **own
    )
    return layer


def peers() -> dict[str, Step]:
    """Return the memoryless layers that can be imported."""
    found: dict[str, Step] = {}
    try:
        from spikingjelly.activation_based import functional, neuron, surrogate

        node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")

        def spikingjelly(current: Tensor) -> Tensor:
            functional.reset_net(node)
            spikes: Tensor = node(current)
            return spikes

        found["SpikingJelly LIFNode"] = spikingjelly
    except ImportError:
        pass
    try:
        import snntorch
        from snntorch import surrogate as bells

        leaky = snntorch.Leaky(beta=0.5, spike_grad=bells.atan())

        def snn(current: Tensor) -> Tensor:
            potential, spikes = leaky.init_leaky(), []
            for step in current.unbind(0):
                spike, potential = leaky(step, potential)
                spikes.append(spike)
            return torch.stack(spikes)

        found["snnTorch Leaky"] = snn
    except ImportError:
        pass
    return found


def seconds(step: Step, current: Tensor, weights: Tensor) -> float:
    """Return the time of one forward and backward pass."""
    if isinstance(step, torch.nn.Module):  # as after a step of training, so that no weights are known already
        with torch.no_grad():
            for parameter in step.parameters():
                parameter.mul_(1 + 1e-6)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    current = current.clone().requires_grad_()
    start = clock()
    step(current).backward(weights)
    return clock() - start


def data(*shape: int) -> tuple[Tensor, Tensor]:
    """Return a current under which neurons spike now and then, and what a loss would send back."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


# -- the measurements -------------------------------------------------------------------------------------


def peak() -> int:
    """Return the largest resident set of this process in bytes; the kernel's own count is inherited."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def beside_memoryless(rounds: int) -> list[Row]:
    """Time every shape, the layers in turn."""
    rows = []
    for shape in SHAPES:
        current, weights = data(*shape)
        layers: dict[str, Step] = {"fracspike": ours(), **peers()}
        times: dict[str, float] = dict.fromkeys(layers, math.inf)
        seconds(layers["fracspike"], current[:8], weights[:8])
        for _ in range(rounds):
            for name, layer in layers.items():
                for _ in range(2 if name == "fracspike" else 1):
                    times[name] = min(times[name], seconds(layer, current, weights))
        for name, value in times.items():
            rows.append(
                {"shape": shape, "layer": name, "seconds": value, "ratio": value / times["fracspike"]}
            )
            print(
                f"{shape!s:>18} {name:22} {1e3 * value:9.1f} ms {value / times['fracspike']:8.2f} x ours",
                flush=True,
            )
    return rows


def backends() -> list[Row]:
    """Time our two backends in turn, on layers with and without feedback."""
    rows = []
    for name, shape in BACKENDS:
        kind, (current, weights) = NEURONS[name], data(*shape)
        own: dict[str, Any] = {"size": shape[-1:]} if name.startswith("recurrent") else {}
        layers = {backend: ours(backend, kind=kind, **own) for backend in ("native", "torch")}
        times = dict.fromkeys(layers, math.inf)
        for layer in layers.values():
            seconds(layer, current[:8], weights[:8])
        for _ in range(3 if shape[2] < 128 else 1):
            for backend, layer in layers.items():
                times[backend] = min(times[backend], seconds(layer, current, weights))
        ratio = times["torch"] / times["native"]
        rows.append({"shape": shape, "layer": name, **times, "ratio": ratio})
        text = ", ".join(f"{backend} {1e3 * value:.1f} ms" for backend, value in times.items())
        print(f"{shape!s:>18} {name:16} {text}, ratio {ratio:.1f}", flush=True)
    return rows


def first_call() -> list[Row]:
    """Measure the processor time of the first call, with an empty cache of compiled code and a full one."""
    code = (
        "import time, torch; from fracspike import FractionalLIF; x = torch.rand(8, 4).requires_grad_();"
        "lif = FractionalLIF(0.6, learn=('alpha', 'tau')); t = time.process_time();"
        "lif(x).sum().backward(); print(time.process_time() - t)"
    )
    rows = []
    cache = ROOT / "build" / "benchmark-cache"
    for name in ("compiling", "from the disk"):
        env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
        )
        rows.append({"first_call": name, "seconds": float(done.stdout)})
        print(f"first call, {name:14} {rows[-1]['seconds']:6.2f} s", flush=True)
    for path in sorted(cache.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return rows


def long(steps: int) -> Row:
    """Measure a long sequence of 64 neurons in this process: time, and growth of the peak memory."""
    layer = ours()
    current, weights = data(steps, 1, 64)
    seconds(layer, current[:64], weights[:64])
    current = current.requires_grad_()
    before = peak()
    layer(current).backward(weights)
    grown = peak() - before
    current = current.detach()
    value = min(seconds(layer, current, weights) for _ in range(3))
    return {"steps": steps, "seconds": value, "sequences": grown / (4 * 64 * steps)}


def stream(steps: int) -> Row:
    """Run 4096 neurons chunk by chunk, and measure the memory after a tenth and at the end."""
    layer, state, peaks = ours(horizon=1 << 20), None, []
    chunk = data(1000, 1, 4096)[0]
    start = time.perf_counter()
    with torch.no_grad():
        for i in range(steps // 1000):
            state = layer.simulate(chunk, state).state
            if i in (steps // 10_000, steps // 1000 - 1):
                peaks.append(peak() >> 20)
    return {"streamed": steps, "seconds": time.perf_counter() - start, "peak_mb": peaks}


def beside_spikede(steps: int, size: int, path: str, who: str) -> Row:
    """Measure one pass of spikeDE's l1 over a leaky neuron, or of ours, in this process."""
    sys.path.insert(0, path)
    current, weights = data(steps, size)
    before = peak()
    if who == "fracspike":
        layer = ours()
        seconds(layer, current[:8], weights[:8])
        before = peak()
        seconds(layer, current, weights)  # chooses modes for so many steps, and shows what memory it takes
        grown = peak() - before
        value = min(seconds(layer, current, weights) for _ in range(3))
    else:
        from spikeDE.solver import l1_integrate_tuple

        alpha = torch.tensor(0.6, requires_grad=True)
        drive = current.clone().requires_grad_()

        class Fire(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                ctx.save_for_backward(x)
                return (x >= 0).float()

            @staticmethod
            def backward(ctx: Any, grad: Tensor) -> Tensor:
                return grad / (1 + (math.pi * ctx.saved_tensors[0]) ** 2)

        def rhs(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            u = drive[min(int(t), steps - 1)]
            v = state[0]
            return ((u - v - Fire.apply(v - 1.0)) / 2.0,)

        t = torch.arange(steps + 1, dtype=torch.float32)
        start = time.perf_counter()
        states = l1_integrate_tuple(rhs, (torch.zeros(size),), [alpha], t)
        (torch.stack(states[0])[-steps:] * weights).sum().backward()
        value = time.perf_counter() - start
        grown = peak() - before
    return {"steps": steps, "size": size, "layer": who, "seconds": value, "peak_mb": grown / 2**20}


def elsewhere(call: str, threads: int, env: dict[str, str] | None = None) -> Row:
    """Evaluate a call of this module in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--call", call, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (env or {}))
    if done.returncode:
        print(done.stderr[-500:], file=sys.stderr)
        return {}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    print(row, flush=True)
    return row


# -- what is made of them ---------------------------------------------------------------------------------


def draw(results: Row, path: Path) -> None:
    """Draw the cost beside memoryless layers, and against the number of steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    rows = [row for row in results["memoryless"] if row["layer"] != "fracspike"]
    names = sorted({row["layer"] for row in rows})
    for i, name in enumerate(names):
        ratios = [row["ratio"] for row in rows if row["layer"] == name]
        bars = left.bar([j + 0.38 * (i - 0.5) for j in range(len(ratios))], ratios, 0.36, label=name)
        left.bar_label(bars, fmt="{:.1f}", fontsize=8)
    for j, shape in enumerate(SHAPES):
        left.plot([j - 0.42, j + 0.42], [TARGETS[shape]] * 2, "k--", lw=1, label="target" if j == 0 else None)
    left.set(
        yscale="log",
        xticks=range(len(SHAPES)),
        xticklabels=["x".join(map(str, shape)) for shape in SHAPES],
        xlabel="steps x batch x neurons",
        ylabel="time of the memoryless layer / ours",
        title="Forward and backward, beside layers without memory",
    )
    left.axhline(1, color="grey", lw=0.8)
    left.legend(frameon=False, fontsize=8)
    long_rows = results["long"]
    right.loglog([r["steps"] for r in long_rows], [r["seconds"] for r in long_rows], "o-", label="measured")
    first = long_rows[0]
    line = [first["seconds"] * r["steps"] / first["steps"] for r in long_rows]
    right.loglog([r["steps"] for r in long_rows], line, "k--", lw=1, label="linear")
    right.set(
        xlabel="steps", ylabel="seconds", title=f"64 neurons: growth exponent {results['exponent']:.2f}"
    )
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--peers", "folder", help="folder to add to the import path, with snnTorch and SpikingJelly")
@click.option("--spikede", help="checkout of spikeDE")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=4, show_default=True, help="how often each layer is timed")
@click.option("--streamed", default=0, help="also stream so many steps of 4096 neurons, such as 1000000")
@click.option(
    "--spikede-cases", default=3, show_default=True, help="how many cases of spikeDE, fastest first"
)
@click.option("--out", default=str(ROOT / "benchmarks" / "results" / "neurons.json"), show_default=True)
@click.option("--figure", default=str(ROOT / "docs" / "figures" / "neurons_cost.png"), show_default=True)
@click.option("--call", hidden=True)
def main(
    folder: str | None, spikede: str | None, threads: int, rounds: int, streamed: int, spikede_cases: int,
    out: str, figure: str, call: str | None,
) -> None:  # fmt: skip
    """Measure, print, and write a table and a figure."""
    torch.set_num_threads(threads)
    if call:
        print(json.dumps(eval(call)))
        return
    if folder:
        sys.path.append(folder)
    torch.manual_seed(0)
    results: Row = {
        "torch": torch.__version__,
        "threads": threads,
        "cpu": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
    }
    results["first_call"] = first_call()
    results["memoryless"] = beside_memoryless(rounds)
    results["backends"] = backends()
    results["long"] = [elsewhere(f"long({steps})", threads) for steps in LONG]
    xs, ys = ([math.log(r[key]) for r in results["long"]] for key in ("steps", "seconds"))
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True))
    results["exponent"] = slope / sum((x - middle_x) ** 2 for x in xs)
    print(f"growth exponent {results['exponent']:.3f}")
    if spikede:
        cases = sorted(SPIKEDE, key=lambda case: case[0] * case[0] * case[1])[:spikede_cases]
        for steps, size in cases:
            rows = [
                elsewhere(f"beside_spikede({steps}, {size}, {spikede!r}, {who!r})", threads)
                for who in ("fracspike", "spikeDE")
            ]
            results.setdefault("spikede", []).extend(row for row in rows if row)
    if streamed:
        results["stream"] = elsewhere(f"stream({streamed})", threads)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(results, indent=1) + "\n")
    draw(results, Path(figure))


if __name__ == "__main__":
    main()
