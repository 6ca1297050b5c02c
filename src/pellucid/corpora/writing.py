"""The files of a run: what it does, the outputs of its parts, and the texts that it set aside.

run.json         the task and its options, and the files of the corpus
parts/           one Parquet file for each part, whole
set-aside/       for parts with rows or texts that cannot be read: each of them, and why
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.common.files import reason_of, write_whole, written_whole
from pellucid.common.untrusted import json_in
from pellucid.corpora.parts import FINGERPRINT, Part, beginning, name_of_part
from pellucid.corpora.tasks import TEXT, Columns
from pellucid.errors import ArgumentError, ExistsError, FileError
from pellucid.text.bad_rows import BadRow
from pellucid.text.table_writing import arrow_table
from pellucid.text.utf8_files import pyarrow_for

RUN, PARTS, ASIDE = "run.json", "parts", "set-aside"


States = dict[str, Any]
"""The size and time of each file."""


def begin(
    output: Path,
    folder: Path,
    files: Sequence[str],
    about: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> States:
    """Make the directory of a run, or check that it is one of the same task, to go on with.

    Args:
        output: the directory.
        folder: of the corpus.
        files: their names.
        about: the task and all that the outputs depend on.
        overwrite: whether a file of the corpus may have changed.

    Returns:
        the files of the corpus that have changed since, as they are now, for `end`.

    Raises:
        ExistsError: it is the directory of another run, or of anything else.
        ArgumentError: it is within the corpus, or a file of the corpus has changed since and
            `overwrite` is false.
        FileError: it cannot be written.
    """
    pyarrow_for("Parquet")
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ArgumentError(f"--output '{output}' is within '{folder}', which is read")
    about = {"pellucid": "corpus 1", **about}
    known: dict[str, Any] = {}
    if output.exists():
        known = _recorded_files(output, about)
    sizes = {file: _state(folder / file) for file in files}
    changed = {file: sizes[file] for file in known if sizes.get(file, known[file]) != known[file]}
    if changed and not overwrite:
        raise ArgumentError(
            f"'{folder / next(iter(changed))}' has changed since '{output}' was begun; "
            "--overwrite replaces the parts that differ, or give another directory"
        )
    try:
        for name in (PARTS, ASIDE):
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{output}': {reason_of(error)}") from error
    # A file that has changed is written down as it is now once all its parts are.
    write_whole(output / RUN, json.dumps(about | {"files": sizes | known}, indent=1) + "\n")
    return changed


def end(output: Path, changed: States, last: Mapping[str, int]) -> None:
    """Forget what files were before they changed: parts that they have no longer, and their states.

    Args:
        output: the directory of the run, all of whose parts are written.
        changed: what `begin` returned.
        last: the first text of the last part of each file.

    Raises:
        FileError: the directory cannot be written.
    """
    if not changed:
        return
    try:
        for folder in (output / PARTS, output / ASIDE):
            names = sorted(path.name for path in folder.iterdir())
            for file in changed:
                newest = name_of_part(file, last[file])
                for name in names:
                    # Numbers have as many digits, so names are in their order; the parts of
                    # "a.txt.gz" begin as those of "a.txt" do, but are longer.
                    is_own = name.startswith(beginning(file)) and len(name) == len(newest)
                    if is_own and name > newest:
                        (folder / name).unlink()
    except OSError as error:
        raise FileError(f"cannot write '{output}': {reason_of(error)}") from error
    about = json_in(output, RUN)
    about["files"] |= changed
    write_whole(output / RUN, json.dumps(about, indent=1) + "\n")


def _recorded_files(output: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The files of the run that a directory holds."""
    if not output.is_dir():
        raise ExistsError(f"'{output}' exists and is not a directory")
    if not (output / RUN).is_file():
        if any(output.iterdir()):
            raise ExistsError(f"'{output}' exists and holds other files; give a new directory")
        return {}
    run = json_in(output, RUN)
    files = run.pop("files", None)
    if not isinstance(files, dict) or run.get("pellucid") != about["pellucid"]:
        raise ExistsError(f"'{output}' exists and is not a run over a corpus")
    for name in about:
        if name in run and run[name] != about[name]:
            raise ExistsError(
                f"'{output}' is a run with {name} {json.dumps(run.get(name))}, not "
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
    output: Path, part: Part, columns: Columns, aside: Sequence[BadRow], types: Mapping[str, str]
) -> None:
    """Write what a part came to; its own file last, which says that all of it is written."""
    if aside:
        rows = {
            "file": [part.file] * len(aside),
            "line": [row.line for row in aside],
            "text": [row.text for row in aside],
            "reason": [row.reason for row in aside],
        }
        _write(output / ASIDE / part.name, rows, {}, part)
    else:
        (output / ASIDE / part.name).unlink(missing_ok=True)
    _write(output / PARTS / part.name, columns, types, part)


def placed(part: Part, columns: Columns, lines: Sequence[int]) -> Columns:
    """The columns of a task, with the file and line of each row before them."""
    numbers = columns.pop(TEXT, range(len(lines)))
    return {
        "file": [part.file] * len(numbers),
        "line": [lines[number] for number in numbers],
        **columns,
    }


def _write(path: Path, columns: Columns, types: Mapping[str, str], part: Part) -> None:
    types = {"file": "string", "line": "int64", **types}
    parquet = pyarrow_for("Parquet").parquet
    with written_whole(path) as file:
        table = arrow_table(columns, types)
        about = {**(table.schema.metadata or {}), FINGERPRINT: part.fingerprint}
        parquet.write_table(table.replace_schema_metadata(about), file, compression="zstd")
