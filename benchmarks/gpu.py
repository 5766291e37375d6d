"""The Triton kernels on a GPU: every option against the plain loop in float64, then time and memory.

    python benchmarks/gpu.py [--out FOLDER] [--peers FOLDER] [--budget SECONDS] [--workers N] [--quick]

Run from the root of the repository, where CUDA is; the package need not be installed. Checks run first, in
processes of their own that share the card, because most of their time goes into compiling. Then everything
that is timed runs in this process: a copy on the device, our kernels alone, our layer forward and backward,
SpikingJelly's memoryless layer where it can be imported, rounding over long runs, and what block and warps
are best. Every line is printed as it comes, and what the budget leaves no time for is left out and said.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent


class _Solvers(importlib.abc.MetaPathFinder):
    """Finds `fracspike.solvers` in a checkout that is not installed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "fracspike.solvers":
            return None
        folder = ROOT / "solvers"
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


sys.path.insert(0, str(ROOT))
sys.meta_path.append(_Solvers())
for _name in ("torchdiffeq", "numba", "llvmlite", "tqdm", "click", "matplotlib", "scipy"):
    if importlib.util.find_spec(_name) is None:  # no kernel needs them, but the package imports some
        sys.modules[_name] = mock.MagicMock()

from fracspike.neurons.backends import triton as kernels  # noqa: E402
from fracspike.neurons.backends.triton import reference  # noqa: E402
from fracspike.solvers import modes  # noqa: E402

F16, F32, F64 = torch.float16, torch.float32, torch.float64
SHAPES = ((1000, 64, 128), (1000, 64, 512), (1000, 64, 4096), (1000, 16, 64), (1000, 1, 64), (128, 64, 4096))
ROUNDING = ((0.3, 0.5, 2000), (0.6, 0.5, 2000), (0.6, 1e-4, 20_000), (0.9, 1e-3, 20_000), (0.9, 1e-4, 20_000))
ATAN = (1.0, 1.5707963267948966 * 2, 0.0, 1.0)  # of SpikingJelly's default, 1 / (1 + (pi x)^2)
DEVICE = "cuda"

#: what a check varies: options, then what else the layer has
CHECKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "soft reset": ({}, {}),
    "hard reset": ({"reset": "value"}, {}),
    "no reset": ({"reset": "none"}, {}),
    "detached": ({"detach": True}, {}),
    "above": ({"step": "above"}, {}),
    "restart": ({"restart": True}, {}),
    "refractory": ({"period": 2}, {}),
    "restart, refractory, hard": ({"restart": True, "period": 1, "reset": "value"}, {}),
    "readout": ({"step": "never", "reset": "none"}, {}),
    "noise": ({"slope": 3.0, "form": ()}, {"noise": True}),
    "soft spikes": ({"step": "soft", "slope": 3.0, "form": ()}, {"noise": True}),
    "other surrogate": ({"form": ()}, {}),
    "own constants": ({}, {"columns": 37}),
    "ALIF": ({}, {"tires": True}),
    "adLIF": ({}, {"tires": True, "coupled": True}),
    "one to one": ({}, {"own": True}),
    "all of it": (
        {"restart": True, "period": 2, "reset": "value"},
        {"tires": True, "coupled": True, "own": True, "columns": 37},
    ),
    "from a state": ({}, {"modes": True}),
    "from a state, refractory": ({"period": 2}, {"modes": True, "tires": True}),
    "no leak": ({"leaky": False}, {}),
    "no leak, hard, refractory": ({"leaky": False, "reset": "value", "period": 2}, {}),
    "no leak, restart": ({"leaky": False, "restart": True}, {"modes": True}),
}


# -- checks ------------------------------------------------------------------------------------------------


def table_of(
    alpha: float, step: float, steps: int, columns: int = 1, tol: float = 7e-7
) -> tuple[Tensor, Tensor, Any]:
    """Return losses and weights on the CPU, ``(K, columns)``, and the grid."""
    orders = torch.linspace(alpha, alpha + (0.05 if columns > 1 else 0.0), columns, dtype=F64)
    lengths = torch.full((columns,), step, dtype=F64)
    grid = modes.choose(orders, lengths, 8 << (steps - 1).bit_length(), tol)
    return grid.losses(lengths), grid.weights(orders), grid


