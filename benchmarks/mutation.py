"""One small change of a source file at a time: drawn, and put into functions that are already imported.

Used by ``benchmarks/mutants.py``.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import gc
import inspect
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, is_number
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names


class Scaled(Operator):  # type: ignore[misc]
    """Make a small number a hundred times larger or smaller: Cosmic Ray only adds and takes away 1."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Give a position for each of the two changes."""
        if is_number(node) and 0 < abs(ast.literal_eval(node.value)) < 0.5:
            yield from [(node.start_pos, node.end_pos)] * 2

    def mutate(self, node: Any, index: int) -> Any:
        """Return the number changed."""
        value = ast.literal_eval(node.value) * (100.0, 0.01)[index]
        return parso.python.tree.Number(f"{node.prefix}{value!r}", node.start_pos)

    @classmethod
    def examples(cls) -> tuple[()]:
        """Give none."""
        return ()


@dataclass(frozen=True)
class Mutant:
    """A file with one change."""

    file: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What the list of equivalent mutants knows it by: line numbers move."""
        return self.file, self.before, self.after


def operators() -> Iterator[Operator]:
    """Give every operator that works without arguments."""
    for name in sorted(operator_names()):
        if not name.endswith(("VariableReplacer", "VariableInserter", "NoOp")):
            yield get_operator(name)()
    yield Scaled()


def places(path: Path) -> dict[tuple[int, int], list[tuple[Operator, int]]]:
    """Return the places of a file that can be changed, and by what."""
    nodes, found = list(ast_nodes(parso.parse(path.read_text()))), {}
    for operator in operators():
        number = itertools.count()
        for node in nodes:
            for position in operator.mutation_positions(node):
                found.setdefault(position[0], []).append((operator, next(number)))
    return found


def meaning(source: str) -> str:
    """Return the syntax tree without annotations, which nothing evaluates."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def drawn(root: Path, paths: Sequence[Path], seed: int) -> Iterator[Mutant]:
    """Give mutants in random order, one a place."""
    generator, known = random.Random(seed), []
    for path in paths:
        known += [(str(path.relative_to(root)), here) for _, here in sorted(places(path).items())]
    generator.shuffle(known)
    for file, here in known:
        original = (root / file).read_text()
        operator, occurrence = generator.choice(here)
        source = mutate_code(original, operator, occurrence)
        with contextlib.suppress(SyntaxError):
            if source is not None and meaning(source) != meaning(original):
                lines = list(difflib.unified_diff(original.splitlines(), source.splitlines(), n=0))[2:]
                parts = [" ".join(x[1:].strip() for x in lines if x[0] == sign).strip() for sign in "-+"]
                line = int(lines[0].split()[1].split(",")[0][1:])  # @@ -line,count +line,count @@
                yield Mutant(file, line, parts[0], parts[1], source)


def changes(path: Path, source: str) -> Iterator[tuple[str, int, CodeType]]:
    """Give name, line and new code of each outermost function that differs.

    Raises:
        NotImplementedError: if the body of the module or of a class differs, which only an import runs.
    """
    pairs = [(compile(path.read_text(), "x", "exec"), compile(source, "x", "exec"))]
    while pairs:
        old, new = pairs.pop()
        plain = [[repr(c) for c in code.co_consts if not isinstance(c, CodeType)] for code in (old, new)]
        if old.co_code != new.co_code or old.co_names != new.co_names or plain[0] != plain[1]:
            raise NotImplementedError
        inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (old, new)]
        if len(inner[0]) != len(inner[1]):
            raise NotImplementedError
        for before, after in zip(*inner, strict=True):
            if not before.co_flags & inspect.CO_OPTIMIZED:
                pairs.append((before, after))  # the body of a class
            elif before != after:
                yield after.co_qualname, after.co_firstlineno, after


def patch(path: Path, changed: list[tuple[str, int, CodeType]]) -> None:
    """Give the functions of a module their new code, wherever they are held."""
    new = {(name, line): code for name, line, code in changed}
    files = {name: vars(module).get("__file__") for name, module in list(sys.modules.items())}
    names = {name for name, file in files.items() if isinstance(file, str) and Path(file).resolve() == path}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__module__ in names:  # isinstance would wake proxies
            key = thing.__code__.co_qualname, thing.__code__.co_firstlineno
            if key in new and len(thing.__code__.co_freevars) == len(new[key].co_freevars):
                thing.__code__ = new[key]
