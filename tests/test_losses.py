"""Losses: against their formulas written out, closed forms, and finite differences."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor

import fracspike as fs
from fracspike import losses

T, B, C = 12, 5, 4


@pytest.fixture
def spikes() -> Tensor:
    return (torch.rand(T, B, C, generator=torch.Generator().manual_seed(0)) < 0.3).double()


@pytest.fixture
def targets() -> Tensor:
    return torch.tensor([0, 3, 1, 1, 2])


def log_softmax(scores: list[float], of: int) -> float:
    return scores[of] - math.log(sum(math.exp(s) for s in scores))


def test_cross_entropies_written_out(spikes: Tensor, targets: Tensor) -> None:
    counts = spikes.sum(0).tolist()
    want = -sum(log_softmax(counts[b], int(targets[b])) for b in range(B)) / B
    assert losses.ce_count_loss(spikes, targets).item() == pytest.approx(want)
    steps = spikes.tolist()
    want = -sum(log_softmax(steps[n][b], int(targets[b])) for n in range(T) for b in range(B)) / (T * B)
    assert losses.ce_rate_loss(spikes, targets).item() == pytest.approx(want)
    voltage = torch.randn(T, B, C, dtype=torch.float64)
    peaks = voltage.max(0).values.tolist()
    want = -sum(log_softmax(peaks[b], int(targets[b])) for b in range(B)) / B
    assert losses.ce_max_membrane_loss(voltage, targets).item() == pytest.approx(want)


def test_squared_errors_written_out(spikes: Tensor, targets: Tensor) -> None:
    wanted = [[0.75 * T if c == targets[b] else 0.25 * T for c in range(C)] for b in range(B)]
    counts = spikes.sum(0).tolist()
    want = sum((counts[b][c] - wanted[b][c]) ** 2 for b in range(B) for c in range(C)) / (B * C * T)
    got = losses.mse_count_loss(spikes, targets, correct_rate=0.75, incorrect_rate=0.25)
    assert got.item() == pytest.approx(want)
    voltage = torch.full((T, B, C), 0.5, dtype=torch.float64)
    assert losses.mse_membrane_loss(voltage, targets).item() == pytest.approx(0.25)
    assert losses.mse_membrane_loss(voltage, targets, correct=0.5).item() == pytest.approx(0.25 * 3 / 4)


@pytest.mark.filterwarnings("ignore")
def test_losses_of_the_same_name_in_snntorch(spikes: Tensor, targets: Tensor) -> None:
    pytest.importorskip("snntorch")
    theirs = importlib.import_module("snntorch.functional")
    train = spikes.float()
    for name in (
        "ce_rate_loss",
        "ce_count_loss",
        "ce_max_membrane_loss",
        "mse_count_loss",
        "mse_membrane_loss",
    ):
        want = getattr(theirs, name)()(train, targets)
        assert getattr(losses, name)(train, targets).item() == pytest.approx(want.item(), rel=1e-5), name
    accuracy = theirs.accuracy_rate(train, targets)
    assert losses.accuracy_rate(train, targets) == pytest.approx(float(accuracy))


def test_first_spike_times_and_their_gradient(spikes: Tensor) -> None:
    times = losses.first_spike_time(spikes)
    for b in range(B):
        for c in range(C):
            train = spikes[:, b, c].tolist()
            assert times[b, c].item() == (train.index(1.0) if 1.0 in train else T)
    soft = torch.rand(6, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.first_spike_time, (soft,))
    late = spikes.clone().requires_grad_()
    losses.first_spike_time(late).sum().backward()
    assert bool((late.grad <= 0).all())  # a spike more is never later
    assert bool((late.grad[0] < 0).all())


def test_temporal_losses(spikes: Tensor, targets: Tensor) -> None:
    times = losses.first_spike_time(spikes).tolist()
    want = -sum(log_softmax([-0.5 * t for t in times[b]], int(targets[b])) for b in range(B)) / B
    assert losses.ce_temporal_loss(spikes, targets, scale=0.5).item() == pytest.approx(want)
    wanted = torch.full((B, C), 3.0)
    want = sum(((times[b][c] - 3.0) / T) ** 2 for b in range(B) for c in range(C)) / (B * C)
    assert losses.mse_temporal_loss(spikes, wanted).item() == pytest.approx(want)
    assert losses.mse_temporal_loss(spikes, torch.tensor(times)).item() == 0


def test_van_rossum_has_its_closed_forms() -> None:
    def train(*steps: int) -> Tensor:
        made = torch.zeros(200, 1, dtype=torch.float64)
        made[list(steps)] = 1
        return made

    tau = 7.0
    distance = lambda a, b, dt=1.0: losses.van_rossum_loss(a, b, tau=tau, dt=dt).item()  # noqa: E731
    assert distance(train(30), train()) == pytest.approx(0.5)
    assert distance(train(199), train()) == pytest.approx(0.5)  # the tail after the last step counts
    assert distance(train(30), train(30)) == 0
    for gap in (1, 5, 40):
        assert distance(train(30), train(30 + gap)) == pytest.approx(1 - math.exp(-gap / tau))
        assert distance(train(30), train(30 + gap), 0.5) == pytest.approx(1 - math.exp(-0.5 * gap / tau))
    # n spikes against none: the sum over all pairs, half of exp(-|t_i - t_j| / tau)
    steps = (3, 10, 11, 90)
    want = 0.5 * sum(math.exp(-abs(i - j) / tau) for i in steps for j in steps)
    assert distance(train(*steps), train()) == pytest.approx(want)


def test_van_rossum_is_the_integral_it_says() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = ((torch.rand(30, generator=generator) < 0.3).double() for _ in range(2))
    t = torch.linspace(0, 120, 1_200_001, dtype=torch.float64)
    traces = []
    for train in (a, b):
        f = torch.zeros_like(t)
        for k in train.nonzero()[:, 0].tolist():
            f += torch.where(t >= k, torch.exp(-(t - k) / 4.0), 0.0)
        traces.append(f)
    want = torch.trapezoid((traces[0] - traces[1]) ** 2, t).item() / 4.0
    got = losses.van_rossum_loss(a.unsqueeze(1), b.unsqueeze(1), tau=4.0).item()
    assert got == pytest.approx(want, rel=1e-3)


def test_accuracies() -> None:
    out = torch.zeros(6, 3, 2)
    out[1, 0, 1] = out[2, 0, 0] = out[3, 0, 0] = 1  # class 1 first, class 0 more often
    out[0, 1, 0] = 1
    labels = torch.tensor([1, 0, 0])  # the third sample is silent
    assert losses.accuracy_temporal(out, labels) == pytest.approx(2 / 3)
    assert losses.accuracy_rate(out, labels) == pytest.approx(2 / 3)  # silence counts as class 0
    assert losses.accuracy_rate(out, torch.tensor([0, 0, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "loss",
    [
        losses.ce_rate_loss,
        losses.ce_count_loss,
        losses.mse_count_loss,
        losses.ce_temporal_loss,
        lambda s, y: losses.van_rossum_loss(s, torch.zeros_like(s), tau=3.0),
    ],
)
def test_gradients_reach_a_network_through_its_surrogate(loss, targets: Tensor) -> None:
    torch.manual_seed(4)  # some weights let no neuron spike, and then one of the losses is zero
    net = torch.nn.Sequential(torch.nn.Linear(6, C), fs.FractionalLIF(0.6, resistance=3.0))
    loss(net(torch.rand(T, B, 6)), targets).backward()
    assert bool((net[0].weight.grad != 0).any())


def test_what_is_wrong_is_said(spikes: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(T, B, C\), got \(12, 5\)"):
        losses.ce_rate_loss(spikes[:, :, 0], targets)
    with pytest.raises(ValueError, match=r"classes of shape \(5,\), whole numbers"):
        losses.ce_rate_loss(spikes, targets.float())
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3, got 0\.\.4"):
        losses.ce_rate_loss(spikes, torch.tensor([0, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match="`outputs` must be finite"):
        losses.ce_count_loss(spikes / 0, targets)
    with pytest.raises(ValueError, match="`tau` must be > 0"):
        losses.van_rossum_loss(spikes, spikes, tau=0.0)
    with pytest.raises(ValueError, match=r"`targets` must have shape \(12, 5, 4\)"):
        losses.van_rossum_loss(spikes, spikes[0], tau=1.0)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got 2"):
        losses.mse_count_loss(spikes, targets, correct_rate=2.0)
