"""A corpus in parts: consecutive texts of a file, each part with a name of its own.

The name says the file and its first text, so it is the same in every run: a part whose output
exists is done. Names do not depend on the other files, so files may be added later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pellucid.common.files import reason_of
from pellucid.errors import PellucidError
from pellucid.text.columns import parsed_column
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.text.text_inputs import Source

ENDING = ".parquet"


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
    done: bool = False
    """Whether its output exists; then it holds no texts."""
    blank: int = 0
    """Lines of the file that were left out because they are blank; known where it ends."""

    @property
    def name(self) -> str:
        return name_of_part(self.file, self.first)


def name_of_part(file: str, first: int) -> str:
    """The name of a part's output."""
    return f"{quote(file, safe='')}.{first:012d}{ENDING}"


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
        source = Source(self.folder / file, column, None, self.reading)
        texts = iter(source)
        first, problem = 0, ""
        held: list[tuple[str, int]] = []

        def part(number: int, ends: bool) -> Part:
            """The first `number` of the texts that are held."""
            own = held[:number]
            done = (self.output / name_of_part(file, first)).is_file()
            return Part(
                file=file,
                first=first,
                texts=[] if done else [text for text, _ in own],
                lines=[line for _, line in own],
                ends=ends,
                problem=problem if ends else "",
                done=done,
                blank=len(source.blank) if ends else 0,
            )

        while True:
            try:
                while len(held) <= self.size:  # one more than a part, to see whether it is the last
                    one = next(texts)
                    held.append((one.text, one.line))
            except StopIteration:
                break
            except PellucidError as error:
                problem = reason_of(error)
                break
            yield part(self.size, ends=False)
            del held[: self.size]
            first += self.size
        yield part(len(held), ends=True)
