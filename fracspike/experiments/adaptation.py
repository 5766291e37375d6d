r"""Spike-frequency adaptation of the fractional neuron: what decides whether it speeds up or slows down.

Two papers, one neuron (that of :mod:`.teka2014`: 40 MOhm, -70 mV at rest, threshold -50 mV):

- Teka et al. (2014) find upward adaptation to a step, more and more spikes a cycle of a sinusoid, and
  adaptation both ways to a square wave: a history that speaks through the order of the derivative;
- AbdelAty et al. (2022) find upward adaptation with the L1 scheme and downward with the product
  rectangle rule, for the same equation.

Here both are repeated, and the second is taken apart: L1 remembers *potentials*, reset ones included; the
rectangle rule remembers *rates*, which know nothing of a reset. Told to leave the reset out of its memory
(``reset_memory="jump"``), L1 does what the rectangle rule does. It is not the scheme that adapts.

Adaptation is measured by an index of the rates (one over interval) of the last and the first interval,
:math:`(r_\text{last} - r_\text{first})/(r_\text{last} + r_\text{first})`: positive upward, negative
downward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from fracspike.neurons import FractionalLIF
from fracspike.plots import blank
from fracspike.solvers import METHODS, Exponentials, RateMethod
from fracspike.threads import one_thread

from .report import Experiment, Row, Run
from .teka2014 import DT, RESISTANCE, TAU_A, THRESHOLD, V_REST, Current, trace

TEKA = "Teka et al. 2014, PLoS Comput. Biol. 10(3):e1003526"
ABDELATY = "AbdelAty et al. 2022, Commun. Nonlinear Sci. Numer. Simul. 105:106078, abstract"
REFRACTORY = 8.0  # ms
CURRENT = 3.0  # nA
CYCLE, PHASE = 1000 / 3, 500.0  # ms: of the sinusoid, and half of the square wave's
EVEN = 0.002  # an index that small is no adaptation: intervals are multiples of 0.1 ms

Times = NDArray[np.float64]


def sinusoid(t: float) -> float:
    """Return the current of Figure 10 in nA: 3 cycles a second."""
    return 2 + 2 * math.sin(2 * math.pi * 0.003 * t)


def square_wave(t: float) -> float:
    """Return a current of 3.4 and 4 nA in turns, as in Figure 3K, but of half a second each."""
    return 3.4 if t % (2 * PHASE) < PHASE else 4.0


def after_inhibition(t: float) -> float:
    """Return the step of 3 nA after half a second of -3 nA, as in Figure 2."""
    return -CURRENT if t < PHASE else CURRENT


CURRENTS: dict[str, Current] = {
    "step": CURRENT,
    "sinusoid": sinusoid,
    "square wave": square_wave,
    "after inhibition": after_inhibition,
}


def index(times: Times) -> float:
    """Return the adaptation index of a spike train; 0 with fewer than three spikes.

    >>> index(np.array([0.0, 10.0, 15.0]))  # the rate doubles
    0.3333333333333333
    """
    if len(times) < 3:
        return 0.0
    first, last = 1 / (times[1] - times[0]), 1 / (times[-1] - times[-2])
    return float((last - first) / (last + first))


def sign(value: float) -> int:
    """Return the direction of an index: 1 upward, -1 downward, 0 neither."""
    return 0 if abs(value) < EVEN else int(math.copysign(1, value))


def per_cycle(times: Times, duration: float) -> list[int]:
    """Return the number of spikes in each whole cycle of the sinusoid."""
    edges = CYCLE * np.arange(math.floor(duration / CYCLE + 1e-6) + 1)
    return [int(n) for n in np.histogram(times, edges)[0]]


def within(times: Times, phase: int) -> Times:
    """Return the spikes in one half wave, counted from 0; the first is one of 3.4 nA."""
    return times[(times >= phase * PHASE) & (times < (phase + 1) * PHASE)]


def product_rectangle(alpha: float, duration: float, current: float = CURRENT) -> Times:
    r"""Return the spike times of the same neuron by the product rectangle rule, with a hard reset.

    .. math:: v_n = v_{n-1} + H_n - H_{n-1}, \qquad H_n = \sum_{m=1}^{n} k_m f_{n-m}, \qquad
              \tau f = -(v - v_\text{rest}) + R I

    The sum remembers rates, so the reset does not enter it. While the neuron is refractory, a clamp takes
    the place of the newest rate and holds ``H`` where it is.

    Args:
        alpha: Caputo order.
        duration: ms.
        current: constant, nA.
    """
    steps = round(duration / DT)
    method = METHODS["predictor"]()
    assert isinstance(method, RateMethod)
    kernel = method.coefficients(torch.tensor(alpha, dtype=torch.float64), DT, steps + 1).kernel.numpy()
    rates, v, reached, held, spikes = np.zeros(steps), V_REST, 0.0, 0, []
    for n in range(1, steps + 1):
        older = kernel[2 : n + 1] @ rates[: n - 1][::-1]
        if held:
            held -= 1
            rates[n - 1] = (reached - older) / kernel[1]
            continue
        rates[n - 1] = (V_REST - v + RESISTANCE * current) / TAU_A
        total = older + kernel[1] * rates[n - 1]
        v, reached = v + total - reached, total
        if v >= THRESHOLD:
            v, held = V_REST, round(REFRACTORY / DT)
            spikes.append(n * DT)
    return np.array(spikes)


def by_library(alpha: float, reset_memory: str, method: str, duration: float) -> Times:
    """Return the spike times of ``FractionalLIF`` with the same parameters.

    Args:
        alpha: Caputo order.
        reset_memory: how the reset enters the memory.
        method: of the neuron.
        duration: ms.
    """
    lif = FractionalLIF(
        alpha=alpha,
        tau=TAU_A ** (1 / alpha),
        threshold=THRESHOLD,
        dt=DT,
        v_rest=V_REST,
        v_reset=V_REST,
        resistance=RESISTANCE,
        reset="value",
        reset_memory=reset_memory,
        refractory=REFRACTORY,
        method=method,
    )
    current = torch.full((round(duration / DT), 1), CURRENT, dtype=torch.float64)
    return (DT * (1 + np.flatnonzero(lif(current)[:, 0].numpy() > 0.5))).astype(np.float64)


def decay_of_rate(alpha: float, steps: int) -> float:
    """Return the exponent with which the spike count of a ``jump`` neuron grows under constant drive.

    The neuron is dimensionless (tau 1, drive 6 thresholds, step 0.05) and runs long enough for the power
    law; the exponent is fitted over the last 97 % of the time.
    """
    lif = FractionalLIF(alpha=alpha, tau=1.0, dt=0.05, memory=Exponentials(1e-6))
    fired = lif(torch.full((steps, 1), 6.0, dtype=torch.float64))[:, 0].numpy() > 0.5
    times, count = np.flatnonzero(fired) + 1, np.arange(1, fired.sum() + 1)
    late = times > 0.03 * steps
    return float(np.polyfit(np.log(times[late]), np.log(count[late]), 1)[0])


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        orders: of Teka's neuron, falling, the first 1.
        duration: ms that it is simulated.
        compared: orders at which the schemes are compared.
        compared_for: ms.
        steps: of the neuron whose count grows by a power law.
    """

    orders: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.2)
    duration: float = 2000.0
    compared: tuple[float, ...] = (0.4, 0.8)
    compared_for: float = 1000.0
    steps: int = 20000


