"""Adaptation and recurrence in the compiled loop, against the loop in torch and finite differences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fracspike import (
    FractionalALIF,
    FractionalLIF,
    RecurrentFractionalALIF,
    RecurrentFractionalLIF,
    Simulation,
)
from fracspike.neurons.loop import Feedback
from fracspike.surrogate import ATan, NoisyThreshold, SpikeFunction
from fracspike.surrogate.noisy import MODES

F64 = torch.float64
N = 7  # neurons, fewer than a vector
DT = 0.5

#: what comes back and how, by name
KINDS: dict[str, tuple[type[FractionalLIF], dict[str, Any]]] = {
    "alif": (FractionalALIF, {"beta": 0.4, "tau_adaptation": 5.0}),
    "adlif": (FractionalALIF, {"beta": 0.4, "tau_adaptation": 5.0, "coupling": 0.5}),
    "all": (RecurrentFractionalLIF, {"size": (N,)}),
    "own": (RecurrentFractionalLIF, {"size": (N,), "recurrent": "one_to_one"}),
    "adlif-all": (RecurrentFractionalALIF, {"size": (N,), "beta": 0.4, "coupling": 0.5}),
    "alif-own": (RecurrentFractionalALIF, {"size": (N,), "beta": 0.4, "recurrent": "one_to_one"}),
}
RESETS: list[dict[str, Any]] = [
    {"reset": reset, "detach_reset": detach}
    for reset, detach in itertools.product(("subtract", "value", "none"), (False, True))
    if not (reset == "none" and detach)
]
OTHERS: list[dict[str, Any]] = [
    {"reset_memory": "restart"},
    {"refractory": 1.5, "v_rest": -0.3, "resistance": 1.3},
    {"reset_memory": "restart", "refractory": 1.0, "reset": "value", "detach_reset": True},
]


def noise(*shape: int, dtype: torch.dtype = F64, seed: int = 0, scale: float = 4.0) -> Tensor:
    return scale * torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def build(kind: str, backend: str, dtype: torch.dtype = F64, **kwargs: Any) -> FractionalLIF:
    """A layer in which everything learns; its weights are the same at every call."""
    cls, own = KINDS[kind]
    learn = [name for name in cls.learnable if name != "coefficients"]
    if kind in ("alif", "alif-own"):
        learn.remove("coupling")
    options = {"alpha": 0.6, "tau": 2.0, "dt": DT, "surrogate": "atan", "learn": learn}
    if kwargs.get("reset") == "value":
        options["v_reset"] = 0.1
    else:
        learn.remove("v_reset")
    layer = cls(**(options | own | {"backend": backend} | kwargs)).to(dtype)
    if hasattr(layer, "recurrent"):
        for weight in layer.recurrent.parameters():
            weight.data.copy_(noise(*weight.shape, seed=5, scale=2.0) - 1.0)
    return layer


def loss_of(run: Simulation) -> Tensor:
    """One number that every output has a part in."""
    rows = torch.linspace(1.0, 2.0, len(run.spikes), dtype=run.spikes.dtype)
    rows = rows.reshape(-1, *[1] * (run.spikes.dim() - 1))
    loss = (rows * run.spikes).sum() + (run.voltage**2).sum() + (rows * run.pre_reset).sum()
    for value in (*run.variables.values(), run.state.v, *run.state.extra.values()):
        assert isinstance(value, Tensor)
        loss = loss + (value**2).sum() + value.sum()
    return loss


def everything(layer: FractionalLIF, current: Tensor) -> tuple[Simulation, dict[str, Tensor]]:
    """A run, and its gradients by name."""
    current = current.clone().requires_grad_()
    run = layer.simulate(current)
    wanted = {"current": current, **dict(layer.named_parameters())}
    found = torch.autograd.grad(loss_of(run), list(wanted.values()), allow_unused=True)
    pairs = zip(wanted.items(), found, strict=True)
    return run, {name: torch.zeros_like(x) if g is None else g for (name, x), g in pairs}


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())  # gradients here are of the order of 1 or more
        torch.testing.assert_close(
            found[name].to(value), value, rtol=tol, atol=tol * scale, msg=lambda text, n=name: f"{n}: {text}"
        )


def compare(current: Tensor, kind: str, tol: float = 1e-8, **kwargs: Any) -> Simulation:
    """The compiled loop against the one in torch; returns the run."""
    layers = [build(kind, backend, current.dtype, **kwargs) for backend in ("torch", "native")]
    (expected, gradients), (run, found) = (everything(layer, current) for layer in layers)
    assert torch.equal(run.spikes, expected.spikes)
    torch.testing.assert_close(run.voltage, expected.voltage, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.pre_reset, expected.pre_reset, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.variables, expected.variables, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.state.extra, expected.state.extra, rtol=1e-9, atol=1e-9)
    close(found, gradients, tol)
    return run


class TestAgainstTheLoopInTorch:
    @pytest.mark.parametrize("kwargs", [*RESETS, *OTHERS], ids=str)
    @pytest.mark.parametrize("kind", KINDS)
    def test_spikes_potentials_and_every_gradient(self, kind: str, kwargs: dict) -> None:
        run = compare(noise(30, 3, N), kind, **kwargs)
        assert run.spikes.sum() > 30

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_single_precision(self, kind: str) -> None:
        current = noise(60, 3, N, dtype=torch.float32)
        expected, gradients = everything(build(kind, "torch"), current.double())
        run, found = everything(build(kind, "native", torch.float32), current)
        assert run.voltage.dtype == run.state.v.dtype == torch.float32
        assert torch.equal(run.spikes.double(), expected.spikes)
        torch.testing.assert_close(run.voltage.double(), expected.voltage, rtol=1e-5, atol=1e-5)
        close(found, gradients, 3e-5)

    @pytest.mark.parametrize("kind", ["adlif", "adlif-all"])
    def test_per_neuron_parameters(self, kind: str) -> None:
        own = {
            "alpha": noise(N, scale=0.8) + 0.15,
            "tau": noise(N, seed=1, scale=3.0) + 0.3,
            "threshold": noise(N, seed=2, scale=1.0) + 0.5,
            "beta": noise(N, seed=3, scale=1.0),
            "tau_adaptation": noise(N, seed=4, scale=9.0) + 1.0,
            "coupling": noise(N, seed=5, scale=1.0),
        }
        compare(noise(40, 3, 2, N), kind, **own)

    @pytest.mark.parametrize("size", [1, 16, 21, 65, 130])
    def test_any_number_of_neurons_and_steps(self, size: int) -> None:
        for kind, steps in itertools.product(("adlif", "adlif-all", "own"), (1, 2, 5)):
            compare(noise(steps, 3, size), kind, **({} if kind == "adlif" else {"size": (size,)}))

    def test_one_set_of_parameters_in_each_channel(self) -> None:
        beta, coupling = noise(4, 1, 1, scale=1.0), noise(4, 1, 1, seed=1, scale=1.0)
        run = compare(noise(20, 2, 4, 5, 3), "adlif", beta=beta, coupling=coupling, size=(4, 1, 1))
        assert run.variables["w"].shape == (20, 2, 4, 5, 3)

    def test_samples_of_several_dimensions_share_the_weights(self) -> None:
        compare(noise(20, 2, 3, N), "adlif-all")

    def test_a_bias_comes_back_as_well(self) -> None:
        compare(noise(20, 2, N), "all", recurrent=nn.Linear(N, N))

    @pytest.mark.parametrize("mode", MODES)
    def test_noise_is_the_same_and_trains_the_surrogate_alike(self, mode: str) -> None:
        results = []
        for backend in ("torch", "native"):
            noisy = NoisyThreshold(mode=mode, learnable=True, generator=torch.Generator().manual_seed(3))
            results.append(everything(build("adlif-all", backend, surrogate=noisy), noise(30, 2, N)))
        torch.testing.assert_close(results[1][0].spikes, results[0][0].spikes, rtol=1e-9, atol=1e-9)
        close(results[1][1], results[0][1], 1e-8)

    @pytest.mark.parametrize("kind", ["adlif", "all"])
    def test_a_trained_surrogate(self, kind: str) -> None:
        compare(noise(30, 2, N), kind, surrogate=ATan(learnable=True))

    def test_a_surrogate_from_elsewhere(self) -> None:
        step = lambda x: SpikeFunction.apply(x, lambda x: 1 / (1 + x**2), True)  # noqa: E731
        compare(noise(30, 2, N), "adlif-all", surrogate=step)

    def test_a_surrogate_that_never_spikes(self) -> None:
        run = compare(noise(10, 2, N), "adlif-all", surrogate=lambda x: 0 * x, learn=("alpha", "beta"))
        assert not run.spikes.any()


class TestAgainstFiniteDifferences:
    @pytest.mark.parametrize(
        "kwargs", [{}, {"reset": "value"}, {"refractory": 1.0}, {"recurrent": "one_to_one"}]
    )
    def test_everything_that_has_a_gradient(self, kwargs: dict) -> None:
        """Soft spikes, from a state, in two chunks."""
        surrogate = NoisyThreshold(mode="meanfield", scale=3.0)
        layer = build("adlif-all", "native", surrogate=surrogate, learn=(), size=(2,), **kwargs)
        weight = layer.recurrent.weight.detach().clone().requires_grad_()
        del layer.recurrent.weight
        names = ("alpha", "tau", "threshold", "resistance", "beta", "tau_adaptation", "coupling")

        def outputs(
            current: Tensor, weight: Tensor, v: Tensor, last: Tensor, a: Tensor, w: Tensor, *numbers: Tensor
        ) -> tuple[Tensor, ...]:
            layer.recurrent.weight = weight
            for name, value in zip(names, numbers, strict=True):
                setattr(layer, name, value)
            state = layer.initial_state(current[0])
            state = replace(state, v=v, extra={"last_spikes": last, "adaptation": a, "w": w})
            first = layer.simulate(current[:4], state)
            second = layer.simulate(current[4:], first.state)
            return (*[x for run in (first, second) for x in (run.spikes, run.voltage)], second.variables["w"])

        start = [noise(1, 2, seed=i, scale=0.5).requires_grad_() for i in range(4)]
        values = (0.65, 1.5, 1.0, 1.2, 0.3, 3.0, 0.4)
        numbers = [torch.tensor(x, dtype=F64, requires_grad=True) for x in values]
        current = noise(7, 1, 2, scale=2.0).requires_grad_()
        assert torch.autograd.gradcheck(outputs, (current, weight, *start, *numbers), atol=2e-7)


class TestState:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
    def test_chunks_are_the_whole_and_so_are_their_gradients(self, dtype: torch.dtype, kind: str) -> None:
        layer = build(kind, "native", torch.float32 if dtype == torch.bfloat16 else dtype)
        current = noise(61, 2, N, dtype=dtype).requires_grad_()
        whole, state, parts = layer(current), None, []
        for chunk in current.split([7, 1, 30, 23]):
            run = layer.simulate(chunk, state)
            parts.append(run.spikes)
            state = run.state
        chunked = torch.cat(parts)
        assert torch.equal(whole, chunked)
        assert whole.sum() > 50
        if dtype == torch.bfloat16:
            return
        weights = torch.arange(61, dtype=dtype)[:, None, None]
        wanted = {"current": current, **dict(layer.named_parameters())}
        found, expected = (
            torch.autograd.grad((weights * s).sum(), wanted.values(), materialize_grads=True)
            for s in (chunked, whole)
        )
        tol = 1e-10 if dtype == F64 else 2e-5
        close(dict(zip(wanted, found, strict=True)), dict(zip(wanted, expected, strict=True)), tol)

    def test_states_pass_between_backends(self) -> None:
        one, other = (build("adlif-all", backend) for backend in ("torch", "native"))
        current = noise(40, 3, N)
        states = [layer.simulate(current[:15]).state for layer in (one, other)]
        assert states[0].extra.keys() == states[1].extra.keys()
        runs = [layer.simulate(current[15:], s) for layer, s in zip((other, one), states, strict=True)]
        torch.testing.assert_close(runs[0].voltage, runs[1].voltage, rtol=1e-12, atol=1e-12)

    def test_a_state_is_left_as_it_was(self) -> None:
        layer = build("adlif-all", "native")
        state = layer.simulate(noise(15, 3, N)).state
        kept = {name: value.clone() for name, value in state.extra.items()}  # type: ignore[union-attr]
        layer.simulate(noise(15, 3, N, seed=1), state)
        torch.testing.assert_close(state.extra, kept, rtol=0, atol=0)


class Louder(Feedback):
    """A feedback that is not compiled."""

    def drive(self, u: Tensor) -> Tensor:
        return 2 * u


class Loud(FractionalALIF):
    def _feedback(self, state: Any, dtype: torch.dtype) -> Feedback:
        return Louder(super()._feedback(state, dtype).state)


class TestBackend:
    @pytest.mark.parametrize(
        ("kind", "kwargs", "chosen", "why"),
        [
            ("adlif-all", {}, "native", "it can run this"),
            ("all", {"recurrent": nn.Linear(N, N)}, "native", "it can run this"),
            ("all", {"recurrent": nn.Sequential(nn.Linear(N, N))}, "torch", "recurrent=Sequential"),
            ("all", {"dtype": torch.float32}, "native", "it can run this"),
            ("all", {"recurrent": nn.Linear(N, 3)}, "torch", "weights (3, 7) do not keep the shape"),
            ("own", {"size": (3, 2, N)}, "torch", "do not keep the shape"),
            ("alif", {"method": "l1"}, "torch", "method='l1'"),
        ],
        ids=str,
    )
    def test_the_report_says_what_and_why(self, kind: str, kwargs: dict, chosen: str, why: str) -> None:
        report = build(kind, "auto", **kwargs).backend_report(torch.ones(5, 2, N, dtype=F64))
        assert report.backend == chosen
        assert why in str(report)

    def test_half_precision_is_computed_in_single(self) -> None:
        layer = build("all", "auto", torch.float32)
        assert str(layer.backend_report(noise(5, 2, N, dtype=torch.bfloat16))).startswith("native")

    @pytest.mark.parametrize(
        "layer", [FractionalLIF(), FractionalALIF(), RecurrentFractionalLIF(size=N)], ids=str
    )
    def test_an_empty_batch(self, layer: FractionalLIF) -> None:
        current = torch.ones(5, 0, N, requires_grad=True)
        spikes = layer(current)
        spikes.sum().backward()
        assert spikes.shape == current.shape
        assert "empty" in str(layer.backend_report(current))

    def test_a_feedback_of_its_own_is_not_compiled(self) -> None:
        current = noise(5, 2, N)
        assert "Loud has a step of its own" in str(Loud().backend_report(current))
        with pytest.raises(ValueError, match="`backend` 'native' cannot run this layer: Loud has"):
            Loud(backend="native")(current)
        assert Loud()(current).sum() > FractionalALIF()(current).sum()

    def test_hooks_are_called(self) -> None:
        layer, seen = build("all", "auto"), []
        layer.recurrent.register_forward_hook(lambda *args: seen.append(1))
        layer(noise(5, 2, N))
        assert len(seen) == 5
        assert "hooks" in str(layer.backend_report(noise(5, 2, N)))

    def test_weights_of_the_wrong_shape_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="`recurrent` must keep the shape of the spikes"):
            build("all", "auto", recurrent=nn.Linear(N, 3))(noise(5, 2, N))

    def test_parametrized_weights_are_compiled_and_learn(self) -> None:
        results = []
        for backend in ("torch", "native"):
            layer = build("all", backend)
            nn.utils.parametrizations.orthogonal(layer.recurrent)
            results.append(everything(layer, noise(20, 2, N)))
        assert str(layer.backend_report(noise(20, 2, N))).startswith("native")
        close(results[1][1], results[0][1], 1e-8)

    def test_there_is_no_second_derivative(self) -> None:
        layer, current = build("adlif-all", "native"), noise(9, 2, N).requires_grad_()
        (first,) = torch.autograd.grad(layer(current).sum(), current, create_graph=True)
        with pytest.raises(RuntimeError, match="backend='torch'"):
            first.sum().backward()

    def test_a_surrogate_that_breaks_its_promise_is_found_out(self) -> None:
        def sly(x: Tensor) -> Tensor:
            step = (x >= 0).to(x.dtype)
            return step if x.numel() < 5 * 2 * N + 1 else 0.75 * step

        current = noise(30, 2, N)
        expected = build("alif", "torch", surrogate=sly).simulate(current)
        torch.testing.assert_close(
            build("alif", "auto", surrogate=sly).simulate(current).voltage, expected.voltage
        )
        with pytest.raises(ValueError, match="no step"):
            build("alif", "native", surrogate=sly)(current)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_finite_is_named(self, value: float) -> None:
        current = noise(20, 2, N)
        current[13, 1, 4] = value
        with pytest.raises(ValueError, match=rf"finite, got {value} at index \(13, 1, 4\)"):
            build("adlif-all", "native")(current)

    def test_any_number_of_threads(self) -> None:
        layer, current = build("adlif-all", "native", size=(90,)), noise(20, 40, 90)
        before, results = torch.get_num_threads(), []
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                results.append(everything(layer, current))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0][0].spikes, results[1][0].spikes)
        close(results[0][1], results[1][1], 1e-12)

    @pytest.mark.filterwarnings("ignore")  # of the compiler, about what it meets on its way
    def test_functorch_and_the_compiler_go_by_torch(self) -> None:
        layer, current = build("adlif-all", "auto", learn=()), noise(4, 2, N)
        expected = layer(current)
        assert torch.equal(torch.func.vmap(layer, in_dims=1, out_dims=1)(current), expected)
        compiled = torch.compile(layer, backend="eager")
        assert torch.equal(compiled(current), expected)
