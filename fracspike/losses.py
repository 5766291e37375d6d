r"""Losses and accuracies on spike trains.

Outputs are ``(T, B, C)``, time first, and targets classes ``(B,)`` unless said otherwise. Names are those of
snnTorch, where it has the loss, but each is a function, ``ce_rate_loss(spikes, targets)``;
gradients reach the spikes, and through their surrogate the network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fracspike.solvers import checks


def ce_count_loss(spikes: Tensor, targets: Tensor, *, scale: float = 1.0) -> Tensor:
    r"""Return the cross entropy of the spike count as class scores.

    .. math:: L = -\frac1B \sum_b \log \operatorname{softmax}(\text{scale} \cdot \textstyle\sum_n s_n)_{y_b}

    Args:
        spikes: output ``(T, B, C)``.
        targets: classes ``(B,)``.
        scale: factor on the counts; ``1 / T`` gives the mean rate as score.

    Source: snnTorch has it under the same name.
    """
    _check(spikes, targets)
    return functional.cross_entropy(scale * spikes.sum(0), targets)


def ce_rate_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""Return the cross entropy of the outputs of each step, averaged over time.

    .. math:: L = \frac{1}{T} \sum_n \operatorname{CE}(o_n, y)

    Args:
        outputs: spikes or potentials ``(T, B, C)``.
        targets: classes ``(B,)``.

    Source: snnTorch has it under the same name.
    """
    _check(outputs, targets)
    return functional.cross_entropy(outputs.flatten(0, 1), targets.repeat(len(outputs)))


def ce_max_membrane_loss(voltage: Tensor, targets: Tensor) -> Tensor:
    r"""Return the cross entropy of the highest potential over time, :math:`\max_n v_n`, as class scores.

    Args:
        voltage: potentials ``(T, B, C)``.
        targets: classes ``(B,)``.

    Source: snnTorch has it under the same name; Zenke and Vogels (2021), Neural Computation 33(4).
    """
    _check(voltage, targets)
    return functional.cross_entropy(voltage.amax(0), targets)


def mse_count_loss(
    spikes: Tensor, targets: Tensor, *, correct_rate: float = 1.0, incorrect_rate: float = 0.0
) -> Tensor:
    r"""Return the mean squared error of the spike count against a wanted count for each class, per step.

    .. math:: L = \frac{1}{T} \frac{1}{BC} \sum_{b,c} \Big(\sum_n s_n - T r_{bc}\Big)^2

    Args:
        spikes: output ``(T, B, C)``.
        targets: classes ``(B,)``.
        correct_rate: wanted spikes per step of the right class.
        incorrect_rate: wanted spikes per step of the others.

    Source: snnTorch has it under the same name (there the wanted counts are rounded down).
    """
    _check(spikes, targets)
    for name, value in (("correct_rate", correct_rate), ("incorrect_rate", incorrect_rate)):
        checks.real(name, value, at_least=0.0, at_most=1.0)
    steps = len(spikes)
    wanted = torch.full_like(spikes[0], incorrect_rate * steps)
    wanted.scatter_(1, targets.unsqueeze(1), correct_rate * steps)
    return functional.mse_loss(spikes.sum(0), wanted) / steps


def mse_membrane_loss(
    voltage: Tensor, targets: Tensor, *, correct: float = 1.0, incorrect: float = 0.0
) -> Tensor:
    r"""Return the mean squared error of the potential against a wanted one, over all steps.

    Args:
        voltage: potentials ``(T, B, C)``.
        targets: classes ``(B,)``.
        correct: wanted potential of the right class.
        incorrect: wanted potential of the others.

    Source: snnTorch has it under the same name.
    """
    _check(voltage, targets)
    wanted = torch.full_like(voltage[0], incorrect)
    wanted.scatter_(1, targets.unsqueeze(1), correct)
    return functional.mse_loss(voltage, wanted.expand_as(voltage))


def first_spike_time(spikes: Tensor) -> Tensor:
    r"""Return the step of the first spike, ``T`` where there is none: ``(T, *) -> (*)``, differentiable.

    .. math:: t = \sum_{n=0}^{T-1} \prod_{m \le n} (1 - s_m)

    The number of steps that pass before the first spike: exact for spikes of 0 and 1, and a sum of products,
    so that the surrogate's gradient comes through. A spike one step earlier would end the wait there.

    Args:
        spikes: ``(T, *)``, entries in [0, 1].

    >>> first_spike_time(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    tensor([1., 3.])
    """
    checks.all_finite("spikes", spikes)
    return torch.cumprod(1 - spikes, dim=0).sum(0)


