"""What each head does: one row of numbers a head, and a name where it is clear."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.common import colours
from pellucid.common.wording import percent
from pellucid.errors import MissingExtraError, UnknownNameError
from pellucid.lens import module_selection
from pellucid.lens.head_patterns import Places
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording
from pellucid.lens.spelling import is_punctuation, is_special, texts

__all__ = ["HeadRow", "HeadTable", "heads"]

CLEAR = 0.4
"""The share that makes a head's role clear."""
EVEN = 0.9
"""The share of the largest entropy there could be that makes a head broad."""
MOST_ROWS = 64
"""Rows that are printed."""
NAN = math.nan

_ROLES = {
    "itself": "itself",
    "previous": "previous token",
    "next": "next token",
    "duplicates": "duplicates",
    "induction": "induction",
}
_SHARES = ("first", *_ROLES, "punctuation")
_STACKS = {"encoder": "e", "decoder": "d"}
"""The letters of the parts of a model that number their layers each from 0."""
CROSS_STACK = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRow:
    """One head: averages over its queries. NaN is what makes no sense for it, or is not known."""

    layer: int
    """The number in the module's name where that (with `stack`) tells all apart, else its place in
    the order."""
    head: int
    name: str
    """The module's."""
    role: str
    """What the head does, where that is clear; "" where not. See `heads`."""
    stack: str = ""
    """Where layers of several stacks share numbers: "e" of an encoder, "d" of a decoder, "x"
    cross-attention."""
    entropy: float
    """How widely it looks, nats."""
    distance: float
    """Positions between a query and what it looks at."""
    first: float
    """The share of its attention that goes to the first real key: a sink."""
    itself: float
    """To the query's own position."""
    previous: float
    """To the position before."""
    next: float
    """To the position after; NaN where no query sees that."""
    duplicates: float
    """To other positions with the query's token."""
    induction: float
    """To the position after the last earlier one with the query's token."""
    punctuation: float
    """To punctuation, line breaks and the model's own marks."""

    @property
    def label(self) -> str:
        """The layer as tables show it: its number, after the letter of its stack."""
        return f"{self.stack}{self.layer}"

    @property
    def place(self) -> tuple[bool, int, bool, str, int]:
        """Where it stands in the order of layers, in which a decoder follows its encoder."""
        decodes = self.stack in (_STACKS["decoder"], CROSS_STACK)
        return decodes, self.layer, self.stack == CROSS_STACK, self.name, self.head

    def to_dict(self) -> dict[str, Any]:
        """The row by its columns' names; None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


COLUMNS = tuple(field.name for field in fields(HeadRow))
KINDS = tuple(field.type for field in fields(HeadRow))


class HeadTable(Sequence[HeadRow]):
    """What `heads` gives: rows to iterate over, print, sort and pass on."""

    def __init__(self, rows: Sequence[HeadRow]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """A row; a table for a slice."""
        found = self._rows[index]
        return HeadTable(found) if isinstance(found, tuple) else found

    def __iter__(self) -> Iterator[HeadRow]:
        return iter(self._rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each row as a dict that JSON can hold, None for what is not known."""
        return [row.to_dict() for row in self._rows]

    def _columns(self) -> dict[str, list[Any]]:
        return {name: [getattr(row, name) for row in self._rows] for name in COLUMNS}

    def to_pandas(self) -> Any:
        """A pandas DataFrame of its columns, NaN for what is not known.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _installed("pandas").DataFrame(self._columns(), columns=list(COLUMNS))

    def to_arrow(self) -> Any:
        """A table of pyarrow of its columns, null for what is not known.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        pyarrow = _installed("pyarrow", "tables")
        known: dict[Any, str] = {int: "int64", str: "string", float: "float64"}
        arrays = {
            name: pyarrow.array(values, known[kind], from_pandas=True)
            for (name, values), kind in zip(self._columns().items(), KINDS, strict=True)
        }
        return pyarrow.table(arrays)

    def sort(self, by: str) -> "HeadTable":
        """The rows by a column: numbers largest first, unknown ones last; others from A or 0 on.

        Raises:
            UnknownNameError: there is no such column; the message lists those there are.
        """
        if by not in COLUMNS:
            raise UnknownNameError(f"no column is called '{by}': {', '.join(COLUMNS)}")

        def place(row: HeadRow) -> Any:
            value = getattr(row, by)
            if by == "layer":
                return row.place
            if by == "role":
                return (not value, value)
            return (math.isnan(value), -value) if isinstance(value, float) else value

        return HeadTable(sorted(self._rows, key=place))

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text: titles, then a line a row, "-" for what is not known."""
        titles = ("layer", "head", "entropy", "distance", *_SHARES, "role")
        lines = [titles]
        for row in self._rows:
            numbers = [_number(getattr(row, name)) for name in ("entropy", "distance")]
            shares = [_share(getattr(row, name)) for name in _SHARES]
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
        return "\n".join([*shown, *([f"... and {more} more"] if more > 0 else [])])

    def _repr_html_(self) -> str:
        titles, *lines = self.cells()
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        body = []
        for row, line in zip(self._rows, lines, strict=True):
            styles = [""] * 4 + [_style(getattr(row, name)) for name in _SHARES] + [""]
            cells = zip(styles, line, strict=True)
            body.append(
                f'<tr title="{escape(row.name)}">'
                + "".join(f"<td{style}>{escape(cell)}</td>" for style, cell in cells)
                + "</tr>"
            )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _installed(module: str, extra: str | None = None) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        if extra is not None:
            raise MissingExtraError.of(f"this needs {module}", extra) from error
        raise MissingExtraError(f"this needs {module}: pip install {module}") from error


def heads(
    seen: Recording | Record | Iterable[Record],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> HeadTable:
    """What every head of the latest call of every module does, in numbers.

    Averages are over real queries, all items of the batch together: not over padding (positions
    that the mask hides from themselves and all others) nor over rows that see nothing. `previous`,
    `next`, `duplicates` and `induction` are averages over those queries that can see such a
    position at all, and are NaN where none can; what would be the query itself is no induction.
    `punctuation` counts tokens without a letter or digit (as BERT tells them: Unicode punctuation,
    all other ASCII signs, line breaks) and special tokens in brackets, such as [CLS], [SEP], </s>
    and <|endoftext|>. In cross-attention, where queries are no keys, distance, itself, previous,
    next, duplicates and induction are NaN; where token ids are not known, or the tokenizer is not,
    those are that need them. Shares are of all attention, with what learned sinks take.

    A role is "broad" where the entropy is at least 0.9 of the largest there could be; else the
    largest of itself, previous, next, duplicates and induction where that is at least 0.4; else
    "first token", then "punctuation", by the same share. A head that looks at the first token for
    want of a match thus keeps the name of its match.

    Memory is O(n) a head: a pass over the weights for the statistics, one for punctuation, the
    pairs of equal tokens for duplicates, and single weights for the rest. Positions that stand for
    a picture or sound, many of one id, are no duplicates of each other.

    Sources: previous-token and induction heads (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits"; Olsson et al. 2022, "In-context Learning and Induction Heads"); the first
    token (Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks");
    duplicate-token heads (Wang et al. 2023, "Interpretability in the Wild"); separators,
    punctuation, next token, broad heads (Clark et al. 2019, "What Does BERT Look At?").

    Args:
        seen: what `watch` recorded, or a record or several of it.
        progress: called after each module with how many are done, and of how many.

    Raises:
        TypeMismatchError: seen is no recording and no records.
    """
    seen = as_recording(seen)
    rows: list[HeadRow] = []
    for done, some in enumerate(by_record(seen), start=1):
        rows += some
        if progress is not None:
            progress(done, len(seen.latest()))
    return HeadTable(rows)


def by_record(seen: Recording) -> Iterator[list[HeadRow]]:
    """The rows of `heads`, one module after the other."""
    records = seen.latest()
    for place, record in zip(layers_of(records), records, strict=True):
        with torch.no_grad():
            rows = _rows(seen, record, *place)
        yield rows


def layers_of(records: Sequence[Record]) -> list[tuple[str, int]]:
    """The letter of its stack, "" where numbers tell all apart, and a number for each.

    The number is the first in its name, or its place in the order where even letters do not tell
    two apart.
    """
    found = [module_selection.LAYER.search(record.name) for record in records]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) == len(records):
        for stacks in ([""] * len(records), list(map(_stack, records))):
            places = list(zip(stacks, numbers, strict=True))
            if len(set(places)) == len(records):
                return places
    return [("", number) for number in range(len(records))]


def _stack(record: Record) -> str:
    """The letter of the part of a model that an attention belongs to."""
    if record.is_cross or module_selection.is_cross(record.name):
        return CROSS_STACK
    part = next((part for part in record.name.split(".") if part in _STACKS), None)
    return "" if part is None else _STACKS[part]


def _rows(seen: Recording, record: Record, stack: str, layer: int) -> list[HeadRow]:
    """The rows of one attention."""
    weights, own = _placed(record)
    found = weights.statistics(top=1)
    received, entropy, distance, peak = (
        x.reshape(-1, *x.shape[-2:])
        for x in (found.received, found.entropy, found.mean_distance, found.peak)
    )
    real, told = _real(record, weights, own, received)
    counted = (peak > 0) & told[:, None]

    def mean(values: Tensor, among: Tensor | None = None) -> list[float]:
        """Of (batch, heads, queries), a number a head."""
        flags = counted if among is None else counted & among
        total = values.double().masked_fill(~flags, 0).sum((0, 2))
        return (total / flags.sum((0, 2))).tolist()

    places = Places(weights, own, real)
    unknown = [NAN] * weights.shape[-3]
    columns = dict.fromkeys(("distance", *_SHARES), unknown)
    columns["entropy"] = mean(entropy)
    columns["first"] = mean(places.at(real.int().argmax(-1, keepdim=True).expand_as(own)))
    key_ids = _ids(record)
    flags = None if key_ids is None else _punctuation(seen, key_ids)
    if flags is not None:
        chosen = flags.to(weights.dtype).reshape(*weights.shape[:-3], 1, -1, 1)
        columns["punctuation"] = mean((weights @ chosen).reshape(entropy.shape))
    if not record.is_cross:
        columns["distance"] = mean(distance)
        wanted = {"itself": own, "previous": own - 1, "next": own + 1}
        if key_ids is not None:
            distinct = _told_apart(key_ids, seen.placeholder_ids)
            columns["duplicates"] = mean(*places.duplicates(distinct))
            wanted["induction"] = places.after_last_occurrence(distinct)
        for name, where in wanted.items():
            shown = places.shown(where)
            columns[name] = mean(places.at(where), shown) if bool(shown.any()) else unknown
    most = mean(weights.visible().reshape(entropy.shape).double().log())
    names = list(columns)
    rows = []
    for head, values in enumerate(zip(*columns.values(), strict=True)):
        numbers = dict(zip(names, values, strict=True))
        row = HeadRow(layer=layer, head=head, name=record.name, role="", stack=stack, **numbers)
        rows.append(replace(row, role=_role(row, most[head])))
    return rows


def real_tokens(record: Record) -> tuple[Tensor, Tensor]:
    """(batch, keys) and (batch, queries) bool: those that are no padding, as far as masks tell.

    A key is real that a query sees, its own or another; a query, whose key is. In cross-attention
    every query is taken for real, but for rows that are hidden whole. Batch dimensions are
    flattened into one. Costs a pass over the weights.
    """
    with torch.no_grad():
        weights, own = _placed(record)
        received = weights.received()
        return _real(record, weights, own, received.reshape(-1, *received.shape[-2:]))


def _real(
    record: Record, weights: AttentionWeights, own: Tensor, received: Tensor
) -> tuple[Tensor, Tensor]:
    """`real_tokens` where it is known what each key received, (batch, heads, keys)."""
    uniform = record.visibility.uniform_rows(weights.shape[-2])
    if uniform is not None:  # rows that are hidden, and whose weights are none of the mask's
        told = (~uniform).to(weights.dtype).expand(len(received), -1)
        received = (told.reshape(*weights.shape[:-3], 1, 1, -1) @ weights).reshape(received.shape)
    real = received.sum(1) > 0  # (batch, keys)
    if not record.is_cross:
        everything = Places(weights, own, torch.ones_like(real))
        seen_by_itself = everything.shown(own).any(1)
        if uniform is not None:
            seen_by_itself &= ~uniform
        for item, flags in enumerate(seen_by_itself):
            real[item, own[item, flags]] = True
    return real, _real_queries(record, own, real, uniform)


def _placed(record: Record) -> tuple[AttentionWeights, Tensor]:
    """The weights, with a mask that knows where queries stand, and that place of each query.

    Queries of which the mask says nothing are the last ones of the keys.
    """
    weights = record.weights
    batch = weights.shape[:-3].numel()
    queries, keys = weights.shape[-2:]
    offset = None if weights.mask is None else weights.mask.offset
    if offset is None:
        offset = 0 if record.is_cross else keys - queries
        if offset:
            weights = weights.placed(offset)
    first = torch.as_tensor(offset, device=weights.device).reshape(-1, 1).expand(batch, 1)
    return weights, first + torch.arange(queries, device=weights.device)


def _real_queries(record: Record, own: Tensor, real: Tensor, uniform: Tensor | None) -> Tensor:
    """(batch, queries) bool: those that are no padding, as far as the mask tells."""
    if record.is_cross:
        flags = torch.ones_like(own, dtype=torch.bool)
    else:
        keys = real.shape[-1]
        outside = (own < 0) | (own >= keys)
        flags = outside | real.gather(-1, own.clamp(0, keys - 1))
    return flags if uniform is None else flags & ~uniform


def _ids(record: Record) -> Tensor | None:
    """(batch, keys) tokens, where they are known."""
    ids = record.key_ids
    if ids is None and not record.is_cross:
        ids = record.query_ids
    keys = record.shape[-1]
    return None if ids is None or ids.shape[-1] != keys else ids.reshape(-1, keys)


def _told_apart(ids: Tensor, placeholders: frozenset[int]) -> Tensor:
    """The ids, with a number of its own for each placeholder: what they stand for differs."""
    if not placeholders:
        return ids
    stands_in = torch.isin(ids, torch.tensor(sorted(placeholders), device=ids.device))
    place = torch.arange(ids.shape[-1], device=ids.device)
    return torch.where(stands_in, -1 - place, ids)


def _punctuation(seen: Recording, ids: Tensor) -> Tensor | None:
    """Which tokens are punctuation or marks, as a bool like ids; None where nobody can tell."""
    distinct, place = ids.unique(return_inverse=True)
    names = seen.strings(distinct)
    if names == [str(number) for number in distinct.tolist()]:  # no tokenizer is known
        return None
    told = [
        is_special(name) or is_punctuation(text)
        for name, text in zip(names, texts(names), strict=True)
    ]
    return torch.tensor(told, device=ids.device)[place]


def _role(row: HeadRow, most_entropy: float) -> str:
    if most_entropy > 0 and row.entropy >= EVEN * most_entropy:
        return "broad"
    shares = {role: getattr(row, name) for name, role in _ROLES.items()}
    clear = {role: share for role, share in shares.items() if share >= CLEAR}
    if clear:
        return max(clear, key=lambda role: clear[role])
    if row.first >= CLEAR:
        return "first token"
    return "punctuation" if row.punctuation >= CLEAR else ""


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
