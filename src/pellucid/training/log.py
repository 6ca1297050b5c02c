"""A run's log for programs: lines of JSON, which a run that goes on goes on with."""

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

    def add(self, said: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            FileError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(said, allow_nan=False) + "\n")
        except OSError as error:
            raise FileError(f"cannot write '{self.path}': {reason_of(error)}") from error

    def cut(self, step: int, read: Callable[[dict[str, Any]], None]) -> None:
        """Drop the lines of later steps, which will be made again, and those that are not whole.

        Args:
            step: the last that is kept.
            read: gets each line that is.

        Raises:
            FileError: it cannot be read or written.
        """
        if not self.path.exists():
            return
        with (
            written_whole(self.path) as aside,
            aside.open("w", encoding="utf-8", newline="\n") as kept,
            self.path.open(encoding="utf-8", errors="replace") as lines,
        ):
            for line in lines:
                said = _line(line)
                if said is not None and said["step"] <= step:
                    kept.write(line if line.endswith("\n") else line + "\n")
                    read(said)


def _line(line: str) -> dict[str, Any] | None:
    """What a line of the log says, if it is whole."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    is_ours = isinstance(said, dict) and isinstance(said.get("step"), int)
    return said if is_ours else None
