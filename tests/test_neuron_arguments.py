"""Arguments of neurons that have no effect, contradict each other or do not fit are named in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from neuron_cases import CASES, build
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from fracspike import encode
from fracspike.neurons import (
    FractionalALIF,
    FractionalCubaLIF,
    FractionalIF,
    FractionalIzhikevich,
    FractionalLI,
    FractionalLIF,
    FractionalNeuron,
)

LINEAR = (FractionalLIF, FractionalIF, FractionalALIF, FractionalCubaLIF)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"v_reset": -75.0}, "`v_reset` has no effect with reset='subtract'; pass reset='value'"),
        ({"v_reset": torch.tensor([0.0, 0.1])}, "`v_reset` has no effect"),
        ({"v_reset": 0.1, "reset": "none"}, "`v_reset` has no effect with reset='none'"),
        ({"learn": ("v_reset",)}, "`learn` has no effect with reset='subtract'; leave 'v_reset' out"),
        ({"reset_scale": 2.0, "reset": "value"}, "`reset_scale` has no effect with reset='value'"),
        ({"detach_reset": True, "reset": "none"}, "`detach_reset` has no effect with reset='none'"),
        ({"reset_memory": "overwrite", "reset": "none"}, "`reset_memory` has no effect with reset='none'"),
        ({"v_rest": -70.0}, "`threshold` must be given with v_rest=-70, got the default 1"),
        ({"v_rest": torch.tensor([0.0, -65.0])}, r"`threshold` must be given with v_rest=-65\.\.0, got the"),
        ({"v_rest": 2.0, "threshold": 1.0, "reset": "none"}, "`threshold` must lie above `v_rest`"),
        ({"resistance": -1.0}, "`resistance` must be > 0|`resistance` must lie in"),
        ({"resistance": 0.0}, "`resistance` must"),
        ({"refractory": 1e-9}, "`refractory` must be a multiple of dt=1, got 1e-09"),
        (
            {"alpha": torch.tensor(0.5, requires_grad=True)},
            r"`alpha` must not require grad.*learn=\('alpha',\)",
        ),
        (
            {"dt": torch.tensor(1.0, requires_grad=True)},
            "`dt` must be a number, got a tensor that requires grad",
        ),
        ({"tau": 1e300}, "`tau` must be within reach of dt=1"),
        ({"threshold": 1e308}, "`threshold` must lie in"),
    ],
    ids=str,
)
def test_what_has_no_effect_is_refused(kind: type, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**kwargs)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"learn": None}, "`learn` must be names such as"),
        ({"learn": 3}, "`learn` must be names such as"),
        ({"dt": torch.ones(2, 2)}, r"`dt` must be one number, got a tensor of shape \(2, 2\)"),
    ],
    ids=str,
)
def test_what_is_of_the_wrong_kind_is_named(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        build(name, **kwargs)


def test_defaults_may_be_given() -> None:
    FractionalLIF(v_reset=0.0, reset_scale=1.0, detach_reset=False, refractory=0.0, v_rest=0.0)
    FractionalLIF(v_rest=-70.0, threshold=-50.0)
    FractionalLI(v_rest=-70.0)  # has no threshold
    FractionalALIF(beta=0.0, tau_adaptation=5.0, coupling=0.1)


def test_a_time_constant_of_no_adaptation_is_refused() -> None:
    for kwargs in ({"tau_adaptation": 5.0}, {"learn": "tau_adaptation"}):
        with pytest.raises(ValueError, match="`tau_adaptation` has no effect with beta=0 and coupling=0"):
            FractionalALIF(beta=0.0, **kwargs)  # type: ignore[arg-type]
    FractionalALIF(beta=0.0, tau_adaptation=5.0, learn="beta")


@pytest.mark.parametrize("name", ["alpha", "alpha_v", "dt", "memory", "forward", "crossings"])
def test_a_constant_replaces_nothing_else(name: str) -> None:
    class Own(FractionalIzhikevich):
        constants = {**FractionalIzhikevich.constants, name: 1.0}  # noqa: RUF012

    with pytest.raises(ValueError, match=f"`constants` of Own must not name '{name}'"):
        Own()


def test_other_names_of_an_own_neuron_are_checked() -> None:
    class Wrong(FractionalIzhikevich):
        positive = ("nosuch",)

    class Twice(FractionalIzhikevich):
        variables = ("v", "v")

    with pytest.raises(ValueError, match="`positive` must be one of"):
        Wrong()
    with pytest.raises(ValueError, match="`variables` of Twice must be different names"):
        Twice()
    assert not isinstance(FractionalNeuron, nn.Module)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.to_sparse(),
            r"`current` must be a dense tensor, got torch.sparse_coo; call .to_dense\(\)",
        ),
        (lambda x: x.to("meta"), "`current` must hold values, got a tensor on the meta device"),
        (
            lambda x: torch.nested.nested_tensor(list(x)),
            "`current` must be a plain tensor, got a nested one; pad it",
        ),
        (lambda x: pack_sequence(list(x)), "got a PackedSequence; pad it: torch.nn.utils.rnn.pad_packed_seq"),
        (lambda x: None, "`current` must be a torch.Tensor, got NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_currents_that_are_no_tensors_of_numbers(
    name: str, change: Callable[[Tensor], object], message: str
) -> None:
    layer = build(name)
    for call in (layer, layer.simulate):
        with pytest.raises(TypeError, match=message):
            call(change(torch.ones(4, 2, 3, dtype=torch.float64)))


@pytest.mark.parametrize("name", CASES)
def test_the_meta_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be built on a device that holds values, got 'meta'"):  # noqa: SIM117
        with torch.device("meta"):
            build(name)


class TestLazy:
    @pytest.mark.parametrize(
        "use",
        [
            lambda layer: layer.state_dict(),
            lambda layer: layer.tau,
            lambda layer: layer.backend_report(torch.ones(4, 3)),
        ],
    )
    def test_what_needs_a_shape_says_so_before_the_first_call(self, use: Callable[[Any], object]) -> None:
        with pytest.raises(ValueError, match="`size` 'lazy' has no shape yet; pass one input"):
            use(FractionalLIF(learn=("tau", "alpha"), size="lazy"))

    def test_the_rest_works(self) -> None:
        layer, x = FractionalCubaLIF(learn=("tau", "tau_syn"), size="lazy"), torch.rand(5, 2, 3)
        assert "tau=lazy" in repr(layer)
        assert layer.initial_state(x[0]).v.shape == (2, 3)
        with pytest.raises(ValueError, match="`current` must have shape"):
            layer(torch.tensor(1.0))  # which gives no size
        assert layer(x).shape == x.shape
        assert layer.tau.shape == (3,)
        assert len(layer.state_dict()) > 3


class TestRepr:
    @pytest.mark.parametrize(
        ("kwargs", "shown"),
        [
            ({"v_rest": -0.5}, "v_rest=-0.5"),
            ({"resistance": 3.0}, "resistance=3"),
            ({"reset": "value", "v_reset": 0.25}, "v_reset=0.25"),
            ({"reset_scale": 2.0}, "reset_scale=2"),
            ({"detach_reset": True}, "detach_reset=True"),
            ({"alpha": [0.4, 0.9], "coefficients": [1.0, 0.5]}, "coefficients=0.5..1"),
        ],
    )
    def test_shows_what_differs_from_its_default(self, kwargs: dict[str, Any], shown: str) -> None:
        for kind in (FractionalLIF, FractionalALIF, FractionalIF):
            assert shown in repr(kind(**kwargs))
            assert shown.split("=")[0] + "=" not in repr(kind())

    def test_of_other_neurons(self) -> None:
        assert "coupling=0.3" in repr(FractionalALIF(coupling=0.3))
        assert "v_rest=-1" in repr(FractionalLI(v_rest=-1.0))
        assert "gradient='autograd'" in repr(FractionalIzhikevich(gradient="autograd"))


class TestOverflow:
    """A finite current is answered by finite numbers, or by an error that names it."""

    @pytest.mark.parametrize(
        "layer",
        [
            FractionalLIF(resistance=10.0, backend="torch"),
            FractionalLI(resistance=10.0, backend="torch"),
            FractionalLIF(method="l1_explicit", tau=1e-3),
            FractionalIF(),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_current_whose_potential_overflows_is_named(self, layer: nn.Module, dtype: torch.dtype) -> None:
        current = torch.full((30, 2), torch.finfo(dtype).max, dtype=dtype)
        for call in (layer, layer.simulate):
            with pytest.raises(ValueError, match="`current` must keep"):
                call(current)

    def test_extreme_constants_are_named(self) -> None:
        x = torch.rand(4, 2)
        with pytest.raises(ValueError, match="`current` must keep"):
            FractionalIF(1.0, tau=1e-40)(x)
        with pytest.raises(ValueError, match="`resistance` must lie in"):
            FractionalLI(resistance=1e308)
        with pytest.raises(ValueError, match="`v_rest` must lie in"):
            FractionalLI(v_rest=1e300)
        with pytest.raises(ValueError, match="`tau` must be within reach of dt=1e-300"):
            FractionalIF(dt=1e-300, tau=1e10)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: encode.repeat(x, 3),
        lambda x: encode.rate(x, 3),
        lambda x: encode.rate_sequence(x),
        lambda x: encode.latency(x, 3),
        lambda x: encode.latency_times(x, 3, mode="log"),
        lambda x: encode.delta(x),
        lambda x: encode.population(x, 3),
        lambda x: encode.Encoder("rate", 3)(x),
    ],
)
def test_encoders_name_an_empty_input(call: Callable[[Tensor], object]) -> None:
    with pytest.raises(ValueError, match=r"`x` must not be empty, got a tensor of shape \(0, 3\)"):
        call(torch.empty(0, 3))
