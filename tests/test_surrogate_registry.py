"""Names: other libraries' numbers under their names, errors that help, and what `surrogate=` accepts."""

from __future__ import annotations

import csv
import importlib
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fracspike import surrogate
from fracspike.surrogate import ATan, FastSigmoid, Surrogate, functional, get, registry, resolve

# What has no line in the table of measured values, and why.
NOT_MEASURED = {
    "nwave.atan": "source not public; the values of the table below",
    "nwave.fast_sigmoid": "source not public",
    "nwave.sigmoid": "source not public",
    "norse.superspike": "second name of norse.super",
    "norse.tent": "older name of norse.triangle",
    "spikede.linear": "second name of spikede.piecewise_linear",
    "spikede.noisy_threshold": "random, see test_surrogate_noisy",
    "spikede.noisy_threshold_spike": "random, see test_surrogate_noisy",
    "snntorch.LSO": "cannot be called in snnTorch 1.0.0",
    "snntorch.triangular": "deliberately not the same, see below",
}

# Derivative at x = 0 with the library's default parameters.
AT_ZERO = {
    "spikede.sigmoid": 1.25,
    "spikede.arctan": 1.0,
    "spikede.piecewise_linear": 0.5,
    "spikede.gaussian": 0.3989422804,
    "spikingjelly.Sigmoid": 1.0,
    "spikingjelly.SuperSpike": 1.0,
    "braintools.Sigmoid": 1.0,
    "braintools.Arctan": 0.5,
    "braintools.ReluGrad": 0.3,
    "braintools.GaussianGrad": 0.3989422804,
    "braintools.MultiGaussianGrad": 0.4391116367,
    "braintools.SlayerGrad": 1.0,
    "snntorch.sigmoid": 6.25,
    "snntorch.SFS": 0.0,
    "snntorch.spike_rate_escape": 9.1969860293,
    "nwave.sigmoid": 6.25,
    "nwave.atan": 1.0,
    "nwave.fast_sigmoid": 1.0,
    "mlx-snn.fast_sigmoid": 12.5,
    "mlx-snn.arctan": 1.0,
    "sinabs.MultiGaussian": 0.8782232733,
    "sinabs.SingleExponential": 2.0,
    "norse.super": 1.0,
    "norse.tanh": 1.0,
    "norse.heavi_erfc": 1.1283791671,
    "norse.circ": 1.0,
    "norse.triangle": 0.3,
}


def peer(name: str) -> ModuleType:
    """The surrogate module of an installed library; tests that need it are skipped otherwise."""
    return pytest.importorskip(name, reason=f"{name} is not installed: its numbers come from the table alone")


