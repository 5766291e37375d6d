"""The compiled loop and the loop in torch, against the full history, closed forms and finite differences."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fracspike import FractionalLI, FractionalLIF
from fracspike.neurons import exact
from fracspike.neurons.backends import operator
from fracspike.neurons.backends.numba import blocked, buffers, threads
from fracspike.neurons.backends.numba.threads import SMALL, in_threads
from fracspike.neurons.problem import Problem
from fracspike.solvers import Exponentials, Full, mittag_leffler
from fracspike.surrogate import (
    ATan,
    FastSigmoid,
    NoisyThreshold,
    Sigmoid,
    SoftSign,
    SpikeFunction,
    Surrogate,
    Triangle,
)
from fracspike.surrogate.noisy import MODES

F64 = torch.float64
LEARN = ("alpha", "tau", "threshold", "resistance", "v_reset")


def noise(*shape: int, dtype: torch.dtype = F64, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def everything(current: Tensor, **kwargs: Any) -> tuple[Any, list[Tensor]]:
    """A run, and the gradients of a loss that weighs every output, in input and parameters."""
    learn = LEARN if kwargs.get("reset") == "value" else LEARN[:-1]
    lif = FractionalLIF(
        **({"alpha": 0.6, "tau": 2.0, "dt": 0.5, "learn": learn, "surrogate": "atan"} | kwargs)
    )
    current = current.clone().requires_grad_()
    run = lif.simulate(current)
    weights = torch.linspace(1.0, 2.0, len(current), dtype=current.dtype).reshape(
        -1, *[1] * (current.dim() - 1)
    )
    loss = (weights * run.spikes).sum() + (run.voltage**2).sum() + (weights * run.pre_reset).sum()
    wanted = [current, *lif.parameters()]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return run, [torch.zeros_like(w) if g is None else g for g, w in zip(found, wanted, strict=True)]


def close(found: list[Tensor], expected: list[Tensor], tol: float) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol * b.abs().max().item())


class Bent(ATan):
    """A family that changes the derivative it inherits."""

    def derivative(self, x: Tensor) -> Tensor:
        return super().derivative(x) * (x > 0)


VARIANTS: list[dict[str, Any]] = [
    {"reset": reset, "reset_memory": memory, "refractory": refractory, "detach_reset": detach}
    | ({"v_reset": 0.1} if reset == "value" else {})
    for reset, memory, refractory, detach in itertools.product(
        ("subtract", "value"), ("jump", "restart"), (0.0, 1.5), (False, True)
    )
]


class TestAgainstTheFullHistory:
    @pytest.mark.parametrize("kwargs", [*VARIANTS, {"reset": "none"}, {"v_rest": -0.5}], ids=str)
    @pytest.mark.parametrize("backend", ["torch", "native"])
    def test_spikes_potentials_and_gradients(self, backend: str, kwargs: dict) -> None:
        current = noise(30, 2, 35)
        full, expected = everything(current, memory=Full(), **kwargs)
        run, found = everything(current, backend=backend, **kwargs)
        assert full.spikes.sum() > 50
        assert torch.equal(run.spikes, full.spikes)
        torch.testing.assert_close(run.voltage, full.voltage, rtol=1e-9, atol=1e-10)
        close(found, expected, 1e-9)

    @pytest.mark.parametrize(
        "surrogate",
        [FastSigmoid(5.0, amplitude=2.0), SoftSign(normalize="peak"), Triangle(), Sigmoid(), Bent()],
        ids=str,
    )
    @pytest.mark.parametrize("kwargs", [{"reset": "value", "v_reset": 0.1}, {"v_rest": -0.5}], ids=str)
    def test_any_surrogate_whether_the_loop_knows_its_form_or_not(
        self, surrogate: Surrogate, kwargs: dict
    ) -> None:
        current = noise(30, 2, 35)
        _, expected = everything(current, memory=Full(), surrogate=surrogate, **kwargs)
        _, found = everything(current, backend="native", surrogate=surrogate, **kwargs)
        close(found, expected, 1e-9)

    @pytest.mark.parametrize("strict", [False, True])
    def test_a_potential_that_meets_the_threshold_exactly(self, strict: bool) -> None:
        current = noise(20, 1, 1)
        never, _ = everything(current, threshold=100.0, backend="native")
        threshold = never.pre_reset[0].item()
        run, _ = everything(current, threshold=threshold, surrogate=ATan(strict=strict), backend="native")
        assert run.pre_reset[0].item() == threshold
        assert run.spikes[0].item() == (0.0 if strict else 1.0)

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    @pytest.mark.parametrize("alpha", [1.0, 0.6])
    def test_all_backends_meet_a_threshold_alike(self, alpha: float, dtype: torch.dtype) -> None:
        # at alpha = 1 nothing is left of the past: the potential is the drive, to the bit
        dt = 2000.0 if alpha == 1.0 else 1e14
        for backend in ("torch", "native"):
            lif = FractionalLIF(alpha, tau=2.0, dt=dt, surrogate="atan", backend=backend)
            run = lif.simulate(torch.ones(5, 40, dtype=dtype))
            assert bool((run.spikes == 1).all()) == bool((run.pre_reset >= 1).all())
            if alpha == 1.0:
                assert bool((run.pre_reset == 1).all())
                assert bool((run.spikes == 1).all())

    @pytest.mark.parametrize("kwargs", [VARIANTS[0], VARIANTS[-2]], ids=str)
    def test_in_single_precision(self, kwargs: dict) -> None:
        current = noise(60, 3, 40, dtype=torch.float32)
        full, expected = everything(current.double(), memory=Full(), **kwargs)
        run, found = everything(current, backend="native", **kwargs)
        assert run.voltage.dtype == torch.float32
        assert torch.equal(run.spikes.double(), full.spikes)
        close([g.double() for g in found], expected, 2e-5)

    @pytest.mark.parametrize("backend", ["torch", "native"])
    def test_per_neuron_parameters(self, backend: str) -> None:
        alpha, tau = noise(7, scale=0.8) + 0.15, noise(7, seed=1, scale=3.0) + 0.3
        kwargs: dict[str, Any] = {"alpha": alpha, "tau": tau, "threshold": noise(7, seed=2, scale=1.0) + 0.5}
        full, expected = everything(noise(40, 3, 2, 7), memory=Full(), **kwargs)
        run, found = everything(noise(40, 3, 2, 7), backend=backend, **kwargs)
        assert torch.equal(run.spikes, full.spikes)
        close(found, expected, 1e-8)

    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 9])
    def test_any_number_of_steps_and_neurons(self, steps: int) -> None:
        for size in (1, 63, 65):
            full, expected = everything(noise(steps, size), memory=Full())
            run, found = everything(noise(steps, size), backend="native")
            torch.testing.assert_close(run.pre_reset, full.pre_reset, rtol=1e-9, atol=1e-10)
            close(found, expected, 1e-9)

    @pytest.mark.parametrize("size", [(32,), (3, 16), (5,)], ids=str)
    def test_per_neuron_parameters_that_a_batch_shares(self, size: tuple[int, ...]) -> None:
        """Whole vectors of neurons or not; one dimension of size 1 among them."""
        current, count = noise(40, 3, *size), math.prod(size)
        alpha = torch.linspace(0.4, 0.95, count, dtype=F64).reshape(size)
        tau = torch.linspace(1.0, 3.0, size[-1], dtype=F64).expand(size)
        kwargs: dict[str, Any] = {"alpha": alpha, "tau": tau, "size": size}
        full, expected = everything(current, memory=Full(), **kwargs)
        run, found = everything(current, backend="native", **kwargs)
        assert torch.equal(run.spikes, full.spikes)
        close(found, expected, 1e-9)

    def test_a_readout_never_spikes_and_is_compiled(self) -> None:
        current, found = noise(40, 2, 21), []
        for memory in (Full(), None):
            layer = FractionalLI(0.6, tau=2.0, dt=0.5, memory=memory, learn=("alpha", "tau", "resistance"))
            drive = current.clone().requires_grad_()
            voltage = layer(drive)
            gradients = torch.autograd.grad((current * voltage).sum(), [drive, *layer.parameters()])
            found.append([voltage.detach(), *gradients])
        assert str(layer.backend_report(current)).startswith("native")
        assert found[0][0].max() > 2.0
        close(found[1], found[0], 1e-9)

    def test_a_surrogate_that_seldom_spikes_is_found_out(self) -> None:
        """It looks as if it never did."""
        current, late = (
            noise(60, 2, 5, scale=8.0),
            FractionalLIF(0.6, surrogate=lambda x: (x >= 1.5).to(x.dtype)),
        )
        spikes = late(current)
        assert 0 < spikes.sum() < spikes.numel()
        late.backend = "torch"
        assert torch.equal(spikes, late(current))

    @pytest.mark.parametrize("steps", [1, 15, 16, 17, 70, 130])
    @pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-8), (torch.float32, 1e-4)], ids=str)
    @pytest.mark.parametrize(("alpha", "dt"), [(0.6, 0.5), (0.85, 0.02)])
    def test_a_layer_that_nobody_goes_on_from(
        self, steps: int, alpha: float, dt: float, dtype: torch.dtype, tol: float
    ) -> None:
        """It takes modes for some more than its own steps only; for no more, gradients are 3e-3 off."""
        current = noise(steps, 2, 19, dtype=dtype)
        found = []
        for memory, kind in ((Full(), F64), (None, dtype)):
            lif = FractionalLIF(
                alpha, tau=2.0, dt=dt, learn=LEARN[:-1], surrogate="atan", memory=memory, detach_reset=True
            )
            drive = current.to(kind).requires_grad_()
            spikes = lif(drive)
            weights = torch.linspace(1.0, 2.0, steps, dtype=kind)[:, None, None]
            gradients = torch.autograd.grad((weights * spikes).sum(), [drive, *lif.parameters()])
            found.append([spikes.detach().double(), *(g.double() for g in gradients)])
        close(found[1], found[0], tol)


class TestAgainstClosedForms:
    @pytest.mark.parametrize(("dtype", "tol"), [(F64, 4e-15), (torch.float32, 4e-7)], ids=str)
    def test_a_soft_spike_is_the_logistic_function(self, dtype: torch.dtype, tol: float) -> None:
        current = torch.linspace(-300, 300, 40_000, dtype=dtype).reshape(40, 1000)
        lif = FractionalLIF(0.9, surrogate=NoisyThreshold(mode="meanfield", scale=1.0), reset="none")
        run = lif.simulate(current)
        expected = torch.sigmoid(run.pre_reset - lif.threshold.to(dtype))
        assert expected.max() > 0.99
        assert expected.min() < 0.01
        torch.testing.assert_close(run.spikes, expected, rtol=tol, atol=1e-30)

    @pytest.mark.parametrize("alpha", [0.3, 0.85, 1.0])
    @pytest.mark.parametrize("backend", ["torch", "native"])
    def test_first_spike_solves_the_equation_to_one_step(self, backend: str, alpha: float) -> None:
        lif = FractionalLIF(alpha=alpha, tau=1.0, dt=0.002, backend=backend)
        fired = lif(torch.full((2000, 1), 1.7, dtype=F64))[:, 0].nonzero()[0].item() + 1
        for steps, side in ((fired, 1), (fired - 1, -1)):
            t = torch.tensor(0.002 * steps, dtype=F64)
            assert side * (1.7 * (1 - mittag_leffler(-(t**alpha), alpha)) - 1.0) >= 0

    @pytest.mark.parametrize("alpha", [0.2, 0.6, 0.95, 1.0])
    @pytest.mark.parametrize("dt", [1e-4, 0.05, 100.0])
    def test_single_precision_between_spikes_at_any_step(self, dt: float, alpha: float) -> None:
        lif = FractionalLIF(alpha=alpha, tau=1.0, dt=dt, reset="none", backend="native")
        run = lif.simulate(torch.full((4000, 1), 0.8))
        t = dt * torch.arange(1, 4001, dtype=F64)
        exact = 0.8 * (1 - mittag_leffler(-(t**alpha), alpha))
        torch.testing.assert_close(run.voltage[:, 0].double(), exact, rtol=1e-6, atol=0)
        fall = (
            lif.simulate(torch.zeros(4000, 1), lif.initial_state(torch.zeros(1), v=0.7))
            .voltage[:, 0]
            .double()
        )
        expected = 0.7 * mittag_leffler(-(t**alpha), alpha)
        torch.testing.assert_close(fall, expected, rtol=1e-6, atol=1e-6 * 0.7e-6)

    @pytest.mark.parametrize(("dt", "alpha"), [(1e-4, 0.6), (0.05, 0.75), (0.05, 0.95), (100.0, 0.2)])
    def test_single_precision_over_a_hundred_thousand_steps(self, dt: float, alpha: float) -> None:
        lif = FractionalLIF(alpha=alpha, tau=1.0, dt=dt, reset="none", backend="native")
        steps = torch.arange(1, 100_001, 97)
        t = dt * steps.double()
        relaxed = mittag_leffler(-(t**alpha), alpha)
        rise = lif.simulate(torch.full((100_000, 1), 0.8)).voltage[steps - 1, 0].double()
        torch.testing.assert_close(rise, 0.8 * (1 - relaxed), rtol=1e-6, atol=0)
        start = lif.initial_state(torch.zeros(1), v=0.7)
        fall = lif.simulate(torch.zeros(100_000, 1), start).voltage[steps - 1, 0].double()
        torch.testing.assert_close(fall, 0.7 * relaxed, rtol=1e-6, atol=1e-6 * 0.7e-6)


class TestGradients:
    @pytest.mark.parametrize("alpha", [0.2, 0.6, 0.95])
    @pytest.mark.parametrize("dt", [1e-4, 0.05, 100.0])
    def test_single_precision_at_any_step(self, dt: float, alpha: float) -> None:
        reached = 1 - mittag_leffler(-torch.tensor((10 * dt) ** alpha, dtype=F64), alpha).item()
        current = noise(150, 20, scale=2 / reached)  # spikes after some ten steps
        weights = noise(150, 20, seed=1)

        def gradients(x: Tensor, **kwargs: Any) -> tuple[Tensor, list[Tensor]]:
            lif = FractionalLIF(alpha, tau=1.0, dt=dt, surrogate="atan", learn=("alpha", "tau"), **kwargs)
            x = x.clone().requires_grad_()
            spikes = lif(x)
            loss = (weights.to(x.dtype) * spikes).sum()
            return spikes, list(torch.autograd.grad(loss, [x, *lif.parameters()]))

        spikes, found = gradients(current.float(), backend="native")
        fired, expected = gradients(current.float().double(), memory=Full())
        assert fired.sum() > 10
        assert torch.equal(spikes.double(), fired)
        close([g.double() for g in found], expected, 2e-5)


class TestGradientsOfEverything:
    @pytest.mark.parametrize(
        "kwargs", [{}, {"reset": "value", "v_reset": 0.2}, {"reset_memory": "restart"}, {"refractory": 1.0}]
    )
    @pytest.mark.parametrize("backend", ["torch", "native"])
    def test_smooth_spikes_against_finite_differences(self, backend: str, kwargs: dict) -> None:
        surrogate = NoisyThreshold(mode="meanfield", scale=3.0)
        lif = FractionalLIF(0.6, dt=0.5, surrogate=surrogate, backend=backend, **kwargs)
        current = noise(9, 2, scale=1.5).requires_grad_()

        def outputs(
            current: Tensor, alpha: Tensor, tau: Tensor, threshold: Tensor, resistance: Tensor, v: Tensor
        ):  # type: ignore[no-untyped-def]
            lif.alpha, lif.tau, lif.threshold, lif.resistance = alpha, tau, threshold, resistance
            state = lif.initial_state(current[0])
            first = lif.simulate(current[:5], type(state)(**(vars(state) | {"v": v})))
            second = lif.simulate(current[5:], first.state)
            return first.spikes, first.voltage, second.spikes, second.voltage

        scalars = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.65, 1.5, 1.0, 1.2)]
        v = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
        assert torch.autograd.gradcheck(outputs, (current, *scalars, v), atol=2e-7)

    def test_second_derivatives_are_torchs(self) -> None:
        lif = FractionalLIF(0.6, surrogate=NoisyThreshold(mode="meanfield"), backend="torch")
        current = noise(4, 2, scale=1.0).requires_grad_()

        def spikes(current: Tensor, alpha: Tensor, tau: Tensor) -> Tensor:
            lif.alpha, lif.tau = alpha, tau
            return lif(current)

        scalars = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.6, 1.5)]
        assert torch.autograd.gradgradcheck(spikes, (current, *scalars), atol=1e-6)
        native = FractionalLIF(0.6, surrogate="atan", backend="native")
        (first,) = torch.autograd.grad(native(current).sum(), current, create_graph=True)
        with pytest.raises(RuntimeError, match="backend='torch'"):
            first.sum().backward()

    @pytest.mark.parametrize("mode", MODES)
    def test_noise_is_the_same_and_trains_the_surrogate_alike(self, mode: str) -> None:
        results = []
        for backend in ("torch", "native"):
            noisy = NoisyThreshold(mode=mode, learnable=True, generator=torch.Generator().manual_seed(3))
            results.append(everything(noise(30, 2, 40), surrogate=noisy, backend=backend))
        (expected_run, expected), (run, found) = results
        torch.testing.assert_close(run.spikes, expected_run.spikes, rtol=1e-9, atol=1e-9)
        close(found, expected, 2e-6)  # a surrogate's own parameters are single precision

    def test_a_trained_surrogate(self) -> None:
        results = [
            everything(noise(30, 2, 40), surrogate=ATan(learnable=True), backend=backend)
            for backend in ("torch", "native")
        ]
        close(results[1][1], results[0][1], 2e-6)


class TestState:
    @pytest.mark.parametrize("kwargs", [{}, {"refractory": 1.0}, {"reset_memory": "restart"}])
    @pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
    def test_chunks_are_the_whole_and_so_are_their_gradients(self, dtype: torch.dtype, kwargs: dict) -> None:
        lif = FractionalLIF(0.6, dt=0.5, learn=("alpha", "tau"), surrogate="atan", backend="native", **kwargs)
        current = noise(61, 2, 5, dtype=dtype).requires_grad_()
        whole = lif(current)
        state, parts = None, []
        for chunk in current.split([7, 1, 30, 23]):
            run = lif.simulate(chunk, state)
            parts.append(run.spikes)
            state = run.state
        assert state is not None
        assert state.steps == 61
        assert len(state.past) < 100
        chunked = torch.cat(parts)
        assert torch.equal(whole, chunked)
        if dtype == torch.bfloat16:
            return
        weights = torch.arange(61, dtype=dtype)[:, None, None]
        wanted = [current, *lif.parameters()]
        found, expected = (torch.autograd.grad((weights * s).sum(), wanted) for s in (chunked, whole))
        close(list(found), list(expected), 1e-10 if dtype == F64 else 1e-5)

    def test_the_horizon_is_named(self) -> None:
        lif = FractionalLIF(0.6, memory=Exponentials(1e-6, horizon=50))
        state = lif.simulate(torch.ones(40, 1)).state
        with pytest.raises(
            ValueError, match=r"50 steps, got step 60; pass memory=Exponentials\(1e-06, horizon=64\)"
        ):
            lif.simulate(torch.ones(20, 1), state)

    def test_states_pass_between_backends(self) -> None:
        one, other = (FractionalLIF(0.6, backend=b) for b in ("torch", "native"))
        current = noise(40, 3)
        states = [lif.simulate(current[:15]).state for lif in (one, other)]
        runs = [
            lif.simulate(current[15:], state).voltage for lif, state in zip((other, one), states, strict=True)
        ]
        torch.testing.assert_close(runs[0], runs[1], rtol=1e-12, atol=1e-12)


class Own(nn.Module):
    """A surrogate from elsewhere: a step above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return SpikeFunction.apply(x, lambda x: 1 / (1 + x**2), True)


