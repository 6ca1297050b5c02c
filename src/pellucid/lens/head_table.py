"""The table that `heads` returns: a row of measurements per head, as text, HTML, or columns."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from importlib import import_module
from typing import Any

from pellucid.common import colours
from pellucid.common.wording import percent
from pellucid.errors import MissingExtraError, UnknownNameError
from pellucid.lens.layer_labels import CROSS, DECODER

__all__ = ["COLUMNS", "SHARES", "HeadRow", "HeadTable"]

SHARES = (
    "first",
    "itself",
    "previous",
    "next",
    "duplicates",
    "induction",
    "punctuation",
    "special",
)
"""The columns that are shares of a head's attention."""
MOST_ROWS = 64
"""The most rows that are printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRow:
    """The measurements of one head, averaged over its queries. NaN means undefined or unknown."""

    layer: int
    """The first number in the module's name, if that (with `stack`) is unique; otherwise the
    attention's position in call order."""
    head: int
    name: str
    """The name of the module."""
    role: str
    """The head's role, "" if none is clear; see `heads`."""
    stack: str = ""
    """"e" for an encoder, "d" for a decoder, "x" for cross-attention, if layers of several stacks
    share numbers; otherwise ""."""
    entropy: float
    """Entropy of the weights, in nats."""
    distance: float
    """Mean distance between a query and the keys it attends to, in positions."""
    first: float
    """Share of attention on the first token that is not padding: an attention sink."""
    itself: float
    """Share on the query's own position."""
    previous: float
    """Share on the previous position."""
    next: float
    """Share on the next position; NaN if no query sees its next position."""
    duplicates: float
    """Share on other positions with the query's token."""
    induction: float
    """Share on the position after the last earlier occurrence of the query's token."""
    punctuation: float
    """Share on punctuation and line breaks."""
    special: float
    """Share on special tokens, such as [SEP]."""

    @property
    def label(self) -> str:
        """The layer's label in tables: the letter of its stack and its number."""
        return f"{self.stack}{self.layer}"

    @property
    def sort_key(self) -> tuple[bool, int, bool, str, int]:
        """Sorts rows by layer; a decoder follows its encoder."""
        decodes = self.stack in (DECODER, CROSS)
        return decodes, self.layer, self.stack == CROSS, self.name, self.head

    def to_dict(self) -> dict[str, Any]:
        """The row as a dict from column names to values, None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


COLUMNS = tuple(field.name for field in fields(HeadRow))


class HeadTable(Sequence[HeadRow]):
    """A sequence of `HeadRow`, which prints as a table."""

    def __init__(self, rows: Sequence[HeadRow]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """A row, or a table for a slice."""
        rows = self._rows[index]
        return HeadTable(rows) if isinstance(rows, tuple) else rows

    def __iter__(self) -> Iterator[HeadRow]:
        return iter(self._rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each row as a dict that JSON can hold, None for NaN."""
        return [row.to_dict() for row in self._rows]

    def _columns(self) -> dict[str, list[Any]]:
        return {name: [getattr(row, name) for row in self._rows] for name in COLUMNS}

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame, with NaN for unknown values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _optional("pandas").DataFrame(self._columns(), columns=list(COLUMNS))

    def to_arrow(self) -> Any:
        """The table as a pyarrow Table, with null for unknown values.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        pyarrow = _optional("pyarrow", "tables")
        types: dict[Any, str] = {int: "int64", str: "string", float: "float64"}
        columns = self._columns()
        return pyarrow.table(
            {
                field.name: pyarrow.array(columns[field.name], types[field.type], from_pandas=True)
                for field in fields(HeadRow)
            }
        )

    def sort(self, by: str) -> "HeadTable":
        """The rows sorted by a column: floats from the largest, NaN last; all others ascending.

        Raises:
            UnknownNameError: there is no such column; the message lists the columns.
        """
        if by not in COLUMNS:
            raise UnknownNameError(f"no column is called '{by}': {', '.join(COLUMNS)}")

        def key(row: HeadRow) -> Any:
            value = getattr(row, by)
            if by == "layer":
                return row.sort_key
            if by == "role":
                return (not value, value)
            return (math.isnan(value), -value) if isinstance(value, float) else value

        return HeadTable(sorted(self._rows, key=key))

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text: a row of titles, then the rows, with "-" for NaN."""
        titles: tuple[str, ...] = ("layer", "head", "entropy", "distance", *SHARES, "role")
        lines = [titles]
        for row in self._rows:
            numbers = [_number(getattr(row, name)) for name in ("entropy", "distance")]
            shares = [_share(getattr(row, name)) for name in SHARES]
            lines.append((row.label, str(row.head), *numbers, *shares, row.role))
        return lines

    def __repr__(self) -> str:
        lines = self[:MOST_ROWS].cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False))
            + f"  {line[-1]}".rstrip()
            for line in lines
        ]
        more = len(self) - MOST_ROWS
        return "\n".join(shown) + (f"\n... and {more} more" if more > 0 else "")

    def _repr_html_(self) -> str:
        titles, *lines = self.cells()
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        body = []
        for row, line in zip(self._rows, lines, strict=True):
            styles = [""] * 4 + [_style(getattr(row, name)) for name in SHARES] + [""]
            cells = zip(styles, line, strict=True)
            body.append(
                f'<tr title="{escape(row.name)}">'
                + "".join(f"<td{style}>{escape(cell)}</td>" for style, cell in cells)
                + "</tr>"
            )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _optional(module: str, extra: str | None = None) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        if extra is not None:
            raise MissingExtraError.of(f"this needs {module}", extra) from error
        raise MissingExtraError(f"this needs {module}: pip install {module}") from error


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else percent(min(max(value, 0.0), 1.0))


def _style(share: float) -> str:
    if math.isnan(share):
        return ""
    paper = colours.shade(share, colours.LIGHT)
    return f' style="background:{colours.css(paper)};color:{colours.css(colours.ink(paper))}"'
