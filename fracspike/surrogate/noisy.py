"""Escape noise: a threshold with logistic noise while training, a hard threshold in evaluation."""

# ruff: noqa: D102, N802 -- the methods g and G are described once, in the base class; the formulas name them
from __future__ import annotations

import torch
from torch import Tensor

from .base import Surrogate, floating
from .fields import anything, choice
from .registry import register
from .spike import heaviside, smooth_spike

MODES = ("soft", "meanfield", "hard_st", "concrete", "hard_concrete")
"""What `NoisyThreshold` returns in training."""
HARD = ("hard_st", "hard_concrete")
"""The modes that return zeros and ones."""


def _generator(name: str, value: object) -> torch.Generator | None:
    if value is None or isinstance(value, torch.Generator):
        return value
    raise TypeError(f"`{name}` must be a torch.Generator or None, got {type(value).__name__}")


@register
class NoisyThreshold(Surrogate):
    r"""Threshold with logistic noise: :math:`P(s = 1) = \sigma(\kappa x)`.

    With z = scale * x and one draw e ~ Logistic(0, 1) per element and call, training returns

    =============  ====================  ======================================
    mode           forward               backward
    =============  ====================  ======================================
    soft           sigma(z + e)          its derivative
    meanfield      sigma(z), no draw     its derivative
    hard_st        1[z + e >= 0]         that of sigma(z)
    concrete       sigma((z+e)/T)        its derivative
    hard_concrete  1[z + e >= 0]         that of sigma(z + e)
    =============  ====================  ======================================

    In evaluation (``.eval()``) it is the deterministic step H(x), differentiated as the mean spike:

    .. math:: g(x) = \kappa\,\sigma(\kappa x)(1 - \sigma(\kappa x)), \qquad G(x) = \sigma(\kappa x)

    The noise follows ``generator``, else `torch.manual_seed`; it is drawn in float32 (float64 for float64 x),
    so that half precision does not distort its tails.  ``amplitude`` and ``normalize`` need a hard mode: the
    smooth ones are differentiated as what they return.

    Args:
        scale: kappa = 1/gamma > 0, inverse noise width, in units of 1/x.
        mode: see above.
        temperature: T > 0, used by "concrete" alone.
        generator: source of the noise; not part of ``repr``.

    Source: logistic escape noise, W. Gerstner and W. M. Kistler, Spiking Neuron Models, 2002; "concrete":
    C. J. Maddison, A. Mnih, Y. W. Teh, The concrete distribution, ICLR 2017.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import NoisyThreshold
        >>> s = NoisyThreshold(mode="hard_st", generator=torch.Generator().manual_seed(0))
        >>> bool((s(torch.zeros(10_000)).mean() - 0.5).abs() < 0.02)
        True
        >>> s.eval()(torch.tensor([-0.1, 0.0]))
        tensor([0., 1.])
    """

    scale: float = 5.0
    mode: str = choice(MODES, default="soft")
    temperature: float = 0.25
    generator: torch.Generator | None = anything(_generator, default=None)

    def forward(self, x: Tensor) -> Tensor:
        floating(x)
        if not self.training:
            return super().forward(x)
        return self.given(x, self.draw(x))

    @property
    def hard(self) -> bool:
        """Whether training returns zeros and ones."""
        return self.mode in HARD

    def draw(self, x: Tensor) -> Tensor | None:
        """Return the noise of one training call for ``x``; None where the mode has none."""
        return None if self.mode == "meanfield" else logistic_noise(x, self.generator)

    def given(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Return what training returns for a noise drawn before, with `draw`."""
        work = x.to(noise_dtype(x.dtype))
        if not self.hard:
            return self._smooth(work, noise).to(x.dtype)
        assert noise is not None
        smooth = self._smooth(work, noise)
        if self.parameter_gradient == "zero":
            smooth = smooth - self._smooth(work.detach(), noise)
        step = heaviside((work * self.scale + noise).detach(), self.strict)
        return smooth_spike(step, self._scaled(smooth)).to(x.dtype)

    def _smooth(self, x: Tensor, noise: Tensor | None) -> Tensor:
        z = x * self.scale
        if noise is not None and self.mode != "hard_st":
            z = z + noise
        return torch.sigmoid(z / self.temperature if self.mode == "concrete" else z)

    def g(self, x: Tensor) -> Tensor:
        s = (x.abs() * -self.scale).sigmoid_()
        return torch.addcmul(s, s, s, value=-1) * self.scale

    def G(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x * self.scale)

    def peak_of_g(self) -> float:
        return self.scale / 4

    def area_of_g(self) -> float:
        return 1.0

    def trained_above(self, name: str) -> float | None:
        # The temperature appears in one mode only; elsewhere it could not be learnt.
        return None if name == "temperature" and self.mode != "concrete" else super().trained_above(name)

    def check(self) -> None:
        if self.mode not in HARD and (self.normalize is not None or self._values["amplitude"] != 1.0):
            raise ValueError(
                f"`amplitude` and `normalize` need `mode` among {HARD}, got {self.mode!r}: "
                "a smooth mode is differentiated as what it returns"
            )


def noise_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that noise for ``dtype`` is drawn in: at least single precision."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def logistic_noise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return one finite draw from Logistic(0, 1), log u - log(1 - u), per element of ``x``."""
    kind = noise_dtype(x.dtype)
    u = torch.rand(x.shape, dtype=kind, device=x.device, generator=generator)
    return torch.logit(u, eps=torch.finfo(kind).eps)


def noisy_threshold(
    x: Tensor,
    scale: float = 5.0,
    training: bool = True,
    sample: bool = True,
    *,
    mode: str = "soft",
    temperature: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Apply a `NoisyThreshold` as a function.

    Args:
        x: membrane potential minus threshold, any floating dtype and shape.
        scale: inverse noise width, > 0, in units of 1/x.
        training: whether to add noise (True) or return the hard step (False).
        sample: False stands for ``mode="meanfield"``, the mean spike without a draw.
        mode: what training returns, see `NoisyThreshold`.
        temperature: used by mode "concrete" alone.
        generator: source of the noise, by default the global one.

    Returns:
        Spikes (soft or hard, by mode) of the dtype and shape of ``x``.

    Example:
        >>> import torch
        >>> from fracspike.surrogate import noisy_threshold
        >>> noisy_threshold(torch.tensor([0.0, 0.2]), scale=5.0, sample=False)
        tensor([0.5000, 0.7311])
        >>> noisy_threshold(torch.tensor([0.0, -0.2]), training=False)
        tensor([1., 0.])
    """
    module = NoisyThreshold(
        scale=scale,
        mode=mode if sample else "meanfield",
        temperature=temperature,
        generator=generator,
    )
    spikes: Tensor = module.train(bool(training))(x)
    return spikes
