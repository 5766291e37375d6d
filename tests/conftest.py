"""Shared fixtures: reference tables live in tests/reference, large data sets beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import pytest

mpl.use("Agg")
# before anything imports Triton: where there is no GPU, its interpreter runs the kernels
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def reference() -> Path:
    return Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the checkout; the test is skipped where there is none."""
    place = Path(__file__).parent.parent.parent / "shared" / "data"
    if not place.is_dir():
        pytest.skip(f"no data sets in {place}")
    return place
