"""Soft word alignment: which source words a target word was made of, from cross-attention."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.common import colours
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError, UnknownNameError
from pellucid.lens import module_selection, record_selection
from pellucid.lens.module_selection import Layers
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording
from pellucid.lens.spelling import Word, words

__all__ = ["Alignment", "Link", "align"]

SHADES = " ░▒▓█"
"""From nothing to a weight of one, in even steps."""
WIDEST = 14
"""Columns of the terminal that a word takes; longer ones are cut."""


class Link(NamedTuple):
    """A target word and the source word that it attends to most."""

    target: str
    source: str
    weight: float


@dataclass(frozen=True, eq=False)
class Alignment:
    """How much of its attention each target word gives to each source word."""

    weights: Tensor
    """(target words, source words), from 0 to 1. A row sums to less than one where special tokens
    get the rest."""
    source: list[str]
    target: list[str]

    def best(self) -> list[Link]:
        """Each target word's strongest source word and the weight that it gets."""
        weights, places = self.weights.max(-1)
        return [
            Link(target, self.source[place], weight)
            for target, place, weight in zip(
                self.target, places.tolist(), weights.tolist(), strict=True
            )
        ]

    def __repr__(self) -> str:
        """A row a target word; the darker, the more of its attention a source word gets."""
        names = [_cut(word) for word in self.source]
        side = max(map(_width, map(_cut, self.target)))
        lines = ["  ".join([" " * side, *names])]
        for word, row in zip(self.target, self.weights.tolist(), strict=True):
            cells = (_shade(weight) * _width(name) for weight, name in zip(row, names, strict=True))
            lines.append("  ".join([_padded(_cut(word), side), *cells]))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(word)}</th>" for word in self.source)
        rows = "".join(
            f'<tr><th style="text-align:right">{escape(word)}</th>{"".join(map(_cell, row))}</tr>'
            for word, row in zip(self.target, self.weights.tolist(), strict=True)
        )
        return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def align(
    seen: Recording | Record | Iterable[Record],
    *,
    layers: Layers | None = None,
    heads: int | Sequence[int] | None = None,
    item: int = 0,
    shift: bool = True,
    source_words: Sequence[Word] | None = None,
    target_words: Sequence[Word] | None = None,
) -> Alignment:
    """Which source words each target word attended to, of an encoder-decoder.

    The mean of cross-attention over the chosen layers and heads; then summed over the tokens of a
    source word, and averaged over the tokens of a target word. Special tokens (by their brackets,
    or by what the tokenizer says) and padding are left out. Without a tokenizer, which `watch`
    takes, each token is a word, written as its number, and none is special.

    A decoder's row i has read token i and is about to write token i + 1. So the row that goes with
    a token is the one before it, which wrote it; with shift=False it is the one that read it, which
    some models align better by.

    Args:
        seen: a recording, or a record or several of it; the latest of each module is taken.
        layers: layer numbers, names of modules or patterns of names; all unless given. Of a deep
            model the last but one layer often aligns best.
        heads: which heads of these layers; all unless given.
        item: which of the batch.
        shift: go by the row that wrote a token, not the one that read it. The first token of the
            target, which nothing wrote, is then left out.
        source_words, target_words: the words with the positions of their tokens, where they are
            not to be found from the tokens.

    Raises:
        ArgumentError: no cross-attention was recorded, its tokens are not known, or no words are
            left.
        OutOfRangeError: there is no such item, head or position.
        TypeMismatchError: seen is no recording, or heads are no ints.
        UnknownNameError: `layers` asks for what was not recorded.

    Source: Bahdanau et al. 2015, section 5.2.1 (soft alignment); Garg et al. 2019, "Jointly
    Learning to Align and Translate with Transformer Models", section 4.1 (the mean over the heads
    of a layer).
    """
    seen = as_recording(seen)
    records = choose(seen, _cross(seen), layers, cross=True)
    targets, sources = records[0].shape[-2:]
    if not -records[0].shape[0] <= item < records[0].shape[0]:
        raise OutOfRangeError(f"item is {item}, but the batch has {records[0].shape[0]}")
    source_words = _words(seen, records, "source", item, source_words, sources)
    # With shift a word may end with the token that the last row wrote, which none read.
    target_words = _words(seen, records, "target", item, target_words, targets + shift)
    shown = _shown(records[0], item)
    source_words = [x for x in source_words if all(shown[at] for at in x.positions)]
    if shift:
        target_words = [x for x in target_words if min(x.positions) > 0]
    for name, found in (("source", source_words), ("target", target_words)):
        if not found:
            raise ArgumentError(f"no words of the {name} are left besides special tokens")

    mean = _mean(records, heads, item)  # (targets, sources)
    columns = _members(source_words, sources).to(mean)
    rows = _members(target_words, targets + shift)[:, int(shift) :].to(mean)
    rows = rows / rows.sum(-1, keepdim=True)
    return Alignment(
        rows @ mean @ columns.T, [x.text for x in source_words], [x.text for x in target_words]
    )


