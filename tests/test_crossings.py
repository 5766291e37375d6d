"""Neurons without a reset spike at upward crossings; judged by SciPy and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fracspike.neurons import FractionalIzhikevich, FractionalNeuron

F64 = torch.float64
START = (-65.0, 0.3177, 0.0529, 0.5961)


class HodgkinHuxley(FractionalNeuron):
    """Hodgkin and Huxley (1952), without a reset."""

    variables = ("v", "n", "m", "h")
    constants = {"g_Na": 120.0, "g_K": 36.0, "g_L": 0.3, "level": 0.0}  # noqa: RUF012

    def rest(self) -> tuple[float, ...]:
        return START

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
        v, n, m, h = variables
        ions = self.g_Na * m**3 * h * (v - 50) + self.g_K * n**4 * (v + 77) + self.g_L * (v + 54.4)
        opening_n = 0.01 * (v + 55) / (1 - torch.exp(-(v + 55) / 10))
        opening_m = 0.1 * (v + 40) / (1 - torch.exp(-(v + 40) / 10))
        return (
            current - ions,
            opening_n * (1 - n) - 0.125 * torch.exp(-(v + 65) / 80) * n,
            opening_m * (1 - m) - 4 * torch.exp(-(v + 65) / 18) * m,
            0.07 * torch.exp(-(v + 65) / 20) * (1 - h) - h / (1 + torch.exp(-(v + 35) / 10)),
        )

    def excess(self, *variables: Tensor) -> Tensor:
        return variables[0] - self.level


class Follower(FractionalNeuron):
    """Dv = I: at order 1 the potential is the sum of the input."""

    variables = ("v",)
    constants = {"level": 1.0}  # noqa: RUF012

    def rest(self) -> tuple[float]:
        return (0.0,)

    def rhs(self, current: Tensor, *variables: Tensor) -> tuple[Tensor]:
        return (current,)

    def excess(self, *variables: Tensor) -> Tensor:
        return variables[0] - self.level


def along(path: list[float], **kwargs: object) -> list[float]:
    """The spikes of a potential that takes these values, from 0."""
    current = torch.diff(torch.tensor([0.0, *path], dtype=F64))[:, None]
    run = Follower(1.0, dt=1.0, **kwargs).simulate(current)  # type: ignore[arg-type]
    torch.testing.assert_close(run.voltage[:, 0], torch.tensor(path, dtype=F64))
    return run.spikes[:, 0].tolist()


def test_hodgkin_huxley_spikes_as_often_as_scipy_crosses() -> None:
    dt, steps = 0.02, 2750
    neuron = HodgkinHuxley(1.0, dt=dt)
    run = neuron.simulate(torch.full((steps, 1), 10.0, dtype=F64))

    def field(_: float, y: np.ndarray) -> list[float]:
        x = [torch.tensor(value, dtype=F64) for value in y]
        return [float(rate) for rate in neuron.rhs(torch.tensor(10.0, dtype=F64), *x)]

    times = dt * np.arange(steps + 1)
    v = solve_ivp(field, (0, times[-1]), START, t_eval=times, rtol=1e-7, atol=1e-9).y[0]
    expected = times[1:][(v[1:] >= 0) & (v[:-1] < 0)]
    found = dt * (1 + run.spikes[:, 0].nonzero()[:, 0].numpy())
    assert len(expected) == 4
    assert (run.voltage >= 0).sum() > 100
    np.testing.assert_allclose(found, expected, atol=3 * dt)


def test_a_spike_is_where_the_excess_rises_to_zero() -> None:
    assert along([0.5, 1.0, 1.5, 1.0, 0.9, 1.2, 1.3]) == [0, 1, 0, 0, 0, 1, 0]
    assert along([0.5, 0.9], level=-1.0) == [0, 0]  # above from the start: no crossing


def test_a_dead_time_leaves_out_what_comes_too_soon() -> None:
    path = [2.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]
    assert along(path) == [1, 0, 1, 0, 1, 0, 0, 1]
    assert along(path, dead_time=2.0) == [1, 0, 0, 0, 1, 0, 0, 1]  # two steps: the third is free
    assert along(path, dead_time=4.0) == [1, 0, 0, 0, 0, 0, 0, 1]  # the crossing at 5 is lost for good


@pytest.mark.parametrize("dead_time", [0.0, 8.0])
def test_chunks_equal_the_whole(dead_time: float) -> None:
    neuron = HodgkinHuxley(0.95, dt=0.04, dead_time=dead_time)
    drive = torch.full((600, 2), 25.0, dtype=F64)
    whole = neuron.simulate(drive)
    above = (whole.voltage[:, 0] >= 0).nonzero()[0].item()  # cut in the midst of an action potential
    state, parts = None, []
    for chunk in drive.split([above, 1, 2, 100, 600 - above - 103]):
        run = neuron.simulate(chunk, state)
        state = run.state
        parts.append(run.spikes)
    assert whole.spikes[:, 0].sum() >= 2
    assert torch.equal(whole.spikes, torch.cat(parts))


@pytest.mark.parametrize("detour", ["whole", "chunks"])
def test_the_gradient_of_a_soft_crossing_is_that_of_finite_differences(detour: str) -> None:
    neuron = Follower(0.7, dt=0.5, surrogate=torch.sigmoid, learn=("level", "alpha"))
    drive = torch.rand(8, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) - 0.3

    def spikes(current: Tensor) -> Tensor:
        if detour == "whole":
            return neuron(current)
        first = neuron.simulate(current[:3])
        return torch.cat([first.spikes, neuron(current[3:], first.state)])

    assert torch.autograd.gradcheck(spikes, drive.requires_grad_())
    loss = (torch.arange(8)[:, None] * spikes(drive)).sum()
    found = torch.autograd.grad(loss, list(neuron.parameters()))
    for parameter, gradient in zip(neuron.parameters(), found, strict=True):
        values = []
        for shift in (1e-5, -2e-5):
            with torch.no_grad():
                parameter.add_(shift)
                values.append((torch.arange(8)[:, None] * spikes(drive)).sum())
        with torch.no_grad():
            parameter.add_(1e-5)
        torch.testing.assert_close(gradient, (values[0] - values[1]) / 2e-5, rtol=1e-6, atol=1e-8)


class TestArguments:
    def test_a_reset_that_does_nothing_is_named(self) -> None:
        class Same(Follower):
            def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
                return variables

        class EveryStep(Same):
            crossings = False

        with pytest.raises(ValueError, match=r"`Same.reset` returns what it was given.*leave `reset` out"):
            Same(1.0)(torch.ones(3, 1))
        assert EveryStep(1.0, dt=1.0)(torch.ones(3, 1)).sum() == 3

    def test_crossings_go_with_a_reset(self) -> None:
        class Counting(Follower):
            crossings = True

            def reset(self, spike: Tensor, *variables: Tensor) -> tuple[Tensor, ...]:
                return (variables[0] - 0.25 * spike,)  # stays above

        assert Counting(1.0, dt=1.0)(2 * torch.ones(3, 1)).sum() == 1

    def test_what_says_nothing_without_a_reset_is_refused(self) -> None:
        with pytest.raises(
            ValueError, match="`reset_memory` must be left out of Follower, which has no reset"
        ):
            Follower(reset_memory="restart")
        with pytest.raises(ValueError, match="`detach_reset` must be left out of Follower"):
            Follower(detach_reset=True)
        with pytest.raises(ValueError, match="`dead_time` must be 0 for FractionalIzhikevich, got 2"):
            FractionalIzhikevich(dead_time=2.0)
        with pytest.raises(ValueError, match=r"`dead_time` must be a multiple of dt=0\.1, got 0\.25"):
            Follower(dead_time=0.25)
