"""Something cheap to sweep, which writes down each time it is measured (where a variable says)."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fracspike.experiments import Experiment


def trial(parameters: Mapping[str, float | int | str], seed: int) -> dict[str, float]:
    x, shape = float(parameters["x"]), str(parameters["shape"])
    if diary := os.environ.get("TOY_DIARY"):
        with Path(diary).open("a") as file:
            file.write(f"{x} {shape} {seed}\n")
    if (fatal := os.environ.get("TOY_FATAL")) and not Path(fatal).exists():
        Path(fatal).write_text("one worker dies in its first trial")
        os.kill(os.getpid(), signal.SIGKILL)
    if shape == "wrong":
        raise ValueError("no such shape")
    return {"square": x * x + seed, "power": float(parameters["power"])}


TOY = Experiment(
    name="toy",
    title="a toy",
    source="nowhere",
    duration="no time",
    run=lambda run: [],
    parameters={"x": 0.5, "shape": "round", "power": 3},
    trial=trial,
)


def check(parameters: Mapping[str, float | int | str]) -> None:
    if parameters["shape"] == "wrong":
        raise ValueError("no such shape")


CHECKED = replace(TOY, check=check)
ODD = replace(TOY, parameters={**TOY.parameters, "odd": None})