DEFAULT = Plan()
QUICK = Plan(orders=(1.0, 0.2), duration=2000.0, compared=(0.4,), compared_for=400.0, steps=4000)


@one_thread()
@torch.no_grad()
def run(out: Run) -> list[Row]:
    """Repeat both papers, and take the second apart."""
    plan = QUICK if out.quick else DEFAULT
    spikes = {alpha: _by_current(alpha, plan.duration) for alpha in out.progress(plan.orders, "orders")}
    _save_spikes(out, "spikes", "current", spikes)
    _draw_currents(out, spikes)
    return [
        *_step_rows(spikes),
        *_sinusoid_rows(plan, spikes),
        *_square_rows(spikes),
        *_scheme_rows(out, plan),
        *_power_rows(out, plan),
    ]


def _save_spikes(out: Run, name: str, column: str, spikes: dict[float, dict[str, Times]]) -> None:
    """Save a table of spike times, by order and by what ``column`` names."""
    out.save_table(
        name,
        ("alpha", column, "spike_time_ms"),
        (
            (alpha, label, f"{t:.1f}")
            for alpha, found in spikes.items()
            for label, times in found.items()
            for t in times
        ),
    )


def _by_current(alpha: float, duration: float) -> dict[str, Times]:
    found = trace(alpha, list(CURRENTS.values()), duration, REFRACTORY)
    return {name: found.spike_times(i) for i, name in enumerate(CURRENTS)}


