"""A sequence of rows about heads, which prints as a table and converts to columns elsewhere."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from html import escape
from importlib import import_module
from typing import Any, ClassVar, Generic, Self, TypeVar

from pellucid.common import colours
from pellucid.common.wording import percent
from pellucid.errors import MissingExtraError, UnknownNameError
from pellucid.lens.layer_labels import CROSS, DECODER

MOST_ROWS = 64
"""The most rows that are printed."""


class OfHead:
    """What rows about a head have in common; they are dataclasses."""

    __slots__ = ()
    layer: int
    head: int
    name: str
    stack: str

    @property
    def label(self) -> str:
        """The layer's label in tables: the letter of its stack and its number."""
        return f"{self.stack}{self.layer}"

    @property
    def place(self) -> str:
        """The head in one word: "5.3", or "e5.3"."""
        return f"{self.label}.{self.head}"

    @property
    def sort_key(self) -> tuple[bool, int, bool, str, int]:
        """Sorts rows by layer; a decoder follows its encoder."""
        decodes = self.stack in (DECODER, CROSS)
        return decodes, self.layer, self.stack == CROSS, self.name, self.head

    def to_dict(self) -> dict[str, Any]:
        """The row as a dict from column names to values, None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
        }


Row = TypeVar("Row", bound=OfHead)


class RowTable(Sequence[Row], Generic[Row]):
    """A sequence of rows, which prints as a table."""

    row: ClassVar[type[Any]]
    """The dataclass of the rows."""
    shown: ClassVar[dict[str, str]]
    """The columns that are printed, after the layer: "number", "figure" (of three digits), "share"
    or "text" each."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def _with(self, rows: Sequence[Row]) -> Self:
        """A table of other rows."""
        return type(self)(rows)

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(field.name for field in fields(cls.row))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """A row, or a table for a slice."""
        rows = self._rows[index]
        return self._with(rows) if isinstance(rows, tuple) else rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each row as a dict that JSON can hold, None for NaN."""
        return [row.to_dict() for row in self._rows]

    def _by_column(self) -> dict[str, list[Any]]:
        return {name: [getattr(row, name) for row in self._rows] for name in self.columns()}

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame, with NaN for unknown values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _optional("pandas").DataFrame(self._by_column(), columns=list(self.columns()))

    def to_arrow(self) -> Any:
        """The table as a pyarrow Table, with null for unknown values.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        pyarrow = _optional("pyarrow", "tables")
        types: dict[Any, str] = {int: "int64", str: "string", float: "float64"}
        columns = self._by_column()
        return pyarrow.table(
            {
                field.name: pyarrow.array(columns[field.name], types[field.type], from_pandas=True)
                for field in fields(self.row)
            }
        )

    def sort(self, by: str) -> Self:
        """The rows sorted by a column: floats from the largest, NaN last; all others ascending.

        Raises:
            UnknownNameError: there is no such column; the message lists the columns.
        """
        if by not in self.columns():
            raise UnknownNameError(f"no column is called '{by}': {', '.join(self.columns())}")

        def key(row: Row) -> Any:
            value = getattr(row, by)
            if by == "layer":
                return row.sort_key
            if isinstance(value, float):
                return (math.isnan(value), -value)
            return (not value, value) if isinstance(value, str) else value

        return self._with(sorted(self._rows, key=key))

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text: a row of titles, then the rows, with "-" for NaN."""
        as_text: dict[str, Any] = {
            "number": _number,
            "figure": _figure,
            "share": _share,
            "text": str,
        }
        return [
            ("layer", *self.shown),
            *(
                (
                    row.label,
                    *(as_text[kind](getattr(row, name)) for name, kind in self.shown.items()),
                )
                for row in self._rows
            ),
        ]

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
            styles = [""] + [
                _style(getattr(row, name)) if kind == "share" else ""
                for name, kind in self.shown.items()
            ]
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
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else percent(min(max(value, 0.0), 1.0))


def _style(share: float) -> str:
    if math.isnan(share):
        return ""
    paper = colours.shade(share, colours.LIGHT)
    return f' style="background:{colours.css(paper)};color:{colours.css(colours.ink(paper))}"'