def why_unseen(seen: Recording, *, cross: bool) -> str:
    """The end of a complaint: the first cross- or self-attention that was not seen, and why."""
    for name, reason in seen.unseen.items():
        if module_selection.is_cross(name) == cross:
            return f"; unseen: {name}, which {reason}"
    return ""


def choose(
    seen: Recording, records: list[Record], layers: Layers | None, *, cross: bool
) -> list[Record]:
    """The records that `layers` asks for; where there are none, why some were not seen."""
    try:
        return record_selection.chosen(records, layers)
    except UnknownNameError as error:
        reason = why_unseen(seen, cross=cross)
        if not reason:
            raise
        raise UnknownNameError(f"{error}{reason}") from error


def _cross(seen: Recording) -> list[Record]:
    cross = [record for record in seen.latest() if record.is_cross]
    if not cross:
        found = ", ".join(seen.names[:5]) or "nothing"
        raise ArgumentError(
            f"align needs the cross-attention of an encoder-decoder; recorded: {found}"
            + why_unseen(seen, cross=True)
        )
    if len({record.shape[-2:] for record in cross}) > 1:
        shapes = ", ".join(f"{x.name} {tuple(x.shape)}" for x in cross)
        raise ArgumentError(f"the cross-attentions are of different texts: {shapes}")
    return cross


def _words(
    seen: Recording,
    records: list[Record],
    side: str,
    item: int,
    given: Sequence[Word] | None,
    length: int,
) -> list[Word]:
    """The words of one side, special tokens left out where they are found here."""
    if given is not None:
        for word in given:
            if not word.positions or not 0 <= min(word.positions) <= max(word.positions) < length:
                raise OutOfRangeError(
                    f"{side}_words has '{word.text}' at {word.positions}, but there are {length} "
                    "tokens"
                )
        return list(given)
    known = (record.key_ids if side == "source" else record.query_ids for record in records)
    ids = next((found for found in known if found is not None), None)
    if ids is None:
        raise ArgumentError(
            f"the {side} tokens are not known, as the model was given no token ids; pass "
            f"{side}_words"
        )
    special = seen.special_ids
    numbers = ids[item].tolist()
    return [
        word
        for word in words(seen.strings(ids[item]))
        if not word.is_special and not any(numbers[at] in special for at in word.positions)
    ]


def _shown(record: Record, item: int) -> list[bool]:
    """Whether the last row may see each source token, which it may unless that is padding."""
    last = record.weights.masked[item, 0, -1].detach()
    shown: list[bool] = (last != -torch.inf).tolist()
    return shown


def _mean(records: list[Record], heads: int | Sequence[int] | None, item: int) -> Tensor:
    """The weights of one item, (targets, sources), the mean over layers and heads."""
    total, count = torch.zeros(()), 0
    with torch.no_grad():
        for record in records:
            for head in _heads(heads, record.shape[-3]):
                weights = record.weights[item, head]  # one at a time, in the memory of the answer
                total = total.to(weights) + weights
                count += 1
    return total / count


def _heads(given: int | Sequence[int] | None, count: int) -> Sequence[int]:
    if given is None:
        return range(count)
    chosen = list(given) if isinstance(given, Iterable) else [given]
    for head in chosen:
        if type(head) is not int:
            raise TypeMismatchError(f"heads must be ints, got {head!r}")
        if not -count <= head < count:
            raise OutOfRangeError(f"there is no head {head}: these layers have {count}")
    if not chosen:
        raise ArgumentError("heads must choose at least one")
    return chosen


def _members(found: Sequence[Word], length: int) -> Tensor:
    """(words, length): 1 where a position belongs to a word."""
    members = torch.zeros(len(found), length)
    for row, word in zip(members, found, strict=True):
        row[list(word.positions)] = 1
    return members


def _shade(weight: float) -> str:
    return SHADES[min(int(weight * len(SHADES)), len(SHADES) - 1)]


def _cell(weight: float) -> str:
    paper = colours.shade(weight, colours.LIGHT)
    style = f"background:{colours.css(paper)};color:{colours.css(colours.ink(paper))}"
    return f'<td style="{style}">{100 * weight:.0f}</td>'


def _width(text: str) -> int:
    """Columns that a text takes in a terminal, where wide letters take two."""
    return sum(
        0 if unicodedata.combining(x) else 1 + (unicodedata.east_asian_width(x) in "WF")
        for x in text
    )


def _cut(text: str) -> str:
    if _width(text) <= WIDEST:
        return text
    while _width(text) >= WIDEST:
        text = text[:-1]
    return text + "…"


def _padded(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text