class Sly(nn.Module):
    """A step for a few numbers, and not for many."""

    def forward(self, x: Tensor) -> Tensor:
        step = (x >= 0).to(x.dtype)
        return step if x.numel() < 100 else step * 0.75


class TestBadInput:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(("steps", "step"), [(1, 0), (15, 14), (16, 15), (17, 16), (40, 3), (40, 39)])
    @pytest.mark.parametrize("neuron", [0, 15, 36])
    @pytest.mark.parametrize("reset_memory", ["jump", "restart"])
    def test_what_is_not_finite_is_named(
        self, value: float, steps: int, step: int, neuron: int, reset_memory: str
    ) -> None:
        """The compiled loop looks for itself, wherever it stands."""
        current = noise(steps, 1, 37, dtype=torch.float32)
        current[step, 0, neuron] = value
        lif = FractionalLIF(0.6, surrogate="atan", backend="native", reset_memory=reset_memory)
        for run in (lif, lif.simulate):
            with pytest.raises(ValueError, match=rf"finite, got {value} at index \({step}, 0, {neuron}\)"):
                run(current)


class TestBackend:
    @pytest.mark.parametrize(
        ("kwargs", "chosen", "why"),
        [
            ({}, "native", "it can run this"),
            ({"backend": "torch"}, "torch", "asked for"),
            ({"backend": "native"}, "native", "asked for"),
            ({"method": "l1"}, "torch", "method='l1'"),
            ({"memory": Full()}, "torch", "Full()"),
            ({"surrogate": torch.sigmoid}, "torch", "no step"),
            ({"surrogate": Own()}, "native", "it can run this"),
        ],
    )
    def test_the_report_says_what_and_why(self, kwargs: dict, chosen: str, why: str) -> None:
        report = FractionalLIF(0.6, **kwargs).backend_report(torch.ones(5, 2))
        assert report.backend == chosen
        assert why in str(report)

    @pytest.mark.parametrize("kwargs", [{"method": "l1"}, {"memory": Full()}, {"surrogate": torch.sigmoid}])
    def test_native_refuses_what_it_cannot_run(self, kwargs: dict) -> None:
        with pytest.raises(ValueError, match="`backend` 'native' cannot run this layer: "):
            FractionalLIF(0.6, backend="native", **kwargs)(torch.ones(5, 2))

    def test_a_surrogate_that_breaks_its_promise_is_found_out(self) -> None:
        current = noise(30, 20)
        run = FractionalLIF(0.6, surrogate=Sly()).simulate(current)
        expected = FractionalLIF(0.6, surrogate=Sly(), backend="torch").simulate(current)
        assert torch.equal(run.voltage, expected.voltage)
        with pytest.raises(ValueError, match="no step"):
            FractionalLIF(0.6, surrogate=Sly(), backend="native")(current)

    def test_a_surrogate_from_elsewhere_gives_the_same(self) -> None:
        results = [everything(noise(30, 2, 40), surrogate=Own(), backend=b) for b in ("torch", "native")]
        assert torch.equal(results[0][0].spikes, results[1][0].spikes)
        close(results[1][1], results[0][1], 1e-9)

    def test_functorch_goes_by_torch(self) -> None:
        lif = FractionalLIF(0.6, surrogate="atan")
        current = noise(6, 3)
        batched = torch.func.vmap(lif, in_dims=1, out_dims=1)(current)
        assert torch.equal(batched, lif(current))

    def test_unknown_backend(self) -> None:
        with pytest.raises(ValueError, match="`backend` must be one of 'auto', 'native', 'torch'"):
            FractionalLIF(0.6, backend="cuda")

    def test_importing_does_not_import_numba(self) -> None:
        code = "import sys, fracspike; print('numba' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"

    def test_threads_and_any_number_of_them(self) -> None:
        lif, current = FractionalLIF(0.6, surrogate="atan", learn=("alpha",)), noise(100, 3, 500)
        assert current.numel() > SMALL  # below, there is one thread
        before, found = torch.get_num_threads(), []
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                drive = current.clone().requires_grad_()
                spikes = lif(drive)
                wanted = [drive, *lif.parameters()]
                found.append([spikes, *torch.autograd.grad((current * spikes).sum(), wanted)])
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        alone = found[0][0]
        results: dict[int, Tensor] = {}
        callers = [threading.Thread(target=lambda i=i: results.update({i: lif(current)})) for i in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert all(torch.equal(alone, result) for result in results.values())
        assert len(results) == 4

    def test_a_change_in_any_source_compiles_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Numba looks at the file that defines a kernel, and at the types of its arguments."""
        here, kept = Path(threads.__file__).parent, threads.sources().dtype
        for path in here.glob("*.py"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(threads, "__file__", str(tmp_path / "threads.py"))
        assert threads.sources.__wrapped__().dtype == kept
        (tmp_path / "stretch.py").write_text("changed")
        assert threads.sources.__wrapped__().dtype != kept

    @pytest.mark.parametrize("alone", [False, True])
    def test_a_failure_in_a_thread_is_raised_and_stops_the_others(self, alone: bool) -> None:
        done, count = [], torch.get_num_threads()

        def work(piece: int) -> None:
            if piece == 3:
                raise ValueError("piece 3")
            done.append(piece)

        try:
            torch.set_num_threads(4)
            with pytest.raises(ValueError, match="piece 3"):
                in_threads(work, range(200), alone=alone)
            assert not alone or done == [0, 1, 2]
            done.clear()
            in_threads(work, range(4, 200), alone=alone)
            assert sorted(done) == list(range(4, 200))
        finally:
            torch.set_num_threads(count)

    @pytest.mark.parametrize("size", [35, 64, 100])
    def test_sequences_written_past_the_cache(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        current = noise(37, 1, size, dtype=torch.float32)
        run, found = everything(current, backend="native")
        monkeypatch.setattr(blocked, "PAST", 0)
        monkeypatch.setattr(buffers, "SMALL", 0)  # aligned
        streamed, again = everything(current, backend="native")
        assert torch.equal(run.spikes, streamed.spikes)
        assert torch.equal(run.pre_reset, streamed.pre_reset)
        close(again, found, 0.0)

    def test_threads_are_used_again_and_keep_nothing(self) -> None:
        class Work:
            def __call__(self, piece: int) -> None:
                both.wait()  # so that two threads have a piece each

        count, both = torch.get_num_threads(), threading.Barrier(2, timeout=30)
        try:
            torch.set_num_threads(2)
            in_threads(Work(), range(2))
            known = set(sys._current_frames())
            for _ in range(20):
                work = Work()
                in_threads(work, range(2))
                gone = threading.Event()
                weakref.finalize(work, gone.set)
                del work
                assert gone.wait(30)
            assert set(sys._current_frames()) <= known
        finally:
            torch.set_num_threads(count)

    def test_a_forked_process_can_run_it(self) -> None:
        code = (
            "import os, threading, torch; from fracspike import FractionalLIF\n"
            "from fracspike.neurons.backends.numba.threads import crew\n"
            "torch.set_num_threads(2); lif = FractionalLIF(0.6); x = torch.rand(700, 200) * 2\n"
            "s = lif(x).sum()\n"
            "torch.set_num_threads(1) if os.fork() == 0 else os.wait()\n"
            "called = threading.Event(); crew.call(called.set); assert called.wait(30)\n"
            "assert lif(x).sum() == s; print('done')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.count("done") == 2


class TestOperators:
    def problem(self, **kwargs: Any) -> tuple[Problem, list[Tensor]]:
        lif = FractionalLIF(0.6, dt=0.5, surrogate="sigmoid", learn=("alpha", "tau", "threshold"), **kwargs)
        current = noise(6, 3, 5).requires_grad_()
        modes = lif.modes.find(F64, 6, resumed=True)
        problem = exact.pose(lif, current, lif.initial_state(current[0]), modes, traces=True)
        return problem, [*problem.moved, *problem.fixed]

    @pytest.mark.parametrize("backend", ["native", "torch"])
    @pytest.mark.parametrize("kwargs", [{}, {"refractory": 1.0, "reset": "value", "v_reset": 0.1}], ids=str)
    def test_opcheck(self, backend: str, kwargs: dict[str, Any]) -> None:
        problem, tensors = self.problem(**kwargs)
        options = problem.options.pack()
        bare = [x.detach() for x in tensors]
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator._integrate, (bare, options, backend), test_utils=utils)
        made = operator._integrate(bare, options, backend)
        slope, empty = 1 / (1 + made[1] ** 2), made[1].new_empty(0)
        arguments = [*tensors, *made, slope, empty]
        torch.library.opcheck(operator._attach, (arguments, options, backend), test_utils=utils)

    def test_compiled_whole(self) -> None:
        lif = FractionalLIF(0.6, surrogate="atan", learn=("alpha", "tau"))
        compiled = torch.compile(lif, fullgraph=True, backend="aot_eager")
        current = noise(20, 70, dtype=torch.float32).requires_grad_()
        weights = torch.linspace(0, 1, 20)[:, None]
        spikes = compiled(current)
        assert torch.equal(spikes, lif(current))
        wanted = [current, *lif.parameters()]
        found = torch.autograd.grad((weights * spikes).sum(), wanted)
        expected = torch.autograd.grad((weights * lif(current)).sum(), wanted)
        close(list(found), list(expected), 1e-6)
        with pytest.raises(ValueError, match="`current` must be finite"):
            compiled(torch.full((20, 70), math.nan, requires_grad=True))
