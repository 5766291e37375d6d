"""Training on real data: tasks by name, one file and one registry line each.

The parts know little of each other, so that each can be replaced alone: a task brings data and a
network (``task``, ``digits``), the engine learns (``engine``) on the machine there is (``machine``), the
checkpoint keeps (``checkpoint``), the figures show (``figures``), and ``run`` puts them together.
Experiments use :func:`fit` alone.
"""

from __future__ import annotations

import importlib

from fracspike.solvers import checks

from .engine import Fitted, Whole, fit
from .machine import Machine
from .noise import Dropout, Noise
from .settings import Settings
from .task import Data, Images, Options, Task

#: name -> module that holds it as ``TASK``; imported only when asked for
TASKS = {
    "digits": "fracspike.training.digits",
    "fashion-mnist": "fracspike.training.fashion_mnist",
}


def get(name: str) -> Task:
    """Return the task called ``name``.

    Args:
        name: a key of ``TASKS``.

    Returns:
        The task.

    Raises:
        ValueError: with the known names, if there is none.

    >>> get("digits").classes[:3]
    ('0', '1', '2')
    """
    checks.one_of("task", name, TASKS)
    task: Task = importlib.import_module(TASKS[name]).TASK
    return task


__all__ = [
    "TASKS",
    "Data",
    "Dropout",
    "Fitted",
    "Images",
    "Machine",
    "Noise",
    "Options",
    "Settings",
    "Task",
    "Whole",
    "fit",
    "get",
]
