"""The command line called from tests, in this process."""

from __future__ import annotations

import pytest

from fracspike import cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``fracspike`` in this process and return its exit status."""
    monkeypatch.setattr("sys.argv", ["fracspike", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def assert_one_line(error: str, said: str) -> None:
    """Check that what came to standard error is one line of the program's, which says ``said``."""
    assert said in error
    assert error.startswith("fracspike: ")
    assert len(error.splitlines()) == 1
