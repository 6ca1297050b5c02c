"""Soft word alignment from cross-attention: which source words each target word attends to."""

import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.common import colours
from pellucid.common.files import is_blank
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording
from pellucid.lens.spelling import Word, words
from pellucid.lens.unseen import unseen_note

__all__ = ["Alignment", "Link", "align"]

SHADES = " ░▒▓█"
"""From a weight of 0 to a weight of 1, in even steps."""
WIDEST = 14
"""The most terminal columns of a word; longer words are cut."""


class Link(NamedTuple):
    """A target word, the source word that it attends to most, and the weight."""

    target: str
    source: str
    weight: float


@dataclass(frozen=True, eq=False)
class Alignment:
    """The share of its attention that each target word gives to each source word."""

    weights: Tensor
    """(target words, source words), from 0 to 1. A row sums to less than 1 if special tokens get
    the rest."""
    source: list[str]
    target: list[str]

    def best(self) -> list[Link]:
        """The strongest source word of each target word, with its weight."""
        weights, indices = self.weights.max(-1)
        return [
            Link(target, self.source[index], weight)
            for target, index, weight in zip(
                self.target, indices.tolist(), weights.tolist(), strict=True
            )
        ]

    def __repr__(self) -> str:
        """A row for each target word; darker cells are larger weights."""
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
    """Which source words each target word of an encoder-decoder attended to.

    The cross-attention is averaged over the chosen layers and heads, summed over the tokens of each
    source word, and averaged over the tokens of each target word. Padding and special tokens (in
    brackets, or special according to the tokenizer) are left out. Without a tokenizer (an argument
    of `watch`), each token is a word, written as its id, and no token is special.

    Row i of a decoder has read token i and predicts token i + 1. By default a token is therefore
    aligned by the row before it, which predicted it; with shift=False, by the row that read it,
    which suits some models better.

    Args:
        seen: a recording, a record, or several records; the latest of each module is used.
        layers: layer numbers, module names or patterns of names; all if None. In a deep model the
            last but one layer often aligns best.
        heads: the heads of these layers; all if None.
        item: the item of the batch.
        shift: align a token by the row that predicted it, not by the row that read it. The first
            target token, which was not predicted, is then left out.
        source_words, target_words: the words with the positions of their tokens; by default they
            are found from the tokens.

    Raises:
        ArgumentError: no cross-attention was recorded, its tokens are unknown, or no words remain.
        OutOfRangeError: there is no such item, head or position.
        TypeMismatchError: seen is neither a recording nor records, or heads are not ints.
        UnknownNameError: `layers` matches no record.

    Source: Bahdanau et al. 2015, section 5.2.1 (soft alignment); Garg et al. 2019, "Jointly
    Learning to Align and Translate with Transformer Models", section 4.1 (the mean over the heads
    of a layer).
    """
    seen = as_recording(seen)
    records = select_records(_cross(seen), layers, unseen_note(seen.unseen, cross=True))
    targets, sources = records[0].shape[-2:]
    if not -records[0].shape[0] <= item < records[0].shape[0]:
        raise OutOfRangeError(f"item is {item}, but the batch has {records[0].shape[0]}")
    source_words = _words(seen, records, "source", item, source_words, sources)
    # With shift a word may end with the token that the last row predicted, which no row read.
    target_words = _words(seen, records, "target", item, target_words, targets + shift)
    # The last row sees every source token that is not padding.
    visible = (records[0].weights.masked[item, 0, -1].detach() != -torch.inf).tolist()
    source_words = [x for x in source_words if all(visible[at] for at in x.positions)]
    if shift:
        target_words = [x for x in target_words if min(x.positions) > 0]
    for side, side_words in (("source", source_words), ("target", target_words)):
        if not side_words:
            raise ArgumentError(f"no words of the {side} remain besides special tokens")

    mean = _mean(records, heads, item)  # (targets, sources)
    columns = _members(source_words, sources).to(mean)
    rows = _members(target_words, targets + shift)[:, int(shift) :].to(mean)
    rows = rows / rows.sum(-1, keepdim=True)
    return Alignment(
        rows @ mean @ columns.T, [x.text for x in source_words], [x.text for x in target_words]
    )