def _step_rows(spikes: dict[float, dict[str, Times]]) -> list[Row]:
    rows = []
    for alpha, found in spikes.items():
        times = found["step"]
        ours = index(times)
        rows += [
            Row(
                f"direction of adaptation to a step, alpha {alpha:g}",
                0.0 if alpha == 1 else 1.0,
                f"{TEKA}, Fig. 1G: intervals shrink where alpha < 1",
                sign(ours),
                0.5,
            ),
            Row(f"adaptation index, step, alpha {alpha:g}", None, f"{TEKA}, Fig. 1G", ours),
        ]
        inhibited = found["after inhibition"]
        late = inhibited[inhibited >= PHASE][0] - PHASE - times[0]
        what = f"later first spike (ms) after 500 ms of -3 nA, alpha {alpha:g}"
        rows.append(Row(what, None, f"{TEKA}, Fig. 2A: the pattern depends on the past", float(late)))
    latencies = [found["step"][0] for found in spikes.values()]  # alpha falls
    grown = all(later > earlier for earlier, later in pairwise(latencies))
    source = f"{TEKA}, Fig. 1E: the smaller alpha, the later (1: yes)"
    return [*rows, Row("first spike comes later the smaller alpha", 1.0, source, float(grown), 0.0)]


def _sinusoid_rows(plan: Plan, spikes: dict[float, dict[str, Times]]) -> list[Row]:
    rows = []
    for alpha, found in spikes.items():
        counts = per_cycle(found["sinusoid"], plan.duration)
        more = counts[-1] - counts[0]
        judged = {0.2: 1.0, 1.0: 0.0}.get(alpha)
        rows += [
            Row(
                f"direction of spikes a cycle, 2 + 2 sin(2 pi 3 Hz t) nA, alpha {alpha:g}",
                judged,
                f"{TEKA}, Fig. 3C, 3D: more and more near the threshold; the current is that of Fig. 10",
                int(np.sign(more)),
                None if judged is None else 0.5,
            ),
            Row(f"spikes in the last cycle less the first, alpha {alpha:g}", None, TEKA, more),
        ]
    return rows


def _square_rows(spikes: dict[float, dict[str, Times]]) -> list[Row]:
    alpha = min(spikes)
    rows = []
    for phase, name, direction in ((2, "3.4 nA after 4 nA", 1.0), (3, "4 nA after 3.4 nA", -1.0)):
        ours = index(within(spikes[alpha]["square wave"], phase))
        source = f"{TEKA}, Fig. 3H, 3K: downward after a step up, upward after a step down"
        rows.append(
            Row(f"direction of adaptation, {name}, alpha {alpha:g}", direction, source, sign(ours), 0.5)
        )
    return rows


