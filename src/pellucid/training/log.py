"""The log of a run as JSON lines, which a resumed run continues."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pellucid.common.files import reason_of, written_whole
from pellucid.errors import FileError


class Log:
    """Lines of JSON, in order of steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry.

        Raises:
            FileError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(entry, allow_nan=False) + "\n")
        except OSError as error:
            raise FileError(f"cannot write '{self.path}': {reason_of(error)}") from error

    def cut(self, step: int, read: Callable[[dict[str, Any]], None]) -> None:
        """Remove the entries of later steps, and incomplete lines.

        Args:
            step: the last step to keep.
            read: called with each entry that is kept.

        Raises:
            FileError: the log cannot be read or written.
        """
        if not self.path.exists():
            return
        with (
            written_whole(self.path) as aside,
            aside.open("w", encoding="utf-8", newline="\n") as kept,
            self.path.open(encoding="utf-8", errors="replace") as lines,
        ):
            for line in lines:
                entry = _entry(line)
                if entry is not None and entry["step"] <= step:
                    kept.write(line if line.endswith("\n") else line + "\n")
                    read(entry)


def _entry(line: str) -> dict[str, Any] | None:
    """The entry of a line, if it is complete."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_valid = isinstance(entry, dict) and isinstance(entry.get("step"), int)
    return entry if is_valid else None
