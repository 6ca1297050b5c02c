"""The command of a benchmark that is made of sections: run them, print the rows, write them."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import measure
from benchmarks.heart import Row, show

Section = Callable[[], Iterator[Row]]


def run(name: str, description: str | None, peer: str, sections: tuple[Section, ...]) -> None:
    """Parse the command line and run the sections that it asks for.

    Args:
        name: of the module, as `python -m` takes it.
        description: what --help says.
        peer: the peer's name and version, for the title.
        sections: each gives its rows.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("--only", default="", metavar="SECTION", help="sections named so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "--processor",
        action="store_true",
        help="time of the processor, not of the clock: one thread, beside other programs",
    )
    given = parser.parse_args()
    if given.processor:
        torch.set_num_threads(1)
        measure.clock = time.process_time
    rows: list[Row] = []
    with torch.no_grad():
        for section in sections:
            if given.only not in section.__name__:
                continue
            for row in section():
                rows.append(row)
                print(f"{row.figure}, {row.setting}: {row.value:.3g} {row.unit}", file=sys.stderr)
    console = Console() if sys.stdout.isatty() else Console(width=130)
    machine = f"float32, {platform.machine()}, {torch.get_num_threads()} threads"
    machine += ", time of the processor" if given.processor else ""
    show(rows, f"torch {torch.__version__}, {peer}, {machine}", console)
    if given.json:
        facts = {"rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
