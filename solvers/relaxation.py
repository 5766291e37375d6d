r"""Linear leaks, solved exactly: the one right-hand side for which the method ``exact`` exists."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import checks
from .mittag_leffler import mittag_leffler
from .weights import lags


class LinearLeak(nn.Module):
    r"""The right-hand side :math:`f(t, y) = -\lambda y + u(t)`.

    Args:
        rate: :math:`\lambda > 0`, a number or a tensor that broadcasts to the state.
        drive: :math:`u`, a number, a tensor, or a function of time; the method ``exact`` holds its
            value at the start of each step over that step.

    Raises:
        ValueError: if the rate is not positive or anything is not finite.

    >>> import torch
    >>> leak = LinearLeak(2.0, drive=1.0)
    >>> leak(torch.tensor(0.0), torch.tensor([0.25]))
    tensor([0.5000])
    """

    def __init__(
        self, rate: float | Tensor, drive: float | Tensor | Callable[[Tensor], Tensor] = 0.0
    ) -> None:
        super().__init__()
        self.rate = checks.real("rate", rate, above=0.0)
        self.drive = drive if callable(drive) else checks.real("drive", drive)

    def drive_at(self, t: Tensor) -> Tensor | float:
        """Return u(t)."""
        return self.drive(t) if callable(self.drive) else self.drive

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the right-hand side."""
        return self.drive_at(t) - self.rate * y


def relax(leak: LinearLeak, y0: Tensor, times: Tensor, alpha: Tensor, h: float | Tensor) -> Tensor:
    r"""Return the exact solution for held drive at all ``times``: ``(T, *)``.

    The deviation from the held equilibrium, :math:`x = y - u/\lambda`, relaxes like
    :math:`E_\alpha(-\lambda t^\alpha)`, and each jump of it likewise from its own time:

    .. math:: y_n = u_n/\lambda + \sum_{j<n} E_\alpha(-\lambda (t_n - t_j)^\alpha)\, \Delta x_j

    Source: Podlubny (1999), Fractional Differential Equations, section 4.1.
    """
    rate = torch.as_tensor(leak.rate, dtype=torch.float64, device=y0.device)
    drives = [torch.as_tensor(leak.drive_at(t), dtype=torch.float64, device=y0.device) for t in times[:-1]]
    level = torch.stack([drive.expand(y0.shape) for drive in drives]) / rate
    jumps = torch.cat([(y0.double() - level[0]).unsqueeze(0), -level.diff(dim=0)])
    at = lags(1, len(times), rate if rate.dim() >= alpha.dim() else alpha) * h
    kernel = mittag_leffler(-rate * at**alpha, alpha)
    kernel = kernel.reshape(len(kernel), *([1] * (y0.dim() - kernel.dim() + 1)), *kernel.shape[1:])
    size = 2 * len(kernel)
    spectrum = torch.fft.rfft(kernel, size, dim=0) * torch.fft.rfft(jumps, size, dim=0)
    deviation = torch.fft.irfft(spectrum, size, dim=0)[: len(kernel)]
    return torch.cat([y0.unsqueeze(0), (level + deviation).to(y0.dtype)])
