"""The noisy threshold: five modes, one draw a call, reproducible noise with the right distribution."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from fracspike.surrogate import NoisyThreshold, get, noisy_threshold
from fracspike.surrogate.noisy import MODES, logistic_noise

X = torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.4], dtype=torch.float64)


def sigma(y: float) -> float:
    return 1 / (1 + math.exp(-y))


def noise_of(seed: int) -> torch.Tensor:
    """The noise of a generator with this seed, by the definition log u - log(1 - u)."""
    u = torch.rand(X.shape, dtype=X.dtype, generator=torch.Generator().manual_seed(seed))
    return u.log() - (1 - u).log()


def run(mode: str, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    x = X.clone().requires_grad_()
    generator = torch.Generator().manual_seed(3)
    spikes = NoisyThreshold(scale=5.0, mode=mode, temperature=0.5, generator=generator, **options)(x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    return spikes.detach(), grad


def test_modes_by_their_definition() -> None:
    e, z = noise_of(3), 5 * X
    slope = lambda y: torch.sigmoid(y) * torch.sigmoid(-y)  # noqa: E731
    expected = {
        "soft": (torch.sigmoid(z + e), 5 * slope(z + e)),
        "meanfield": (torch.sigmoid(z), 5 * slope(z)),
        "hard_st": ((z + e >= 0).double(), 5 * slope(z)),
        "concrete": (torch.sigmoid((z + e) / 0.5), 10 * slope((z + e) / 0.5)),
        "hard_concrete": ((z + e >= 0).double(), 5 * slope(z + e)),
    }
    assert set(expected) == set(MODES)
    for mode, (spikes, grad) in expected.items():
        got = run(mode)
        torch.testing.assert_close(got[0], spikes, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(got[1], grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["hard_st", "hard_concrete"])
def test_hard_samples_average_to_the_sigmoid(mode: str) -> None:
    draws = 40_000
    points = [-0.6, -0.2, 0.0, 0.1, 0.5]
    s = NoisyThreshold(scale=5.0, mode=mode, generator=torch.Generator().manual_seed(0))
    spikes = s(torch.tensor(points).expand(draws, -1))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    for mean, x in zip(spikes.mean(0).tolist(), points, strict=True):
        p = sigma(5.0 * x)
        assert abs(mean - p) < 5 * math.sqrt(p * (1 - p) / draws)


def test_noise_is_logistic() -> None:
    from scipy.stats import kstest

    e = logistic_noise(torch.zeros(20_000), torch.Generator().manual_seed(1))
    assert kstest(e.numpy(), "logistic").pvalue > 0.01
    assert e.var().item() == pytest.approx(math.pi**2 / 3, rel=0.05)


def test_noise_is_finite_at_both_ends_of_the_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    for end in (0.0, 1.0):
        monkeypatch.setattr(
            torch, "rand", lambda shape, end=end, **k: torch.full(shape, end, dtype=k["dtype"])
        )
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            assert torch.isfinite(logistic_noise(torch.zeros(3, dtype=dtype))).all()


def test_evaluation_is_the_hard_step_with_the_mean_gradient() -> None:
    s = NoisyThreshold(scale=5.0).eval()
    x = X.clone().requires_grad_()
    spikes = s(x)
    assert torch.equal(spikes, (X >= 0).double())
    assert torch.equal(s(x), spikes)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    expected = [5 * sigma(5 * v) * (1 - sigma(5 * v)) for v in X.tolist()]
    torch.testing.assert_close(grad, torch.tensor(expected, dtype=torch.float64))
    assert s.train().training


def test_reproducible_from_seed_and_from_generator() -> None:
    s = NoisyThreshold()
    torch.manual_seed(5)
    first, second = s(X), s(X)
    torch.manual_seed(5)
    assert torch.equal(s(X), first)
    assert not torch.equal(first, second)  # a fresh draw in every call
    twins = [NoisyThreshold(generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(twins[0](X), twins[1](X))
    torch.manual_seed(5)
    twins[0](X)
    assert torch.equal(s(X), first)  # a generator of its own leaves the global stream alone


def test_one_draw_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *a, **k: calls.append(1) or draw(*a, **k))
    for mode in MODES:
        calls.clear()
        run(mode)
        assert len(calls) == (0 if mode == "meanfield" else 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_dtype_kept_and_finite(mode: str, dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    x = torch.tensor([-most, -1.0, -0.0, 0.0, 1.0, most], dtype=dtype, requires_grad=True)
    spikes = NoisyThreshold(mode=mode)(x)
    spikes.sum().backward()
    assert spikes.dtype == dtype
    assert torch.isfinite(spikes).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    nan = NoisyThreshold(mode=mode)(torch.tensor([math.nan], dtype=dtype))
    assert nan.isnan().all()


def test_half_precision_keeps_rare_spikes() -> None:
    x = torch.full((200_000,), -1.4, dtype=torch.bfloat16)
    s = NoisyThreshold(scale=5.0, mode="hard_st", generator=torch.Generator().manual_seed(0))
    p = sigma(5 * float(x[0]))
    mean = s(x).float().mean().item()
    assert abs(mean - p) < 5 * math.sqrt(p / 200_000)


@pytest.mark.parametrize("mode", MODES)
def test_learnable_scale(mode: str) -> None:
    def spikes(scale: float) -> torch.Tensor:
        s = NoisyThreshold(scale=scale, mode=mode, learnable=("scale",))
        s.generator = torch.Generator().manual_seed(4)
        return s.double()(X), s

    out, s = spikes(5.0)
    out.sum().backward()
    h = 1e-5
    smooth = {"hard_st": "meanfield", "hard_concrete": "soft"}.get(mode, mode)
    values = []
    for scale in (5.0 * math.exp(h), 5.0 * math.exp(-h)):
        twin = NoisyThreshold(scale=scale, mode=smooth, generator=torch.Generator().manual_seed(4))
        values.append(twin(X).sum().item())
    assert s.log_scale.grad.item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_copies() -> None:
    s = NoisyThreshold(scale=3.0, mode="hard_st", generator=torch.Generator().manual_seed(2))
    for twin in (copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        assert repr(twin) == repr(s) == "NoisyThreshold(scale=3.0, mode='hard_st', temperature=0.25)"
    assert torch.equal(copy.deepcopy(s)(X), s(X))


def test_function_and_names_of_spikede() -> None:
    for training, sample, mode in ((True, True, "soft"), (True, False, "meanfield"), (False, True, "soft")):
        torch.manual_seed(1)
        a = noisy_threshold(X, scale=4.0, training=training, sample=sample)
        torch.manual_seed(1)
        assert torch.equal(a, NoisyThreshold(scale=4.0, mode=mode).train(training)(X))
    assert repr(get("spikede.noisy_threshold")) == (
        "NoisyThreshold(scale=5.0, mode='hard_concrete', temperature=0.25)"
    )
    assert get("spikede.noisy_threshold", gamma=0.5, train_spike_mode="soft_noisy").scale == 2.0
    assert get("spikede.noisy_threshold_spike", sample=False).mode == "meanfield"


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'hard_st'"):
        NoisyThreshold(mode="hard")
    with pytest.raises(TypeError, match="`generator`"):
        NoisyThreshold(generator=3)
    with pytest.raises(ValueError, match="need `mode` among"):
        NoisyThreshold(mode="soft", normalize="peak")
    with pytest.raises(ValueError, match="`scale`"):
        noisy_threshold(X, scale=-1.0)
    with pytest.raises(TypeError, match="floating"):
        NoisyThreshold()(torch.ones(2, dtype=torch.long))


def test_vmap_draws_apart_and_compiles() -> None:
    s = NoisyThreshold(mode="hard_st")
    out = torch.vmap(s, randomness="different")(torch.zeros(64, 8))
    assert not torch.equal(out[0], out[1])
    grads = torch.func.grad(lambda x: s(x).sum())(torch.zeros(3))
    torch.testing.assert_close(grads, torch.full((3,), 1.25))
