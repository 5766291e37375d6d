"""Trainings that are killed, and trainings by two processes, in children of one process that imported once.

Run as a script by tests/test_engine.py, because a process with threads must not be forked; prints JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric  # noqa: F401  (imported once, for all children)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fracspike import FractionalLIF
from fracspike.training import Dropout, Fitted, Images, Machine, Noise, Settings, checkpoint, fit, randomness
from fracspike.training.classify import Batches

CONFIG = {"toy": 1}


def data() -> Batches:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(44) % 2
    inputs = torch.randn(5, 44, 3, generator=generator, dtype=torch.float64) + labels[None, :, None]
    return Batches(Images(inputs, labels))


class Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0)


def model() -> nn.Module:
    lif = FractionalLIF(0.6, surrogate="atan", learn="alpha")
    return nn.Sequential(Noise(0.3), nn.Linear(3, 6), lif, Dropout(0.3), Last(), nn.Linear(6, 2)).double()


def loss(network: nn.Module, batch: Images) -> Tensor:
    return cross_entropy(network(batch.inputs), batch.labels)


def train(
    folder: Path | None, *, resume: bool = False, machine: Machine | None = None, **more: Any
) -> Fitted:
    torch.set_num_threads(1)
    randomness.seed_everything(0)  # a child has Python's own generator seeded anew
    network, samples = model(), data()
    # 44 samples: batches of 10, the last of 4
    settings = Settings(
        **{"epochs": 3, "lr": 0.02, "batch_size": 10, "clip": 1.0, "monitor": "right", **more}
    )

    def validate(network: nn.Module) -> dict[str, float]:
        answers = network(samples.images.inputs).argmax(1)
        return {"right": (answers == samples.images.labels).double().mean().item()}

    fitted = fit(
        network,
        samples,
        loss,
        settings,
        folder,
        validate=validate,
        config=CONFIG,
        resume=resume,
        machine=machine,
        save_every=0.0,
    )
    torch.save({"weights": network.state_dict(), "history": fitted.history}, where(folder))
    return fitted


def where(folder: Path | None) -> Path:
    return (folder or Path()) / "result.pt"


def digest(folder: Path) -> str:
    content = torch.load(where(folder), weights_only=True)
    state = torch.load(folder / checkpoint.NAME, weights_only=True)["state"]
    del state["seconds"]
    return hashlib.sha256(repr(bits([content, state])).encode()).hexdigest()


def bits(thing: Any) -> Any:
    if isinstance(thing, Tensor):
        return thing.numpy().tobytes() if thing.numel() else b""
    if isinstance(thing, dict):
        return [(name, bits(value)) for name, value in sorted(thing.items(), key=str)]
    if isinstance(thing, list | tuple):
        return [bits(value) for value in thing]
    return thing


def child(do: Callable[[], object], **environment: str) -> int:
    """Do something in a child; return how it ended."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(environment)
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(count: int) -> None:
    """Let this process be killed at the count-th time that it learns or touches the disk."""
    left = count

    def wrap(place: Any, name: str) -> None:
        real = getattr(place, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            for when in ("before", "after"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if when == "before":
                    result = real(*arguments, **more)
            return result

        setattr(place, name, wrapped)

    for place, name in (
        (os, "fsync"),
        (os, "link"),
        (Path, "replace"),
        (Path, "unlink"),
        (torch, "save"),
        (torch.optim.Adam, "step"),
    ):
        wrap(place, name)


def killed(work: Path) -> dict[str, Any]:
    """Kill a training again and again, after a fixed number of events each time."""
    whole = work / "whole"
    assert wait(child(lambda: train(whole))) == 0
    result: dict[str, Any] = {"whole": digest(whole)}
    for count in (23, 31, 37):
        folder, kills = work / f"killed{count}", 0

        def again(folder: Path = folder, count: int = count) -> None:
            die_at(count)
            train(folder, resume=checkpoint.exists(folder / checkpoint.NAME))

        while (status := wait(child(again))) == -signal.SIGKILL:
            kills += 1
            assert kills < 60
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        result[f"every {count}"] = {"status": status, "kills": kills, "digest": digest(folder), "left": left}
    return result


def shared(work: Path) -> dict[str, Any]:
    """Train by one process, in parts, and by two processes."""
    result = {}
    for name, world, parts in (
        ("one", 1, 1),
        ("parts", 1, 2),
        ("two", 2, 1),
        ("four parts", 1, 4),
        ("two of four", 2, 4),
    ):
        folders = [work / name / str(rank) for rank in range(world)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        pids = []
        for rank, folder in enumerate(folders):
            folder.mkdir(parents=True)
            launcher = {  # what torchrun tells each process
                "TORCHELASTIC_RUN_ID": "test",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "GROUP_RANK": "0",
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }

            def learn(folder: Path = folder, parts: int = parts) -> None:
                train(folder, machine=Machine("cpu"), accumulate=parts)

            pids.append(child(learn, **(launcher if world > 1 else {})))
        assert [wait(pid) for pid in pids] == [0] * world, name
        contents = [torch.load(where(folder), weights_only=True) for folder in folders]
        flat = [torch.cat([w.flatten() for w in c["weights"].values()]) for c in contents]
        result[name] = {
            "agree": all(torch.equal(flat[0], other) for other in flat),
            "weights": flat[0].tolist(),
            "kept": [checkpoint.exists(folder / checkpoint.NAME) for folder in folders],
        }
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        json.dump({"killed": killed(Path(work)), "shared": shared(Path(work))}, sys.stdout)
