"""Damage files of every format that the library reads, read them, and say what was handled wrongly.

    python benchmarks/fuzz_files.py [--files 300] [--seed 0]

A damaged file must be refused in one line that names it, with at most 100 MiB of memory, and left as it
is; or taken, where a format has no checksum and the damage lies in its
values. The exit status is 1 if one was not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from damaged_files import bombs, complaint, formats, spoil


def main() -> int:
    """Read so many damaged files; return how many were handled wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    random, wrong = Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as work:
        known = formats(Path(work))
        cases = [(form, spoil(form, random)) for form in (random.choice(known) for _ in range(chosen.files))]
        cases += [(form, content) for form in known if form.packed for _, content in bombs()]
        for number, (form, content) in enumerate(cases):
            if said := complaint(form, content, Path(work)):
                wrong += 1
                print(f"{number}: {form.name}, {len(content)} bytes: {said}")
    print(f"{len(cases)} damaged files, seed {chosen.seed}: {wrong} handled wrongly")
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
