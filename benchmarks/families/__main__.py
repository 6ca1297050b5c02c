"""Every model family of transformers, watched: which of their attention weights are recorded?

    python -m benchmarks.families [--only NAME,NAME] [--jobs N] [--json FILE] [--resume] [--check]

Without --only, the result is written to docs/families.md.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.families import catalogue, report, running
from benchmarks.families.comparing import NOT_BUILT, VERDICTS

RESULTS = Path("build/families.json")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "families.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these families alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="families at a time")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where outcomes are kept")
    parser.add_argument("--resume", action="store_true", help="leave out what is there already")
    parser.add_argument("--check", action="store_true", help="would a wrong number be noticed?")
    given = parser.parse_args()
    wanted = [name for name in given.only.split(",") if name]
    if given.check:
        from benchmarks.families.checking import check

        sys.exit(0 if check(wanted) else "a wrong number would not be noticed")
    names = catalogue.families()
    if unknown := set(wanted) - set(names):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    results: dict[str, list[dict[str, Any]]] = {}
    if given.resume and given.json.exists():
        results = json.loads(given.json.read_text(encoding="utf-8"))
    _examine([name for name in wanted or names if name not in results], given, results)
    outcomes = [outcome for name in wanted or names for outcome in results.get(name, [])]
    _show(report.lines(outcomes), bool(wanted))
    if not wanted:
        versions = f"transformers {version('transformers')}, torch {version('torch').split('+')[0]}"
        DOCUMENT.write_text(report.document(outcomes, versions), encoding="utf-8")


def _examine(
    names: list[str], given: argparse.Namespace, results: dict[str, list[dict[str, Any]]]
) -> None:
    given.json.parent.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(names))

        def done(family: str, outcomes: list[dict[str, Any]]) -> None:
            results[family] = outcomes
            given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
            progress.update(bar, advance=1, description=family)

        running.run(names, given.jobs, done)


def _show(lines: list[report.Line], in_full: bool) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=160)
    counts = Table("verdict", "families", "classes", title="Families of transformers, watched")
    for verdict, families, kinds, _ in report.summary(lines):
        counts.add_row(verdict, str(families), str(kinds))
    console.print(counts)
    table = Table("class", "softmaxes", "lazily", "as weights", "error", "verdict", "reason")
    for line in sorted(lines, key=lambda line: VERDICTS.index(line.verdict)):
        if in_full or line.verdict not in (VERDICTS[0], NOT_BUILT):
            numbers = (line.softmaxes, line.lazily, line.stored, f"{line.error:.0e}")
            table.add_row(line.kind or line.family, *map(str, numbers), line.verdict, line.reason)
    console.print(table)


if __name__ == "__main__":
    main()
