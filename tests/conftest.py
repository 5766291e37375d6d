"""Shared fixtures: reference tables live in tests/reference, large data sets beside the checkout."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest

mpl.use("Agg")


@pytest.fixture(scope="session")
def reference() -> Path:
    return Path(__file__).parent / "reference"
