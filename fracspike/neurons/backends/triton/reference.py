"""What the kernels compute, as a plain loop in torch: slow, differentiable, to be read beside them.

All neurons of all samples lie in one dimension, M. Nothing is rounded or reordered on purpose; gradients are
autograd's, in whatever requires one, the weights of the modes included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .problem import Constants, Made, Options, Start

HALF = 0.5  # from where on a soft spike holds a neuron or erases its memory


def run(
    drive: Tensor,
    loss: Tensor,
    weight: Tensor,
    constants: Constants,
    start: Start,
    options: Options,
    *,
    noise: Tensor | None = None,
    derivative: Tensor | None = None,
) -> Made:
    """Run a sequence, as `launch.forward` does.

    Args:
        drive: current ``(T, M)``.
        loss: what each mode loses in a step, ``(K, 1)`` or ``(K, n)``.
        weight: of each mode, likewise.
        constants: of the neurons.
        start: where it starts.
        options: what is no tensor; ``block``, ``warps`` and ``double`` mean nothing here.
        noise: added to ``slope * over`` before the step, ``(T, M)``.
        derivative: of the spikes in the potential, ``(T, M)``; None for that of ``options.form``.
    """
    M = drive.shape[1]
    fixed: Any = Constants(*(None if c is None else _spread(c.reshape(1, -1), M)[0] for c in constants))  # type: ignore[arg-type]
    loss, weight = _spread(loss, M), _spread(weight, M)
    fresh = (weight * loss).sum(0)
    z = start.modes
    if z is None:
        z = start.v.expand(len(loss), M) if options.leaky else torch.zeros_like(loss)
    after, a, w, last = start.v, start.adaptation, start.opposing, start.last
    hold = torch.zeros(M, dtype=torch.int32, device=drive.device) if start.hold is None else start.hold
    spike: Any = Spike.apply
    rows: dict[str, list[Tensor]] = {name: [] for name in ("s", "before", "over", "clamp", "a", "w")}
    for t, current in enumerate(drive):
        if fixed.own is not None:
            current = current + fixed.own * last
        u = fixed.resistance * current
        if w is not None:
            u = u - w

        # advance, and hold refractory neurons by a drive
        if options.leaky:
            v = (weight * (z + loss * (u - z))).sum(0)
        else:
            v = after + (weight * loss * (u - z)).sum(0)
        held = hold > 0
        if options.period:
            clamp = torch.where(held, (after - v) / fresh, 0.0)
            u, v = u + clamp, torch.where(held, after, v)
            rows["clamp"].append(torch.where(held, clamp, torch.nan))
        x = z + loss * (u - z)

        # decide
        over = v - fixed.threshold
        if a is not None:
            over = over - fixed.lift * a
        s = spike(
            over, None if noise is None else noise[t], None if derivative is None else derivative[t], options
        )
        if options.period:
            s = torch.where(held, 0.0, s)
            hold = torch.where(s > HALF, options.period, (hold - 1).clamp(min=0)).to(torch.int32)

        # reset
        passed = s.detach() if options.detach else s
        jump = torch.zeros_like(v)
        if options.reset == "subtract":
            jump = -fixed.fall * passed
        elif options.reset == "value":
            jump = (fixed.fall - v) * passed
        after = v + jump
        z = x + jump if options.leaky else x
        if options.restart:
            anew = after if options.leaky else torch.zeros_like(after)
            z = torch.where(s.detach() > HALF, anew, z)

        # what spikes do to later steps
        if a is not None:
            a = fixed.stay * a + s
            rows["a"].append(a)
        if w is not None:
            w = fixed.stay * w + fixed.pull * after
            rows["w"].append(w)
        last = s
        for name, value in (("s", s), ("before", v), ("over", over)):
            rows[name].append(value)
    found: dict[str, Any] = {name: torch.stack(values) if values else None for name, values in rows.items()}
    return Made(
        spikes=found["s"],
        before=found["before"],
        over=found["over"],
        clamp=found["clamp"],
        adaptation=found["a"],
        opposing=found["w"],
        modes=z,
        hold=hold,
        v=after,
        wrong=(~drive.detach().isfinite()).any(),
    )


class Spike(torch.autograd.Function):
    """A step, whose derivative is that of the options or is given."""

    @staticmethod
    def forward(
        ctx: Any, over: Tensor, noise: Tensor | None, derivative: Tensor | None, options: Options
    ) -> Tensor:
        """Return the spikes."""
        ctx.save_for_backward(over, *(() if derivative is None else (derivative,)))
        ctx.options = options
        x = over
        if noise is not None or options.step == "soft":
            x = options.slope * over + (0.0 if noise is None else noise)
        if options.step == "soft":
            return torch.sigmoid(x)
        if options.step == "never":
            return torch.zeros_like(x)
        return (x > 0 if options.step == "above" else x >= 0).to(over.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Multiply by the derivative."""
        over, *given = ctx.saved_tensors
        if ctx.options.step == "never":
            return torch.zeros_like(over), None, None, None
        if given:
            return grads[0] * given[0], None, None, None
        p, q, r, factor = ctx.options.form
        return grads[0] * factor / (p + (q * over.abs() + r) ** 2), None, None, None


def _spread(values: Tensor, size: int) -> Tensor:
    """Return ``(rows, n)`` for all neurons, ``(rows, size)``."""
    rows, columns = values.shape
    return values.unsqueeze(1).expand(rows, size // columns, columns).reshape(rows, size)
