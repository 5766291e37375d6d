"""States on disk: plain data, which torch reads without running code from the file."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from neuron_cases import CASES, LINEAR, build, current

from fracspike.solvers import Exponentials, fdeint


def reread(value: object) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_goes_on_from_a_file(name: str) -> None:
    layer = build(name, **({"backend": "torch"} if name in LINEAR else {}))
    x = current(name, 12, 2, 3)
    whole = layer.simulate(x)
    first = layer.simulate(x[:7])
    second = layer.simulate(x[7:], state=reread(first.state))
    assert torch.allclose(second.voltage, whole.voltage[7:], rtol=1e-9, atol=1e-9)
    assert torch.equal(second.spikes, whole.spikes[7:])


@pytest.mark.parametrize("memory", [None, Exponentials(1e-6)], ids=str)
def test_a_solve_goes_on_from_a_file(memory: Exponentials | None) -> None:
    def rhs(t: torch.Tensor, y: Any) -> Any:
        return -y[0], y[0] - y[1]

    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    y0 = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    whole = fdeint(rhs, y0, t, 0.6, memory=memory)
    _, state = fdeint(rhs, y0, t[:11], 0.6, memory=memory, return_state=True)
    rest = fdeint(rhs, reread(state), t[10:], 0.6, memory=memory)
    assert torch.allclose(rest[1], whole[1][10:], rtol=1e-6, atol=1e-6)
