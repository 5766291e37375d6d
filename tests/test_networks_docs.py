"""The pages on networks and on other libraries: every block of code runs, those of peers where they are."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>[^>]*?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


@pytest.mark.filterwarnings("ignore")  # what other libraries warn of is not ours
@pytest.mark.parametrize("page", ["networks.md", "coming-from.md"])
def test_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function=None, **_: function or (lambda f: f))
    namespace: dict[str, object] = {}
    run = 0
    for block in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        needs = [name.strip() for name in (block["needs"] or "").split(",") if name.strip()]
        if all(importlib.util.find_spec(name) is not None for name in needs):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block["code"], page, "exec"), namespace)
            run += 1
    assert run >= 5


@pytest.mark.parametrize("page", ["../README.md", "extending.md"])
def test_single_blocks_run(page: str) -> None:
    (block,) = BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))
    exec(compile(block["code"], page, "exec"), {"__name__": "page"})


def test_pages_name_what_there_is() -> None:
    import fracspike as fs

    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("networks.md", "coming-from.md"))
    for module in ("encode", "losses", "measure", "plots"):
        for name in re.findall(rf"fs\.{module}\.(\w+)", text):
            assert hasattr(getattr(fs, module), name), f"fs.{module}.{name}"
    for name in re.findall(r"figures/(\w+\.png)", text):
        assert (DOCS / "figures" / name).is_file()
