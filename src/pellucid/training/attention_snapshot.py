"""What one head sees in a short text, for people who watch a model learn.

The text is the same each time, and so is the rule by which the head is chosen: in self-attention
the one most worth looking at (`pellucid.lessons.heads`), in cross-attention the one nearest to a
rule that tells which source word a target word was made of. No random numbers are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pellucid.common.grid import Cell, bands
from pellucid.lens.alignment import align
from pellucid.lens.module_selection import LAYER
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import Word, is_punctuation, is_special, texts, words
from pellucid.lessons.heads import worth
from pellucid.lessons.picture import to_svg
from pellucid.lessons.walk import Step, Walk, matrix
from pellucid.models.stacks import Transformer

MOST = 8
"""Tokens of a text, and rows and columns of what is shown."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Glance:
    """The weights of one head."""

    text: str
    """That was read."""
    layer: int
    head: int
    entropy: float
    """How widely it looks, nats, the mean over its queries."""
    weights: Tensor
    """(rows, columns), from 0 to 1."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    is_cross: bool

    @property
    def title(self) -> str:
        """Which head it is."""
        kind = "cross-attention" if self.is_cross else "attention"
        return f"{kind}, layer {self.layer}, head {self.head}"

    def numbers(self) -> dict[str, float]:
        """What a log keeps of it."""
        return {"layer": self.layer, "head": self.head, "entropy": round(self.entropy, 4)}

    def lines(self, width: int) -> list[list[Cell]]:
        """In lines of so many letters: a row a query, in percent."""
        told = f"{self.title}, entropy {self.entropy:.2f} nats"
        shown = bands(self.rows, self.columns, self.weights.tolist(), width)
        return [[Cell(told, is_title=True)], *(line for band in shown for line in band)]

    def to_svg(self, step: int) -> str:
        """The same as a picture."""
        if self.is_cross:
            said = "Each row is a word that is written: where the head looks in the source for it."
        else:
            said = "Each row is a token: where the head looks in the text for it."
        numbers = matrix("weights", self.weights, self.rows, self.columns, kind="percent")
        shown = Step(name="softmax", formula="", sentence=said, matrices=(numbers,))
        about = f"After {step:,} steps: {self.title}, entropy {self.entropy:.2f} nats."
        return to_svg(Walk(title=self.text, about=(about,), tokens=self.columns, steps=(shown,)))


def short_one(lengths: np.ndarray) -> int:
    """The number of a text to look at: the first whose length is nearest to `MOST` tokens.

    Args:
        lengths: tokens of each text, (texts,).
    """
    return int(np.abs(lengths - MOST).argmin())


def glance(model: Transformer, *ids: Tensor) -> Glance | None:
    """What the most telling head of a model sees; None where nothing tells heads apart.

    Args:
        model: that reads.
        ids: (tokens,) of a text; of a source and of its target, where the model reads both, the
            target with what begins it and what ends it.
    """
    spelt = [_spelt(model, one) for one in ids]
    *source, last = (one[None].to(model.device) for one in ids)
    read = (*source, last[:, :-1] if source else last)
    _, seen = model(*read, watch=True)
    found = [words(one) for one in spelt]
    text = " → ".join(" ".join(x.text for x in one if not x.is_special) for one in found)
    if source:
        return _between(seen, text, *found)
    return _within(seen, text, _read(spelt[0]))


def _within(seen: Recording, text: str, tokens: tuple[str, ...]) -> Glance | None:
    """Self-attention: the head that is most worth looking at."""
    telling = torch.tensor([not (is_special(one) or is_punctuation(one)) for one in tokens])
    best, found = -1.0, None
    for record in seen.latest():
        visible = (record.weights.masked[0] > -torch.inf).cpu()
        weights = record.weights[0].float().cpu()
        for head, one in enumerate(worth(weights, visible, telling)):
            if one.total > best:
                best, found = one.total, (record, head, weights[head])
    if found is None:
        return None
    return _of(*found, found[2], text=text, rows=tokens, columns=tokens, is_cross=False)


def _between(seen: Recording, text: str, source: list[Word], target: list[Word]) -> Glance | None:
    """Cross-attention: the head that says most of which source token goes with a target token."""
    best, found = -1.0, None
    for record in seen.latest():
        weights = record.weights[0].float().cpu() if record.is_cross else ()
        for head, one in enumerate(weights):
            if (told := one_to_one(one)) > best:
                best, found = told, (record, head, one)
    if found is None:
        return None
    shown = align(
        seen,
        layers=found[0].name,
        heads=found[1],
        source_words=source,
        target_words=target,
    )
    rows, columns = shown.target, shown.source
    return _of(*found, shown.weights.cpu(), text=text, rows=rows, columns=columns, is_cross=True)


def one_to_one(weights: Tensor) -> float:
    """How much of a query is known from the key that it looks at: their mutual information, nats.

    It is 0 where all queries look at one key, or all look evenly, and the largest where each looks
    at one of its own.

    Args:
        weights: (queries, keys).
    """
    return float(_entropy(weights.mean(0, keepdim=True)) - _entropy(weights))


def _of(
    record: Record,
    head: int,
    weights: Tensor,
    shown: Tensor,
    *,
    text: str,
    rows: Sequence[str],
    columns: Sequence[str],
    is_cross: bool,
) -> Glance:
    number = LAYER.search(record.name)
    return Glance(
        text=text,
        layer=0 if number is None else int(number[1]),
        head=head,
        entropy=float(_entropy(weights)),
        weights=shown[:MOST, :MOST],
        rows=tuple(rows)[:MOST],
        columns=tuple(columns)[:MOST],
        is_cross=is_cross,
    )


def _entropy(weights: Tensor) -> Tensor:
    """Nats, the mean over the rows of (queries, keys)."""
    entropy: Tensor = torch.special.entr(weights).sum(-1).mean()
    return entropy


def _spelt(model: Transformer, ids: Tensor) -> list[str]:
    """Tokens as the vocabulary spells them, by number where there is none."""
    tokenizer = model.tokenizer
    return [str(one) if tokenizer is None else tokenizer.token(one) for one in ids.tolist()]


def _read(spelt: list[str]) -> tuple[str, ...]:
    """Tokens as they read; as they are spelt where there is nothing to read, or half a letter."""
    both = zip(texts(spelt), spelt, strict=True)
    return tuple(text if text.strip("\ufffd \n\t") else token for text, token in both)
