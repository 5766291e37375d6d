"""Compiled code on the disk that is of no use, and processes in which nothing can be compiled."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
import torch

from fracspike import FractionalALIF, FractionalLIF
from fracspike.neurons.backends.numba import compiling
from fracspike.solvers import Exponentials


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    for said in (compiling.announce, compiling.unkept):
        said.cache_clear()
    return tmp_path / "kept"


def twice(x: Any) -> Any:
    return 2 * x


def hits() -> int:
    """Compile and call a kernel as a new process would: how often it was found on the disk."""
    made = compiling.kernel(twice)
    assert made(21) == 42
    return sum(made.stats.cache_hits.values())


def files(folder: Path, kind: str) -> list[Path]:
    found = sorted(folder.rglob(f"*.{kind}"))
    assert found
    return found


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"no pickle", b"cfoo\nbar\n."], ids=repr)
def test_what_is_damaged_is_compiled_again_and_kept(folder: Path, kind: str, content: bytes) -> None:
    assert [hits(), hits()] == [0, 1]
    for path in files(folder, kind):
        path.write_bytes(content)
    assert [hits(), hits()] == [0, 1]


def test_a_file_that_is_cut_off(folder: Path) -> None:
    hits()
    for kind in ("nbi", "nbc"):
        for path in files(folder, kind):
            path.write_bytes(path.read_bytes()[:-20])
        assert [hits(), hits()] == [0, 1]


def test_a_missing_file(folder: Path) -> None:
    hits()
    for path in files(folder, "nbc"):
        path.unlink()
    assert [hits(), hits()] == [0, 1]


def test_a_folder_that_nothing_can_be_written_to(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [compiling.kernel(twice) for _ in range(2)]
    shutil.rmtree(folder)
    folder.write_text("in its place")
    with caplog.at_level(logging.WARNING, "fracspike"):
        assert [kernel(21) for kernel in made] == [42, 42]
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_no_folder_at_all(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def local(x: Any) -> Any:
        return 2 * x

    local.__code__ = local.__code__.replace(co_filename=str(folder / "nowhere.py"))
    with caplog.at_level(logging.WARNING, "fracspike"):
        assert compiling.kernel(local)(21) == 42


def test_compiling_is_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, write=said.append))
    with caplog.at_level(logging.INFO, "fracspike"):
        hits()
        compiling.kernel(twice)(np.ones(2))
        hits()
    assert len(caplog.records) == len(said) == 1
    assert "fracspike warmup" in said[0]


def test_without_the_compiler_the_loop_in_torch_runs_and_says_so() -> None:
    code = (
        "import warnings, torch, fracspike as fs\n"
        "lif, x = fs.FractionalLIF(0.6), torch.ones(4, 1)\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    lif(x); lif.simulate(x); fs.FractionalALIF(0.6)(x)\n"
        "print(len(seen), lif.backend_report(x))\n"
        "fs.FractionalLIF(0.6, backend='native')(x)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )
    assert done.stdout.startswith("1 torch: NUMBA_DISABLE_JIT is set")
    assert "ValueError: `backend` 'native' cannot run this layer: NUMBA_DISABLE_JIT" in done.stderr


@pytest.mark.parametrize("layer", [FractionalLIF, FractionalALIF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_potentials_that_would_overflow_are_refused(layer: type[FractionalLIF], dtype: torch.dtype) -> None:
    current, largest = torch.zeros(20, 2, 5, dtype=dtype), torch.finfo(dtype).max
    for value in (largest, -largest, largest / 1e5):
        current[7, 1, 3] = value
        with pytest.raises(ValueError, match=r"`current` must .* at index \(7, 1, 3\)"):
            layer(0.6, backend="native")(current)
    current[7, 1, 3] = largest / 1e7
    run = layer(0.6, backend="native").simulate(current)
    assert run.voltage.isfinite().all()
    current[7, 1, 3] = largest / 10
    small = layer(0.6, backend="native", resistance=1e-6).simulate(current)
    assert small.voltage.isfinite().all()


def test_a_stream_says_half_way_how_far_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    lif, state = FractionalLIF(0.6, memory=Exponentials(1e-6, horizon=100), backend="torch"), None
    with caplog.at_level(logging.WARNING, "fracspike"):
        for _ in range(5):
            state = lif.simulate(torch.ones(20, 1), state).state
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "a stream is half way to the end of its memory: it can go on for 40 more steps"
    ]
