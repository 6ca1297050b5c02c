"""What `pellucid.watch` sees of the models of other libraries.

    python -m benchmarks.libraries [--only TEXT] [--json FILE] [--page FILE]

`make libraries` installs the libraries first, in an environment of their own. One that is missing
or cannot be imported is said in the table.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.libraries import report
from benchmarks.libraries.verdict import Outcome, first_line, judge

LIBRARIES = {
    "written by hand": "handwritten",
    "timm": "timm",
    "open_clip": "open_clip",
    "diffusers": "diffusers",
    "peft": "peft",
    "sentence-transformers": "sentence_transformers",
    "vit-pytorch": "vit_pytorch",
    "x-transformers": "x_transformers",
    "fair-esm": "esm",
}
"""Each with the module of `benchmarks.libraries.models` that has its cases."""


def outcomes(only: str) -> Iterator[tuple[list[Outcome], tuple[str, ...]]]:
    """Those of each library, and the distributions that it came from."""
    for library, name in LIBRARIES.items():
        try:
            module = import_module(f"benchmarks.libraries.models.{name}")
        except Exception as error:  # whatever goes wrong in an import of somebody else's
            if not only or only in library:
                yield [Outcome(library, "", failure=f"cannot be imported: {first_line(error)}")], ()
            continue
        cases = [case for case in module.cases() if only in f"{library}: {case.name}"]
        if cases:
            yield [judge(library, case) for case in cases], module.DISTRIBUTIONS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="models with this in 'library: model'"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table as Markdown")
    given = parser.parse_args()
    torch.set_num_threads(1)  # nothing here is large enough for more
    warnings.simplefilter("ignore")  # the libraries' own
    console = Console() if sys.stdout.isatty() else Console(width=150)
    found: list[Outcome] = []
    distributions: list[str] = []
    for some, names in outcomes(given.only):
        report.show(some[0].library, some, console)
        found += some
        distributions += names
    versions = report.versions_of(distributions)
    console.print(", ".join(versions))
    console.print(report.summary(found) or "no such model")
    if given.json:
        facts = {
            "versions": versions,
            "outcomes": [{**asdict(one), "verdict": one.verdict} for one in found],
        }
        given.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    if given.page:
        given.page.write_text(report.markdown(found, versions), encoding="utf-8")


if __name__ == "__main__":
    main()
