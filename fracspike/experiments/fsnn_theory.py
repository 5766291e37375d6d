r"""Ge, Peng et al. (2025): what the theory of the fractional spiking neuron promises, measured.

Four statements about the neuron of arXiv 2507.16937, each checked on simulated potentials and spikes:

1. below threshold the potential relaxes like the Mittag-Leffler function;
2. its tail is a power law, :math:`t^{-\alpha}`;
3. a disturbance :math:`\varepsilon` of the current moves an integrator by
   :math:`R\,\varepsilon\,t^\alpha / (\tau\,\Gamma(\alpha+1))`, and a leaky neuron by less;
4. the spike time answers a change of a strong current :math:`I` like
   :math:`|dt_s| \propto I^{-(1+1/\alpha)}`.

The paper writes :math:`\tau D^\alpha v = -v + R I`, so its :math:`\tau` has the unit of a
time to the power alpha; here the neuron is :math:`\tau^\alpha D^\alpha v = -v + R I`, with
:math:`\tau` a time. The two agree for ``tau = tau_paper ** (1 / alpha)``, which the neurons below are
given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erfcx
from torch import Tensor

from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.solvers import Full, fdeint, mittag_leffler
from fracspike.threads import one_thread

from .report import Experiment, Row, Run

ORDERS = (1.0, 0.8, 0.6, 0.4)
TAU_A = 1.0  # the paper's tau, time**alpha
PAPER = "Ge, Peng et al. 2025, arXiv 2507.16937"
CLOSED = (1.0, 0.5)  # orders with a closed form of the Mittag-Leffler function
METHODS = ("exact", "l1")
EARLIEST = 128  # steps before a spike, at least, so that its time is known to better than 1e-4

Array = NDArray[np.float64]


def neuron(alpha: float, dt: float, method: str = "exact", threshold: float = 1.0) -> FractionalLIF:
    """Return the paper's neuron: order ``alpha``, tau 1 in its units, resistance 1."""
    return FractionalLIF(
        alpha=alpha,
        tau=TAU_A ** (1 / alpha),
        threshold=threshold,
        dt=dt,
        reset="none",
        method=method,
        memory=Full(),  # steps go down to 1e-12 of tau, where no sum of exponentials reaches
    )


def relaxation(alpha: float, dt: float, steps: int, method: str = "exact") -> tuple[Array, Array]:
    """Return times and potential of an undriven neuron that starts at 1.

    Args:
        alpha: Caputo order.
        dt: time step.
        steps: how many.
        method: of the neuron, or ``"fdeint"`` to solve ``D^alpha v = -v`` by the trapezoid rule, without one.
    """
    start = torch.ones(1, dtype=torch.float64)
    times = torch.arange(1, steps + 1, dtype=torch.float64) * dt
    if method == "fdeint":
        grid = torch.cat([torch.zeros(1, dtype=torch.float64), times])
        v = fdeint(lambda t, y: -y / TAU_A, start, grid, alpha, method="trapezoid")[1:]
    else:
        lif = neuron(alpha, dt, method, threshold=2.0)  # never reached
        v = lif.simulate(torch.zeros(steps, 1, dtype=torch.float64), lif.initial_state(start, 1.0)).voltage
    return times.numpy(), v[:, 0].numpy()


def relaxation_by_formula(alpha: float, times: Array) -> Array:
    """Return E_alpha(-t^alpha / tau): in closed form where there is one, which is at 1 and 1/2."""
    if alpha == 1.0:
        return np.exp(-times / TAU_A)
    if alpha == 0.5:
        closed: Array = erfcx(np.sqrt(times) / TAU_A)
        return closed
    order = torch.tensor(alpha, dtype=torch.float64)
    return mittag_leffler(-(torch.as_tensor(times) ** order) / TAU_A, order).numpy()


