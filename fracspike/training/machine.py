"""The processes and the device of a training, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fracspike.solvers import checks

from .others import Others, announce_deaths

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
PER_PROCESSOR = 4  # processes, at most; more would only wait for each other


class Machine:
    """Where a training runs: one process or several, that all go through the same code.

    With ``processes`` above 1 the command of this process is started again for each of the others. Under
    ``torchrun`` (or another launcher that Fabric knows) the processes are there already, on one
    machine or many, and ``processes`` is left alone.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.
        precision: ``"32"``, or ``"bf16"`` for autocast.
        processes: on this machine.

    Raises:
        ValueError: if an argument is out of range, or there is no such device.
        ImportError: if Lightning Fabric is not installed.
    """

    def __init__(self, device: str = "auto", precision: str = "32", processes: int = 1) -> None:
        checks.one_of("device", device, DEVICES)
        checks.one_of("precision", precision, PRECISIONS)
        checks.positive_int("processes", processes, at_most=PER_PROCESSOR * max(2, os.cpu_count() or 1))
        nodes = 1
        if "TORCHELASTIC_RUN_ID" in os.environ:
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            if processes not in (1, here):
                raise ValueError(
                    f"`processes` must be left to torchrun, which started {here}; got {processes}"
                )
            processes, nodes = here, int(os.environ["WORLD_SIZE"]) // here
        gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
        if device == "cuda" and processes > gpus:
            raise ValueError(
                f"`device` must be there for each process, got 'cuda', of which torch sees {gpus}; "
                "pass --device cpu, or fewer --processes"
            )
        if device == "auto":
            device = "cuda" if gpus >= processes else "cpu"
        several = processes * nodes > 1
        self.precision = precision
        threads = torch.get_num_threads()
        with _quiet():
            self._fabric = _fabric()(
                accelerator=device,
                devices=processes,
                num_nodes=nodes,
                strategy="ddp" if several else "auto",
                precision=PRECISIONS[precision],  # type: ignore[arg-type]
            )
            self._fabric.launch()
        torch.set_num_threads(threads)
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        self.device: torch.device = self._fabric.device
        self._others: Others | None = None
        if self.world > 1:
            self._others = Others()
            announce_deaths()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a network computes, at the precision asked for."""
        return self._fabric.autocast()

    def to_device(self, batch: T) -> T:
        """Return a batch, a tensor or tuple, list or dictionary of such, on the device."""
        if self.device.type == "cpu":
            return batch
        moved: T = self._fabric.to_device(batch)
        return moved

    def broadcast(self, thing: T) -> T:
        """Return what the leading process has."""
        if self.world == 1:
            return thing
        with self._connected():
            return self._fabric.broadcast(thing)

    def gather(self, flat: Tensor) -> list[Tensor]:
        """Return every process's tensor of this shape and dtype, in the order of their ranks."""
        if self.world == 1:
            return [flat]
        everyone = [torch.empty_like(flat) for _ in range(self.world)]
        with self._connected():
            torch.distributed.all_gather(everyone, flat)
        return everyone

    def agree(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors with those of the leading process."""
        if self.world > 1:
            with self._connected():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor.detach(), 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            with self._connected():
                self._fabric.barrier()

    def lead(self, do: Callable[[], T]) -> T:
        """Let the leading process do something; return what it came to in every process, or raise its error.

        Args:
            do: what only one process may do, such as writing; returns something that can be pickled.
        """
        if self.world == 1:
            return do()
        result, error = _attempt(do) if self.leads else (None, None)
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def together(self, do: Callable[[], T]) -> T:
        """Let every process do something; if one of them fails, all raise its error.

        Args:
            do: what all do by themselves.
        """
        if self.world == 1:
            return do()
        result, error = _attempt(do)
        self.fail_together(error)
        return result  # type: ignore[return-value]

    def fail_together(self, error: Exception | None) -> None:
        """Raise the error of the first process that has one, in all of them.

        Args:
            error: of this process, or None.
        """
        if self.world == 1:
            errors = [error]
        else:
            errors = [None] * self.world
            with self._connected():
                torch.distributed.all_gather_object(errors, error)
        for one in errors:
            if one is not None:
                raise one

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Say which process is gone where an exchange with it fails."""
        try:
            yield
        except RuntimeError as error:
            explained = None if self._others is None else self._others.explain(error)
            if explained is None:
                raise
            raise explained from error


def _attempt(do: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return do(), None
    except Exception as error:
        return None, error


def is_helper(rank: int | None = None) -> bool:
    """Tell whether another process leads this one; known before any :class:`Machine` is made.

    Args:
        rank: tell whether this is that one of the helpers.
    """
    own = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return own != "0" if rank is None else own == str(rank)


def _fabric() -> type[Fabric]:
    try:
        from lightning_fabric import Fabric  # here, because it takes two seconds
    except ImportError as error:
        raise ImportError(
            "training needs lightning-fabric, which is not installed; "
            'run: pip install "fracspike[experiments]"'
        ) from error
    return Fabric


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the messages of starting processes off the terminal; errors come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