def make_case(own: dict[str, Any], options: Any, T: int, M: int) -> tuple[Any, ...]:
    """Return drive, losses, weights, constants, start and noise: float64 leaves of a graph, on the GPU."""
    torch.manual_seed(0)
    n = own.get("columns", 1)
    loss, weight, _ = table_of(0.6, 0.5, T, n)

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, dtype=F64)).to(DEVICE).requires_grad_()

    hard = options.reset == "value"
    constants: dict[str, Any] = {
        "resistance": draw(n, low=0.8, high=1.3),
        "threshold": draw(n, low=0.8, high=1.2),
        "fall": draw(n, low=0.1, high=0.3) if hard else draw(n, low=0.8, high=1.2),
    }
    start: dict[str, Any] = {"v": draw(M, high=0.5)}
    if own.get("modes"):
        start["modes"] = draw(len(loss), M, high=0.5)
    if options.period:
        start["hold"] = (torch.arange(M, device=DEVICE) % 3).int()
    if own.get("tires"):
        constants |= {"stay": draw(n, low=0.5, high=0.9), "lift": draw(n, low=0.2, high=0.4)}
        start["adaptation"] = draw(M)
    if own.get("coupled"):
        constants["pull"] = draw(n, low=0.1, high=0.3)
        start["opposing"] = draw(M, high=0.1)
    if own.get("own"):
        constants["own"] = draw(n, low=-0.5, high=0.5)
        start["last"] = (torch.arange(M, device=DEVICE) % 2).double().requires_grad_()
    noise = draw(T, M, low=-0.5, high=0.5).detach() if own.get("noise") else None
    weight = (weight if options.leaky else weight.abs()).to(DEVICE).requires_grad_()
    drive = draw(T, M, high=5.0)
    return drive, loss.to(DEVICE), weight, kernels.Constants(**constants), kernels.Start(**start), noise


def check(name: str) -> str:
    """Run the kernels and the plain loop, in double and in single precision; say how far they are apart."""
    changes, own = CHECKS[name]
    options = kernels.Options(**({"form": ATAN} | changes))
    T, M = 37, 333
    drive, loss, weight, constants, start, noise = make_case(own, options, T, M)
    derivative = None
    if not options.form and options.step != "never":
        derivative = torch.rand(T, M, dtype=F64, device=DEVICE)
    expected = reference.run(
        drive, loss, weight, constants, start, options, noise=noise, derivative=derivative
    )
    outputs = {n: getattr(expected, n) for n in ("spikes", "before", "adaptation", "opposing", "modes", "v")}
    outputs = {n: x for n, x in outputs.items() if x is not None}
    arriving = {n: torch.randn_like(x) for n, x in outputs.items()}
    total = torch.stack([(arriving[n] * x).sum() for n, x in outputs.items()]).sum()
    leaves = {"drive": drive, "weights": weight}
    leaves |= {n: x for n, x in constants._asdict().items() if x is not None}
    leaves |= {
        ("start" if n == "modes" else n): x
        for n, x in start._asdict().items()
        if x is not None and n != "hold"
    }
    truth = dict(
        zip(leaves, torch.autograd.grad(total, list(leaves.values()), allow_unused=True), strict=True)
    )
    said = []
    for dtype in (F64, F32):
        apart = compare(
            (drive, loss, weight, constants, start, noise, derivative, options, own),
            outputs,
            arriving,
            truth,
            dtype,
        )
        said.append(f"{str(dtype)[6:]} {apart}")
    return "; ".join(said)


