"""The pages on neurons: their examples run, their tables match the code, their figures are there."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from test_reset_memory import COUNTS

from fracspike.neurons import NEURONS

DOCS = Path(__file__).parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_examples_of_the_page_on_neurons_run() -> None:
    result = doctest.testfile(str(DOCS / "neurons.md"), module_relative=False, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0


def test_quickstart_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page("quickstart.md"), re.DOTALL)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, "quickstart.md", "exec"), names)
    assert len(blocks) == 6
    assert names["accuracy"] > 0.9
    assert (tmp_path / "neuron.png").stat().st_size > 10_000
    assert torch.equal(torch.cat(names["spikes"]), names["net"][1](names["net"][0](names["long"])))


def test_every_neuron_is_in_the_table_and_in_the_figure() -> None:
    spec = importlib.util.spec_from_file_location("make_neurons", DOCS / "make_neurons.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert set(maker.SHOWN) == set(NEURONS)
    for name, neuron in NEURONS.items():
        assert f'| `"{name}"` | `{neuron.__name__}` |' in page("neurons.md")


def test_the_table_of_spike_counts_is_what_the_tests_assert() -> None:
    rows = re.findall(r'\| `"(\w+)"` \| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \|', page("reset-memory.md"))
    found = {(memory, float(alpha)): tuple(map(int, counts)) for memory, alpha, *counts in rows}
    assert found == {(memory, alpha): case[alpha] for memory, case in COUNTS.items() for alpha in (0.5, 0.8)}


@pytest.mark.parametrize("name", ["neurons.md", "reset-memory.md", "quickstart.md"])
def test_links_and_figures_exist_and_are_small(name: str) -> None:
    for target in re.findall(r"\]\(([\w/-]+\.(?:md|png))\)", page(name)):
        assert (DOCS / target).exists(), target
        assert target.endswith(".md") or 1_000 < (DOCS / target).stat().st_size < 110_000
