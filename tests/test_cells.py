"""A grid of trainings on disk: nothing is measured twice, and nothing wrong is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fracspike.experiments import cells
from fracspike.experiments.cells import Cell, measure
from fracspike.experiments.report import Run


class Work:
    def __init__(self, stop_at: int | None = None) -> None:
        self.done: list[int] = []
        self.stop_at = stop_at

    def __call__(self, cell: Cell, folder: Path) -> dict[str, Any]:
        if cell["x"] == self.stop_at:
            raise KeyboardInterrupt
        folder.mkdir()
        (folder / "checkpoint").write_text("half")
        self.done.append(cell["x"])
        return {"y": cell["x"] ** 2}


GRID = [{"x": x} for x in range(4)]


def test_an_interruption_loses_only_the_cell_at_work(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(Run(tmp_path), GRID, Work(stop_at=2), "cells")
    rest = Work()
    results = measure(Run(tmp_path), GRID, rest, "cells")
    assert rest.done == [2, 3]
    assert results == [{"x": x, "y": x**2} for x in range(4)]


def test_checkpoints_go_once_a_cell_is_measured(tmp_path: Path) -> None:
    measure(Run(tmp_path), GRID, Work(), "cells")
    assert not [place for place in (tmp_path / "cells").iterdir() if place.is_dir()]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"result": {"y": 7}}'])
def test_a_damaged_result_is_measured_again(tmp_path: Path, content: str) -> None:
    measure(Run(tmp_path), GRID[3:], Work(), "cells")
    (path,) = (tmp_path / "cells").glob("*.json")
    path.write_text(content)
    assert measure(Run(tmp_path), GRID[3:], Work(), "cells") == [{"x": 3, "y": 9}]


def test_other_versions_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(Run(tmp_path), GRID, Work(), "cells")
    monkeypatch.setattr(cells, "versions", lambda: {"fracspike": "another"})
    again = Work()
    measure(Run(tmp_path), GRID, again, "cells")
    assert again.done == [0, 1, 2, 3]
