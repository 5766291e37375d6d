"""The Mittag-Leffler function against the reference table, closed forms and 60-digit values."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erfcx
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fracspike.solvers import mittag_leffler

# (alpha, beta, z, value): mpmath at 60 digits or more, from the power series up to |z|^(1/alpha) = 90, beyond
# from the asymptotic series cut at its smallest term; at alpha = 1 from 1F1(1; beta; z) / Gamma(beta).
SPOTS = [
    (0.99, 1.0, -700.0, 1.4407858271964092e-5),
    (0.999, 1.0, -30.0, 3.5830164124046635e-5),
    (0.9999, 0.9999, -45.0, 5.4268816538276258e-8),
    (1 - 1e-8, 1.0, -20.0, 2.6207114689873501e-9),
    (1 - 1e-8, 1 - 1e-8, -12.0, 6.1443213353065621e-6),
    (1 - 1e-8, 1 - 1e-8, -60.0, 2.9782329390314544e-12),
    (1 - 1e-8, 1.5, -1e6, 5.6418987672089006e-7),
    (1.0, 2.0, -40.0, 0.025),
    (1.0, 0.5, -3.0, -0.14740544177658249),
    (0.01, 1.0, -0.7, 0.58683999288441835),
    (0.01, 0.01, -25.0, 1.4713326076254024e-5),
    (0.3, 1.3, -1e-8, 1.1142424973555524),
    (0.7, 0.7, -1e8, 2.3399093055536128e-17),
    (0.05, 2.05, -3.0, 0.24869681692476446),
    (0.6, 2.6, -0.3, 0.59253108720417324),
    (0.8, 3.0, -5.0, 0.14204442109264875),
    (0.5, 0.5, -1e6, 2.82094791773455e-13),
    (0.2, 1.0, -1e4, 8.5886987323544741e-5),
    (0.95, 1.0, -8.0, 0.0089310915218318229),
]

# (alpha, beta, z, d/dz, d/dalpha, d/dbeta): central differences of the same series at 60 digits and more.
GRADIENTS = [
    (0.3, 1.0, -0.05, 1.0096918045519608, -0.010004019099536122, 0.56748037126835162),
    (0.6, 0.6, -1.0, 0.19537496276465947, -0.30419908305203178, 0.67099304873301351),
    (0.6, 1.6, -25.0, 0.0015410541991616517, -0.019533400770627963, 0.021287143537934844),
    (0.9, 1.0, -4.0, 0.022137607936429166, -0.29057596422142342, 0.30523740513027466),
    (0.98, 2.0, -300.0, 1.123341273968357e-5, -0.0018131683276293966, 0.0018248274388609909),
    (1.0, 1.0, -1.0, 0.36787944117144232, -0.06505432440650839, 0.69717488323506607),
    (1.0, 1.0, -20.0, 2.0611536224385578e-9, -0.055955784160827718, 0.052797789104983705),
    (1.0, 2.0, -5.0, 0.038382892720219488, -0.0021892058139805145, 0.063458743352555078),
    (1 - 1e-8, 1.0, -8.0, 0.0003354629269514017, -0.17660284824819431, 0.14703342389180285),
    (0.5, 0.5, -1e-6, 0.99999774324466581, -5.7721574724931737e-7, 1.1077913266571649),
]


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worst(value: Tensor, expected: Tensor | np.ndarray) -> float:
    """Largest relative error."""
    return float((value.detach() / torch.as_tensor(expected) - 1.0).abs().max())


def power_series(alpha: float, beta: float, z: float) -> float:
    """The definition; for -1 <= z <= 0 little cancels, and at |z| <= 0.65 even alpha = 0.01 converges."""
    return math.fsum(z**k / math.gamma(alpha * k + beta) for k in range(90))


@pytest.fixture(scope="module")
def table(reference: Path) -> dict[tuple[float, float, float], float]:
    with (reference / "mittag_leffler.csv").open() as file:
        rows = [tuple(map(float, row)) for row in list(csv.reader(file))[1:]]
    return {(alpha, beta, z): value for alpha, beta, z, value in rows}


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99])
def test_reference_table_is_reproduced_to_1e_12(
    table: dict[tuple[float, float, float], float], alpha: float
) -> None:
    points = {key: value for key, value in table.items() if key[0] == alpha}
    assert len(points) == 27
    a, b, z = float64(*sum(points, ())).reshape(-1, 3).unbind(1)
    assert worst(mittag_leffler(z, a, b), float64(*points.values())) < 1e-12


def test_reference_table_agrees_with_the_power_series(table: dict[tuple[float, float, float], float]) -> None:
    """The table itself has been wrong before (see its README), so it is checked where that is cheap."""
    checked = [key for key in table if key[2] >= -1.0 and key[0] >= 0.3]
    assert len(checked) > 60
    for key in checked:
        assert table[key] == pytest.approx(power_series(*key), rel=1e-13, abs=0.0)


@pytest.mark.parametrize(("alpha", "beta", "z", "value"), SPOTS)
def test_spot_values_at_60_digits_are_met_to_1e_13(alpha: float, beta: float, z: float, value: float) -> None:
    assert mittag_leffler(z, alpha, beta).item() == pytest.approx(value, rel=1e-13, abs=0.0)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.35, 0.6, 0.85, 0.97, 1.0])
def test_small_arguments_agree_with_the_power_series(alpha: float) -> None:
    z = [-1e-300, -1e-12, -1e-5, -0.01, -0.3, -0.6]
    for beta in (alpha, 0.5, 1.0, 1.0 + alpha, 2.0, 2.0 + alpha, 3.0):
        expected = float64(*(power_series(alpha, beta, x) for x in z))
        assert worst(mittag_leffler(float64(*z), alpha, beta), expected) < 2e-13 * (
            1.0 if beta >= alpha else 10.0
        )


def test_order_one_half_is_the_scaled_complementary_error_function() -> None:
    x = torch.logspace(-8, 8, 400, dtype=torch.float64)
    assert worst(mittag_leffler(-x, 0.5), erfcx(x.numpy())) < 5e-15


def test_order_one_is_the_exponential() -> None:
    z = -torch.linspace(0.0, 700.0, 701, dtype=torch.float64)
    assert torch.equal(mittag_leffler(z, 1.0), torch.exp(z))


def test_order_one_with_beta_two_is_expm1_over_z() -> None:
    z = -torch.logspace(-8, 8, 200, dtype=torch.float64)
    assert worst(mittag_leffler(z, 1.0, 2.0), torch.expm1(z) / z) < 2e-15


def test_order_one_with_beta_three_is_the_second_exponential_remainder() -> None:
    z = -torch.logspace(0, 8, 200, dtype=torch.float64)
    assert worst(mittag_leffler(z, 1.0, 3.0), (torch.expm1(z) - z) / z**2) < 5e-15


@pytest.mark.parametrize("beta", [0.05, 0.3, 0.5, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [0.02, 0.4, 1.0])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_value_at_zero_is_the_reciprocal_gamma_function(alpha: float, beta: float, zero: float) -> None:
    assert mittag_leffler(zero, alpha, beta).item() == pytest.approx(
        1.0 / math.gamma(beta), rel=1e-14, abs=0.0
    )


def test_value_at_zero_with_beta_one_is_exactly_one() -> None:
    alpha = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    assert torch.equal(mittag_leffler(torch.zeros_like(alpha), alpha), torch.ones_like(alpha))


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.62, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.4, 2.0])
def test_recurrence_in_beta_holds(alpha: float, beta: float) -> None:
    """E_{a,b}(z) = 1/Gamma(b) + z E_{a,a+b}(z)  (Podlubny 1999, section 1.2)."""
    z = -torch.logspace(-6, 6, 100, dtype=torch.float64)
    residual = (
        mittag_leffler(z, alpha, beta) - z * mittag_leffler(z, alpha, alpha + beta) - 1 / math.gamma(beta)
    )
    assert residual.abs().max() < 2e-14


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8, 0.97])
def test_tail_is_algebraic_with_the_right_constant(alpha: float) -> None:
    x = float64(1e7, 1e8)
    for beta in (1.0, 1.0 + alpha, 2.0):
        two_terms = 1 / (x * math.gamma(beta - alpha)) - reciprocal_gamma(beta - 2 * alpha) / x**2
        assert worst(mittag_leffler(-x, alpha, beta), two_terms) < 1e-11  # next: x^-2, at most 2e-13 relative
    equal = -reciprocal_gamma(-alpha) / x**2 + reciprocal_gamma(-2 * alpha) / x**3
    assert worst(mittag_leffler(-x, alpha, alpha), equal) < 1e-11


def reciprocal_gamma(x: float) -> float:
    return 0.0 if x <= 0 and x == round(x) else 1.0 / math.gamma(x)


def test_order_one_with_fractional_beta_is_an_integral_of_exponentials() -> None:
    """E_{1,b}(-x) = 1/Gamma(b-1) int_0^1 (1-r)^(b-2) e^(-x r) dr; for b = 3/2 with 1 - r = u^2."""
    x = torch.linspace(0.1, 20.0, 50, dtype=torch.float64)
    nodes, weights = (torch.as_tensor(a) / 2 for a in np.polynomial.legendre.leggauss(60))
    u = nodes + 0.5
    expected = (torch.exp(-x[:, None] * (1 - u**2)) * 2 * weights).sum(1) / math.gamma(0.5)
    assert worst(mittag_leffler(-x, 1.0, 1.5), expected) < 1e-13


# --- shape of the function ------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.4, 0.8, 0.99])
@pytest.mark.parametrize("excess", [0.0, 0.3, 1.0])
def test_function_is_completely_monotone_for_beta_at_least_alpha(alpha: float, excess: float) -> None:
    """All derivatives in z are positive (Schneider 1996); the first four, by automatic differentiation."""
    z = (-torch.logspace(-3, 2, 40, dtype=torch.float64)).requires_grad_()
    derivative = mittag_leffler(z, alpha, alpha + excess)
    assert (derivative > 0).all()
    for _ in range(4):
        (derivative,) = torch.autograd.grad(derivative.sum(), z, create_graph=True)
        assert (derivative > 0).all()


def test_function_changes_sign_for_beta_below_alpha() -> None:
    value = mittag_leffler(float64(-0.01, -100.0), 0.8, 0.4)
    assert value[0] > 0
    assert value[1] < 0


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
def test_values_and_gradients_are_continuous_as_alpha_tends_to_one(beta: float) -> None:
    z = -torch.logspace(-3, 7, 200, dtype=torch.float64)

    def at(order: float) -> tuple[Tensor, Tensor]:
        alpha = torch.full_like(z, order).requires_grad_()
        value = mittag_leffler(z, alpha, beta)
        (slope,) = torch.autograd.grad(value.sum(), alpha)
        return value.detach(), slope

    value, slope = at(1.0)
    for gap in (1e-4, 1e-6, 1e-8):
        near_value, near_slope = at(1.0 - gap)
        assert ((near_value - value + gap * slope).abs() <= 50 * gap**2 / (1 - z) + 1e-15 / (1 - z)).all()
        assert ((near_slope - slope).abs() <= 50 * gap / (1 - z)).all()


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "beta", "z", "dz", "dalpha", "dbeta"), GRADIENTS)
def test_first_derivatives_are_accurate_to_1e_12(
    alpha: float, beta: float, z: float, dz: float, dalpha: float, dbeta: float
) -> None:
    arguments = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (z, alpha, beta)]
    gradients = torch.autograd.grad(mittag_leffler(*arguments), arguments)
    assert [g.item() for g in gradients] == pytest.approx([dz, dalpha, dbeta], rel=1e-12, abs=0.0)


def test_slope_at_zero_is_the_second_coefficient_of_the_series() -> None:
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    alpha = float64(0.3, 0.7, 1.0)
    (slope,) = torch.autograd.grad(mittag_leffler(z, alpha).sum(), z)
    assert slope.tolist() == pytest.approx(
        [1 / math.gamma(1 + a) for a in alpha.tolist()], rel=1e-14, abs=0.0
    )


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8, 0.98])
def test_gradcheck_and_gradgradcheck_pass_in_all_arguments(alpha: float) -> None:
    z = float64(-1e-3, -0.4, -3.0, -40.0, -2000.0).requires_grad_()
    orders = torch.full((5,), alpha, dtype=torch.float64, requires_grad=True)
    betas = float64(1.0, alpha, 1.0 + alpha, 2.0, 0.5).requires_grad_()
    assert gradcheck(mittag_leffler, (z, orders, betas), rtol=1e-6, atol=1e-9)
    assert gradgradcheck(mittag_leffler, (z, orders, betas), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_no_derivative_is_ever_nan(alpha: float, beta: float) -> None:
    z = float64(0.0, -0.0, -5e-324, -1e-300, -1.0, -800.0, -1e8, -1e160, -1e300).requires_grad_()
    orders = torch.full_like(z, alpha).detach().requires_grad_()
    betas = torch.full_like(z, beta).detach().requires_grad_()
    value = mittag_leffler(z, orders, betas)
    first = torch.autograd.grad(value.sum(), (z, orders, betas), create_graph=True)
    second = torch.autograd.grad(sum(g.sum() for g in first), (z, orders, betas))
    for result in (value, *first, *second):
        assert torch.isfinite(result).all()


def test_values_and_gradients_do_not_depend_on_the_division_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def outcome() -> list[Tensor]:
        z = (-torch.logspace(-4, 4, 200, dtype=torch.float64)).requires_grad_()
        alpha = float64(0.7).requires_grad_()
        value = mittag_leffler(z, alpha, alpha)  # one tensor in two places: its derivatives must add up, once
        first = torch.autograd.grad(value.sum(), (z, alpha), create_graph=True)
        second = torch.autograd.grad(first[0].sum() + first[1].sum(), (z, alpha))
        (once,) = torch.autograd.grad(mittag_leffler(z, alpha).sum(), alpha)  # z needs none, nothing is kept
        return [value.detach(), *(g.detach() for g in first), *second, once]

    in_one_block = outcome()
    monkeypatch.setattr(sys.modules["fracspike.solvers.mittag_leffler"], "_BLOCK", 16)
    for divided, whole in zip(outcome(), in_one_block, strict=True):
        torch.testing.assert_close(divided, whole, rtol=1e-12, atol=1e-15)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_follows_z_and_only_the_result_is_rounded(dtype: torch.dtype) -> None:
    z = torch.tensor([0.0, -0.5, -2.0, -30.0], dtype=dtype)
    value = mittag_leffler(z, 0.7, float64(1.7))
    assert value.dtype == dtype
    assert torch.equal(value, mittag_leffler(z.double(), 0.7, 1.7).to(dtype))


def test_gradient_of_a_float32_order_is_float32() -> None:
    alpha = torch.tensor(0.7, requires_grad=True)
    mittag_leffler(torch.tensor([-1.0, -2.0]), alpha).sum().backward()
    assert alpha.grad is not None
    assert alpha.grad.dtype == torch.float32


def test_numbers_give_a_float64_scalar() -> None:
    value = mittag_leffler(-1, 0.5)
    assert value.shape == ()
    assert value.dtype == torch.float64


@pytest.mark.parametrize(
    "shapes", [((4, 3), (), ()), ((3,), (4, 1), ()), ((), (4, 1), (3,)), ((1, 3), (4, 1), (4, 3))]
)
def test_arguments_broadcast(shapes: tuple[tuple[int, ...], ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    z, alpha, beta = (torch.rand(shape, dtype=torch.float64, generator=generator) + 0.01 for shape in shapes)
    value = mittag_leffler(-z, alpha.clamp(max=1.0), beta)
    expanded = [t.expand(4, 3).flatten().tolist() for t in (-z, alpha.clamp(max=1.0), beta)]
    one_by_one = [mittag_leffler(*point).item() for point in zip(*expanded, strict=True)]
    assert value.shape == (4, 3)
    assert value.flatten().tolist() == pytest.approx(one_by_one, rel=1e-14, abs=0.0)


def test_orders_per_row_broadcast_across_blocks() -> None:
    z = -torch.logspace(-3, 3, 300, dtype=torch.float64)
    alpha = torch.linspace(0.1, 1.0, 70, dtype=torch.float64)[:, None]
    value = mittag_leffler(z, alpha)
    assert value.shape == (70, 300)
    for row in (0, 33, 69):
        torch.testing.assert_close(value[row], mittag_leffler(z, alpha[row]), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.3, 0.5), ValueError, r"`z` must be <= 0, got 0\.3; for a decaying mode pass -rate"),
        ((float64(-1.0, 2.0), 0.5), ValueError, r"`z` must be <= 0, got 2;"),
        ((math.nan, 0.5), ValueError, r"`z` must be <= 0, got nan"),
        ((-math.inf, 0.5), ValueError, r"`z` must be <= 0 and be finite, got -inf"),
        ((-1.0, 0.0), ValueError, r"`alpha` must lie in \(0, 1\], got 0;"),
        ((-1.0, 1.1), ValueError, r"`alpha` must lie in \(0, 1\], got 1\.1"),
        ((-1.0, float64(0.5, math.nan)), ValueError, r"`alpha` must lie in \(0, 1\], got nan"),
        ((-1.0, 0.5, 0.0), ValueError, r"`beta` must lie in \(0, 3\], got 0; E_"),
        ((-1.0, 0.5, 3.5), ValueError, r"`beta` must lie in \(0, 3\], got 3\.5"),
        ((-1.0, 0.5, math.nan), ValueError, r"`beta` must lie in \(0, 3\], got nan"),
        ((torch.zeros(0), 0.5), ValueError, r"`z` must not be empty"),
        (
            (-torch.ones(3), torch.full((2,), 0.5)),
            ValueError,
            r"must broadcast, got shapes \(3,\), \(2,\), \(\)",
        ),
        ((torch.tensor([-1]), 0.5), TypeError, r"`z` must be a floating-point tensor, got torch\.int64"),
        (("-1", 0.5), TypeError, r"`z` must be a number or a tensor, got str"),
        ((-1.0, None), TypeError, r"`alpha` must be a number or a tensor, got NoneType"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mittag_leffler(*arguments)  # type: ignore[arg-type]


def test_no_block_is_larger_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each element costs 52 complex numbers, so a large call is made of blocks, whatever its shape."""
    module, sizes = sys.modules["fracspike.solvers.mittag_leffler"], list[int]()
    evaluate = module._evaluate

    def counted(*arguments: Tensor) -> Tensor:
        value = evaluate(*arguments)
        sizes.append(value.numel())
        return value

    monkeypatch.setattr(module, "_evaluate", counted)
    monkeypatch.setattr(module, "_BLOCK", 32)
    z = -torch.linspace(0, 5, 480, dtype=torch.float64).reshape(15, 16, 2)
    torch.testing.assert_close(mittag_leffler(z, 1.0), torch.exp(z))
    assert max(sizes) <= 32
    assert sum(sizes) == 480
