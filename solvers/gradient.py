r"""How a weighted past is differentiated: by an adjoint memory, or by plain autograd.

A step of a solve uses the sum :math:`H_n = \sum_{m \ge 1} k_m q_{n-m}` over all remembered items. Its
adjoint has the same form, run backward in time: with :math:`g_n = \partial L / \partial H_n`,

.. math:: \frac{\partial L}{\partial q_j} = \sum_{m \ge 1} k_m\, g_{j+m}, \qquad
          \frac{\partial L}{\partial k_m} = \sum_n \langle g_n, q_{n-m} \rangle .

So one memory runs forward over the items and a second one backward over the gradients, and no graph
connects a step with all earlier ones. Everything else in a step is differentiated by autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import transforms
from .memory import Memory, Past
from .memory.base import weigh


class History(ABC):
    """The differentiable past of one solve.

    Args:
        memory: the strategy.
        kernel: ``(count, *)`` float64, ``kernel[m]`` weighs the item of ``m`` steps ago.
        dtype: in which the solve computes.
        items: what is remembered from before, oldest first.
        keep: whether :attr:`items` is wanted later.

    Attributes:
        twice: whether it can be differentiated more than once.
    """

    twice: ClassVar[bool]

    def __init__(
        self,
        memory: Memory,
        kernel: Tensor,
        dtype: torch.dtype,
        items: Iterable[Tensor] = (),
        *,
        keep: bool = False,
    ) -> None:
        self._newest: Tensor | None = None
        self._kept: list[Tensor] | None = [] if keep else None
        self._erased: list[tuple[int, Tensor]] = []  # how many items there were, and where they went
        self._begin(memory, memory.weights(kernel, dtype), len(kernel), dtype)
        for item in items:
            self.append(item)

    @property
    def items(self) -> list[Tensor]:
        """All remembered items, oldest first; zero where they were erased."""
        assert self._kept is not None
        items, erased, events = list(self._kept), None, list(self._erased)
        for n in reversed(range(len(items))):
            while events and events[-1][0] > n:
                where = events.pop()[1]
                erased = where if erased is None else erased | where
            if erased is not None:
                items[n] = items[n].masked_fill(erased, 0.0)
        return items

    def append(self, item: Tensor) -> None:
        """Remember ``item`` as the newest."""
        if self._newest is not None:
            self._skip(self._newest)
        self._newest = item
        if self._kept is not None:
            self._kept.append(item)

    def weighted_sum(self) -> Tensor | float:
        """Return the sum after the newest item; 0.0 while there is none. Once for each item."""
        if self._newest is None:
            return 0.0
        newest, self._newest = self._newest, None
        return self._take(newest)

    def forget(self, where: Tensor) -> None:
        """Erase the past of the states for which ``where`` is true."""
        if self._newest is not None:
            self._newest = self._newest.masked_fill(where, 0.0)
        if self._kept is not None:
            self._erased.append((len(self._kept), where))
        self._erase(where)

    def _skip(self, item: Tensor) -> None:
        """Append for good; the sum is not wanted."""
        self._take(item)

    @abstractmethod
    def _begin(self, memory: Memory, weights: Tensor, count: int, dtype: torch.dtype) -> None: ...

    @abstractmethod
    def _take(self, item: Tensor) -> Tensor:
        """Append for good, and return the new sum."""

    @abstractmethod
    def _erase(self, where: Tensor) -> None: ...


class AdjointHistory(History):
    """Differentiated by an adjoint memory: stores items, not graphs. First derivatives only."""

    twice = False
    remedy: ClassVar[str] = "pass gradient='autograd', with an explicit method,"
    """What its user can do to differentiate twice."""

    def _begin(self, memory: Memory, weights: Tensor, count: int, dtype: torch.dtype) -> None:
        self._weights = weights
        self._tape = _Tape(partial(memory.begin, weights.detach(), count, dtype), self.remedy)
        self._last: Tensor | None = None

    def _take(self, item: Tensor) -> Tensor:
        # the last sum is an input only to fix the order of the backward pass: latest sum first
        self._last = _Sum.apply(item, self._weights, self._last, self._tape)  # type: ignore[no-untyped-call]
        assert self._last is not None
        return self._last

    def _skip(self, item: Tensor) -> None:
        if torch.is_grad_enabled() and (item.requires_grad or self._weights.requires_grad):
            self._take(item)
        else:
            self._tape.past.append(item.detach())

    def _erase(self, where: Tensor) -> None:
        self._tape.forget(where)


class Passes:
    """Tells one backward pass from the next."""

    def __init__(self) -> None:
        self._last = -1

    def begins(self) -> bool:
        """Return whether this is the first call in a pass."""
        this = torch._C._current_graph_task_id()
        begins, self._last = this != self._last, this
        return begins


class _Tape:
    """What forward and backward pass share; holds no tensor that has a graph."""

    def __init__(self, begin: Callable[[], Past], remedy: str) -> None:
        self._begin, self.remedy = begin, remedy
        self.past = begin()
        self.sums = 0
        self._forgotten: list[tuple[int, Tensor]] = []
        self._passes = Passes()

    def forward(self, item: Tensor) -> tuple[Tensor, int]:
        self.past.append(item)
        self.sums += 1
        return self.past.weighted_sum(), self.sums - 1

    def forget(self, where: Tensor) -> None:
        if self.sums:
            self.past.forget(where)
            self._forgotten.append((self.sums - 1, where))

    def backward(self, index: int, upstream: Tensor, item: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the gradients in item ``index`` and, with the first item, in the weights."""
        if self._passes.begins():
            self._adjoint = self._begin()
            self._empty = True
        for at, where in self._forgotten:
            if at == index and not self._empty:
                self._adjoint.forget(where)  # later sums have nothing of this item or any before
        self._adjoint.append(upstream)
        self._empty = False
        gradient = self._adjoint.weighted_sum()
        if item is None:
            return gradient, None
        self._adjoint.pair(item)
        return gradient, self._adjoint.paired() if index == 0 else None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, item: Tensor, weights: Tensor, last: Tensor | None, tape: _Tape) -> Tensor:
        total, ctx.index = tape.forward(item)
        ctx.tape = tape
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(item)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives(ctx.tape.remedy)
        item = ctx.saved_tensors[0] if ctx.needs_input_grad[1] else None
        return *ctx.tape.backward(ctx.index, upstream, item), None, None


