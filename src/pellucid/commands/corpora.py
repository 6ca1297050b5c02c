"""`--over FOLDER` of `embed`, `classify`, `translate` and `heads`: a task over many files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.shared import given_options, plain_console
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.corpora.tasks import Task
    from pellucid.text.table_reading import Reading

OverOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Work through every text of a folder of files; --output is then a new directory, of "
        "Parquet files. If it ends early, the same command goes on.",
    ),
]
WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="N|ADDRESS",
        help="For --over FOLDER: how many processes, by Ray; or a Ray cluster, ray://host:port.",
    ),
]
PartOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="For --over FOLDER: the most texts of a Parquet file (default: what fits).",
    ),
]
ONLY_WITH = ("workers", "part")
WITH = (
    "over", "workers", "part", "output", "overwrite", "json", "column", "delimiter", "encoding",
)  # fmt: skip
"""What --over goes with; other options are those of its task."""


def check_alone(*task: str) -> None:
    """Refuse --workers and --part without --over, and what does not go with --over.

    Args:
        task: the options that the task over a folder has too.

    Raises:
        ArgumentError: an option does not fit.
    """
    named = given_options()
    if "over" in named:
        for name, shown in named.items():
            if name not in (*WITH, *task):
                raise ArgumentError(f"{shown} does not go with --over")
    else:
        for name in ONLY_WITH:
            if name in named:
                raise ArgumentError(f"{named[name]} needs --over, a folder of files")


def work_over(
    task: "Task",
    folder: Path,
    output: Path | None,
    json: bool,
    workers: str,
    part: int | None,
    column: str | None,
    reading: "Reading",
    overwrite: bool,
) -> None:
    """Run a task over a folder with a progress bar, and print what was done.

    Raises:
        ArgumentError: there is no --output; and what `corpora.run` raises.
    """
    from pellucid.commands.printing import corpora
    from pellucid.commands.printing.console import note, noted, steps
    from pellucid.common.files import to_json
    from pellucid.common.wording import count
    from pellucid.corpora import MeasureHeads, run, summarise_heads

    if output is None:
        raise ArgumentError("--over needs --output, a new directory")
    is_number = workers.removeprefix("-").isdecimal()
    with noted(), steps() as step:
        step("opening the model", 0, 1)
        summary = run(
            folder,
            output,
            task,
            workers=int(workers) if is_number else workers,
            column=column,
            reading=reading,
            size=part,
            overwrite=overwrite,
            progress=lambda done, of: step(
                f"{count(done.texts, 'text')} of {count(of, 'file')}", done.files, of
            ),
        )
    for message in summary.notes:
        note(message)
    if summary.warnings > len(summary.notes):
        note(f"and {summary.warnings - len(summary.notes):,} more warnings")
    heads = summarise_heads(output) if isinstance(task, MeasureHeads) else None
    if json:
        about = {} if heads is None else corpora.heads_to_data(heads)
        typer.echo(to_json(corpora.to_data(summary, output) | about))
        return
    console = plain_console()
    if heads is not None:
        corpora.show_heads(heads, console)
        console.print()
    corpora.show(summary, output, console)
