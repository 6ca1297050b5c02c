"""What a reader noticed in files and is not sure is meant: counted, with the first example."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field

from pellucid.common.files import printable
from pellucid.common.wording import count, short

_MESSAGES = {
    "json": ("text", "is JSON, read as it stands", "are JSON, read as they stand", ""),
    "json line": (
        "line",
        "is JSON, read as a text",
        "are JSON, read as texts",
        "if fields of it are meant, name the file .jsonl",
    ),
    "swallowed": (
        "row",
        "has lines within quotes that look like rows",
        "have lines within quotes that look like rows",
        "a quote at the start of a field that belongs to the text is written as three",
    ),
    "quotes": (
        "field",
        "is in quotes, which belong to the text in a .tsv file",
        "are in quotes, which belong to the text in a .tsv file",
        "if they do not, as where Excel wrote the file: --delimiter tab",
    ),
    "torn": (
        "field",
        "begins with a quote, and a later one ends with it: each is a text in a .tsv file",
        "begin with a quote, and later ones end with it: each is a text in a .tsv file",
        "if quotes surround fields of several lines: --delimiter tab",
    ),
    "list": (
        "file",
        "has lists of objects beside its own text, which are not read",
        "have lists of objects beside their own texts, which are not read",
        "a dot leads to their fields, as in --column replies.text",
    ),
    "own": (
        "text",
        "is left out, since the list of objects beside it is read",
        "are left out, since the lists of objects beside them are read",
        "if it is meant, name it with --column",
    ),
    "comment": (
        "first line",
        "that names a column begins with #",
        "that name columns begin with #",
        "if it is a comment, remove it",
    ),
    "control": (
        "text",
        "has control characters, as no text has",
        "have control characters, as no text has",
        "if the encoding is wrong, say which: --encoding",
    ),
    "columns": (
        "line",
        "with tabs is one text",
        "with tabs are one text each",
        "if tabs separate columns: --delimiter tab",
    ),
    "header": (
        "first line",
        "that names a column looks like a text",
        "that name columns look like texts",
        "if it is one, name the file .txt",
    ),
    "number": (
        "first line",
        "is read as a row, since the column is given by its number",
        "are read as rows, since the column is given by its number",
        "if it names columns, the name goes in quotes: --column '\"1\"'",
    ),
    "lost": (
        "text",
        "has the mark of a character that was lost before (U+FFFD)",
        "have the mark of a character that was lost before (U+FFFD)",
        "",
    ),
}
"""What is said of each kind: what is counted, what one is, what several are, and advice."""

_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""All but white space: tabs, the ends of lines and pages."""
_MOST_JSON = 2**16
"""Characters of a text that is tried as JSON."""


@dataclass(slots=True)
class Noticed:
    """Counts what is noticed, kind by kind, over one or more files."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """Where the first of each kind is, and how it begins."""

    def add(self, kind: str, source: str, line: int, example: str = "") -> None:
        """Count one.

        Args:
            kind: a key of `_MESSAGES`.
            source: the name of the file.
            line: where it is, from 1.
            example: the text.
        """
        self.counts[kind] += 1
        if kind not in self.first:
            shown = " ".join(printable(example[:200]).split())
            quoted = f": “{short(shown, 60)}”" if shown else ""
            self.first[kind] = f"line {line} of '{source}'{quoted}"

    def copy(self) -> "Noticed":
        """What is noticed so far."""
        return Noticed(Counter(self.counts), dict(self.first))

    def look(self, text: str, source: str, line: int, *, is_line: bool = False) -> None:
        """Count what is odd about a text that is not empty: a cell, or a whole line."""
        if text.startswith(("[", "{")) and is_json(text):
            self.add("json line" if is_line else "json", source, line, text)
        if is_line and "\t" in text.strip():
            self.add("columns", source, line, text)
        if not text.isprintable() and _CONTROL.search(text):
            self.add("control", source, line, text)
        if "\ufffd" in text:
            self.add("lost", source, line, text)

    def notes(self) -> list[str]:
        """A line for each kind, in the order of their first examples."""
        messages = []
        for kind, example in self.first.items():
            number = self.counts[kind]
            noun, singular, plural, advice = _MESSAGES[kind]
            what, the = (singular, "in") if number == 1 else (plural, "the first in")
            messages.append(
                f"{count(number, noun)} {what}, {the} {example}{advice and f'; {advice}'}"
            )
        return messages


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or array with something in it."""
    text = text.strip()
    if len(text) > _MOST_JSON or text[:1] + text[-1:] not in ("{}", "[]"):
        return False
    try:
        return bool(json.loads(text))
    except (ValueError, RecursionError):
        return False
