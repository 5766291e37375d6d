"""The results page: made from the committed results, and up to date with them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fracspike import experiments
from fracspike.experiments.report import Row

DOCS = Path(__file__).parent.parent / "docs"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _module()
COMMITTED = sorted((DOCS / "results").glob("*/*.json"))


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "results.md").read_text() == make.page(), "run: python docs/make_results.py"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_committed_results_are_of_an_experiment_and_judge_as_it_does(path: Path) -> None:
    experiment = experiments.get(path.parent.name)
    results = json.loads(path.read_text())
    assert (results["experiment"], results["title"]) == (experiment.name, experiment.title)
    assert not results["quick"]
    for row in results["rows"]:
        within = row.pop("within")
        assert Row(**row).within is within
    assert f"`{results['command']}`" in (DOCS / "results.md").read_text()


def test_committed_results_are_small_and_name_no_place_of_a_machine() -> None:
    for path in (DOCS / "results").rglob("*.*"):
        assert path.stat().st_size < 50_000
        assert "/home/" not in path.read_text()
        assert "/work/" not in path.read_text()


def row(quantity: str, published: float | None, measured: float, tolerance: float | None) -> dict[str, Any]:
    made = Row(quantity, published, "Table | 1", measured, tolerance)
    return {**vars(made), "within": made.within}


def toy(**changes: Any) -> dict[str, Any]:
    rows = [row("a", 1.0, 1.05, 0.1), row("b", 2.0, 3.0, 0.5), row("c", None, 7.0, None)]
    usual = {"experiment": "toy", "title": "Toy", "source": "Someone (2020)", "quick": False, "full": True}
    usual["command"] = "fracspike reproduce toy --full --seed 3"
    return {**usual, "rows": rows, "seed": 3, "seconds": 200.0, "versions": {"torch": "2"}, **changes}


def put(folder: Path, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


def test_a_page_says_what_the_numbers_say(tmp_path: Path) -> None:
    put(tmp_path / "toy", toy())
    (tmp_path / "toy" / "finding.md").write_text("It does not hold.\n")
    page = make.page(tmp_path, tmp_path)
    assert "| [toy](#toy) | 1 of 2 | `fracspike reproduce toy --full --seed 3` | 3 min |" in page
    assert "| a | 1 | 1.05 | 0.1 | yes | Table \\| 1 |" in page
    assert "| b | 2 | 3 | 0.5 | **no** | Table \\| 1 |" in page
    assert "| c |  | 7 |  |  | Table \\| 1 |" in page
    assert "It does not hold." in page


def test_two_runs_of_an_experiment_stand_one_after_the_other(tmp_path: Path) -> None:
    put(tmp_path / "toy", toy(command="fracspike reproduce toy", full=False))
    (tmp_path / "toy" / "full.json").write_text(json.dumps(toy()))
    (tmp_path / "toy" / "finding.md").write_text("It holds.\n")
    page = make.page(tmp_path, tmp_path)
    assert "| [toy](#toy) | 1 of 2 | `fracspike reproduce toy` | 3 min |\n| [toy full](#toy-full) |" in page
    assert page.index("## toy\n") < page.index("It holds.") < page.index("## toy full\n")
    assert page.count("It holds.") == 1


def test_the_time_of_a_run_in_several_goes_is_that_of_all() -> None:
    rows = [row(make.TIME, None, 3000.0, None)]
    assert make.duration(toy(rows=rows)) == "50 min"
    assert make.duration(toy(seconds=3.21)) == "3.2 s"


def test_misplaced_or_damaged_results_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "one" / "other", toy())
    with pytest.raises(ValueError, match="put them in"):
        make.load(tmp_path / "one")
    put(tmp_path / "two" / "toy", {"rows": []})
    with pytest.raises(ValueError, match=r"no results\.json"):
        make.load(tmp_path / "two")
