"""The gradient of a batch that is computed in parts, on one process or several, added up in one order.

Rounding makes a sum depend on its order. Each process adds the parts one by one in the order of the samples,
whoever computed them, so the gradient is the same to the last bit on 1, 2 or more processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from . import randomness
from .machine import Machine
from .noise import Rows, rows


class Samples(Protocol):
    """What can be learnt from: any map-style data set that takes a tensor of indices.

    ``torch.utils.data.TensorDataset`` is one.
    """

    def __len__(self) -> int:
        """Return how many samples there are."""

    def __getitem__(self, index: Any) -> Any:
        """Return the batch of the samples in a tensor of indices, in a form that the loss knows."""


Loss = Callable[[nn.Module, Any], Tensor]


def whole(model: nn.Module, data: Samples, chosen: Tensor, loss: Loss, machine: Machine) -> float:
    """Put the gradient of a batch into ``model``, computed at once, and return the loss.

    Args:
        model: its gradients are overwritten.
        data: of which the batch is a part.
        chosen: indices of the batch.
        loss: mean over the samples.
        machine: a single process.
    """
    model.zero_grad()
    with machine.autocast():
        value = loss(model, machine.to_device(data[chosen]))
    value.backward()  # type: ignore[no-untyped-call]
    return value.item()


def in_parts(
    model: nn.Module,
    data: Samples,
    chosen: Tensor,
    loss: Loss,
    machine: Machine,
    parts: int,
    seed: Callable[[int], int],
    trouble: Exception | None = None,
) -> float:
    """Put the gradient of a batch into ``model``, computed in parts, and return the loss.

    Args:
        model: its gradients are overwritten.
        data: of which the batch is a part.
        chosen: indices of the batch.
        loss: mean over the samples.
        machine: its processes take turns: part i is computed by process i modulo their number.
        parts: how many; a multiple of the number of processes.
        seed: of the global random state in a part, for modules that do not draw for the whole batch.
        trouble: what went wrong in this process since the last batch.

    Raises:
        Exception: what went wrong in any of the processes, in all of them.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = randomness.of_device(machine.device)
    before = after = generator.get_state()
    shared = torch.Generator(machine.device)
    pieces = chosen.tensor_split(parts)
    ends = torch.tensor([0, *map(len, pieces)]).cumsum(0).tolist()
    sums: list[Tensor] = []
    for i in range(machine.rank, parts, machine.world):
        model.zero_grad()
        value = 0.0
        if len(pieces[i]) and trouble is None:
            torch.manual_seed(seed(i))
            shared.set_state(before)
            try:
                with rows(Rows(ends[i], ends[i + 1], len(chosen), shared)), machine.autocast():
                    share = len(pieces[i]) / len(chosen)
                    part = loss(model, machine.to_device(data[pieces[i]])) * share
                part.backward()  # type: ignore[no-untyped-call]
                value = part.item()
            except Exception as error:  # the others must not wait for this process
                trouble = error
            after = shared.get_state()
        sums = _add(sums, _flat(parameters, value, failed=trouble is not None), machine)
        if sums[0][1]:
            machine.fail_together(trouble)
    if len(chosen) < parts:  # a process without a sample has not drawn
        after = machine.broadcast(after)
    generator.set_state(after)  # as if the batch had been computed at once
    return _unflatten(parameters, sums)


def not_finite(model: nn.Module) -> str | None:
    """Return what is wrong with the gradient in ``model``, by the parameter's name; None if it is finite.

    A step with such a gradient would spoil every weight that it reaches, for good.

    >>> line = nn.Linear(2, 1)
    >>> line(torch.ones(1, 2)).sum().backward()
    >>> line.weight.grad[0, 1] = float("nan")
    >>> not_finite(line)
    'the gradient of `weight` is not finite (1 of 2 entries)'
    """
    found = {name: _values(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    if not found:
        return None
    device = next(iter(found.values())).device
    sums = torch.stack([values.sum().to(device) for values in found.values()])
    if bool(torch.isfinite(sums).all()):  # one look at the device, where all is well
        return None
    for name, values in found.items():
        wrong = int((~torch.isfinite(values)).sum())
        if wrong:
            return f"the gradient of `{name}` is not finite ({wrong} of {values.numel()} entries)"
    return None  # a sum overflowed, and no gradient


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _flat(parameters: Sequence[Tensor], value: float, *, failed: bool) -> list[Tensor]:
    """Return the loss, whether it failed and which gradients there are; then the gradients, by dtype."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        by_dtype.setdefault(p.dtype, []).append((torch.zeros_like(p) if p.grad is None else p.grad).flatten())
    there = [float(p.grad is not None) for p in parameters]
    facts = torch.tensor([value, float(failed), *there], dtype=torch.float64, device=parameters[0].device)
    return [facts, *map(torch.cat, by_dtype.values())]


def _add(sums: list[Tensor], mine: list[Tensor], machine: Machine) -> list[Tensor]:
    """Add what every process has to ``sums``, in the order of their ranks."""
    for k, gathered in enumerate(map(machine.gather, mine)):
        for one in gathered:
            if k == len(sums):
                sums.append(one.clone())
            else:
                sums[k] += one
    return sums


def _unflatten(parameters: Sequence[Tensor], sums: list[Tensor]) -> float:
    value, _, *there = sums[0].tolist()
    rest = {tensor.dtype: tensor for tensor in sums[1:]}
    for p, count in zip(parameters, there, strict=True):
        own, rest[p.dtype] = rest[p.dtype].tensor_split([p.numel()])
        p.grad = own.view_as(p).clone() if count else None
    return float(value)