def slope(x: Array, y: Array) -> float:
    """Return the slope of ``log y`` against ``log x``, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def disturbance(alpha: float, epsilon: float, times: Tensor, leak: bool) -> Array:
    """Return how far a current of 1 + ``epsilon`` in place of 1 has moved the potential.

    Args:
        alpha: Caputo order.
        epsilon: the disturbance.
        times: uniform, from 0.
        leak: a leaky neuron, or an integrator.
    """

    def solve(current: float) -> Tensor:
        start = torch.zeros(1, dtype=torch.float64)
        field: Callable[[Tensor, Tensor], Tensor] = lambda t, v: (current - leak * v) / TAU_A  # noqa: E731
        solution: Tensor = fdeint(field, start, times, alpha, method="trapezoid")
        return solution

    return (solve(1.0 + epsilon) - solve(1.0)).detach()[1:, 0].numpy()


def first_spikes(alpha: float, currents: Array, method: str) -> Array:
    """Return the first spike time for each constant current, interpolated within its step.

    The times of strong and weak currents lie orders of magnitude apart, so the simulation is
    repeated with a time step four times smaller until each spike has been seen late enough.

    Args:
        alpha: Caputo order.
        currents: well above the threshold, at least 2.
        method: of the neuron.
    """
    if not (currents >= 2).all():
        raise ValueError(f"`currents` must be at least 2 thresholds, got {currents.min():g}")
    found = np.full(len(currents), np.nan)
    drive = torch.as_tensor(currents).expand(4 * EARLIEST + 4, -1)
    dt = 0.01
    while np.isnan(found).any():
        run = neuron(alpha, dt, method).simulate(drive)
        fired = run.spikes > 0.5
        step = fired.int().argmax(0)
        late = ((step >= EARLIEST) & fired.any(0)).numpy() & np.isnan(found)
        after = run.pre_reset.gather(0, step[None])[0].numpy()
        before = run.pre_reset.gather(0, step.clamp(min=1)[None] - 1)[0].numpy()
        inside = np.divide(1.0 - before, after - before, out=np.zeros_like(found), where=late)
        found = np.where(late, dt * (step.numpy() + inside), found)  # the threshold is 1
        dt /= 4
    return found


@dataclass(frozen=True)
class Sensitivity:
    """How the first spike answers a change of current.

    Attributes:
        currents: ``(N,)``.
        shifts: change of the spike time for a unit change of the current, ``(N,)``.
    """

    currents: Array
    shifts: Array

    @classmethod
    def measure(cls, alpha: float, currents: Array, method: str) -> Sensitivity:
        """Measure by a symmetric difference of 1 % around each current."""
        change = 0.01
        pair = np.concatenate([currents * (1 - change), currents * (1 + change)])
        late, early = np.split(first_spikes(alpha, pair, method), 2)
        return cls(currents, (late - early) / (2 * change * currents))


@one_thread()
@torch.no_grad()
def run(out: Run) -> list[Row]:
    """Measure the four statements."""
    return _relaxation(out) + _tail(out) + _growth(out) + _spike_times(out)


def _relaxation(out: Run) -> list[Row]:
    steps = 1000 if out.quick else 2000
    source = f"{PAPER}: Mittag-Leffler relaxation"
    figure, axes = blank(1, 2, "An undriven neuron forgets by a power law, not exponentially")
    rows, table = [], []
    for alpha in out.progress((*ORDERS, 0.5), "relaxation"):
        for method in ("exact", "fdeint"):
            times, v = relaxation(alpha, 10.0 / steps, steps, method)
            error = np.abs(v - relaxation_by_formula(alpha, times))
            table += [(alpha, method, *pair) for pair in zip(times[9::10], v[9::10], strict=True)]
            if method == "fdeint":
                what = f"largest error of relaxation from t = tau on, trapezoid rule, alpha {alpha:g}"
                rows.append(Row(what, 0.0, source, float(error[times >= TAU_A].max()), 1e-4))
            elif alpha in CLOSED:  # elsewhere the neuron's kernel and the formula are one function
                what = f"largest error of relaxation, exact neuron, alpha {alpha:g}"
                rows.append(Row(what, 0.0, source, float(error.max()), 1e-9))
        if alpha in ORDERS:
            axes[0].plot(times, v, label=f"alpha {alpha:g}")
    out.save_table("relaxation", ("alpha", "method", "time", "v"), table)
    axes[0].set(xlabel="time / tau", ylabel="potential", title="the first 10 tau")
    axes[0].legend(fontsize=8)
    for alpha in ORDERS:  # exact at any time step: each decade of time has its own
        pieces = [relaxation(alpha, 10.0**k, 10) for k in range(-3, 4)]
        axes[1].loglog(*(np.concatenate(part) for part in zip(*pieces, strict=True)))
    axes[1].set(xlabel="time / tau", title="the tail", ylim=(1e-5, 1.5))
    out.save_figure("relaxation", figure)
    return rows


def _tail(out: Run) -> list[Row]:
    rows = []
    for alpha in ORDERS[1:]:
        times, v = relaxation(alpha, 1000.0, 300 if out.quick else 1000)
        late = times >= times[-1] / 10
        rows.append(
            Row(
                f"slope of the tail, alpha {alpha:g}",
                -alpha,
                f"{PAPER}: tail t^-alpha",
                slope(times[late], v[late]),
                0.01,
            )
        )
    return rows


def _growth(out: Run) -> list[Row]:
    epsilon, longest = 0.1, 100.0
    times = torch.linspace(0.0, longest, 501 if out.quick else 2001, dtype=torch.float64)
    t = times[1:].numpy()
    figure, axes = blank(1, 2, "What a disturbance of the current does to the potential")
    rows, table, source = [], [], f"{PAPER}: growth R eps t^alpha / (tau Gamma(alpha+1))"
    ordinary = disturbance(1.0, epsilon, times, leak=False)
    for i, alpha in enumerate(out.progress(ORDERS, "disturbance")):
        moved = disturbance(alpha, epsilon, times, leak=False)
        leaky = disturbance(alpha, epsilon, times, leak=True)
        exponent = slope(t, moved)
        factor = float(np.exp(np.mean(np.log(moved) - alpha * np.log(t))) / epsilon)
        rows += [
            Row(f"growth exponent of the integrator, alpha {alpha:g}", alpha, source, exponent, 1e-6),
            Row(
                f"growth factor of the integrator, alpha {alpha:g}",
                1 / math.gamma(alpha + 1),
                source,
                factor,
                1e-6,
            ),
            Row(
                f"leaky neuron's largest share of that growth, alpha {alpha:g}",
                None,
                f"{PAPER}: an upper bound, so at most 1",
                float((leaky / moved).max()),
            ),
        ]
        if alpha < 1:
            gentler = t[moved < ordinary]
            rows.append(
                Row(
                    f"time / tau from which alpha {alpha:g} is disturbed less than alpha 1",
                    None,
                    "not in the paper: before it, the fractional neuron is disturbed more",
                    float(gentler[0]),
                )
            )
        table += list(zip([alpha] * len(t), t, moved, leaky, strict=True))[9::10]
        axes[0].loglog(t, moved / epsilon, color=f"C{i}", label=f"alpha {alpha:g}")
        axes[1].loglog(t, leaky / epsilon, color=f"C{i}")
        axes[1].loglog(t, moved / epsilon, color=f"C{i}", ls=":", lw=0.8)
    out.save_table("disturbance", ("alpha", "time", "integrator", "leaky"), table)
    axes[0].set(xlabel="time / tau", ylabel="change of v / change of R I", title="integrator")
    axes[0].legend(fontsize=8)
    axes[1].set(xlabel="time / tau", title="leaky neuron (dotted: integrator)", ylim=(0.05, 20))
    out.save_figure("disturbance", figure)
    return rows


def _spike_times(out: Run) -> list[Row]:
    currents = np.geomspace(100.0, 1000.0 if out.quick else 10000.0, 5 if out.quick else 9)
    figure, axes = blank(1, 1, "A strong current fixes the spike time the better, the smaller alpha")
    rows, table = [], []
    jobs = [(alpha, method) for alpha in ORDERS for method in METHODS]
    for alpha, method in out.progress(jobs, "spike times"):
        found = Sensitivity.measure(alpha, currents, method)
        rows.append(
            Row(
                f"slope of |dt_s| against I, {method}, alpha {alpha:g}",
                -(1 + 1 / alpha),
                f"{PAPER}: |dt_s| ~ I^-(1+1/alpha)",
                slope(found.currents, found.shifts),
                0.02,
            )
        )
        table += [(alpha, method, c, s) for c, s in zip(found.currents, found.shifts, strict=True)]
        style = {"exact": "-", "l1": "o"}[method]
        label = f"alpha {alpha:g}, slope {rows[-1].measured:.2f}" if method == "exact" else None
        color = f"C{ORDERS.index(alpha)}"
        axes[0].loglog(found.currents, found.shifts, style, ms=4, color=color, label=label)
    out.save_table("spike_times", ("alpha", "method", "current", "shift_per_unit_current"), table)
    axes[0].set(xlabel="current (thresholds)", ylabel="shift of the first spike per unit of current")
    axes[0].set_title("lines: exact; points: L1", fontsize=9)
    axes[0].legend(fontsize=8)
    out.save_figure("spike_times", figure)
    return rows


EXPERIMENT = Experiment(
    name="fsnn-theory",
    title="What theory promises of a fractional neuron: relaxation, disturbance, spike times",
    source="Ge, Peng et al. (2025), Fractional-order Spiking Neural Network, arXiv 2507.16937 (ICLR 2026)",
    duration="15 s",
    run=run,
)
