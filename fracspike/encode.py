r"""Encoders: numbers into spikes, or into currents, over ``T`` steps.

Every encoder returns ``(T, *)`` for a sample ``(*)``, so a batch ``(B, *)`` becomes what layers take,
``(T, B, *)``, in the dtype and on the device of its input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fracspike.solvers import checks


def repeat(x: Tensor, steps: int) -> Tensor:
    """Return ``x`` as a constant current: ``(*) -> (steps, *)``, without a copy.

    Args:
        x: sample ``(*)``, finite.
        steps: number of time steps.

    >>> repeat(torch.tensor([0.5, 2.0]), 3)[:, 1]
    tensor([2., 2., 2.])
    """
    _sample(x)
    return x.unsqueeze(0).expand(checks.positive_int("steps", steps), *x.shape)


def rate(
    x: Tensor, steps: int, *, gain: float = 1.0, offset: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    r"""Return Bernoulli spikes, independent from step to step: a Poisson process seen in bins.

    .. math:: P(s_n = 1) = \text{gain} \cdot x + \text{offset}

    Args:
        x: sample ``(*)``; with gain and offset, a probability per step.
        steps: number of time steps.
        gain: factor on ``x``.
        offset: added after it.
        generator: source of the random numbers; torch's own by default.

    Returns:
        Spikes ``(steps, *)``.

    Raises:
        ValueError: if a probability leaves [0, 1].

    >>> spikes = rate(torch.tensor([0.0, 0.25, 1.0]), 4000, generator=torch.Generator().manual_seed(0))
    >>> [round(r, 2) for r in spikes.mean(0).tolist()]
    [0.0, 0.25, 1.0]
    """
    _sample(x)
    probability = gain * x + offset
    _in_unit("gain * x + offset", probability, "scale the data, or choose gain and offset")
    shape = (checks.positive_int("steps", steps), *x.shape)
    uniform = torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
    return (uniform < probability).to(x.dtype)


def rate_sequence(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Return Bernoulli spikes for a probability that changes in time: ``(T, *) -> (T, *)``.

    Args:
        x: probability of a spike at each step, in [0, 1].
        generator: source of the random numbers; torch's own by default.

    >>> rate_sequence(torch.tensor([0.0, 1.0, 0.0]))
    tensor([0., 1., 0.])
    """
    _sample(x)
    _in_unit("x", x, "scale the data")
    return (torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) < x).to(x.dtype)


def latency_times(
    x: Tensor,
    steps: int,
    *,
    mode: str = "linear",
    tau: float = 5.0,
    threshold: float = 0.01,
) -> Tensor:
    r"""Return the step of each single spike, earlier for stronger inputs; ``steps`` for none at all.

    - ``linear``: :math:`n = \operatorname{round}((T - 1)(1 - x))`, for ``x`` in [0, 1];
    - ``log``: the time at which a leaky membrane driven by ``x`` reaches ``threshold``,
      :math:`n = \operatorname{round}(\tau \ln\frac{x}{x - \theta})`, for ``x`` of any size; inputs at or
      below the threshold never do.

    Args:
        x: sample ``(*)``.
        steps: number of time steps ``T``.
        mode: ``"linear"`` or ``"log"``.
        tau: time constant in steps (``log``).
        threshold: smallest input that spikes: below it there is none.

    Returns:
        Whole numbers ``(*)`` in 0..steps.

    >>> latency_times(torch.tensor([1.0, 0.5, 0.0]), 11).tolist()
    [0, 5, 11]
    """
    _sample(x)
    count = checks.positive_int("steps", steps)
    checks.real("threshold", threshold, at_least=0.0)
    if checks.one_of("mode", mode, ("linear", "log")) == "linear":
        _in_unit("x", x, "scale the data, or use mode='log'")
        times = (count - 1) * (1 - x.double())
        silent = x < threshold
    else:
        scale = float(checks.real("tau", tau, above=0.0))
        silent = x <= threshold
        safe = torch.where(silent, threshold + 1.0, x).double()
        times = -scale * torch.log1p(-threshold / safe)
    step = times.round().clamp(max=count).long()  # later than the last step is never
    return torch.where(silent, count, step)


