"""A watch over the steps of a solve: it stops where the solution is no longer finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import transforms

TOGETHER = 32  # steps that are looked at together: a look waits for the device


class StepError(RuntimeError):
    """A step that has no solution; its text says why, and what to do."""


class Watch:
    """Looks at the states of a march, several at a time, and names the step at which they went wrong.

    Args:
        times: ``(T,)`` of all states.
        method: name of the method.
        implicit: whether the method is implicit.
        states: returns the states with the numbers ``first, ..., last - 1``, stacked.
    """

    def __init__(
        self, times: Tensor, method: str, states: Callable[[int, int], Tensor], *, implicit: bool
    ) -> None:
        self._times, self._method, self._states, self._implicit = times, method, states, implicit
        self._seen = 0  # states that were looked at

    def run(self, step: Callable[[int], None]) -> None:
        """Call ``step(n)`` for every n > 0.

        Raises:
            RuntimeError: if a step fails, or its state is not finite.
        """
        last = len(self._times) - 1
        for n in range(1, last + 1):
            try:
                step(n)
            except StepError as error:
                self.look(n)
                raise RuntimeError(f"{error} ({self._where(n)})") from None
            if n % TOGETHER == 0 or n == last:
                self.look(n + 1)

    def look(self, end: int) -> None:
        """Look at the states before the number ``end``."""
        first, self._seen = self._seen, end
        if torch.compiler.is_compiling() or first == end:
            return
        states = transforms.values(self._states(max(first - 1, 0), end))  # that before too, to tell its size
        with transforms.Outside():
            if bool(torch.isfinite(states.sum())):  # one pass, and no tensor of Booleans
                return
            finite = torch.isfinite(states.reshape(len(states), -1)).all(1)
            if bool(finite.all()):
                return
            n = int((~finite).nonzero()[0])
            first, before = max(first - 1, 0), float(states[max(n - 1, 0)].abs().max())
        other = "" if self._implicit else ", an implicit method such as 'l1' if the equation is stiff,"
        raise RuntimeError(
            f"the solution is not finite at {self._where(first + n)}; one step before, its largest entry "
            f"was {before:.3g}; use a smaller time step{other} and check that `rhs` is "
            "finite there"
        )

    def _where(self, n: int) -> str:
        return f"t = {float(self._times[n]):.6g}, step {n} of {len(self._times) - 1}, method {self._method!r}"


def finite(solution: Tensor, times: Tensor, method: str) -> Tensor:
    """Return ``solution``, ``(T, *)``, that was found as a whole, if it is finite.

    Raises:
        RuntimeError: if it is not, with the time.
    """
    if len(solution) > 1:
        watch = Watch(times, method, lambda first, last: solution[first:last], implicit=True)
        watch.look(len(solution))
    return solution