def refuse_second_derivatives(remedy: str = AdjointHistory.remedy) -> None:
    """Raise if this backward pass is itself to be differentiated, or runs over a batch of gradients."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"the adjoint gradient gives first derivatives only; {remedy} to differentiate twice"
        )
    if transforms.wrapping():
        raise RuntimeError(
            "the adjoint gradient takes one gradient at a time, not a batch of them (is_grads_batched, "
            "vectorize=True); call torch.func.jacrev or torch.func.vmap on the whole solve instead"
        )


class GraphHistory(History):
    """Differentiated by plain autograd, to any order: a graph over the whole past."""

    twice = True
    BLOCK = 64  # items are stacked once for all in blocks, so that a long past is not copied at each step

    def _begin(self, memory: Memory, weights: Tensor, count: int, dtype: torch.dtype) -> None:
        self._kernel = memory.effective_kernel(weights, count).to(dtype)
        self._blocks: list[Tensor] = []
        self._recent: list[Tensor] = []

    def _take(self, item: Tensor) -> Tensor:
        self._skip(item)
        total: Tensor | None = None
        lag = len(self._blocks) * self.BLOCK + len(self._recent)
        for block in (*self._blocks, torch.stack(self._recent)):
            weights = self._kernel[lag - len(block) + 1 : lag + 1].flip(0)
            lag -= len(block)
            if len(weights):  # beyond the kernel, a window has forgotten
                part = weigh(weights, block[len(block) - len(weights) :])
                total = part if total is None else total + part
        assert total is not None
        return total

    def _skip(self, item: Tensor) -> None:
        if len(self._recent) == self.BLOCK:
            self._blocks.append(torch.stack(self._recent))
            self._recent = []
        self._recent.append(item)

    def _erase(self, where: Tensor) -> None:
        self._blocks = [block.masked_fill(where, 0.0) for block in self._blocks]
        self._recent = [item.masked_fill(where, 0.0) for item in self._recent]


GRADIENTS: dict[str, type[History]] = {"adjoint": AdjointHistory, "autograd": GraphHistory}
