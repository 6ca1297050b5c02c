"""What works through the parts of a corpus: the model is opened once, and parts come and go."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from pellucid.common.files import reason_of
from pellucid.corpora.parts import Part
from pellucid.corpora.tasks import Columns, Task, Work
from pellucid.corpora.writing import SetAside, placed, write_part
from pellucid.errors import PellucidError


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a part came to."""

    file: str
    texts: int
    """Texts with an output."""
    aside: int
    """Texts that were set aside."""
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
        aside: list[SetAside] = []
        notes: tuple[str, ...] = ()
        if part.problem:
            last = part.lines[-1] if part.lines else 0
            aside.append(SetAside(last + 1, "", part.problem))
        if not part.done:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                columns, lines, bad = _worked(self.work, part)
            notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
            aside = bad + aside
            write_part(self.output, part, placed(part, columns, lines), aside, self.task.types)
        return Done(
            file=part.file,
            texts=len(part.lines) - sum(bool(one.text) for one in aside),
            aside=len(aside),
            blank=part.blank,
            ends=part.ends,
            before=part.done,
            notes=notes,
        )


def _worked(work: Work, part: Part) -> tuple[Columns, list[int], list[SetAside]]:
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
                bad.append(SetAside(part.lines[number], text, reason_of(error)))
            else:
                kept.append(number)
        columns = work([part.texts[n] for n in kept], [names[n] for n in kept])
        return columns, [part.lines[n] for n in kept], bad