def _draw_currents(out: Run, spikes: dict[float, dict[str, Times]]) -> None:
    figure, axes = blank(2, 2, "A fractional neuron remembers: rate (one over interval) under four currents")
    for i, (ax, name) in enumerate(zip(axes, CURRENTS, strict=True)):
        for alpha, found in spikes.items():
            times = found[name]
            ax.plot(times[1:] / 1000, 1000 / np.diff(times), ".-", ms=3, lw=0.6, label=f"alpha {alpha:g}")
        ax.set(title=name, ylim=(0, 125), yticks=range(0, 101, 20))
        ax.set_xlabel("time (s)" if i > 1 else "")
        ax.set_ylabel("spikes a second" if i % 2 == 0 else "")
    axes[0].legend(fontsize=7, ncols=3, loc="upper right")
    figure.set_size_inches(9.6, 6.4)
    out.save_figure("currents", figure)


#: what is compared: label -> (reset memory, method), the rectangle rule apart
SCHEMES = {
    "L1, reset remembered": ("overwrite", "l1_explicit"),
    "L1, reset as a current": ("current", "l1_explicit"),
    "L1, reset left out": ("jump", "l1_explicit"),
    "exact, reset left out": ("jump", "exact"),
    "exact, memory erased": ("restart", "exact"),
}
RECTANGLE = "product rectangle"


def _scheme_rows(out: Run, plan: Plan) -> list[Row]:
    spikes = {alpha: _by_scheme(alpha, plan.compared_for) for alpha in out.progress(plan.compared, "schemes")}
    _save_spikes(out, "schemes", "scheme", spikes)
    _draw_schemes(out, spikes)
    published = {
        "L1, reset remembered": (1.0, ABDELATY),
        RECTANGLE: (-1.0, ABDELATY),
        "exact, memory erased": (0.0, f"{TEKA}, Fig. 9"),
    }
    rows = []
    for alpha, found in spikes.items():
        for label, times in found.items():
            value, source = published.get(label, (None, "ours"))
            tolerance = None if value is None else 0.5
            what = f"direction of adaptation, {label}, alpha {alpha:g}"
            rows += [
                Row(what, value, source, sign(index(times)), tolerance),
                Row(f"adaptation index, {label}, alpha {alpha:g}", None, source, index(times)),
            ]
        pairs = zip(found["L1, reset left out"], found[RECTANGLE], strict=False)
        apart = max(abs(float(one - other)) for one, other in pairs)
        what = f"largest difference of spike times (ms), rectangle and L1, reset left out, alpha {alpha:g}"
        rows.append(Row(what, None, "ours: the direction is the memory's, not the scheme's", round(apart, 6)))
    return rows


def _by_scheme(alpha: float, duration: float) -> dict[str, Times]:
    found = {RECTANGLE: product_rectangle(alpha, duration)}
    for label, (memory, method) in SCHEMES.items():
        found[label] = by_library(alpha, memory, method, duration)
    return found


def _draw_schemes(out: Run, spikes: dict[float, dict[str, Times]]) -> None:
    figure, axes = blank(1, len(spikes), "One equation, one step: what the memory keeps of a reset decides")
    for ax, (alpha, found) in zip(axes, spikes.items(), strict=True):
        for label, times in found.items():
            style = {"ls": "--", "lw": 5, "alpha": 0.4} if label == RECTANGLE else {"marker": "o", "ms": 3}
            ax.loglog(times[1:], np.diff(times), label=label, **style)
        ax.set(xlabel="time (ms)", title=f"alpha {alpha:g}, {CURRENT:g} nA")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    axes[0].set_ylabel("inter-spike interval (ms)")
    axes[0].legend(fontsize=7)
    out.save_figure("schemes", figure)


def _power_rows(out: Run, plan: Plan) -> list[Row]:
    return [
        Row(
            f"exponent of the spike count with the reset left out, alpha {alpha:g}",
            alpha,
            "theory: the rate of the impulsive equation falls like t^(alpha-1)",
            decay_of_rate(alpha, plan.steps),
            0.02,
        )
        for alpha in out.progress(plan.compared, "power law")
    ]


EXPERIMENT = Experiment(
    name="adaptation",
    title="Spike-frequency adaptation: currents, reset memories and numerical schemes",
    source="Teka et al. (2014), PLoS Comput. Biol. 10(3):e1003526; AbdelAty et al. (2022), CNSNS 105:106078",
    duration="1 min",
    run=run,
)
