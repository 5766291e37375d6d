"""The shape of the code: who may import whom, what is packaged, docstring examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import fracspike
import fracspike.solvers

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# A module may import from its own line and the lines above it, never from below.
LAYERS = [
    "solvers.transforms",
    "solvers.checks",
    "solvers.field solvers.watch",
    "solvers.weights solvers.mittag_leffler",
    "solvers.methods solvers.memory solvers.trajectory",
    "solvers.gradient solvers.iterate",
    "solvers.jacobian",
    "solvers.branch solvers.ringing",
    "solvers.transformed",
    "solvers.implicit",
    "solvers.march",
    "solvers.difference solvers.quadrature",
    "solvers.parts solvers.orders solvers.state",
    "solvers.dense solvers.stepping solvers.graded solvers.ordinary solvers.relaxation",
    "solvers.integrate",
    "solvers",
    "fracspike.files fracspike.plots fracspike.threads fracspike.encode fracspike.losses",
    "fracspike.surrogate",
    "fracspike.neurons",
    "fracspike.layers",
    "fracspike.measure",
    "fracspike",
    "fracspike.data",
    "fracspike.experiments fracspike.training fracspike.single fracspike.warm",
    "fracspike.sweep",
    "fracspike.cli",
    "fracspike.__main__",
]


def rank(module: str) -> int:
    """The layer of a module: that of its longest listed prefix."""
    listed = {name: i for i, line in enumerate(LAYERS) for name in line.split()}
    while module not in listed:
        module = module.rpartition(".")[0]
        assert module, "not in any layer"
    return listed[module]


def sources() -> Iterator[tuple[str, Path]]:
    for top in ("fracspike", "solvers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, path: Path) -> Iterator[str]:
    """Every module that ``module`` imports from this project, by its place in the tree."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            submodules = {name for name, _ in sources()}
            names = []
            for alias in node.names:
                inner = f"{base}.{alias.name}".replace("fracspike.solvers", "solvers")
                names.append(inner if inner in submodules else base)
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("fracspike", "solvers"):
                yield name.replace("fracspike.solvers", "solvers")


@pytest.mark.parametrize(("module", "path"), list(sources()), ids=lambda x: x if isinstance(x, str) else "")
def test_imports_point_upwards_only(module: str, path: Path) -> None:
    for imported in imports(module, path):
        assert rank(imported) <= rank(module), f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # wherever an import stands: one inside a function would only hide the circle
    paths = dict(sources())
    later = {m: {i for i in imports(m, p) if i in paths and i != m} for m, p in paths.items()}
    while free := {m for m, needs in later.items() if not needs & later.keys()}:
        later = {m: needs for m, needs in later.items() if m not in free}
    assert not later, f"in a circle, or importing one: {sorted(later)}"


@pytest.mark.parametrize("path", [p for m, p in sources() if m.startswith("solvers")], ids=lambda p: p.stem)
def test_solvers_know_nothing_of_spikes(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"(?<!frac)spik", text, re.IGNORECASE)
    assert not re.search(r"^\s*(from|import) fracspike", text, re.MULTILINE)


def test_packages_in_pyproject_are_those_in_the_tree() -> None:
    found = {m for m, p in sources() if p.name == "__init__.py"}
    found = {re.sub(r"^solvers", "fracspike.solvers", m) for m in found}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


def test_version_is_said_once() -> None:
    assert PYPROJECT["project"]["version"] == fracspike.__version__
    assert f"## {fracspike.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version: "{fracspike.__version__}"' in (ROOT / "CITATION.cff").read_text()


def test_solvers_refuse_to_be_imported_by_their_folder_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import solvers"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "imported as `fracspike.solvers`" in done.stderr


def test_importing_the_library_does_not_import_plots_or_data_sets() -> None:
    heavy = ("matplotlib", "sklearn", "triton")
    code = f"import sys, fracspike; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def modules() -> Iterator[str]:
    for package in (fracspike, fracspike.solvers):
        yield package.__name__
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            yield info.name


# surrogates register themselves in their examples; tests/test_surrogate_docs.py runs these and tidies up
@pytest.mark.parametrize("name", sorted({m for m in modules() if "surrogate" not in m}))
def test_docstring_examples_run(name: str) -> None:
    if ".backends.triton" in name:
        pytest.importorskip("triton")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0
