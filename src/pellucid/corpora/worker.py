"""What works through the parts of a corpus: the model is opened once, and parts come and go."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from pellucid.common.files import reason_of
from pellucid.corpora.parts import Part
from pellucid.corpora.tasks import Columns, Task, Work
from pellucid.corpora.writing import placed, write_part
from pellucid.errors import PellucidError
from pellucid.text.bad_rows import BadRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a part came to."""

    file: str
    first: int
    """How many texts of the file are before it."""
    texts: int
    """Texts with an output."""
    aside: int
    """Rows and texts that were set aside."""
    unread: bool
    """Whether the rest of the file cannot be read."""
    blank: int
    ends: bool
    before: bool
    """Whether it was done in an earlier run."""
    notes: tuple[str, ...]
    """Warnings on the way, such as of texts that were cut."""


class Worker:
    """Works through parts with a model that it opens once."""

    def __init__(self, task: Task, output: Path) -> None:
        self.task, self.output, self.work = task, output, task.open()

    def __call__(self, part: Part) -> Done:
        aside, refused = list(part.bad), 0
        notes: tuple[str, ...] = ()
        if part.problem:
            last = max([0, *part.lines[-1:], *(row.line for row in part.bad)])
            aside.append(BadRow(last + 1, "", part.problem))
        if not part.done:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                columns, lines, bad = _apply_task(self.work, part)
            notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
            aside, refused = bad + aside, len(bad)
            write_part(self.output, part, placed(part, columns, lines), aside, self.task.types)
        return Done(
            file=part.file,
            first=part.first,
            texts=len(part.lines) - refused,
            aside=len(part.bad) + refused,
            unread=bool(part.problem),
            blank=part.blank,
            ends=part.ends,
            before=part.done,
            notes=(*notes, *part.notes),
        )


def _apply_task(work: Work, part: Part) -> tuple[Columns, list[int], list[BadRow]]:
    """The columns of a part, the lines of their texts, and the texts that the model refuses."""
    names = [f"line {line} of '{part.file}'" for line in part.lines]
    try:
        return work(part.texts, names), part.lines, []
    except PellucidError:
        kept, bad = [], []
        for number, text in enumerate(part.texts):
            try:
                work([text], [names[number]])
            except PellucidError as error:
                bad.append(BadRow(part.lines[number], text, reason_of(error)))
            else:
                kept.append(number)
        columns = work([part.texts[n] for n in kept], [names[n] for n in kept])
        return columns, [part.lines[n] for n in kept], bad
