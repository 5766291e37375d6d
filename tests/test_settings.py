"""What a training is set up with: schedules, scores and random states, against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from fracspike.training import Noise, Settings, randomness
from fracspike.training.gradients import not_finite
from fracspike.training.noise import Dropout, Rows, rows


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0] * 10),
        ("cosine", [math.cos(math.pi * epoch / 20) ** 2 for epoch in range(10)]),
        ("staircase", [1.0, 1.0, 0.8, 0.8, 0.64, 0.64, 0.512, 0.512, 0.4096, 0.4096]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    settings = Settings(10, lr=3.0, schedule=schedule)
    assert [settings.rate(epoch) for epoch in range(10)] == pytest.approx([3.0 * f for f in expected])


def test_a_score_is_a_running_mean() -> None:
    settings, history = Settings(9, monitor="m", smoothing=0.25), list[dict[str, float]]()
    for metric in (4.0, 0.0, 8.0):
        history.append({"score": settings.score(history, {"m": metric})})
    assert [record["score"] for record in history] == [4.0, 3.0, 4.25]


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 4)])
def test_the_best_is_the_latest_among_equals(mode: str, best: int) -> None:
    history = [{"score": score} for score in (3.0, 1.0, 3.0, 2.0, 1.0)]
    assert Settings(9, mode=mode).best(history) == best


def test_patience_counts_the_epochs_after_the_best() -> None:
    settings = Settings(5, patience=2)
    scores = [{"score": score} for score in (1.0, 3.0, 2.0, 2.5, 2.6)]
    assert [settings.stops(scores[:n]) for n in range(6)] == [False, False, False, False, True, True]
    assert [Settings(5).stops(scores[:n]) for n in range(6)] == [False] * 5 + [True]


def test_noise_has_its_deviation_and_dropout_its_share() -> None:
    torch.manual_seed(0)
    x = torch.full((4, 50, 100), 3.0)
    noise = Noise(0.2)(x) - x
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    with rows(Rows(0, 50, 50, torch.Generator().manual_seed(1))):
        kept = Dropout(0.25)(x)
    assert kept.unique().tolist() == [0.0, 4.0]
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_random_states_come_back() -> None:
    def drawn() -> list[float]:
        return [torch.rand(()).item(), np.random.rand(), random.random(), random.gauss()]  # noqa: NPY002

    with randomness.preserved():
        randomness.seed_everything(2**32 + 5)
        random.gauss()  # of two numbers that are drawn together the second is kept
        before = randomness.state()
        first = drawn()
        drawn()
        randomness.restore(before)
        assert drawn() == first
        randomness.seed_everything(5)
        assert np.random.rand() == np.random.RandomState(5).rand()  # noqa: NPY002
        assert random.random() == random.Random(5).random()


def test_mixed_seeds_differ_by_every_number_and_their_order() -> None:
    seeds = [
        randomness.mix(numbers)
        for numbers in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 2, 1])
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) >= 2**60  # all bits are used


def test_a_large_gradient_is_finite_though_its_sum_is_not() -> None:
    line = nn.Linear(2, 1)
    line.weight.grad = torch.full((1, 2), 3e38)
    assert not_finite(line) is None
    line.bias.grad = torch.tensor([math.inf])
    assert not_finite(line) == "the gradient of `bias` is not finite (1 of 1 entries)"
