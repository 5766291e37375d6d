"""A state knows what made it; only what fits may go on from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from neuron_cases import CASES, build, current

from fracspike.neurons import NEURONS, FractionalIF, FractionalLIF
from fracspike.solvers import Exponentials, Full, Window, mittag_leffler

F64 = torch.float64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dt": 0.3}, "`state` must come from a neuron of dt 0.3, got one of"),
        ({"alpha": 0.65}, r"a neuron of alpha 0\.65, got one of 0\.7"),
        ({"memory": Window(7)}, r"a neuron of memory Window\(.*7\), got one of"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", CASES)
def test_a_state_of_other_constants_is_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    drive = current(name, 6)
    state = build(name).simulate(drive).state
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs).simulate(drive, state)
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)(drive, state)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tau": 3.0}, "a neuron of tau 3, got one of 2"),
        ({"v_rest": 0.1}, "a neuron of v_rest 0.1, got one of 0"),
        ({"reset_memory": "restart"}, "a neuron of reset_memory restart, got one of jump"),
        ({"method": "l1"}, "a neuron of method l1, got one of exact"),
        ({"memory": Full()}, r"a neuron of memory Full\(\), got one of Exponentials"),
        ({"alpha": torch.tensor([0.7, 0.7])}, r"a neuron of alpha 0\.7\.\.0\.7, got one of 0\.7"),
    ],
    ids=str,
)
def test_a_state_of_another_lif_is_refused(kwargs: dict[str, Any], message: str) -> None:
    state = FractionalLIF(0.7).simulate(torch.ones(5, 2)).state
    with pytest.raises(ValueError, match=message):
        FractionalLIF(**({"alpha": 0.7} | kwargs)).simulate(torch.ones(5, 2), state)


@pytest.mark.parametrize("one", CASES)
def test_a_state_of_another_model_is_refused(one: str) -> None:
    state = build(one).simulate(current(one, 3)).state
    start = build(one).initial_state(current(one, 1)[0])
    for other in CASES:
        if other != one:
            expected = f"a neuron of model {NEURONS[other].__name__}, got one of {NEURONS[one].__name__}"
            for wrong in (state, start):
                with pytest.raises(ValueError, match=expected):
                    build(other).simulate(current(other, 3), wrong)


def test_an_equal_neuron_goes_on() -> None:
    """Its threshold is another matter: no part of the past."""
    x = torch.rand(8, 2, dtype=F64)
    state = FractionalLIF(0.7).simulate(x).state
    expected = FractionalLIF(0.7).simulate(x, state).voltage
    assert torch.equal(FractionalLIF(0.7).double().simulate(x, state).voltage, expected)
    FractionalLIF(0.7, threshold=2.0, resistance=3.0).simulate(x, state)


def test_a_state_with_no_past_fits_any_constants() -> None:
    x = torch.rand(8, 2)
    start = FractionalLIF(0.7).initial_state(x[0], v=0.5)
    found = FractionalLIF(0.3, dt=0.5, memory=Full()).simulate(x, start).voltage
    own = FractionalLIF(0.3, dt=0.5, memory=Full())
    assert torch.equal(found, own.simulate(x, own.initial_state(x[0], v=0.5)).voltage)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("izhikevich", "adex")])
@pytest.mark.parametrize("kwargs", [{}, {"method": "l1"}], ids=str)
def test_truncated_backpropagation_goes_on_over_steps_of_an_optimiser(
    name: str, kwargs: dict[str, Any]
) -> None:
    layer = build(name, learn=("alpha", "tau"), **kwargs)
    optimizer, state = torch.optim.Adam(layer.parameters(), lr=0.05), None
    for _ in range(4):
        run = layer.simulate(current(name, 10), state)
        optimizer.zero_grad()
        run.voltage.pow(2).mean().backward()
        optimizer.step()
        state = run.state.detach()
    assert (layer.alpha != 0.7).all()
    assert torch.isfinite(run.voltage).all()


def test_a_jump_of_what_is_learned_is_no_step_of_an_optimiser() -> None:
    layer, x = FractionalLIF(0.5, learn=("alpha", "tau")), torch.rand(6, 2)
    state = layer.simulate(x).state
    layer.load_state_dict(FractionalLIF(0.9, learn=("alpha", "tau")).state_dict())
    with pytest.raises(ValueError, match=r"a neuron of alpha 0\.9, got one of 0\.5"):
        layer.simulate(x, state)
    layer = FractionalLIF(0.5, learn=("alpha", "tau"))
    layer.load_state_dict(FractionalLIF(0.5, tau=4.0, learn=("alpha", "tau")).state_dict())
    with pytest.raises(ValueError, match="a neuron of tau 4, got one of 2"):
        layer.simulate(x, state)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("shrinks", [True, False])
def test_a_drift_over_many_chunks_stops_where_the_modes_no_longer_serve(shrinks: bool, backend: str) -> None:
    """Each step is small; together they leave the times for which the rates were fitted."""
    memory = Exponentials(1e-6, horizon=200)
    layer = FractionalLIF(0.6, tau=2.0, learn="tau", memory=memory, backend=backend, reset="none")
    x, state, factor = torch.rand(10, 2, dtype=F64), None, 0.9 if shrinks else 1.1
    with pytest.raises(ValueError, match="`state` must come from a neuron of about this tau"):  # noqa: PT012
        for _ in range(19):
            state = layer.simulate(x, state).state.detach()
            layer.tau = layer.tau.detach() * factor
            assert state.grid is not None
            step = layer.dt / layer.tau.detach()
            if 0.8 * state.grid.first <= step and (state.steps + 10) * step <= state.grid.last:  # it goes on
                lags = torch.arange(1, state.steps + 10, dtype=F64)
                decay, weights = 1 - state.grid.losses(step), state.grid.weights(torch.tensor(0.6))
                expected = mittag_leffler(-((lags * step) ** 0.6), 0.6)
                torch.testing.assert_close(
                    (weights * decay ** lags[:, None]).sum(1), expected, rtol=3e-5, atol=0
                )


def test_a_state_of_an_integrator_in_a_leaky_neuron() -> None:
    x = torch.full((60, 1), 5.0)
    state = FractionalIF(0.7, reset="none").simulate(x).state
    with pytest.raises(ValueError, match="a neuron of model FractionalLIF, got one of FractionalIF"):
        FractionalLIF(0.7, reset="none").simulate(x, state)