def align_by(
    seen: Recording,
    named: Sequence[tuple[str, int]],
    *,
    item: int = 0,
    source_words: Sequence[Word] | None = None,
    target_words: Sequence[Word] | None = None,
) -> Alignment:
    """`align` by single heads: their mean.

    Args:
        seen: a recording.
        named: the module and the head of each; if there are none, all are taken.
        item: which of the batch.
        source_words, target_words: as for `align`.

    Raises:
        ArgumentError, OutOfRangeError, UnknownNameError: as `align`.
    """
    aligned = partial(align, seen, item=item, source_words=source_words, target_words=target_words)
    grids = [aligned(layers=[name], heads=head) for name, head in named] or [aligned()]
    return replace(grids[0], weights=torch.stack([grid.weights for grid in grids]).mean(0))


def plain_words(
    tokens: Sequence[str], ids: Sequence[int], special: Container[int | None]
) -> list[Word]:
    """The words of a text, without special tokens, and without the lone space that precedes a token
    that the tokenizer does not know.

    Args:
        tokens: as the vocabulary spells them, (n,).
        ids: of the same.
        special: the ids of the model's own marks.
    """
    return [
        word
        for word in words(tokens)
        if not (word.is_special or is_blank(word.text))
        and not any(ids[at] in special for at in word.positions)
    ]


def _cross(seen: Recording) -> list[Record]:
    cross = [record for record in seen.latest() if record.is_cross]
    if not cross:
        names = ", ".join(seen.names[:5]) or "nothing"
        raise ArgumentError(
            f"align needs the cross-attention of an encoder-decoder; recorded: {names}"
            + unseen_note(seen.unseen, cross=True)
        )
    if len({record.shape[-2:] for record in cross}) > 1:
        shapes = ", ".join(f"{x.name} {tuple(x.shape)}" for x in cross)
        raise ArgumentError(f"the cross-attentions belong to different texts: {shapes}")
    return cross


def _words(
    seen: Recording,
    records: list[Record],
    side: str,
    item: int,
    side_words: Sequence[Word] | None,
    length: int,
) -> list[Word]:
    """The words of one side as given, after a check; else from its tokens, without special ones."""
    if side_words is not None:
        for word in side_words:
            if not word.positions or not 0 <= min(word.positions) <= max(word.positions) < length:
                raise OutOfRangeError(
                    f"{side}_words has '{word.text}' at {word.positions}, but there are {length} "
                    "tokens"
                )
        return list(side_words)
    all_ids = (record.key_ids if side == "source" else record.query_ids for record in records)
    ids = next((ids for ids in all_ids if ids is not None), None)
    if ids is None:
        raise ArgumentError(
            f"the {side} tokens are unknown, as the model was given no token ids; pass {side}_words"
        )
    return plain_words(seen.strings(ids[item]), ids[item].tolist(), seen.special_ids)


def _mean(records: list[Record], heads: int | Sequence[int] | None, item: int) -> Tensor:
    """(targets, sources): the weights of one item, averaged over layers and heads."""
    total, count = torch.zeros(()), 0
    with torch.no_grad():
        for record in records:
            for head in _heads(heads, record.shape[-3]):
                weights = record.weights[item, head]  # one at a time, to save memory
                total = total.to(weights) + weights
                count += 1
    return total / count


def _heads(heads: int | Sequence[int] | None, count: int) -> Sequence[int]:
    if heads is None:
        return range(count)
    chosen = list(heads) if isinstance(heads, Iterable) else [heads]
    for head in chosen:
        if type(head) is not int:
            raise TypeMismatchError(f"heads must be ints, got {head!r}")
        if not -count <= head < count:
            raise OutOfRangeError(f"there is no head {head}: these layers have {count}")
    if not chosen:
        raise ArgumentError("heads must contain at least one")
    return chosen


def _members(side_words: Sequence[Word], length: int) -> Tensor:
    """(words, length): 1 where a position belongs to a word."""
    members = torch.zeros(len(side_words), length)
    for row, word in zip(members, side_words, strict=True):
        row[list(word.positions)] = 1
    return members


def _shade(weight: float) -> str:
    return SHADES[min(int(weight * len(SHADES)), len(SHADES) - 1)]


def _cell(weight: float) -> str:
    paper = colours.shade(weight, colours.LIGHT)
    style = f"background:{colours.css(paper)};color:{colours.css(colours.ink(paper))}"
    return f'<td style="{style}">{100 * weight:.0f}</td>'


def _width(text: str) -> int:
    """The terminal columns of a text; wide characters take two."""
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