def ce_temporal_loss(spikes: Tensor, targets: Tensor, *, scale: float = 1.0) -> Tensor:
    r"""Return the cross entropy of how early each class spikes: scores are minus the first spike times.

    Args:
        spikes: output ``(T, B, C)``.
        targets: classes ``(B,)``.
        scale: factor on the times; small for long sequences.

    Source: Mostafa (2018), IEEE TNNLS 29(7); snnTorch has it under the same name, with ``inverse="negate"``.
    """
    _check(spikes, targets)
    return functional.cross_entropy(-scale * first_spike_time(spikes), targets)


def mse_temporal_loss(spikes: Tensor, times: Tensor) -> Tensor:
    r"""Return the mean squared error of first spike times, as parts of the whole time.

    .. math:: L = \operatorname{mean} \big((t - t^*) / T\big)^2

    Args:
        spikes: output ``(T, B, C)``.
        times: wanted steps ``(B, C)``, ``T`` for no spike.

    Source: snnTorch has it under the same name (there with wanted times for classes).
    """
    if times.shape != spikes.shape[1:]:
        raise ValueError(f"`times` must have shape {tuple(spikes.shape[1:])}, got {tuple(times.shape)}")
    return functional.mse_loss(first_spike_time(spikes) / len(spikes), times.to(spikes) / len(spikes))


def van_rossum_loss(spikes: Tensor, targets: Tensor, *, tau: float, dt: float = 1.0) -> Tensor:
    r"""Return the van Rossum distance of spike trains, the mean over all but time.

    .. math:: D^2 = \frac1\tau \int_0^\infty (f - f^*)^2\, dt, \ f(t) = \sum_{t_k \le t} e^{-(t - t_k)/\tau}

    The filtered difference is a sum of exponentials, so that the integral is exact whatever ``dt``, and the
    tail after the last step is in it: one spike too many costs 1/2; two spikes apart by d cost
    :math:`1 - e^{-d/\tau}`.

    Args:
        spikes: ``(T, *)``.
        targets: wanted spikes ``(T, *)``.
        tau: time constant of the filter, in the unit of ``dt``.
        dt: time step.

    Source: van Rossum (2001), Neural Computation 13(4), equation 2.

    >>> a, b = torch.zeros(10, 1), torch.zeros(10, 1)
    >>> a[2] = 1
    >>> van_rossum_loss(a, b, tau=3.0)
    tensor(0.5000)
    """
    checks.all_finite("spikes", spikes)
    if targets.shape != spikes.shape:
        raise ValueError(f"`targets` must have shape {tuple(spikes.shape)}, got {tuple(targets.shape)}")
    scale = float(checks.real("tau", tau, above=0.0)) / float(checks.real("dt", dt, above=0.0))
    decay = torch.exp(torch.tensor(-1.0 / scale, dtype=torch.float64)).to(spikes)
    gap = spikes - targets.to(spikes)
    trace = torch.zeros_like(gap[0])
    total = torch.zeros_like(gap[0])
    for step in gap:
        trace = decay * trace + step
        total = total + trace**2
    # between two steps the integral of trace**2 is tau/2 (1 - decay**2) trace**2, and tau/2 after the last
    total = total - trace**2
    return (0.5 * (1 - decay**2) * total + 0.5 * trace**2).mean()


def accuracy_rate(spikes: Tensor, targets: Tensor) -> float:
    """Return the share of samples whose right class spikes most; of equal counts the lowest class wins.

    Args:
        spikes: output ``(T, B, C)``.
        targets: classes ``(B,)``.
    """
    _check(spikes, targets)
    return float((spikes.detach().sum(0).argmax(1) == targets).double().mean())


def accuracy_temporal(spikes: Tensor, targets: Tensor) -> float:
    """Return the share of samples whose right class spikes first, and at all; in a tie the lowest class wins.

    Args:
        spikes: output ``(T, B, C)``.
        targets: classes ``(B,)``.
    """
    _check(spikes, targets)
    times = first_spike_time(spikes.detach())
    earliest, winner = times.min(1)
    return float(((winner == targets) & (earliest < len(spikes))).double().mean())


def _check(outputs: Tensor, targets: Tensor) -> None:
    checks.all_finite("outputs", outputs)
    if outputs.dim() != 3:
        raise ValueError(f"outputs must have shape (T, B, C), got {tuple(outputs.shape)}")
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != outputs.shape[1:2]:
        got = f"{tuple(targets.shape)} of {targets.dtype}" if isinstance(targets, Tensor) else repr(targets)
        raise ValueError(
            f"`targets` must be classes of shape ({outputs.shape[1]},), whole numbers; got {got}"
        )
    if bool((targets < 0).any()) or bool((targets >= outputs.shape[2]).any()):
        raise ValueError(
            f"`targets` must lie in 0..{outputs.shape[2] - 1}, got {int(targets.min())}..{int(targets.max())}"
        )
