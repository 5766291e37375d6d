"""Write docs/results.md from the committed results: ``python docs/make_results.py``.

Each experiment has a folder ``docs/results/NAME`` with the ``results.json`` of one command; it may have that
of another, such as ``full.json``, and a ``finding.md``: what the numbers say, in words.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fracspike.experiments.cells import TIME

HERE = Path(__file__).parent
PAGE = HERE / "results.md"
RESULTS = HERE / "results"
HEAD = """# Results

Published figures beside ours, experiment by experiment, from the `results.json` that each command wrote. A
tolerance was fixed before the run; rows without one only inform. Times are of two shared cores, and vary with
what else runs on them. This page is made by `python docs/make_results.py`; do not edit it.
"""


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the results of every experiment, by name; the words stand with the first of each.

    Args:
        folder: with one folder for each experiment.

    Raises:
        ValueError: if a file is no results.json, or lies in the folder of another experiment.
    """
    found = []
    for path in sorted(folder.glob("*/*.json"), key=lambda path: (path.parent, path.stem != "results")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            name, _ = content["experiment"], content["command"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no results.json of fracspike ({type(error).__name__})") from error
        if name != path.parent.name:
            raise ValueError(f"{path} holds the results of {name!r}; put them in {folder / name}")
        finding, first = path.with_name("finding.md"), not found or found[-1]["experiment"] != name
        content["finding"] = finding.read_text(encoding="utf-8").strip() if first and finding.exists() else ""
        content["heading"] = name if path.stem == "results" else f"{name} {path.stem}"
        found.append(content)
    return found


def duration(results: dict[str, Any]) -> str:
    """Return how long it took; of a run in several goes, all of them."""
    trainings = sum(row["measured"] for row in results["rows"] if row["quantity"] == TIME)
    seconds = max(float(results["seconds"]), float(trainings))
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def verdict(results: dict[str, Any]) -> str:
    """Return how many of the rows with a tolerance are within it."""
    judged = [row["within"] for row in results["rows"] if row["within"] is not None]
    return f"{sum(judged)} of {len(judged)}" if judged else "none has a tolerance"


def number(value: float | None) -> str:
    """Return a short text for a number."""
    return "" if value is None else f"{value:.6g}"


def section(results: dict[str, Any], docs: Path = HERE) -> str:
    """Return the part of the page on one experiment."""
    name, versions = results["experiment"], results["versions"]
    own = docs / "reproductions" / f"{name}.md"
    more = f"reproductions/{name}.md" if own.exists() else f"reproductions.md#{name}"
    lines = [
        f"## {results['heading']}",
        f"{results['title']}\\",
        f"{results['source']}. [More]({more}).",
        "",
        f"`{results['command']}`: {duration(results)}; "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + ".",
        "",
    ]
    if results["finding"]:
        lines += [results["finding"], ""]
    lines += [
        "| quantity | published | measured | tolerance | within | published in |",
        "|---|---|---|---|---|---|",
    ]
    marks = {None: "", True: "yes", False: "**no**"}
    for row in results["rows"]:
        numbers = (number(row[key]) for key in ("published", "measured", "tolerance"))
        cells = (row["quantity"], *numbers, marks[row["within"]], row["source"])
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(folder: Path = RESULTS, docs: Path = HERE) -> str:
    """Return the whole page."""
    everything = load(folder)
    table = ["| experiment | rows within their tolerance | command | time |", "|---|---|---|---|"]
    for results in everything:
        link = f"[{results['heading']}](#{results['heading'].replace(' ', '-')})"
        table.append(f"| {link} | {verdict(results)} | `{results['command']}` | {duration(results)} |")
    parts = [HEAD.strip(), "\n".join(table), *(section(results, docs) for results in everything)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page, or with ``--check`` only say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if the page is out of date"
    )
    fresh = page()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != fresh:
            raise SystemExit(f"{PAGE} is out of date; run: python docs/make_results.py")
        return
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