def test_every_alias_agrees_with_the_values_measured_in_its_library(reference: Path) -> None:
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with (reference / "surrogates.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            groups[row["alias"], row["parameters"]].append(row)
    for (alias, parameters), rows in groups.items():
        pairs = (pair.split("=") for pair in parameters.split(";") if pair)
        s = get(alias, **{key: int(text) if text.isdigit() else float(text) for key, text in pairs})
        x = torch.tensor([float(row["x"]) for row in rows], dtype=torch.float64, requires_grad=True)
        s(x).sum().backward()
        expected = torch.tensor([float(row["derivative"]) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(
            x.grad, expected, rtol=3e-7, atol=1e-12, msg=lambda m, a=alias: f"{a}: {m}"
        )
        assert s(torch.zeros(())).item() == float(rows[0]["spike_at_0"]), alias
    assert {alias for alias, _ in groups} == set(surrogate.aliases()) - set(NOT_MEASURED)


@pytest.mark.parametrize("alias", sorted(AT_ZERO))
def test_derivative_at_threshold_with_the_defaults_of_the_library(alias: str) -> None:
    x = torch.zeros((), dtype=torch.float64)
    assert get(alias).derivative(x).item() == pytest.approx(AT_ZERO[alias], rel=1e-9)
    assert get(alias)(x).item() == float(alias.split(".")[0] not in ("snntorch", "nwave", "norse"))


@pytest.mark.parametrize(
    "alias", sorted(a for a in surrogate.aliases() if a.startswith(("snntorch", "spikingj")))
)
def test_installed_libraries_agree(alias: str) -> None:
    library, _, name = alias.partition(".")
    module = peer(
        {"snntorch": "snntorch.surrogate", "spikingjelly": "spikingjelly.activation_based.surrogate"}[library]
    )
    if alias in NOT_MEASURED:
        pytest.skip(NOT_MEASURED[alias])
    x = torch.linspace(-3.3, 3.3, 661)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, spikes = get(alias)(mine), getattr(module, name)()(theirs)
    assert torch.equal(ours, spikes)
    ours.sum().backward()
    spikes.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=2e-5, atol=1e-6)


def test_snntorch_sigmoid_is_finite_where_theirs_is_not() -> None:
    module = peer("snntorch.surrogate")
    x = torch.tensor([-4.0], requires_grad=True)
    module.sigmoid()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isnan()
    assert get("snntorch.sigmoid").derivative(x.detach()).item() == 0.0  # 25 exp(-100) underflows float32


def test_snntorch_triangular_is_a_triangle() -> None:
    s = get("snntorch.triangular", threshold=2.0)
    torch.testing.assert_close(
        s.derivative(torch.tensor([-2.0, -1.0, 0.0, 1.0])), torch.tensor([0.0, 0.5, 1.0, 0.5])
    )


def test_snntorch_lso_has_the_leak_its_documentation_describes() -> None:
    assert get("snntorch.LSO", slope=0.2).derivative(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [
        pytest.approx(0.2),
        pytest.approx(0.2),
        1.0,
    ]


@pytest.mark.parametrize(
    "spelling",
    [
        "ATan",
        "atan",
        "ATAN",
        "spikede.arctan",
        "spikede.arctan_surrogate",
        "SpikeDE.Arctan",
        "mlxsnn.arctan_surrogate",
    ],
)
def test_spelling_does_not_matter(spelling: str) -> None:
    assert repr(get(spelling)) == "ATan(alpha=2.0)"


def test_options_override_what_an_alias_sets() -> None:
    assert repr(get("norse.tanh", alpha=4.0, strict=False)) == "Sigmoid(alpha=8.0, amplitude=0.5)"
    assert get("norse.tanh", normalize="area").area() == pytest.approx(1.0)
    assert [n for n, _ in get("snntorch.atan", learnable=True).named_parameters()] == ["log_alpha"]


def test_string_form() -> None:
    assert repr(get("atan:alpha=3")) == "ATan(alpha=3.0)"
    assert repr(get("atan: alpha=3e-1, normalize=peak , strict=true")) == (
        "ATan(alpha=0.3, strict=True, normalize='peak')"
    )
    assert repr(get("spikingjelly.SquarewaveFourierSeries:n=4")) == "SquarewaveFourier(n=3, period=8.0)"
    assert repr(get("fast_sigmoid:slope=10", amplitude=2.0)) == "FastSigmoid(slope=10.0, amplitude=2.0)"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: get("atn"),
            ValueError,
            "`surrogate` must be one of.*fast_sigmoid.*got 'atn', did you mean 'atan'",
        ),
        (lambda: get("snntorch.sigmiod"), ValueError, "snntorch.SFS.*did you mean 'snntorch.sigmoid'"),
        (lambda: get("keras.relu"), ValueError, "must be one of atan.*aliases"),
        (lambda: get("atan", alhpa=2.0), TypeError, "accepts alpha.*did you mean 'alpha'"),
        (
            lambda: get("snntorch.atan", slope=2.0),
            TypeError,
            "'snntorch.atan' has no parameter 'slope'.*alpha",
        ),
        (lambda: get("norse.tanh", alpha=0), ValueError, "> 0"),
        (lambda: get("norse.tanh", alpha=-1.0), ValueError, "must be > 0.*'norse.tanh' with.*-1.0"),
        (lambda: get("norse.tanh", alpha="big"), TypeError, "alpha"),
        (lambda: get("spikingjelly.SquarewaveFourierSeries", n=1), ValueError, "`n` must be >= 1"),
        (lambda: get("atan:2"), ValueError, "name:param=value"),
        (lambda: get("atan:"), ValueError, "name:param=value"),
        (lambda: get("atan:alpha=two"), TypeError, "`alpha` must be a number"),
        (lambda: get("atan:alpha=1,alpha=2"), ValueError, "twice"),
        (lambda: get("atan:alpha=1", alpha=2.0), TypeError, "twice"),
        (lambda: get(ATan), TypeError, "`name` must be a string"),
        (lambda: functional.atn, AttributeError, "no surrogate 'atn'"),
        (lambda: surrogate.QPseudoSpike(q=1.0), ValueError, "`q` must be > 1"),
        (lambda: surrogate.Rectangle(width=0.0), ValueError, "`width`"),
        (lambda: surrogate.LeakyReLU(learnable=True), ValueError, "`leak` must be > 0 to be learnable"),
        (lambda: surrogate.SquarewaveFourier(n=2.5), TypeError, "`n`"),
    ],
)
def test_errors_help(call: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("name", surrogate.names())
def test_three_ways_to_call_agree(name: str) -> None:
    x = torch.linspace(-1, 1, 7)
    torch.manual_seed(0)
    expected = get(name)(x)
    torch.manual_seed(0)
    assert torch.equal(getattr(functional, name)(x), expected)
    assert name in dir(functional)


def test_functional_takes_parameters_by_position_and_keyword() -> None:
    for call in (lambda x: functional.atan(x, 3.0), lambda x: functional.atan(x, alpha=3.0)):
        x = torch.zeros(1, requires_grad=True)
        call(x).sum().backward()
        assert x.grad is not None
        assert x.grad.item() == 1.5


class TestNewSurrogate:
    """A newcomer's surrogate, from the documentation alone."""

    @pytest.fixture(autouse=True)
    def forget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for table in ("_families", "_by_key"):
            monkeypatch.setattr(registry, table, dict(getattr(registry, table)))

    def test_given_g(self) -> None:
        @surrogate.register
        class Cauchy(Surrogate):
            gamma: float = 1.0

            def g(self, x: torch.Tensor) -> torch.Tensor:
                return self.gamma / torch.pi / (self.gamma**2 + x**2)

        assert "cauchy" in surrogate.names()
        s = get("cauchy:gamma=2")
        x = torch.tensor([0.0, 2.0], requires_grad=True)
        s(x).sum().backward()
        torch.testing.assert_close(x.grad, torch.tensor([0.5, 0.25]) / torch.pi)
        assert s.area() == pytest.approx(1.0, rel=1e-6)
        assert get("cauchy", gamma=2.0, normalize="peak").derivative(torch.zeros(())).item() == pytest.approx(
            1
        )
        with pytest.raises(NotImplementedError, match="Cauchy defines no primitive G"):
            s.primitive(x)
        with pytest.raises(ValueError, match="`learnable` needs the primitive"):
            get("cauchy", learnable=True)
        assert repr(functional.cauchy).startswith("<function cauchy")

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
    def test_given_primitive_alone(self) -> None:
        @surrogate.register("my_step")
        class MyStep(Surrogate):
            k: float = 2.0

            def G(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
                return torch.tanh(self.k * x) / 2 + 0.5

        x = torch.tensor([-0.3, 0.2], dtype=torch.float64, requires_grad=True)
        expected = 1 / torch.cosh(2 * x.detach()) ** 2
        s = get("my_step")
        s(x).sum().backward()
        torch.testing.assert_close(x.grad, expected)
        torch.testing.assert_close(s.derivative(x), expected)
        torch.testing.assert_close(torch.func.jvp(s, (x.detach(),), (torch.ones_like(x),))[1], expected)
        (s2 := get("my_step", learnable=True))(x).sum().backward()
        assert s2.log_k.grad is not None

    def test_refusals(self) -> None:
        with pytest.raises(TypeError, match="must define g"):

            @surrogate.register
            class Empty(Surrogate):
                pass

        with pytest.raises(ValueError, match="taken by 'atan'"):

            @surrogate.register("atan")
            class Again(ATan):
                pass

        with pytest.raises(TypeError, match="subclass of Surrogate"):
            surrogate.register(nn.Identity)  # type: ignore[type-var]
        with pytest.raises(TypeError, match="needs a default"):

            class NoDefault(Surrogate):
                gamma: float


class TestResolve:
    def test_names_classes_and_instances(self) -> None:
        assert repr(resolve("atan:alpha=3")) == "ATan(alpha=3.0)"
        assert repr(resolve(FastSigmoid)) == "FastSigmoid(slope=25.0)"
        shared = ATan()
        assert resolve(shared) is shared
        assert isinstance(resolve(nn.Sigmoid), nn.Sigmoid)

    def test_callables_are_wrapped(self) -> None:
        module = resolve(lambda x: (x > 0).to(x.dtype))
        assert isinstance(module, nn.Module)
        assert module(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 1.0]
        assert "lambda" in repr(module)
        assert resolve(functional.atan)(torch.ones(2)).tolist() == [1.0, 1.0]

    def test_autograd_function(self) -> None:
        class Step(torch.autograd.Function):
            @staticmethod
            def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
                return (x >= 0).to(x.dtype)

            @staticmethod
            def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
                return 3 * grad

        x = torch.ones(2, requires_grad=True)
        resolve(Step)(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [3.0, 3.0]

    def test_snntorch_closure(self) -> None:
        module = peer("snntorch.surrogate")
        x = torch.tensor([0.1], requires_grad=True)
        resolve(module.fast_sigmoid(slope=10))(x).sum().backward()
        assert x.grad is not None
        assert x.grad.item() == pytest.approx(0.25)
        with pytest.raises(TypeError, match="called first"):
            resolve(module.fast_sigmoid)(x)

    def test_spikingjelly_module(self) -> None:
        theirs = peer("spikingjelly.activation_based.surrogate")
        module = theirs.ATan(alpha=3.0)
        assert resolve(module) is module
        assert isinstance(resolve(theirs.ATan), theirs.ATan)

    @pytest.mark.parametrize("bad", [None, 3, 2.0, ["atan"], dict, torch.ones(2), object()])
    def test_anything_else_is_refused(self, bad: object) -> None:
        with pytest.raises(TypeError, match=r"must be a name such as 'atan'.*callable x -> spikes"):
            resolve(bad)

    def test_a_class_that_needs_arguments(self) -> None:
        with pytest.raises(TypeError, match="pass an instance"):
            resolve(nn.Linear)

    def test_wrong_results(self) -> None:
        with pytest.raises(ValueError, match="keep the shape"):
            resolve(lambda x: x.sum())(torch.ones(3))
        with pytest.raises(TypeError, match="returned float"):
            resolve(lambda x: 1.0)(torch.ones(3))


def test_no_matplotlib_at_import() -> None:
    import subprocess
    import sys

    code = "import sys, fracspike.surrogate; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    importlib.import_module("fracspike.surrogate.plots")
