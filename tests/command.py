"""The command line called from tests, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
    assert len(error.splitlines()) == error.count("\n") == 1


def refusals(run: Callable[..., int], cases: Sequence[tuple[tuple[str, ...], str]]) -> Callable[..., None]:
    """Return a test that ``run(monkeypatch, *arguments)`` fails with one line that says what is wrong.

    Args:
        run: a command.
        cases: its arguments, and what is said of them.
    """

    @pytest.mark.parametrize(("arguments", "said"), cases, ids=[" ".join(given) for given, _ in cases])
    def test(
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        arguments: tuple[str, ...],
        said: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run(monkeypatch, *arguments) != 0
        assert_one_line(capsys.readouterr().err, said)

    return test
