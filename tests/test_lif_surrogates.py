"""`surrogate=` of the neuron and the command line: every way to say which, and other libraries' objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fracspike import FractionalLIF, cli
from fracspike.surrogate import ATan, NoisyThreshold, Sigmoid, SpikeFunction, get, names
from fracspike.surrogate.noisy import MODES

F64 = torch.float64


def current() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 1.0 + torch.rand(40, 3, generator=generator, dtype=F64)


def driven(surrogate: object, alpha: float = 0.7) -> tuple[Tensor, Tensor]:
    """The spikes of a neuron and the gradient of their weighted sum in the current."""
    x = current().requires_grad_()
    spikes = FractionalLIF(alpha=alpha, tau=4.0, surrogate=surrogate)(x)  # type: ignore[arg-type]
    weights = torch.linspace(1.0, 2.0, len(x), dtype=F64)[:, None]
    return spikes.detach(), torch.autograd.grad((weights * spikes).sum(), x)[0]


def same(one: object, other: object) -> None:
    (spikes, gradient), (expected_spikes, expected_gradient) = driven(one), driven(other)
    assert torch.equal(spikes, expected_spikes)
    assert 10 < spikes.sum() < 100
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)  # peers round to single


def atan_derivative(x: Tensor) -> Tensor:
    """Derivative of the arc tangent at alpha = 2, from the formula."""
    return 1 / (1 + (torch.pi * x) ** 2)


class OwnStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return grad * atan_derivative(x)


class OwnModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return OwnStep.apply(x)


@pytest.mark.parametrize(
    "surrogate",
    [
        "atan",
        "ATan",
        "atan:alpha=2",
        "spikingjelly.ATan",
        "snntorch.atan",
        ATan,
        ATan(alpha=2.0),
        get("atan", alpha=2.0),
        OwnModule,
        OwnModule(),
        OwnStep.apply,
        lambda x: SpikeFunction.apply(x, atan_derivative, False),
    ],
    ids=lambda s: getattr(s, "__name__", None) or str(s),
)
def test_every_way_to_say_which(surrogate: object) -> None:
    same(surrogate, OwnStep)


def test_the_parameter_after_the_name_counts() -> None:
    assert not torch.equal(driven("atan:alpha=5")[1], driven("atan")[1])
    same("atan:alpha=5", ATan(alpha=5.0))


@pytest.mark.parametrize(
    ("build", "ours"),
    [
        (lambda s: s.atan(alpha=2.0), "snntorch.atan:alpha=2"),
        (lambda s: s.atan(alpha=5.0), "atan:alpha=5"),
        (lambda s: s.fast_sigmoid(slope=10), "fast_sigmoid:slope=10"),
        (lambda s: s.sigmoid(slope=5), "snntorch.sigmoid:slope=5"),
    ],
)
def test_snntorch_closures(build: Callable[[object], object], ours: str) -> None:
    theirs = pytest.importorskip("snntorch.surrogate", reason="snnTorch is not installed")
    same(build(theirs), ours)


@pytest.mark.parametrize(
    ("build", "ours"),
    [
        (lambda s: s.ATan(alpha=2.0), "spikingjelly.ATan"),
        (lambda s: s.ATan, "spikingjelly.ATan"),
        (lambda s: s.Sigmoid(alpha=3.0), "sigmoid:alpha=3"),
        (lambda s: s.PiecewiseQuadratic(alpha=0.5), "spikingjelly.PiecewiseQuadratic:alpha=0.5"),
        (lambda s: s.Erf(alpha=1.5), "erf:alpha=1.5"),
    ],
)
def test_spikingjelly_modules(build: Callable[[object], object], ours: str) -> None:
    theirs = pytest.importorskip(
        "spikingjelly.activation_based.surrogate", reason="SpikingJelly is not installed"
    )
    same(build(theirs), ours)


@pytest.mark.parametrize("name", [name for name in names() if name != "noisy_threshold"])
def test_every_surrogate_gives_the_same_spikes(name: str) -> None:
    spikes, gradient = driven(name)
    assert torch.equal(spikes, driven(OwnStep)[0])
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("alpha", [1.0, 0.6])
@pytest.mark.parametrize("mode", MODES)
def test_one_draw_of_the_noise_serves_spike_and_reset(mode: str, alpha: float) -> None:
    noisy = NoisyThreshold(mode=mode, generator=torch.Generator().manual_seed(0))
    run = FractionalLIF(alpha=alpha, threshold=0.8, surrogate=noisy).simulate(current())
    torch.testing.assert_close(run.pre_reset - run.voltage, 0.8 * run.spikes, atol=1e-12, rtol=0.0)
    assert not torch.equal(run.spikes, (run.pre_reset >= 0.8).to(F64))  # there was noise, or a mean


def test_hard_noise_and_a_hard_reset_agree_too() -> None:
    noisy = NoisyThreshold(mode="hard_st", generator=torch.Generator().manual_seed(0))
    lif = FractionalLIF(alpha=0.7, reset="value", v_reset=0.1, surrogate=noisy)
    run = lif.simulate(current())
    fired = run.spikes == 1
    assert 0 < fired.sum() < fired.numel()
    torch.testing.assert_close(run.voltage[fired], torch.full_like(run.voltage[fired], 0.1))
    assert torch.equal(run.voltage[~fired], run.pre_reset[~fired])


def test_the_neurons_train_and_eval_reach_the_surrogate() -> None:
    lif = FractionalLIF(surrogate=Sigmoid(learnable=True))
    assert [name for name, _ in lif.named_parameters()] == ["surrogate.log_alpha"]
    noisy = FractionalLIF(surrogate="noisy_threshold").eval()
    assert not noisy.surrogate.training


@pytest.mark.parametrize(
    ("surrogate", "error", "message"),
    [
        ("atn", ValueError, "did you mean 'atan'"),
        ("atan:beta=2", TypeError, "has no parameter 'beta'"),
        ("atan:alpha=-1", ValueError, "`alpha`"),
        (None, TypeError, "`surrogate` must be a name such as 'atan'"),
        (3.0, TypeError, "`surrogate` must be a name such as 'atan'"),
    ],
)
def test_anything_else_is_refused(surrogate: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FractionalLIF(surrogate=surrogate)  # type: ignore[arg-type]


def test_a_snntorch_factory_that_was_not_called_is_explained() -> None:
    theirs = pytest.importorskip("snntorch.surrogate", reason="snnTorch is not installed")
    with pytest.raises(TypeError, match="a factory must be called first"):
        FractionalLIF(surrogate=theirs.atan)(current())


def test_command_line_takes_parameters_after_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accuracies = []
    for surrogate in ("atan:alpha=2", "atan", "atan:alpha=8"):
        options = ("--surrogate", surrogate, "--epochs", "1", "--hidden", "8")
        folder = tmp_path / surrogate.replace(":", "-")
        monkeypatch.setattr("sys.argv", ["fracspike", "train", "digits", *options, "--out", str(folder)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, None)
        results = json.loads((folder / "digits" / "results.json").read_text())
        assert results["config"]["surrogate"] == surrogate
        accuracies.append(results["accuracy"])
    assert accuracies[0] == accuracies[1] != accuracies[2]
