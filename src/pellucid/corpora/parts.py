"""A corpus in parts: consecutive texts of a file, each part with a name of its own.

The name says the file and its first text, so it is the same in every run: a part whose output
exists is done. Names do not depend on the other files, so files may be added later. An output
holds the fingerprint of what it was made from, so a part of a file that has changed is told from
one that has not.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from urllib.parse import quote

from pellucid.common.files import reason_of
from pellucid.errors import FileError, PellucidError
from pellucid.text import parquet_reading
from pellucid.text.bad_rows import BadRow, BadRows
from pellucid.text.columns import parsed_column
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.text.text_inputs import Source

ENDING = ".parquet"
FINGERPRINT = b"pellucid.part"
"""The key of the metadata of an output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some consecutive texts of a file."""

    file: str
    """The name of the file, within the folder."""
    first: int
    """How many texts of the file are before it."""
    texts: list[str]
    lines: list[int]
    """The line (or row, in Parquet) of each text, from 1."""
    ends: bool
    """Whether it is the last of its file."""
    problem: str = ""
    """Why the file cannot be read on after these texts."""
    bad: list[BadRow] = field(default_factory=list)
    """The rows up to its last text that cannot be read; the others are read all the same."""
    fingerprint: str = ""
    """Of all that is read of it."""
    done: bool = False
    """Whether its output exists; then it holds no texts."""
    blank: int = 0
    """Lines of the file that were left out because they are blank; known where it ends."""
    notes: list[str] = field(default_factory=list)
    """What was noticed in the file and may not be meant; known where it ends."""

    @property
    def name(self) -> str:
        return name_of_part(self.file, self.first)


def name_of_part(file: str, first: int) -> str:
    """The name of a part's output."""
    return f"{beginning(file)}{first:012d}{ENDING}"


def beginning(file: str) -> str:
    """How the names of the parts of a file begin."""
    return f"{quote(file, safe='')}."


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """Reads the files of a folder, part by part."""

    folder: Path
    output: Path
    """Where the outputs of parts are, to see which are done."""
    size: int
    """The most texts of a part."""
    column: str | None = None
    reading: Reading = PLAIN

    def parts(self, file: str) -> Iterator[Part]:
        """The parts of a file: at least one, even if it is empty or cannot be read."""
        column = None if self.column is None else parsed_column(self.column)
        aside = BadRows()
        source = Source(self.folder / file, column, None, self.reading, aside=aside)
        texts = iter(source)
        first, problem = 0, ""
        held: list[tuple[str, int]] = []

        def part(number: int, ends: bool) -> Part:
            """The first `number` of the texts that are held."""
            own = held[:number]
            bad = aside.taken(None if ends else own[-1][1])
            stopped = problem if ends else ""
            about = [own, [astuple(row) for row in bad], stopped]
            fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()
            done = _fingerprint(self.output / name_of_part(file, first)) == fingerprint
            return Part(
                file=file,
                first=first,
                texts=[] if done else [text for text, _ in own],
                lines=[line for _, line in own],
                ends=ends,
                problem=stopped,
                bad=bad,
                fingerprint=fingerprint,
                done=done,
                blank=len(source.blank) if ends else 0,
                notes=source.noticed.notes() if ends else [],
            )

        while True:
            try:
                while len(held) <= self.size:  # one more than a part, to see whether it is the last
                    text = next(texts)
                    held.append((text.text, text.line))
            except StopIteration:
                break
            except PellucidError as error:
                problem = reason_of(error)
                break
            yield part(self.size, ends=False)
            del held[: self.size]
            first += self.size
        yield part(len(held), ends=True)


def _fingerprint(output: Path) -> str | None:
    """What an output was made from; None if there is none that is whole."""
    if not output.is_file():
        return None
    try:
        with parquet_reading.opened(output) as file:
            return str((file.schema_arrow.metadata or {}).get(FINGERPRINT, b"").decode())
    except FileError:
        return None
