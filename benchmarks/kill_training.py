"""Kill ``fracspike train`` at random moments, resume it, and compare with a training left alone.

    python benchmarks/kill_training.py [--kills 20] [--seed 0] [options of fracspike train digits]

Prints when each kill fell, and whether the weights are the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

COMMAND = [sys.executable, "-m", "fracspike", "train", "digits"]


def start(out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start a training that writes to ``out``."""
    with (out / "log.txt").open("ab") as log:
        return subprocess.Popen([*COMMAND, "--out", str(out), *options], stdout=log, stderr=log)


def result(out: Path) -> dict[str, object]:
    """Return what must not depend on interruptions."""
    content: dict[str, object] = json.loads((out / "digits" / "results.json").read_text())
    return {name: content[name] for name in ("weights_sha256", "accuracy", "confusion", "best_epoch")}


def wait_for_work(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when a training has written to its folder, or has ended."""
    before = newest(folder)
    while process.poll() is None and newest(folder) == before:
        time.sleep(0.02)


def newest(folder: Path) -> int:
    """Return when something in a folder was last renamed."""
    return folder.stat().st_mtime_ns if folder.exists() else 0


def epochs(out: Path) -> int:
    """Return how many epochs the checkpoint holds."""
    path = out / "digits" / "checkpoint.pt"
    return len(torch.load(path, weights_only=True)["state"]["history"]) if path.exists() else 0


def main() -> None:
    """Train once, train again with kills, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments, options = parser.parse_known_args()
    options = options or ["--epochs", "40", "--hidden", "64", "--save-every", "0.05"]
    with tempfile.TemporaryDirectory() as work:
        whole, broken = Path(work, "whole"), Path(work, "broken")
        whole.mkdir()
        broken.mkdir()
        begin = time.perf_counter()
        assert start(whole, options).wait() == 0, (whole / "log.txt").read_text()
        seconds = time.perf_counter() - begin
        training = json.loads((whole / "digits" / "results.json").read_text())["seconds"]
        print(f"left alone: {seconds:.1f} s, {training} s of it training; {result(whole)['weights_sha256']}")
        chance = random.Random(arguments.seed)
        killed = 0
        while True:
            begun = (broken / "digits" / "begun.json").exists()  # earlier there is nothing to resume
            process = start(broken, [*options, *(["--resume"] if begun else [])])
            if killed < arguments.kills:
                if chance.random() < 0.8:  # else while it starts
                    wait_for_work(process, broken / "digits")
                after = chance.uniform(0, 0.9 * training / arguments.kills)
                try:
                    process.wait(after)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    killed += 1
                    print(
                        f"kill {killed}: {'resumed, ' if begun else ''}{epochs(broken)} epochs done",
                        flush=True,
                    )
                    continue
                print("finished before the kill")
            status = process.wait()
            assert status == 0, (broken / "log.txt").read_text()
            if killed >= arguments.kills or (broken / "digits" / "results.json").exists():
                break
        same = result(whole) == result(broken)
        print(f"{killed} kills: {result(broken)['weights_sha256']}: {'IDENTICAL' if same else 'DIFFERENT'}")
        left = [p.name for p in (broken / "digits").iterdir() if p.name.startswith(".")]
        print(f"left behind: {left or 'nothing'}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
