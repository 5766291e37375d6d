"""The page on surrogates: its tables match the code, its examples run, its figures are there."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fracspike import surrogate
from fracspike.surrogate import plot_surrogates, registry

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "surrogates.md"


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_surrogates", DOCS / "make_surrogates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert maker().fill(page) == page, "run `python docs/make_surrogates.py`"
    for name in (*surrogate.names(), *surrogate.aliases()):
        assert f"| `{name}`" in page


def test_figures_exist_and_are_small() -> None:
    names = re.findall(r"\(figures/(surrogates_\w+\.png)\)", PAGE.read_text(encoding="utf-8"))
    assert len(names) == 6
    for name in names:
        assert 1_000 < (DOCS / "figures" / name).stat().st_size < 100_000


@pytest.fixture
def _registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_families", "_by_key"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.usefixtures("_registry_as_it_was")
def test_examples_of_the_page_run() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.usefixtures("_registry_as_it_was")
def test_examples_of_the_docstrings_run() -> None:
    attempted = 0
    for name in surrogate.__all__:
        member = getattr(surrogate, name)
        for test in doctest.DocTestFinder(recurse=False).find(member, name, globs={}):
            result = doctest.DocTestRunner().run(test)
            assert result.failed == 0, name
            attempted += result.attempted
    assert attempted > 50


@pytest.mark.parametrize("name", surrogate.names())
def test_every_family_is_documented(name: str) -> None:
    text = inspect.getdoc(registry.family_of(name)) or ""
    assert ".. math::" in text
    assert "Source:" in text
    assert ">>>" in text
    for parameter in registry.family_of(name)._shape:
        assert f"{parameter}: " in text


def test_plots() -> None:
    figure = plot_surrogates(["atan", surrogate.Sigmoid()], labels=["a", "b"], title="two")
    left, right = figure.axes
    assert len(right.lines) == 2
    assert len(left.lines) == 3  # the step and two primitives
    x, y = (torch.as_tensor(data) for data in right.lines[0].get_data())
    torch.testing.assert_close(y, surrogate.ATan().derivative(x))
    for bad in (
        {"surrogates": []},
        {"surrogates": ["atan"], "labels": []},
        {"surrogates": ["atan"], "low": 3},
    ):
        with pytest.raises(ValueError, match="must"):
            plot_surrogates(**bad)