def compare(case: Any, outputs: Any, arriving: Any, truth: Any, dtype: torch.dtype) -> str:
    """Return the largest errors of outputs and gradients, relative to the largest number of each."""
    drive, loss, weight, constants, start, noise, derivative, options, own = case

    def cast(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.detach().to(dtype) if x.is_floating_point() else x

    given = kernels.Start(*map(cast, start))
    if start.modes is not None:
        given = given._replace(modes=start.modes.detach())
    fixed, current = kernels.Constants(*map(cast, constants)), drive.detach().to(dtype)
    table = kernels.tabulate(loss, weight, dtype, leaky=options.leaky)
    made = kernels.forward(current, table, fixed, given, options, noise=cast(noise))
    flips = int((made.spikes.round() != outputs["spikes"].round()).sum())
    worst: dict[str, float] = {}
    for name, value in outputs.items():
        found = getattr(made, name).double()
        worst[name] = float((found - value).detach().abs().max() / value.abs().max().clamp(min=1e-30))
    incoming = {n: (x if n == "modes" else x.to(dtype)) for n, x in arriving.items()}
    found = kernels.adjoint(
        current,
        table,
        fixed,
        given,
        options,
        made,
        kernels.Arriving(**incoming),
        derivative=cast(derivative),
        wants=kernels.Wants(weights=True, start=own.get("modes", False)),
    )
    for name, value in truth.items():
        if value is None:
            continue
        have = getattr(found, name).double()
        if name == "weights" and options.leaky:
            value = value - value[-1:]
        elif name in kernels.Constants._fields:
            have = have.reshape(-1, value.numel()).sum(0)
        worst["d_" + name] = float(
            (have.reshape(value.shape) - value).abs().max() / value.abs().max().clamp(min=1e-30)
        )
    place = max(worst, key=lambda n: worst[n])
    good = flips == 0 and worst[place] < (1e-9 if dtype == F64 else 3e-5)
    return f"{'good' if good else 'BAD '} {worst[place]:.1e} ({place}), {flips} spikes differ"


def checked(name: str) -> str:
    """Return what a check says, or how it failed."""
    try:
        return check(name)
    except Exception as error:  # one case must not hide the others
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"BAD  {type(error).__name__} in {last.name}: {str(error)[:300]}"


def check_layouts() -> str:
    """Expanded, transposed and half-precision drives against the same in rows."""
    T, B, N = 19, 6, 40
    loss, weight, _ = table_of(0.6, 0.5, T)
    options = kernels.Options(form=ATAN)
    one = torch.ones(1, device=DEVICE)
    constants = kernels.Constants(one, one, one)
    start = kernels.Start(torch.zeros(B * N, device=DEVICE))
    table = kernels.tabulate(loss.to(DEVICE), weight.to(DEVICE), F32)
    base = 4 * torch.rand(T, B, N, device=DEVICE)
    drives = {
        "expanded": base[:, :1].expand(T, B, N),
        "constant": base[:1, :1].expand(T, B, N),
        "transposed": base.permute(0, 2, 1).contiguous().permute(0, 2, 1),
        "batch first": base.permute(1, 0, 2).contiguous().permute(1, 0, 2),
        "every other": torch.cat([base, base], -1)[..., ::2],
        "bfloat16": base.bfloat16(),
        "float16": base.half(),
    }
    bad = []
    for name, drive in drives.items():
        runs = []
        for x in (drive, drive.float().contiguous()):
            made = kernels.forward(x, table, constants, start, options)
            arriving = kernels.Arriving(spikes=torch.ones((), device=DEVICE, dtype=x.dtype).expand(x.shape))
            found = kernels.adjoint(x, table, constants, start, options, made, arriving)
            runs.append((made.spikes.float(), found.drive.float()))
        tol = 1e-6 if drive.dtype == F32 else 1e-2
        if not torch.equal(runs[0][0], runs[1][0]) or not torch.allclose(runs[0][1], runs[1][1], atol=tol):
            bad.append(name)
    return f"BAD  {bad}" if bad else "good"


# -- timing ------------------------------------------------------------------------------------------------


class Layer(torch.autograd.Function):
    """The kernels as a layer: what autograd adds is counted."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, loss: Tensor, case: tuple[Any, ...]) -> Tensor:
        """Return the spikes."""
        constants, start, options, slow = case
        ctx.table = kernels.tabulate(loss, weight, F32, slow=slow)
        ctx.made = kernels.forward(drive, ctx.table, constants, start, options, modes=False)
        ctx.save_for_backward(drive)
        ctx.case = case
        return ctx.made.spikes.reshape(drive.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Run the adjoint."""
        (drive,), (constants, start, options, _) = ctx.saved_tensors, ctx.case
        learn = ctx.needs_input_grad[1]
        found = kernels.adjoint(
            drive, ctx.table, constants, start, options, ctx.made, kernels.Arriving(spikes=grads[0]),
            wants=kernels.Wants(weights=learn),
        )  # fmt: skip
        weights = found.weights.reshape(-1) if found.weights is not None else None
        return found.drive, weights, None, None


def ours(shape: tuple[int, int, int], **options: Any) -> tuple[Any, ...]:
    """Return drive, arriving gradient, weights, losses and the rest of a layer."""
    T, B, N = shape
    loss, weight, _ = table_of(0.6, 0.5, T)
    loss, weight = loss[:, 0], weight[:, 0]
    slow = int((loss < 0.003).sum())
    one = torch.ones(1, device=DEVICE)
    case = (
        kernels.Constants(one, one, one),
        kernels.Start(torch.zeros(B * N, device=DEVICE)),
        kernels.Options(form=ATAN, **options),
        slow,
    )
    drive = (2 * torch.rand(T, B, N, device=DEVICE)).requires_grad_()
    return drive, torch.randn(T, B, N, device=DEVICE), weight.to(DEVICE), loss.to(DEVICE), case


def milliseconds(go: Callable[[], Any], least: float = 0.08) -> float:
    """Return the median time of a call, by events on the device, over ``least`` seconds."""
    go()
    torch.cuda.synchronize()
    times: list[float] = []
    until = time.perf_counter() + least
    while len(times) < 10 or time.perf_counter() < until:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        go()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def peak(go: Callable[[], Any]) -> float:
    """Return the memory that a call takes beside what is there, in MB."""
    go()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    go()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def time_layer(shape: tuple[int, int, int]) -> dict[str, float]:
    """Return times of the kernels and of the layer, and its memory."""
    drive, gradient, weight, loss, case = ours(shape)
    constants, start, options, slow = case
    plain, table = drive.detach(), kernels.tabulate(loss, weight, F32, slow=slow)
    made = kernels.forward(plain, table, constants, start, options, modes=False)
    arriving = kernels.Arriving(spikes=gradient)

    def back(learn: bool) -> Any:
        wants = kernels.Wants(weights=learn)
        return kernels.adjoint(plain, table, constants, start, options, made, arriving, wants=wants)

    found = {
        "forward": milliseconds(
            lambda: kernels.forward(plain, table, constants, start, options, modes=False)
        ),
        "adjoint": milliseconds(lambda: back(True)),
        "adjoint, alpha fixed": milliseconds(lambda: back(False)),
    }
    made = None
    learnt = weight.clone().requires_grad_()

    def whole() -> Any:
        return torch.autograd.grad(Layer.apply(drive, learnt, loss, case), (drive, learnt), gradient)

    def fixed() -> Any:
        return torch.autograd.grad(Layer.apply(drive, weight, loss, case), drive, gradient)

    found |= {"layer": milliseconds(whole), "layer, alpha fixed": milliseconds(fixed), "MB": peak(whole)}
    return found


def time_peer(shape: tuple[int, int, int]) -> dict[str, float]:
    """Return time and memory of SpikingJelly's memoryless layer."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m").to(DEVICE)
    drive = (2 * torch.rand(*shape, device=DEVICE)).requires_grad_()
    gradient = torch.randn(*shape, device=DEVICE)

    def whole() -> Any:
        functional.reset_net(node)
        return torch.autograd.grad(node(drive), drive, gradient)

    return {"SpikingJelly": milliseconds(whole), "SpikingJelly MB": peak(whole)}


def rounding(alpha: float, step: float, steps: int) -> dict[str, Any]:
    """Return the largest error of the potential in single precision, and how many spikes flipped."""
    M = 256
    loss, weight, _ = table_of(alpha, step, steps)
    generator = torch.Generator(DEVICE).manual_seed(0)
    scale = 1.0 if step > 0.01 else 3.0
    drive = scale * 2 * torch.rand(steps, M, device=DEVICE, dtype=F64, generator=generator)
    runs = []
    for dtype in (F64, F32):
        one = torch.ones(1, device=DEVICE, dtype=dtype)
        made = kernels.forward(
            drive.to(F32).to(dtype),
            kernels.tabulate(loss.to(DEVICE), weight.to(DEVICE), dtype),
            kernels.Constants(one, one, one),
            kernels.Start(torch.zeros(M, device=DEVICE, dtype=dtype)),
            kernels.Options(form=ATAN),
            modes=False,
        )
        runs.append((made.spikes.double(), made.before.double()))
    differ = (runs[0][0] != runs[1][0]).any(0)
    apart = (runs[0][1] - runs[1][1]).abs()[:, ~differ]
    return {"error": float(apart.max()) if apart.numel() else None, "neurons that flipped": int(differ.sum())}


def copied() -> dict[str, float]:
    """Return the rate of a copy on the device."""
    a = torch.empty(1 << 28, device=DEVICE)
    b = torch.empty_like(a)
    return {"TB/s": 8 * a.numel() / milliseconds(lambda: b.copy_(a)) / 1e9}


def tune(shape: tuple[int, int, int], block: int, warps: int) -> dict[str, float]:
    """Return times of the kernels for a block and warps."""
    drive, gradient, weight, loss, case = ours(shape, block=block, warps=warps)
    constants, start, options, slow = case
    plain, table = drive.detach(), kernels.tabulate(loss, weight, F32, slow=slow)
    made = kernels.forward(plain, table, constants, start, options, modes=False)
    arriving, wants = kernels.Arriving(spikes=gradient), kernels.Wants(weights=True)
    return {
        "forward": milliseconds(
            lambda: kernels.forward(plain, table, constants, start, options, modes=False), 0.03
        ),
        "adjoint": milliseconds(
            lambda: kernels.adjoint(plain, table, constants, start, options, made, arriving, wants=wants),
            0.03,
        ),
    }


# -- all of it ---------------------------------------------------------------------------------------------


def attempt(results: dict[str, Any], name: str, go: Callable[[], Any], until: float) -> None:
    """Run a part, print and keep what it says; leave it out when time is up."""
    if time.monotonic() > until:
        print(f"{name}: left out, no time", flush=True)
        return
    try:
        begin = time.perf_counter()
        found = go()
        took = time.perf_counter() - begin
        shown = (
            {k: round(v, 4) if isinstance(v, float) and v > 1e-3 else v for k, v in found.items()}
            if isinstance(found, dict)
            else found
        )
        print(f"{name}: {shown}  [{took:.1f} s]", flush=True)
        results[name] = found
    except Exception as error:  # the next part may well run
        print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        results[name] = f"{type(error).__name__}: {str(error)[:300]}"
    torch.cuda.empty_cache()


def run_checks(workers: int, until: float, quick: bool) -> dict[str, Any]:
    """Run all checks, in processes that share the card if there are workers."""
    names = list(CHECKS)[:4] if quick else list(CHECKS)
    found: dict[str, Any] = {}
    if not workers:
        for name in names:
            attempt(found, f"check {name}", lambda n=name: checked(n), until)
        return found
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    tasks = {pool.submit(checked, name): name for name in names}
    try:
        for task in as_completed(tasks, timeout=max(until - time.monotonic(), 1.0)):
            found[tasks[task]] = task.result()
            print(f"check {tasks[task]}: {found[tasks[task]]}", flush=True)
    except TimeoutError:
        print(f"checks left out, no time: {sorted(set(names) - set(found))}", flush=True)
    except Exception as error:
        print(f"checks: {type(error).__name__}: {error}", flush=True)
    pool.shutdown(wait=False, cancel_futures=True)
    return found


def figure(results: dict[str, Any], path: Path) -> None:
    """Draw times by size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [(s, results["times"].get(str(s)), results["peers"].get(str(s))) for s in SHAPES]
    rows = [row for row in rows if isinstance(row[1], dict)]
    fig, ax = plt.subplots(figsize=(7, 4))
    for label, pick in (
        ("fractional, alpha learned", lambda row: row[1]["layer"]),
        ("fractional, alpha fixed", lambda row: row[1]["layer, alpha fixed"]),
        ("SpikingJelly, no memory", lambda row: row[2]["SpikingJelly"] if isinstance(row[2], dict) else None),
    ):
        points = [(r[0][0] * r[0][1] * r[0][2], pick(r)) for r in rows if pick(r) is not None]
        if points:
            ax.loglog(*zip(*sorted(points), strict=True), "o-", label=label)
    ax.set(xlabel="neuron-steps", ylabel="forward and backward, ms", title=results["device"])
    ax.legend()
    fig.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--peers", type=Path, help="a folder from which peers are imported")
    parser.add_argument("--budget", type=float, default=220.0, help="seconds in all")
    parser.add_argument("--workers", type=int, default=10, help="processes for the checks; 0 for this one")
    parser.add_argument("--quick", action="store_true", help="a few checks and two sizes")
    options = parser.parse_args()
    begin = time.monotonic()
    until = begin + options.budget
    if options.peers:
        sys.path.append(str(options.peers))
    import triton

    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, triton {triton.__version__}", flush=True)
    results: dict[str, Any] = {
        "device": device,
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "checks": run_checks(options.workers, begin + 0.45 * options.budget, options.quick),
        **{name: {} for name in ("other", "times", "peers", "rounding", "tuning")},
    }

    def save() -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        results["seconds"] = round(time.monotonic() - begin, 1)
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")

    save()
    attempt(results["other"], "layouts", check_layouts, until)
    attempt(results["other"], "copy", copied, until)
    shapes = SHAPES[3:5] if options.quick else SHAPES
    for shape in shapes:
        attempt(results["times"], str(shape), lambda s=shape: time_layer(s), until)
        if importlib.util.find_spec("spikingjelly"):
            attempt(results["peers"], str(shape), lambda s=shape: time_peer(s), until)
        save()
    for row in ROUNDING[:2] if options.quick else ROUNDING:
        attempt(results["rounding"], str(row), lambda r=row: rounding(*r), until)
    save()
    for shape in (SHAPES[2], SHAPES[1], SHAPES[0], SHAPES[4]):
        for block, warps in ((4, 1), (8, 1), (16, 1), (32, 1), (64, 1), (64, 2), (128, 2)):
            few = shape[1] * shape[2] < 20_000
            if options.quick or (few and block > 32) or (not few and block < 32):
                continue
            name = f"{shape} block {block} warps {warps}"
            attempt(results["tuning"], name, lambda s=shape, b=block, w=warps: tune(s, b, w), until)
    save()
    attempt(results["other"], "figure", lambda: figure(results, options.out / "gpu.png"), until + 10)
    save()
    print(f"{'T, B, N':18} {'forward':>8} {'adjoint':>8} {'fixed':>8} {'layer':>8} {'fixed':>8} {'MB':>6}"
          f" {'peer':>8} {'MB':>6}")  # fmt: skip
    for shape in shapes:
        own, peer = results["times"].get(str(shape)), results["peers"].get(str(shape))
        if isinstance(own, dict):
            theirs = list(peer.values()) if isinstance(peer, dict) else [float("nan")] * 2
            numbers = [*own.values(), *theirs]
            widths = (8, 8, 8, 8, 8, 6, 8, 6)
            cells = (f"{x:{w}.0f}" if w == 6 else f"{x:{w}.3f}" for x, w in zip(numbers, widths, strict=True))
            print(f"{','.join(map(str, shape)):18} {' '.join(cells)}")
    bad = [name for name, said in results["checks"].items() if "BAD" in str(said)]
    print(f"checks that failed: {bad or 'none'}; {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
