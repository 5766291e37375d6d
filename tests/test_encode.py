"""Encoders: against their formulas and, for random ones, against the distribution they draw from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fracspike as fs
from fracspike import encode


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_repeat_is_a_constant_current_without_a_copy() -> None:
    x = torch.rand(4, 3)
    current = encode.repeat(x, 10)
    assert current.shape == (10, 4, 3)
    assert bool((current == x).all())
    assert current.untyped_storage().nbytes() == x.untyped_storage().nbytes()


def test_rate_is_bernoulli_with_independent_steps() -> None:
    p = torch.tensor([0.0, 0.05, 0.3, 0.9, 1.0], dtype=torch.float64)
    n = 200_000
    spikes = encode.rate(p, n, generator=seeded())
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    sigma = (p * (1 - p) / n).sqrt()
    assert bool(((spikes.mean(0) - p).abs() <= 4.5 * sigma).all())
    centred = spikes - p
    lagged = (centred[1:] * centred[:-1]).mean(0)
    assert bool((lagged.abs() <= 4.5 * p * (1 - p) / math.sqrt(n)).all())


def test_intervals_of_the_rate_code_are_geometric() -> None:
    spikes = encode.rate(torch.tensor([0.2]), 200_000, generator=seeded())[:, 0]
    gaps = spikes.nonzero()[:, 0].diff()
    for k in range(1, 6):
        share = float((gaps == k).double().mean())
        assert share == pytest.approx(0.2 * 0.8 ** (k - 1), abs=0.01)


def test_rates_come_from_the_generator_given_or_the_global_seed() -> None:
    x = torch.rand(50)
    assert torch.equal(encode.rate(x, 20, generator=seeded(1)), encode.rate(x, 20, generator=seeded(1)))
    assert not torch.equal(encode.rate(x, 20, generator=seeded(1)), encode.rate(x, 20, generator=seeded(2)))
    torch.manual_seed(3)
    first = encode.rate(x, 20)
    torch.manual_seed(3)
    assert torch.equal(first, encode.rate(x, 20))


def test_gain_and_offset_and_sequences() -> None:
    x = torch.tensor([0.5, 2.0])
    spikes = encode.rate(x, 50_000, gain=0.25, offset=0.1, generator=seeded())
    assert torch.allclose(spikes.mean(0), 0.25 * x + 0.1, atol=0.01)
    course = torch.linspace(0, 1, 30).unsqueeze(1).expand(30, 20_000)
    assert torch.allclose(encode.rate_sequence(course, generator=seeded()).mean(1), course[:, 0], atol=0.02)


def test_linear_latency_is_its_formula() -> None:
    x = torch.linspace(0.01, 1, 100)
    times = encode.latency_times(x, 50)
    assert torch.equal(times, torch.round(49 * (1 - x.double())).long())
    assert encode.latency_times(torch.tensor([0.005]), 50).item() == 50


def test_log_latency_is_when_a_leaky_membrane_reaches_the_threshold() -> None:
    x = torch.tensor([0.011, 0.02, 0.1, 1.0, 7.0])
    times = encode.latency_times(x, 100, mode="log", tau=20.0, threshold=0.01)
    want = [round(20.0 * math.log(v / (v - 0.01))) for v in (0.011, 0.02, 0.1, 1.0, 7.0)]
    assert times.tolist() == want
    # the same from a neuron: a leaky integrator of that tau, driven by x
    membrane = fs.FractionalLI(1.0, tau=20.0, dt=0.01)
    course = membrane.simulate(encode.repeat(x[1:3].unsqueeze(0).double(), 6000)).voltage[:, 0]
    crossing = (course >= 0.01).int().argmax(0) + 1
    assert (0.01 * crossing).round().tolist() == want[1:3]


def test_latency_gives_each_input_at_most_one_spike() -> None:
    x = torch.rand(30, 7, generator=seeded())
    for mode in ("linear", "log"):
        spikes = encode.latency(x, 25, mode=mode, threshold=0.1)
        times = encode.latency_times(x, 25, mode=mode, threshold=0.1)
        assert torch.equal(spikes.sum(0), (times < 25).float())
        assert torch.equal(spikes.argmax(0)[times < 25], times[times < 25])
    assert encode.latency(torch.tensor([0.05]), 25, threshold=0.1).sum() == 0


def test_delta_spikes_where_the_signal_moves() -> None:
    x = torch.tensor([0.0, 1.0, 1.2, 1.2, 0.1, -1.0]).unsqueeze(1)
    assert encode.delta(x, 0.5)[:, 0].tolist() == [0, 1, 0, 0, 0, 0]
    assert encode.delta(x, 0.5, channels="off")[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert encode.delta(x, 0.5, channels="signed")[:, 0].tolist() == [0, 1, 0, 0, -1, -1]
    both = encode.delta(x, 0.5, channels="both")
    assert both.shape == (6, 1, 2)
    assert torch.equal(both[:, :, 0] - both[:, :, 1], encode.delta(x, 0.5, channels="signed"))


def test_population_codes_tile_the_range() -> None:
    x = torch.linspace(-1, 1, 9)
    responses = encode.population(x, 9, low=-1.0, high=1.0)
    assert torch.allclose(responses.diagonal(), torch.ones(9))
    sigma = 2.0 / (1.5 * 8)
    assert responses[0, 1].item() == pytest.approx(math.exp(-0.5 * (0.25 / sigma) ** 2), rel=1e-5)


def test_encoders_as_the_first_layer_of_a_network() -> None:
    net = nn.Sequential(encode.Encoder("rate", 12), nn.Linear(3, 4), fs.FractionalLIF(0.7))
    assert net(torch.rand(5, 3)).shape == (12, 5, 4)
    assert "'latency', steps=8, mode='log'" in repr(encode.Encoder("latency", 8, mode="log"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_follows_the_input(dtype: torch.dtype) -> None:
    x = torch.rand(3, 2).to(dtype)
    made: list[Tensor] = [
        encode.repeat(x, 4),
        encode.rate(x, 4),
        encode.rate_sequence(x),
        encode.latency(x, 4),
        encode.delta(x),
        encode.population(x, 3),
    ]
    assert all(tensor.dtype == dtype for tensor in made)


def test_what_is_wrong_is_said() -> None:
    x = torch.rand(3)
    with pytest.raises(ValueError, match=r"gain \* x \+ offset` must lie in \[0, 1\], got 2 to 2"):
        encode.rate(torch.tensor([2.0]), 5)
    with pytest.raises(ValueError, match="or use mode='log'"):
        encode.latency(torch.tensor([2.0]), 5)
    with pytest.raises(ValueError, match="must be finite"):
        encode.rate(torch.tensor([float("nan")]), 5)
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        encode.rate(torch.tensor([1]), 5)
    with pytest.raises(ValueError, match="`steps` must be >= 1"):
        encode.repeat(x, 0)
    with pytest.raises(ValueError, match="`mode` must be one of 'linear', 'log'"):
        encode.latency(x, 5, mode="exp")
    with pytest.raises(ValueError, match="`channels` must be one of"):
        encode.delta(x, channels="up")
    with pytest.raises(ValueError, match="`high` must be > 1"):
        encode.population(x, 3, low=1.0, high=0.0)
    with pytest.raises(ValueError, match="`name` must be one of 'latency', 'rate', 'repeat'"):
        encode.Encoder("poisson", 4)
