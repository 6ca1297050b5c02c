"""The files of folders, in the order of their names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pellucid.common.wording import count, listing
from pellucid.errors import FileError
from pellucid.text.utf8_files import STDIN, kind, name_of

READ = (".txt", ".text", ".md", ".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet")
"""Endings of files that are read in a folder; others are left out."""
MOST = 2**17
"""Files of a folder."""


def files_in(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Files, and those within folders and their folders; a name that begins with a dot is hidden.

    Returns:
        the files, and a note for each folder with files that are left out.

    Raises:
        FileError: a folder has no files of a kind that is read, or too many.
    """
    files, notes = [], []
    for path in paths:
        if path == STDIN or not path.is_dir():
            files.append(path)
            continue
        read: list[Path] = []
        left: list[Path] = []
        for file in _walk(path):
            (read if kind(file) in READ else left).append(file)
        if not read:
            raise FileError(
                f"'{name_of(path)}' is a directory without files that can be read: "
                f"{listing(list(READ)).replace(' and ', ' or ')}"
            )
        if left:
            what = count(len(left), "file")
            notes.append(
                f"left out {what} of '{name_of(path)}' that are neither text nor tables: "
                f"{left[0].relative_to(path)}{' and others' if len(left) > 1 else ''}"
            )
        files += read
    return files, notes


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise FileError(f"cannot read '{name_of(folder)}': {error.strerror}") from error

    number = 0
    for above, folders, names in os.walk(
        folder, onerror=refuse
    ):  # which follows no links to folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                number += 1
                if number > MOST:
                    raise FileError(f"'{name_of(folder)}' has more than {MOST:,} files")
                yield Path(above) / name
