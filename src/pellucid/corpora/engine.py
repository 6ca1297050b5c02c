"""A task over all files of a folder: here, or by workers on Ray."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pellucid.corpora import ray_engine
from pellucid.corpora.parts import Reader
from pellucid.corpora.tasks import Task
from pellucid.corpora.worker import Done, Worker
from pellucid.corpora.writing import PARTS, begin, end
from pellucid.errors import ArgumentError, FileError
from pellucid.tasks.whole_numbers import check_whole
from pellucid.text.folders import files_in
from pellucid.text.table_reading import PLAIN, Reading

MOST_NOTES = 5


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a run came to."""

    files: int = 0
    """Files that are done."""
    texts: int = 0
    """Texts that have an output, in this run or before."""
    before: int = 0
    """Those of an earlier run."""
    aside: int = 0
    """Rows that cannot be read, and texts that were set aside in this run."""
    unread: int = 0
    """Files whose rest cannot be read."""
    blank: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """Warnings on the way, the first few of them."""
    warnings: int = 0
    """How many there were."""

    def add(self, done: Done) -> None:
        self.files += done.ends
        self.texts += done.texts
        self.before += done.texts if done.before else 0
        self.aside += done.aside
        self.unread += done.unread
        self.blank += done.blank
        self.warnings += len(done.notes)
        self.notes += done.notes[: MOST_NOTES - len(self.notes)]


Progress = Callable[[Summary, int], None]
"""Called after each part with what is done so far, and the number of files."""


def run(
    folder: str | Path,
    output: str | Path,
    task: Task,
    *,
    workers: int | str = 1,
    column: str | None = None,
    reading: Reading = PLAIN,
    size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Do a task with every text of a folder of files.

    The output is a directory of Parquet files, one for each part of a file, with a row for each
    text (for `MeasureHeads`, for each text and head). Each is written whole, once: if a run ends
    early, whatever the reason, the same call goes on where it was. Rows that cannot be read and
    texts that the model refuses are set aside with the reason, and the others go on. So is the rest
    of a file after a fault that hides where the next row begins, as in packed data that end early.

    Args:
        folder: of files of any kind that `pellucid` reads, with those in folders within it.
        output: a new directory, or that of the same run. All workers must see both directories.
        task: what to do: `Embed`, `Classify`, `Translate` or `MeasureHeads`.
        workers: 1 works in this process; more are processes on this machine, and "auto" or
            "ray://host:port" are those of a Ray cluster, as many as it has CPUs.
        column: of the texts in tables; "text", "sentence" or the only one by default.
        reading: how the files are written.
        size: the most texts of a part; the task's by default.
        overwrite: whether parts may be replaced that differ since their file has changed, as where
            a bad row was mended.
        progress: called after each part.

    Raises:
        ArgumentError: a number is out of range, the first file has no such column, a file has
            changed since the run began and `overwrite` is false, or the cluster cannot be reached.
        ExistsError: the output exists and is not the directory of this run.
        FileError: a directory cannot be read or written, or the model cannot be opened.
        MissingExtraError: pyarrow or Ray is not installed.
    """
    folder, output = Path(folder), Path(output)
    size = task.size if size is None else size
    check_whole("size", size)
    if not isinstance(workers, str):
        check_whole("workers", workers)
    if not folder.is_dir():
        raise FileError(f"'{folder}' is not a directory")
    paths, notes = files_in([folder])
    files = [str(path.relative_to(folder)) for path in paths]
    about = {
        "task": task.name,
        "options": task.options(),
        "size": size,
        "column": column,
        "reading": asdict(reading),
    }
    changed = begin(output, folder, files, about, overwrite=overwrite)
    reader = Reader(folder=folder, output=output / PARTS, size=size, column=column, reading=reading)
    first = next(reader.parts(files[0]))
    if first.problem and not first.lines:
        raise ArgumentError(f"the first file cannot be read: {first.problem}")
    summary, start = Summary(notes=notes, warnings=len(notes)), time.monotonic()
    last: dict[str, int] = {}
    for done in _run_task(reader, files, task, output, workers):
        summary.add(done)
        if done.ends:
            last[done.file] = done.first
        summary.seconds = time.monotonic() - start
        if progress is not None:
            progress(summary, len(files))
    end(output, changed, last)
    return summary


def _run_task(
    reader: Reader, files: Sequence[str], task: Task, output: Path, workers: int | str
) -> Iterator[Done]:
    if workers != 1:
        yield from ray_engine.worked(reader, files, task, output, workers)
        return
    worker = Worker(task, output)
    for file in files:
        for part in reader.parts(file):
            yield worker(part)
