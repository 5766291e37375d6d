"""What every surrogate must do: step, keep dtype, stay finite, copy, transform, compile, learn."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from fracspike import surrogate
from fracspike.surrogate import ATan, Surrogate

NAMES = surrogate.names()
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def build(name: str, **options: object) -> Surrogate:
    """The surrogate in evaluation, so that the noisy threshold too is deterministic."""
    s = surrogate.get(name, **options)
    s.eval()
    return s


def trainable(name: str, **options: object) -> Surrogate:
    start = {"leaky_relu": {"leak": 0.1}, "log_tailed_relu": {"alpha": 0.1}}.get(name, {})
    return build(name, learnable=True, **{**start, **options})


def extremes(dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    ends = [info.max, info.max / 3, info.tiny, info.smallest_normal * info.eps, 1.0, 1e4]
    return torch.tensor([v for e in ends for v in (-e, e)] + [0.0, -0.0], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_finite_everywhere_and_dtype_kept(name: str, dtype: torch.dtype) -> None:
    for s in (build(name), trainable(name)):
        x = extremes(dtype).requires_grad_()
        spikes = s(x)
        (grad,) = torch.autograd.grad(spikes.sum(), x)
        assert spikes.dtype == grad.dtype == s.derivative(x).dtype == dtype
        assert torch.equal(spikes, (x >= 0).to(dtype))
        assert torch.isfinite(grad).all()
        assert torch.isfinite(s.derivative(x)).all()


@pytest.mark.parametrize("name", NAMES)
def test_signed_zeros_are_alike(name: str) -> None:
    x = torch.tensor([0.0, -0.0])
    for strict in (False, True):
        s = build(name, strict=strict)
        assert s(x).tolist() == [float(not strict)] * 2
        a, b = s.derivative(x)
        assert a == b


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity(name: str, strict: bool) -> None:
    spikes = build(name, strict=strict)(torch.tensor([float("nan"), float("inf"), -float("inf")]))
    assert spikes[0].isnan()
    assert spikes[1:].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_equal(name: str) -> None:
    x = torch.linspace(-2, 2, 9)
    for s in (
        build(name, amplitude=0.5) if name != "noisy_threshold" else build(name),
        build(name, strict=True),
    ):
        rebuilt = eval(repr(s), vars(surrogate).copy())
        for twin in (copy.deepcopy(s), pickle.loads(pickle.dumps(s)), rebuilt):
            assert repr(twin) == repr(s)
            assert torch.equal(twin.derivative(x), s.derivative(x))
    learnt = trainable(name)
    twin = trainable(name)
    for parameter in twin.parameters():
        parameter.data += 1.0
    twin.load_state_dict(learnt.state_dict())
    assert torch.equal(twin.derivative(x), learnt.derivative(x))
    assert repr(pickle.loads(pickle.dumps(learnt))) == repr(copy.deepcopy(learnt)) == repr(learnt)


# torch scripts some of its own forward-mode formulas on first use, and says that scripting is deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_transforms_agree_with_derivative(name: str) -> None:
    x = torch.tensor([-1.3, -0.4, 0.3, 0.8], dtype=torch.float64)
    for s in (build(name), trainable(name).double()):
        expected = s.derivative(x).detach()

        def total(x: torch.Tensor, s: Surrogate = s) -> torch.Tensor:
            return s(x).sum()

        torch.testing.assert_close(torch.func.grad(total)(x).detach(), expected)
        torch.testing.assert_close(torch.vmap(torch.func.grad(total))(x[:, None])[:, 0].detach(), expected)
        value, tangent = torch.func.jvp(s, (x,), (torch.ones_like(x),))
        assert torch.equal(value, (x >= 0).to(x.dtype))
        torch.testing.assert_close(tangent.detach(), expected)
        torch.testing.assert_close(torch.func.jacrev(s)(x).detach(), torch.diag(expected))
        torch.testing.assert_close(torch.func.jacfwd(s)(x).detach(), torch.diag(expected))
        assert torch.equal(torch.vmap(s)(x.reshape(2, 2)), s(x).reshape(2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_double_backward_is_the_slope_of_the_derivative(name: str) -> None:
    x = torch.tensor([-1.3, -0.4, 0.3, 0.85], dtype=torch.float64, requires_grad=True)
    h = 1e-6
    for s in (build(name), trainable(name).double()):
        (first,) = torch.autograd.grad(s(x).sum(), x, create_graph=True)
        zero = torch.zeros_like(x)
        second = torch.autograd.grad(first.sum(), x, allow_unused=True)[0] if first.requires_grad else zero
        second = zero if second is None else second  # a piecewise constant derivative need not depend on x
        with torch.no_grad():
            expected = (s.derivative(x + h) - s.derivative(x - h)) / (2 * h)
        torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-8)


# The tracer itself instantiates the autograd Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_graph_break(name: str, learnable: bool) -> None:
    s = trainable(name) if learnable else build(name)
    torch._dynamo.reset()
    compiled = torch.compile(s, backend="aot_eager" if name == "atan" else "eager", fullgraph=True)
    x = torch.tensor([-1.3, -0.4, 0.0, 0.8], requires_grad=True)
    spikes = compiled(x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert torch.equal(spikes, s(x))
    torch.testing.assert_close(grad, s.derivative(x).detach())


@pytest.mark.parametrize("name", NAMES)
def test_saves_one_tensor_at_most(name: str) -> None:
    saved: list[torch.Tensor] = []

    def pack(t: torch.Tensor) -> torch.Tensor:
        saved.append(t)
        return t

    s = surrogate.get(name)
    x = torch.randn(50, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        s(x)
    assert len([t for t in saved if t.numel() > 1]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_parameter_gradient_is_that_of_the_primitive(name: str) -> None:
    s = trainable(name).double()
    x = torch.tensor([-1.3, -0.4, 0.3, 0.85], dtype=torch.float64)
    weight = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)
    if not list(s.parameters()):
        pytest.skip(f"{name} has no parameter to train")
    (s(x) * weight).sum().backward()
    h = 1e-6
    for parameter in s.parameters():
        with torch.no_grad():
            parameter += h
            above = s.primitive(x)
            parameter -= 2 * h
            below = s.primitive(x)
            parameter += h
        expected = ((above - below) / (2 * h) * weight).sum()
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_zero_parameter_gradient_still_shapes_the_second_derivative(name: str) -> None:
    s = trainable(name, parameter_gradient="zero").double()
    x = torch.tensor([-1.3, -0.4, 0.3, 0.85], dtype=torch.float64, requires_grad=True)
    parameters = list(s.parameters())
    if not parameters:
        pytest.skip(f"{name} has no parameter to train")
    for gradient in torch.autograd.grad(s(x).sum(), parameters):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0.0, atol=1e-13)
    (first,) = torch.autograd.grad(s(x).sum(), x, create_graph=True)
    torch.testing.assert_close(first, s.derivative(x))
    mixed = torch.autograd.grad(first.sum(), parameters, materialize_grads=True)
    direct = torch.autograd.grad(s.derivative(x).sum(), parameters, materialize_grads=True)
    for m, d in zip(mixed, direct, strict=True):
        torch.testing.assert_close(m, d)


def test_learnable_stays_positive_and_follows_assignment() -> None:
    s = ATan(learnable=True)
    optimizer = torch.optim.SGD(s.parameters(), lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        s(torch.full((8,), 0.3)).sum().backward()
        optimizer.step()
    assert s.alpha.item() > 0
    s.alpha = 3.0
    assert s.alpha.item() == pytest.approx(3.0)
    plain = ATan(alpha=1.0)
    plain.alpha = 4.0
    assert plain.peak() == 2.0
    with pytest.raises(ValueError, match="`alpha`"):
        plain.alpha = -1.0
    assert plain.alpha == 4.0


def test_normalize_moves_with_a_learnt_parameter() -> None:
    s = ATan(learnable=True, normalize="peak")
    s.alpha = 7.0
    assert s.derivative(torch.zeros(())).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"alpha": 0.0}, ValueError, "`alpha` must be > 0, got 0"),
        ({"alpha": -1}, ValueError, "`alpha` must be > 0, got -1"),
        ({"alpha": float("nan")}, ValueError, "`alpha`"),
        ({"alpha": float("inf")}, ValueError, "`alpha`"),
        ({"alpha": "2"}, TypeError, "`alpha` must be a number"),
        ({"alpha": True}, TypeError, "`alpha`"),
        ({"alpha": torch.ones(3)}, TypeError, "learnable=True"),
        ({"alhpa": 2.0}, TypeError, "accepts alpha, amplitude.*did you mean 'alpha'"),
        ({"normalize": "peek"}, ValueError, "did you mean 'peak'"),
        ({"strict": 1}, TypeError, "`strict` must be True or False"),
        ({"learnable": "alpha"}, TypeError, "`learnable`"),
        ({"learnable": ("beta",)}, ValueError, "among .*alpha"),
        ({"amplitude": 0.0}, ValueError, "`amplitude`"),
        ({"parameter_gradient": "one"}, ValueError, "`parameter_gradient`"),
    ],
)
def test_bad_parameters(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ATan(**options)


def test_bad_input() -> None:
    s = ATan()
    for call in (s, s.derivative, s.primitive):
        with pytest.raises(TypeError, match=r"`x` must be a torch\.Tensor, got list"):
            call([1.0])
        for bad in (torch.tensor([1]), torch.tensor([True]), torch.tensor([1j])):
            with pytest.raises(TypeError, match="floating"):
                call(bad)
    with pytest.raises(TypeError, match="positional"):
        ATan(1.0, 2.0)
    with pytest.raises(TypeError, match="twice"):
        ATan(1.0, alpha=2.0)


def test_plot_draws_function_and_gradient() -> None:
    figure = ATan().plot()
    assert len(figure.axes) == 2
