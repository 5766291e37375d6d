"""The Triton kernels in Triton's interpreter: against today's layers, and against the plain reference.

The interpreter runs a kernel operation by operation in NumPy, so all here is small: a few steps, a few
neurons, one or three programs. Gradients of the layers are those of the loop in torch, by autograd.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fracspike import (
    FractionalALIF,
    FractionalIF,
    FractionalLI,
    FractionalLIF,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
)
from fracspike.neurons.adaptive import Adaptation
from fracspike.neurons.membrane import Integrator
from fracspike.neurons.recurrent import Echo
from fracspike.neurons.reset import RESETS, height
from fracspike.solvers import Exponentials, modes
from fracspike.surrogate.reciprocal import Reciprocal

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":  # see conftest.py
    pytest.skip("the kernels run in the interpreter only where there is no GPU", allow_module_level=True)

from fracspike.neurons.backends import triton as kernels

F32, F64 = torch.float32, torch.float64
DT = 0.5


def noise(*shape: int, dtype: torch.dtype = F64, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# -- a layer as the kernels take it ------------------------------------------------------------------------


class Parts(NamedTuple):
    """What a layer is to the kernels, with the graph to its parameters."""

    loss: Tensor
    weight: Tensor
    constants: kernels.Constants
    start: kernels.Start
    options: kernels.Options


def parts_of(layer: FractionalLIF, current: Tensor, state: Any, **options: Any) -> Parts:
    rest, size = layer.v_rest.double(), current[0].numel()
    fall = layer.v_reset.double() - rest if layer.reset == "value" else height(layer).double()
    constants = {
        "resistance": layer.resistance.double(),
        "threshold": layer.threshold.double() - rest,
        "fall": fall,
    }
    start = {"v": (state.v.double() - rest).reshape(-1), "modes": None}
    for part in layer._feedback(state, F64).parts:
        if isinstance(part, Adaptation):
            constants |= {"stay": part.decay, "lift": part.beta}
            start["adaptation"] = part.state["adaptation"].double().reshape(-1)
            if "w" in part.state:
                constants["pull"] = part.pull
                start["opposing"] = part.state["w"].double().reshape(-1)
        if isinstance(part, Echo):
            constants["own"] = part.weights.weight
            start["last"] = part.state["last_spikes"].double().reshape(-1)
    if layer._hold:
        start["hold"] = state.refractory.reshape(-1)
    if isinstance(layer, FractionalIF):
        loss, weight = integrator(layer, len(current))
    else:
        step = layer.dt / layer.tau
        grid = state.grid or modes.choose(layer.alpha, step.detach(), 1 << 12, 1e-11)
        loss = grid.losses(step.detach())
        moved = torch.log(layer.tau.double()) - torch.log(layer.tau.double()).detach()
        weight = grid.weights(layer.alpha)
        weight = weight + grid.slopes(layer.alpha.detach()) * moved
        loss, weight = torch.broadcast_tensors(loss.reshape(len(loss), -1), weight.reshape(len(loss), -1))
    if len(state.past) and not isinstance(layer, FractionalIF):
        start["modes"] = state.past.double().reshape(-1, size)
    surrogate = layer.surrogate
    form = ()
    if isinstance(surrogate, Reciprocal):
        form = (*map(float, surrogate.form()), float(surrogate.factor()))
    found = {
        "step": "never" if isinstance(layer, FractionalLI) else "at_least",
        "reset": layer.reset,
        "leaky": layer.leaky,
        "restart": layer.reset_memory == "restart",
        "period": layer._hold,
        "detach": layer.detach_reset,
        "form": form,
        "block": 16,
    }
    return Parts(
        loss.reshape(len(loss), -1),
        weight.reshape(len(loss), -1),
        kernels.Constants(**constants),
        kernels.Start(**start),
        kernels.Options(**(found | options)),
    )


def integrator(layer: FractionalIF, steps: int) -> tuple[Tensor, Tensor]:
    """Modes of a membrane without a leak; the fit is no more differentiable than its kernel here."""
    gain, kernel = Integrator.coefficients(layer.alpha, layer.tau, layer.dt, max(steps, 40) + 1)
    fit = Exponentials(1e-9).fit(kernel)
    return kernels.without_leak(fit.decays, fit.weights, fit.head, gain)


def plain(values: Any, dtype: torch.dtype = F64) -> Any:
    """The same without a graph."""
    return type(values)(
        *(v if v is None or not v.is_floating_point() else v.detach().to(dtype) for v in values)
    )


class Outcome(NamedTuple):
    """What a run gives, each ``(T, M)``; no modes, which depend on tau beside their weights."""

    spikes: Tensor
    voltage: Tensor
    before: Tensor
    adaptation: Tensor | None
    opposing: Tensor | None


def objective(found: Outcome) -> Tensor:
    """One number that every output has a part in."""
    total = torch.zeros((), dtype=F64)
    for i, value in enumerate(found):
        if value is not None and value.numel():
            factors = noise(*value.shape, seed=i) - 0.3
            total = total + (factors * value.double()).sum()
    return total


def wanted(layer: FractionalLIF) -> dict[str, Tensor]:
    return dict(layer.named_parameters())


def by_layer(layer: FractionalLIF, current: Tensor, state: Any) -> tuple[Outcome, dict[str, Tensor]]:
    current = current.clone().requires_grad_()
    run = layer.simulate(current, state)
    rest = layer.v_rest.to(run.pre_reset.dtype)

    def flat(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.reshape(len(x), -1)

    made = Outcome(
        *(flat(x) for x in (run.spikes, run.voltage - rest, run.pre_reset - rest)),
        *(flat(run.variables.get(name)) for name in ("adaptation", "w")),
    )
    names = {"current": current} | wanted(layer)
    grads = torch.autograd.grad(objective(made), list(names.values()), allow_unused=True)
    return made, {
        n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(names.items(), grads, strict=True)
    }


def by_kernels(
    layer: FractionalLIF, current: Tensor, state: Any, **own: Any
) -> tuple[Outcome, dict[str, Tensor]]:
    dtype = own.pop("dtype", current.dtype)
    parts = parts_of(layer, current, state, **own)
    options = parts.options
    drive = current.to(dtype)
    table = kernels.tabulate(parts.loss, parts.weight, options.computed_in(dtype), leaky=options.leaky)
    constants, start = plain(parts.constants), plain(parts.start, options.kept_in(dtype))
    if start.modes is not None:
        start = start._replace(modes=start.modes.double())
    made = kernels.forward(drive, table, constants, start, options)
    assert not made.wrong.any()

    # what follows from the kernels' outputs by tensor operations: potential after reset, and the objective
    leaves = [
        None if x is None else x.detach().clone().requires_grad_()
        for x in (made.spikes, made.before, made.adaptation, made.opposing)
    ]
    s, before, a, w = leaves
    rest = layer.v_rest.to(before.dtype)
    passed = s.to(before) if not options.detach else s.detach().to(before)
    shape = (len(current), *current.shape[1:])
    after = RESETS[layer.reset]((before + rest).reshape(shape), passed.reshape(shape), layer) - rest
    total = objective(Outcome(s, after.reshape(before.shape), before, a, w))
    parameters = wanted(layer)
    present = [x for x in leaves if x is not None]
    grads = torch.autograd.grad(total, [*present, *parameters.values()], allow_unused=True)
    arriving: dict[str, Any] = dict(zip(("spikes", "before", "adaptation", "opposing"), leaves, strict=True))
    for name, leaf in list(arriving.items()):
        arriving[name] = None
        for x, g in zip(present, grads, strict=False):
            if x is leaf:
                arriving[name] = g
    derivative = None
    if not options.form and options.step != "never":
        over = made.before - constants.threshold.to(made.before)
        derivative = layer.surrogate.derivative(over)
    found = kernels.adjoint(
        drive, table, constants, start, options, made, kernels.Arriving(**arriving), derivative=derivative,
        wants=kernels.Wants(weights=True, start=start.modes is not None),
    )  # fmt: skip
    outputs, incoming = [parts.weight], [found.weights]
    for name, constant in parts.constants._asdict().items():
        if constant is not None and constant.requires_grad:
            gradient = getattr(found, name).double()
            outputs.append(constant)
            incoming.append(gradient.reshape(-1, constant.numel()).sum(0).reshape(constant.shape))
    if not parts.weight.requires_grad:
        outputs, incoming = outputs[1:], incoming[1:]
    result = {"current": found.drive}
    chained = torch.autograd.grad(outputs, list(parameters.values()), incoming, allow_unused=True)
    for (name, x), direct, g in zip(parameters.items(), grads[len(present) :], chained, strict=True):
        result[name] = sum((p for p in (direct, g) if p is not None), start=torch.zeros_like(x))
    return Outcome(s, after.reshape(before.shape), before, a, w), result


def compare(
    layer: FractionalLIF, current: Tensor, state: Any = None, tol: float = 1e-8, **own: Any
) -> Outcome:
    expected, gradients = by_layer(layer, current, state)
    if state is None:
        state = layer.initial_state(current[0])
    made, found = by_kernels(layer, current, state, **own)
    assert torch.equal(made.spikes.double(), expected.spikes.double())
    for name in ("voltage", "before", "adaptation", "opposing"):
        value = getattr(expected, name)
        if value is not None:
            torch.testing.assert_close(
                getattr(made, name).double(),
                value.double(),
                rtol=tol,
                atol=tol,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    for name, value in gradients.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(
            found[name].to(value), value, rtol=tol, atol=tol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    return made


# -- against the layers ------------------------------------------------------------------------------------

N = 3
LEARN = ("alpha", "tau", "threshold", "resistance")
TIRED = (*LEARN, "beta", "tau_adaptation")
CASES: dict[str, tuple[type[FractionalLIF], dict[str, Any]]] = {
    "lif": (FractionalLIF, {"learn": LEARN}),
    "lif-own": (FractionalLIF, {"learn": LEARN, "size": (N,), "alpha": torch.tensor([0.5, 0.6, 0.7])}),
    "alif": (FractionalALIF, {"learn": TIRED, "beta": 0.4}),
    "adlif": (FractionalALIF, {"learn": (*TIRED, "coupling"), "beta": 0.4, "coupling": 0.5}),
    "one-to-one": (RecurrentFractionalLIF, {"learn": LEARN, "size": (N,), "recurrent": "one_to_one"}),
    "adlif-one-to-one": (
        RecurrentFractionalALIF,
        {"learn": (*TIRED, "coupling"), "size": (N,), "recurrent": "one_to_one", "coupling": 0.5},
    ),
    "if": (FractionalIF, {"learn": LEARN, "tau": 1.0}),
    "readout": (FractionalLI, {"learn": ("alpha", "tau", "resistance")}),
}


def build(name: str, **own: Any) -> FractionalLIF:
    cls, options = CASES[name]
    usual = {"alpha": 0.6, "tau": 2.0, "dt": DT, "v_rest": -0.2, "backend": "torch"}
    if cls is not FractionalLI:
        usual["surrogate"] = "atan"
    layer = cls(**(usual | options | own)).double()
    if hasattr(layer, "recurrent"):
        layer.recurrent.weight.data.copy_(noise(N, seed=5, scale=2.0) - 1.0)
    return layer


def fixed(name: str) -> dict[str, Any]:
    """What an integrator may learn here: its modes are fitted anew for every alpha and tau."""
    return {"learn": ("threshold", "resistance")} if name == "if" else {}


@pytest.mark.parametrize("name", CASES)
def test_spikes_potentials_and_gradients_of_each_layer(name: str) -> None:
    made = compare(build(name, **fixed(name)), noise(7, 2, N, scale=6.0), tol=1e-7)
    assert name == "readout" or 5 < made.spikes.sum() < 40


RESET_CASES: list[dict[str, Any]] = [
    {"reset": "value", "v_reset": 0.1, "learn": (*LEARN, "v_reset")},
    {"reset": "none"},
    {"detach_reset": True},
    {"reset_memory": "restart"},
    {"refractory": 1.0},
    {"reset_memory": "restart", "refractory": 0.5, "reset": "value", "detach_reset": True},
    {"surrogate": "fast_sigmoid"},
    {"surrogate": "gaussian"},  # no reciprocal: its derivative on the whole tensor
]


@pytest.mark.parametrize("own", RESET_CASES, ids=str)
def test_resets_refractory_periods_and_surrogates(own: dict[str, Any]) -> None:
    made = compare(build("lif", **own), noise(7, 2, N, scale=6.0))
    assert made.spikes.sum() > 3


@pytest.mark.parametrize("own", RESET_CASES[3:6], ids=str)
def test_the_same_of_adaptation_and_recurrence(own: dict[str, Any]) -> None:
    compare(build("adlif-one-to-one", **own), noise(7, 2, N, scale=8.0))


@pytest.mark.parametrize("own", [{"reset_memory": "restart"}, {"refractory": 1.0, "reset": "value"}], ids=str)
def test_the_same_without_a_leak(own: dict[str, Any]) -> None:
    compare(build("if", **fixed("if"), **own), noise(7, 2, N, scale=4.0), tol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 33), (5, 2, 2, 2)], ids=str)
def test_odd_shapes_in_single_precision(shape: tuple[int, ...]) -> None:
    current = noise(*shape, dtype=F32, scale=6.0)
    layer = build("lif")
    _, gradients = by_layer(layer, current.double(), None)
    made, found = by_kernels(layer, current, layer.initial_state(current[0].double()))
    assert torch.equal(made.spikes.double(), by_layer(layer, current.double(), None)[0].spikes)
    for name, value in gradients.items():
        torch.testing.assert_close(found[name].to(value), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lif", "adlif-one-to-one"])
def test_goes_on_from_a_state(name: str) -> None:
    learn = ("alpha", "threshold", "resistance")  # modes are those of the rates that they were made with
    layer, current = build(name, refractory=1.0, learn=learn), noise(9, 2, N, scale=7.0)
    state = layer.simulate(current[:4]).state.detach()
    compare(layer, current[4:], state)


def test_the_compiler_takes_them() -> None:
    script = Path(__file__).parent / "compile_triton.py"
    quiet = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, env=quiet, timeout=300
    )
    assert done.stdout.strip() == "compiled", done.stderr[-3000:]


# -- the kernels by themselves -----------------------------------------------------------------------------


def simple(M: int, dtype: torch.dtype = F32, **own: Any) -> tuple[Any, ...]:
    """Coefficients, constants, start and options of a layer with one set of constants."""
    orders, step = torch.tensor(0.6, dtype=F64), torch.tensor(DT, dtype=F64)
    grid = modes.choose(orders, step, 1000, 1e-6)
    one = torch.ones(1, dtype=dtype)
    return (
        kernels.tabulate(grid.losses(step), grid.weights(orders), dtype),
        kernels.Constants(one, one, one),
        kernels.Start(torch.zeros(M, dtype=dtype)),
        kernels.Options(**({"form": (1.0, 3.0, 0.0, 1.0), "block": 16} | own)),
    )


BASE = noise(3, 2, 6, dtype=F32, scale=5.0)
LAYOUTS = {
    "one sample for all": BASE[:, :1].expand(3, 2, 6),
    "one row for all": BASE[:1, :1].expand(3, 2, 6),
    "one number for all": BASE[:1, :1, :1].expand(3, 2, 6),
    "batch first": BASE.permute(1, 0, 2).contiguous().permute(1, 0, 2),
    "neurons first": BASE.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    "every other": torch.cat([BASE, BASE], -1)[..., ::2],
    "planes": BASE.reshape(3, 2, 2, 3).transpose(2, 3),
    "bfloat16": BASE.bfloat16(),
    "float16": BASE.half(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_lies_in_any_strides_and_in_half_precision(name: str) -> None:
    drive, found = LAYOUTS[name], []
    parts = simple(drive[0].numel())
    for x in (drive, drive.float().contiguous()):
        made = kernels.forward(x, *parts)
        arriving = kernels.Arriving(spikes=torch.ones((), dtype=x.dtype).expand(x.shape))
        found.append((made, kernels.adjoint(x, *parts, made, arriving)))
    (made, gradients), (expected, truth) = found
    assert made.spikes.dtype == gradients.drive.dtype == drive.dtype
    assert made.before.dtype == F32
    assert gradients.drive.shape == drive.shape
    assert torch.equal(made.spikes.float(), expected.spikes)
    torch.testing.assert_close(made.before, expected.before)
    torch.testing.assert_close(gradients.drive, truth.drive.to(drive.dtype))


@pytest.mark.parametrize("kind", ["no leak", "compensated", "double"])
def test_chunks_are_the_whole(kind: str) -> None:
    drive = noise(5, 3, dtype=F64 if kind == "double" else F32, scale=4.0)
    table, constants, start, options = simple(3, drive.dtype, period=2)
    if kind == "no leak":
        loss, weight = noise(5), noise(5, seed=1)
        table = kernels.tabulate(loss, weight, F32, leaky=False)
        options = kernels.Options(leaky=False, period=2, block=16)
    if kind == "compensated":
        loss = torch.tensor([1e-5, 1e-4, 0.2, 1.0], dtype=F64)
        table = kernels.tabulate(loss, torch.full((4,), 0.25, dtype=F64), F32)
        assert table.compensated
    whole = kernels.forward(drive, table, constants, start, options)
    first = kernels.forward(drive[:2], table, constants, start, options)
    then = start._replace(v=first.v, modes=first.modes, hold=first.hold)
    second = kernels.forward(drive[2:], table, constants, then, options)
    assert torch.equal(torch.cat([first.spikes, second.spikes]), whole.spikes)
    torch.testing.assert_close(torch.cat([first.before, second.before]), whole.before)
    torch.testing.assert_close(second.modes, whole.modes, rtol=1e-6, atol=1e-6)
    assert torch.equal(second.hold, whole.hold)


def test_slow_modes_lose_nothing_to_rounding() -> None:
    loss = torch.tensor([1e-6, 1.0], dtype=F64)  # what a step adds is a few units of the last digit
    drive, ends = torch.full((40, 1), 0.3, dtype=F64), []
    for dtype in (F64, F32):
        table = kernels.tabulate(loss, torch.tensor([1.0, 0.0], dtype=F64), dtype)
        _, constants, start, _ = simple(1, dtype)
        begun = start._replace(modes=torch.full((2, 1), 0.9, dtype=F64))
        options = kernels.Options(step="never", reset="none", block=16)
        ends.append(kernels.forward(drive.to(dtype), table, constants, begun, options).modes[0, 0])
    assert abs(ends[0] - 0.9) > 1e-5
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_drive_that_is_not_finite_is_marked(bad: float) -> None:
    drive = torch.zeros(2, 33)
    drive[1, 20] = bad
    made = kernels.forward(drive, *simple(33))
    assert made.wrong.tolist() == [0.0, 1.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    table, constants, start, options = simple(3)
    drive = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"`coefficients` must be torch\.float64"):
        kernels.forward(drive.double(), table, constants, start, options)
    with pytest.raises(ValueError, match=r"`start.v` must have shape \(4,\), got \(3,\)"):
        kernels.forward(torch.zeros(2, 4), table, constants, start, options)
    with pytest.raises(ValueError, match="`threshold` must be of one number or of a part of 3"):
        kernels.forward(drive, table, constants._replace(threshold=torch.ones(2)), start, options)
    with pytest.raises(ValueError, match=r"`own` must be given with `start\.last`"):
        kernels.forward(drive, table, constants._replace(own=torch.ones(1)), start, options)
    made = kernels.forward(drive, table, constants, start, options, potential=False)
    with pytest.raises(ValueError, match="`made` must hold the potential"):
        kernels.adjoint(drive, table, constants, start, options, made, kernels.Arriving())
    with pytest.raises(ValueError, match="`derivative` must be given"):
        kernels.adjoint(drive, table, constants, start, kernels.Options(), made, kernels.Arriving())


@pytest.mark.parametrize(
    ("modes", "slow", "expected"),
    [(24, 10, (16, 8)), (25, 10, (16, 8, 1)), (24, 0, (16, 8)), (1, 0, (1,)), (1, 1, (1,)), (7, 3, (4, 4))],
)
def test_tiles(modes: int, slow: int, expected: tuple[int, ...]) -> None:
    from fracspike.neurons.backends.triton.coefficients import tiles

    found = tiles(modes, slow)
    assert sum(found) >= modes
    assert found[0] >= slow
    assert sorted(found) == sorted(expected)
