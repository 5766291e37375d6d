"""Teka, Marinov and Santamaria (2014): spike timing adaptation of a fractional neuron.

The model is the fractional leaky integrate-and-fire neuron of PLoS Comput. Biol. 10(3):e1003526,
stepped exactly as the authors' own program does (ModelDB 155856), peculiarities included, so that
spikes agree sample for sample:

- explicit L1 scheme; the first step is an ordinary Euler step with ``dt / tau_a``, whatever alpha;
- a spike is drawn as one sample of +30 mV, and the potential is then held at -70 mV until the
  refractory period has passed;
- both stay in the memory, which is never reset ("overwrite" in this library's terms);
- the current at the start of a step drives that step, and the threshold must be exceeded.

One thing is not copied. The program counts the refractory period in units of dt and waits for the
count to be met exactly, so 3.3 ms (32.999... steps in floating point) and 0 silence it for good
after the first spike; here these are 33 steps and none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fracspike.neurons.membrane import Differences
from fracspike.neurons.state import State
from fracspike.plots import blank
from fracspike.solvers import Full, L1Explicit, checks
from fracspike.threads import one_thread

from .report import Experiment, Row, Run

DT = 0.1  # ms
TAU_A = 20.0  # ms^alpha
RESISTANCE = 40.0  # MOhm
V_REST = -70.0  # mV, also the reset potential
THRESHOLD = -50.0  # mV
V_PEAK = 30.0  # mV

Current = float | Callable[[float], float]


@dataclass(frozen=True)
class Trace:
    """A simulated neuron.

    Attributes:
        time: ms, ``(T,)``.
        voltage: mV, ``(T,)`` or ``(T, N)`` for ``N`` currents.
        spiked: whether the sample is a spike, the same shape.
    """

    time: NDArray[np.float64]
    voltage: NDArray[np.float64]
    spiked: NDArray[np.bool_]

    def spike_times(self, neuron: int = 0) -> NDArray[np.float64]:
        """Return the spike times of one neuron in ms."""
        return self.time[self.spiked.reshape(len(self.time), -1)[:, neuron]]


def simulate(
    alpha: float,
    current: Current,
    duration: float = 1000.0,
    refractory: float = 8.0,
    v0: float = -70.0,
) -> NDArray[np.float64]:
    """Return the spike times of the published model.

    Args:
        alpha: Caputo order in (0, 1].
        current: injected current in nA, a number or a function of time in ms.
        duration: simulated time in ms.
        refractory: absolute refractory period in ms, a multiple of 0.1.
        v0: initial potential in mV.

    Returns:
        Spike times in ms, one-dimensional.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument is out of range, or a current is not finite.

    Source: Teka, Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526, equation 5;
    ModelDB 155856.

    >>> simulate(0.6, 3.0, duration=40.0)
    array([ 7.8, 22.5, 37. ])
    """
    return trace(alpha, [current], duration, refractory, v0).spike_times()


@one_thread()
@torch.no_grad()
def trace(
    alpha: float,
    currents: list[Current],
    duration: float = 1000.0,
    refractory: float = 8.0,
    v0: float = -70.0,
    *,
    forget: bool = False,
) -> Trace:
    """Simulate one neuron for each current; arguments as for :func:`simulate`.

    With ``forget``, the memory is erased after each spike, when the refractory period ends (the
    control of the paper's Figure 9).
    """
    order = torch.tensor(checks.order("alpha", alpha), dtype=torch.float64)
    samples = math.floor(float(checks.real("duration", duration, at_least=DT)) / DT + 1e-6) + 1
    hold = _hold_samples(refractory)
    drive = RESISTANCE * torch.stack([_sampled(current, samples) for current in currents], dim=1)
    v = torch.full((len(currents),), float(checks.real("v0", v0)), dtype=torch.float64)
    membrane = _membrane(v, order, samples)
    voltage, spiked = [v], [torch.zeros_like(v, dtype=torch.bool)]
    held = torch.zeros_like(v, dtype=torch.long)
    for n in range(samples - 1):
        candidate = membrane.advance(drive[n], None) if n else v + DT / TAU_A * (V_REST - v + drive[0])
        spike = (candidate > THRESHOLD) & (held == 0)
        v = torch.where(held > 0, V_REST, torch.where(spike, V_PEAK, candidate))
        membrane.settle(candidate, v)
        released = (held == 1) | (spike & (hold == 0))
        if forget and bool(released.any()):
            membrane.forget(released)
        held = torch.where(spike, hold, (held - 1).clamp(min=0))
        voltage.append(v)
        spiked.append(spike)
    return Trace(
        time=np.arange(samples) / round(1 / DT),
        voltage=torch.stack(voltage).numpy(),
        spiked=torch.stack(spiked).numpy(),
    )


def _membrane(v: Tensor, alpha: Tensor, samples: int) -> Differences:
    coefficients = L1Explicit().coefficients([alpha], [torch.ones_like(alpha)], DT, samples)
    return Differences(
        State.at(v, {"model": "teka2014"}),
        torch.tensor(V_REST, dtype=torch.float64),
        coefficients.kernel,
        coefficients.gain / TAU_A,
        Full(),
        implicit=False,
        overwrite=True,
    )


def _hold_samples(refractory: float) -> int:
    samples = round(float(checks.real("refractory", refractory, at_least=0.0)) / DT)
    if abs(samples * DT - refractory) > 1e-6:
        raise ValueError(f"`refractory` must be a multiple of {DT} ms, got {refractory:g}")
    return max(samples - 1, 0)  # the spike itself takes the first


def _sampled(current: Current, samples: int) -> Tensor:
    if callable(current):
        values = [float(current(n / round(1 / DT))) for n in range(samples)]
    else:
        values = [float(checks.real("current", current))] * samples
    sampled: Tensor = torch.tensor(values, dtype=torch.float64)
    return checks.all_finite("current", sampled)


# ---------------------------------------------------------------------------------------------
# The experiment

PROGRAM = "authors' program, ModelDB 155856, run under GNU Octave"
#: alpha: spike count, first and last spike time in ms, for 3 nA over 1000 ms
PUBLISHED = {
    1.0: (86, 3.7, 989.7),
    0.8: (80, 4.8, 992.4),
    0.6: (71, 7.8, 997.8),
    0.4: (53, 22.3, 983.8),
    0.2: (5, 640.0, 977.0),
}


def run(out: Run) -> list[Row]:
    """Check the published spikes and draw the figures."""
    currents = [round(c, 3) for c in np.linspace(0.5, 4.0, 8 if out.quick else 15)]
    # all currents in one loop
    traces = {a: trace(a, [3.0, *currents]) for a in out.progress(PUBLISHED, "alpha")}
    out.save_table(
        "spikes",
        ("alpha", "spike_time_ms"),
        ((alpha, f"{t:.1f}") for alpha, tr in traces.items() for t in tr.spike_times()),
    )
    rows = []
    for alpha, (count, first, last) in PUBLISHED.items():
        times = traces[alpha].spike_times()
        rows += [
            Row(f"spikes in 1 s, alpha {alpha:g}", count, PROGRAM, len(times), 0.0),
            Row(f"first spike (ms), alpha {alpha:g}", first, PROGRAM, float(times[0]), 0.05),
            Row(f"last spike (ms), alpha {alpha:g}", last, PROGRAM, float(times[-1]), 0.05),
        ]
    _draw_traces(out, traces)
    _draw_latency_and_intervals(out, traces)
    _draw_rate(out, currents, traces)
    return rows + _memory_reset(out, traces[0.4])


def _memory_reset(out: Run, kept: Trace) -> list[Row]:
    forgetful = trace(0.4, [3.0], forget=True)
    intervals = {"kept": np.diff(kept.spike_times()), "reset": np.diff(forgetful.spike_times())}
    out.save_table(
        "memory_reset",
        ("memory", "spike", "interval_ms"),
        ((name, i + 1, f"{isi:.1f}") for name, values in intervals.items() for i, isi in enumerate(values)),
    )
    figure, axes = blank(1, 1, "Adaptation is the memory's work (alpha 0.4, 3 nA)")
    for name, values in intervals.items():
        axes[0].plot(np.arange(1, len(values) + 1), values, "o-", ms=3, label=f"memory {name}")
    axes[0].set(xlabel="spike number", ylabel="inter-spike interval (ms)")
    axes[0].legend()
    out.save_figure("memory_reset", figure)
    source = "Teka et al. 2014, Figure 9: without the memory, adaptation vanishes"
    spread = {name: float(values.max() - values.min()) for name, values in intervals.items()}
    return [
        Row(
            "spread of intervals (ms), memory reset, alpha 0.4", 0.0, source, round(spread["reset"], 6), 0.05
        ),
        Row("spread of intervals (ms), memory kept, alpha 0.4", None, source, round(spread["kept"], 6)),
    ]


def _draw_traces(out: Run, traces: dict[float, Trace]) -> None:
    figure, axes = blank(len(traces), 1, "3 nA for one second: spikes by Caputo order")
    for ax, (alpha, tr) in zip(axes, traces.items(), strict=True):
        ax.plot(tr.time, tr.voltage[:, 0], lw=0.7)
        ax.set(ylabel="v (mV)", ylim=(-78, 38), xlim=(0, 1000))
        ax.set_title(f"alpha = {alpha:g}: {len(tr.spike_times())} spikes", fontsize=9, loc="left")
    axes[-1].set_xlabel("time (ms)")
    out.save_figure("voltage", figure)


def _draw_latency_and_intervals(out: Run, traces: dict[float, Trace]) -> None:
    alphas = [0.2, 0.4, 0.6, 0.8, 1.0] if out.quick else [round(0.2 + 0.1 * i, 1) for i in range(9)]
    latency = []
    for alpha in out.progress(alphas, "latency"):
        tr = traces[alpha] if alpha in traces else trace(alpha, [3.0])
        times = tr.spike_times()
        latency.append((alpha, times[0], float(np.diff(times).mean())))
    out.save_table("latency", ("alpha", "first_spike_ms", "mean_interval_ms"), latency)
    figure, axes = blank(1, 2, "First-spike latency and inter-spike intervals, 3 nA")
    axes[0].semilogy([row[0] for row in latency], [row[1] for row in latency], "o-")
    axes[0].set(xlabel="alpha", ylabel="first-spike latency (ms)")
    for alpha, tr in traces.items():
        times = tr.spike_times()
        axes[1].loglog(times[1:], np.diff(times), ".-", ms=4, lw=0.8, label=f"alpha {alpha:g}")
    axes[1].set(xlabel="time (ms)", ylabel="inter-spike interval (ms)", yticks=(10, 20, 50, 100))
    axes[1].set_yticklabels(["10", "20", "50", "100"])
    axes[1].minorticks_off()
    axes[1].legend(fontsize=8, loc="upper left")
    out.save_figure("latency_and_intervals", figure)


def _draw_rate(out: Run, currents: list[float], traces: dict[float, Trace]) -> None:
    figure, axes = blank(1, 1, "Firing rate against current")
    table = []
    for alpha, tr in traces.items():
        rates = tr.spiked[:, 1:].sum(0) / (tr.time[-1] / 1000)
        table += [(alpha, current, f"{rate:.1f}") for current, rate in zip(currents, rates, strict=True)]
        axes[0].plot(currents, rates, "o-", ms=3, label=f"alpha {alpha:g}")
    out.save_table("rate", ("alpha", "current_nA", "rate_Hz"), table)
    axes[0].set(xlabel="current (nA)", ylabel="spikes per second")
    axes[0].legend()
    out.save_figure("rate", figure)


EXPERIMENT = Experiment(
    name="teka2014",
    title="Spike timing adaptation of a fractional leaky integrate-and-fire neuron",
    source="Teka, Marinov and Santamaria (2014), PLoS Comput. Biol. 10(3):e1003526; ModelDB 155856",
    duration="15 s",
    run=run,
)