def latency(
    x: Tensor,
    steps: int,
    *,
    mode: str = "linear",
    tau: float = 5.0,
    threshold: float = 0.01,
) -> Tensor:
    """Return one spike for each input, earlier for stronger ones (time to first spike).

    Arguments are those of :func:`latency_times`, which has the formulas.

    Returns:
        Spikes ``(steps, *)``.

    >>> latency(torch.tensor([1.0, 0.5, 0.0]), 3).T.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    times = latency_times(x, steps, mode=mode, tau=tau, threshold=threshold)
    step = torch.arange(steps, device=x.device).reshape(-1, *([1] * x.dim()))
    return (step == times).to(x.dtype)


def delta(x: Tensor, threshold: float = 0.1, *, channels: str = "on") -> Tensor:
    r"""Return spikes where a signal changes by at least ``threshold`` from one step to the next.

    .. math:: d_n = x_n - x_{n-1}, \quad x_{-1} = 0

    Args:
        x: signal ``(T, *)``.
        threshold: smallest change that spikes, positive.
        channels: ``"on"`` (rises), ``"off"`` (falls), ``"signed"`` (1 and -1) or ``"both"`` (rises and falls
            as two channels, in a new dimension after the batch).

    Returns:
        ``(T, *)``; ``(T, B, 2, ...)`` with ``"both"``.

    >>> signal = torch.tensor([0.0, 1.0, 1.05, 0.2])
    >>> delta(signal, 0.5, channels="signed")
    tensor([ 0.,  1.,  0., -1.])
    """
    _sample(x)
    checks.one_of("channels", channels, ("on", "off", "signed", "both"))
    limit = float(checks.real("threshold", threshold, above=0.0))
    if x.dim() < (2 if channels == "both" else 1):
        raise ValueError(f"`x` must have shape (T, *), (T, B, *) for channels='both'; got {tuple(x.shape)}")
    change = torch.diff(x, dim=0, prepend=torch.zeros_like(x[:1]))
    on, off = (change >= limit).to(x.dtype), (change <= -limit).to(x.dtype)
    if channels == "both":
        return torch.stack([on, off], dim=2)
    return {"on": on, "off": off, "signed": on - off}[channels]


def population(x: Tensor, neurons: int, *, low: float = 0.0, high: float = 1.0, width: float = 1.5) -> Tensor:
    r"""Return how strongly each of a population responds: Gaussian tuning curves over a range.

    .. math:: r_i = \exp\!\left(-\tfrac12 \left(\frac{x - c_i}{\sigma}\right)^2\right), \quad
              \sigma = \frac{\text{high} - \text{low}}{\text{width}\,(N - 1)}

    with centres :math:`c_i` evenly from ``low`` to ``high``. Feed the responses to :func:`rate` or
    :func:`latency`.

    Args:
        x: sample ``(*)``.
        neurons: number of neurons ``N`` for each entry, at least 2.
        low: centre of the first.
        high: centre of the last.
        width: how much narrower than the distance of the centres a curve is.

    Returns:
        Responses ``(*, N)`` in (0, 1].

    Source: Bohte, Kok and La Poutre (2002), Neurocomputing 48, section 4 (there ``width`` is beta).

    >>> population(torch.tensor([0.0, 0.5]), 3).argmax(-1)
    tensor([0, 1])
    """
    _sample(x)
    count = checks.positive_int("neurons", neurons, at_least=2)
    checks.real("low", low)
    checks.real("high", high, above=low)
    sigma = (high - low) / (float(checks.real("width", width, above=0.0)) * (count - 1))
    centres = torch.linspace(low, high, count, dtype=x.dtype, device=x.device)
    return torch.exp(-0.5 * ((x.unsqueeze(-1) - centres) / sigma) ** 2)


class Encoder(nn.Module):
    """An encoder as a layer: ``(B, *) -> (T, B, *)``, to stand first in ``nn.Sequential``.

    Args:
        name: ``"repeat"``, ``"rate"``, ``"latency"``; see the functions of these names.
        steps: number of time steps.
        **options: passed on to the function.

    Raises:
        ValueError: if the name is unknown.

    >>> Encoder("repeat", 10)(torch.zeros(4, 3)).shape
    torch.Size([10, 4, 3])
    """

    def __init__(self, name: str, steps: int, **options: object) -> None:
        super().__init__()
        self.name = checks.one_of("name", name, ENCODERS)
        self.steps = checks.positive_int("steps", steps)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoded sample."""
        encoded: Tensor = ENCODERS[self.name](x, self.steps, **self.options)
        return encoded

    def extra_repr(self) -> str:
        """Return the arguments, for printing."""
        return ", ".join(
            [repr(self.name), f"steps={self.steps}", *(f"{k}={v!r}" for k, v in self.options.items())]
        )


ENCODERS = {"repeat": repeat, "rate": rate, "latency": latency}


def _sample(x: Tensor) -> Tensor:
    """Return ``x`` if it is finite and holds anything."""
    checks.floating("x", x)
    if x.numel() == 0:
        raise ValueError(f"`x` must not be empty, got a tensor of shape {tuple(x.shape)}")
    return checks.all_finite("x", x)


def _in_unit(name: str, x: Tensor, remedy: str) -> None:
    low, high = float(x.detach().min()), float(x.detach().max())
    if low < 0 or high > 1 or math.isnan(low):
        raise ValueError(f"`{name}` must lie in [0, 1], got {low:g} to {high:g}; {remedy}")
