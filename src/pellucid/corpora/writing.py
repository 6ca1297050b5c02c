"""The files of a run: what it does, the outputs of its parts, and the texts that it set aside.

run.json         the task and its options, and the files of the corpus
parts/           one Parquet file for each part, whole
set-aside/       for parts with texts that cannot be read: each of them, and why
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.common.files import reason_of, write_whole, written_whole
from pellucid.common.untrusted import json_in
from pellucid.corpora.parts import Part
from pellucid.corpora.tasks import TEXT, Columns, Task
from pellucid.errors import ArgumentError, ExistsError, FileError
from pellucid.text.table_writing import arrow_table
from pellucid.text.utf8_files import pyarrow_for

RUN, PARTS, ASIDE = "run.json", "parts", "set-aside"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A text that could not be worked on, or the rest of a file that could not be read."""

    line: int
    text: str
    reason: str


def begin(output: Path, folder: Path, files: Sequence[str], task: Task, size: int) -> None:
    """Make the directory of a run, or check that it is one of the same task, to go on with.

    Raises:
        ExistsError: it is the directory of another run, or of anything else.
        ArgumentError: it is within the corpus, or a file of the corpus has changed since.
        FileError: it cannot be written.
    """
    pyarrow_for("Parquet")
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ArgumentError(f"--output '{output}' is within '{folder}', which is read")
    about = {"pellucid": "corpus 1", "task": task.name, "options": task.options(), "size": size}
    known: dict[str, Any] = {}
    if output.exists():
        known = _known(output, about)
    sizes = {file: _state(folder / file) for file in files}
    for file, state in known.items():
        if file in sizes and sizes[file] != state:
            raise ArgumentError(
                f"'{folder / file}' has changed since '{output}' was begun; give another directory"
            )
    try:
        for name in (PARTS, ASIDE):
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{output}': {reason_of(error)}") from error
    write_whole(output / RUN, json.dumps(about | {"files": known | sizes}, indent=1) + "\n")


def _known(output: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The files of the run that a directory holds."""
    if not output.is_dir():
        raise ExistsError(f"'{output}' exists and is not a directory")
    if not (output / RUN).is_file():
        if any(output.iterdir()):
            raise ExistsError(f"'{output}' exists and holds other files; give a new directory")
        return {}
    found = json_in(output, RUN)
    files = found.pop("files", None)
    if not isinstance(files, dict) or found.get("pellucid") != about["pellucid"]:
        raise ExistsError(f"'{output}' exists and is not a run over a corpus")
    for name in ("task", "options", "size"):
        if found.get(name) != about[name]:
            raise ExistsError(
                f"'{output}' is a run with {name} {json.dumps(found.get(name))}, not "
                f"{json.dumps(about[name])}; give another directory"
            )
    return files


def _state(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError as error:
        raise FileError(f"cannot read '{file}': {reason_of(error)}") from error
    return [status.st_size, status.st_mtime_ns]


def write_part(
    output: Path, part: Part, columns: Columns, aside: Sequence[SetAside], types: Mapping[str, str]
) -> None:
    """Write what a part came to; its own file last, which says that all of it is written."""
    if aside:
        rows = {
            "file": [part.file] * len(aside),
            "line": [one.line for one in aside],
            "text": [one.text for one in aside],
            "reason": [one.reason for one in aside],
        }
        _write(output / ASIDE / part.name, rows, {})
    _write(output / PARTS / part.name, columns, types)


def placed(part: Part, columns: Columns, lines: Sequence[int]) -> Columns:
    """The columns of a task, with the file and line of each row before them."""
    numbers = columns.pop(TEXT, range(len(lines)))
    return {
        "file": [part.file] * len(numbers),
        "line": [lines[number] for number in numbers],
        **columns,
    }


def _write(path: Path, columns: Columns, types: Mapping[str, str]) -> None:
    types = {"file": "string", "line": "int64", **types}
    parquet = pyarrow_for("Parquet").parquet
    with written_whole(path) as file:
        parquet.write_table(arrow_table(columns, types), file, compression="zstd")
