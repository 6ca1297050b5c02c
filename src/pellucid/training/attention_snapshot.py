"""A snapshot of one head's attention in a short text, for people who follow a run.

The text is always the same, and so is the rule that chooses the head: in self-attention the most
interesting one (`pellucid.lessons.heads`), in cross-attention the one that best tells which source
word belongs to a target word. It uses no random numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pellucid.common.grid import Cell, bands
from pellucid.lens.alignment import align
from pellucid.lens.module_names import layer_number
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import Word, is_punctuation, is_special, texts, words
from pellucid.lessons.heads import worth
from pellucid.lessons.picture import to_svg
from pellucid.lessons.walk import Step, Walk, matrix
from pellucid.models.architectures import Transformer

MOST = 8
"""The most tokens of the text, and rows and columns of the picture."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Glance:
    """The attention weights of one head."""

    text: str
    """The input."""
    layer: int
    head: int
    entropy: float
    """The mean entropy of its rows, in nats."""
    weights: Tensor
    """(rows, columns), from 0 to 1."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    is_cross: bool

    @property
    def title(self) -> str:
        """The name of the head."""
        kind = "cross-attention" if self.is_cross else "attention"
        return f"{kind}, layer {self.layer}, head {self.head}"

    def numbers(self) -> dict[str, float]:
        """The entry in the log."""
        return {"layer": self.layer, "head": self.head, "entropy": round(self.entropy, 4)}

    def lines(self, width: int) -> list[list[Cell]]:
        """A grid of percentages, one row per query, in lines of at most `width` characters."""
        title = f"{self.title}, entropy {self.entropy:.2f} nats"
        grid = bands(self.rows, self.columns, self.weights.tolist(), width)
        return [[Cell(title, is_title=True)], *(line for band in grid for line in band)]

    def to_svg(self, step: int) -> str:
        """Draw the weights."""
        if self.is_cross:
            sentence = "Each row is a target word, with its attention to the source words."
        else:
            sentence = "Each row is a token, with its attention to the tokens of the text."
        numbers = matrix("weights", self.weights, self.rows, self.columns, kind="percent")
        softmax = Step(name="softmax", formula="", sentence=sentence, matrices=(numbers,))
        about = f"After {step:,} steps: {self.title}, entropy {self.entropy:.2f} nats."
        return to_svg(Walk(title=self.text, about=(about,), tokens=self.columns, steps=(softmax,)))


def short_one(lengths: np.ndarray) -> int:
    """The index of the first text whose length is nearest to `MOST` tokens.

    Args:
        lengths: tokens of each text, (texts,).
    """
    return int(np.abs(lengths - MOST).argmin())


def glance(model: Transformer, *ids: Tensor) -> Glance | None:
    """The attention of the most interesting head of a model; None if there is none.

    Args:
        model: of any kind.
        ids: (tokens,) of a text; or of a source and its target, which includes the start and stop
            tokens.
    """
    spelt = [_spelt(model, text_ids) for text_ids in ids]
    *source, last = (text_ids[None].to(model.device) for text_ids in ids)
    inputs = (*source, last[:, :-1] if source else last)
    _, recording = model(*inputs, watch=True)
    sides = [words(tokens) for tokens in spelt]
    text = " → ".join(" ".join(x.text for x in side if not x.is_special) for side in sides)
    if source:
        return _between(recording, text, *sides)
    return _within(recording, text, _readable(spelt[0]))


def _within(recording: Recording, text: str, tokens: tuple[str, ...]) -> Glance | None:
    """The most interesting head of self-attention."""
    content = torch.tensor([not (is_special(x) or is_punctuation(x)) for x in tokens])
    best, choice = -1.0, None
    for record in recording.latest():
        visible = (record.weights.masked[0] > -torch.inf).cpu()
        weights = record.weights[0].float().cpu()
        for head, score in enumerate(worth(weights, visible, content)):
            if score.total > best:
                best, choice = score.total, (record, head, weights[head])
    if choice is None:
        return None
    return _head_snapshot(
        *choice, choice[2], text=text, rows=tokens, columns=tokens, is_cross=False
    )


def _between(
    recording: Recording, text: str, source: list[Word], target: list[Word]
) -> Glance | None:
    """The head of cross-attention that best tells which source token belongs to a target token."""
    best, choice = -1.0, None
    for record in recording.latest():
        all_weights = record.weights[0].float().cpu() if record.is_cross else ()
        for head, weights in enumerate(all_weights):
            if (information := one_to_one(weights)) > best:
                best, choice = information, (record, head, weights)
    if choice is None:
        return None
    grid = align(
        recording,
        layers=choice[0].name,
        heads=choice[1],
        source_words=source,
        target_words=target,
    )
    rows, columns = grid.target, grid.source
    return _head_snapshot(
        *choice, grid.weights.cpu(), text=text, rows=rows, columns=columns, is_cross=True
    )


def one_to_one(weights: Tensor) -> float:
    """The mutual information of queries and the keys that they attend to, in nats.

    It is 0 if all queries attend to one key, or all uniformly, and maximal if each attends to a key
    of its own.

    Args:
        weights: (queries, keys).
    """
    return float(_entropy(weights.mean(0, keepdim=True)) - _entropy(weights))


def _head_snapshot(
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
    return Glance(
        text=text,
        layer=layer_number(record.name) or 0,
        head=head,
        entropy=float(_entropy(weights)),
        weights=shown[:MOST, :MOST],
        rows=tuple(rows)[:MOST],
        columns=tuple(columns)[:MOST],
        is_cross=is_cross,
    )


def _entropy(weights: Tensor) -> Tensor:
    """The mean entropy of the rows of (queries, keys), in nats."""
    entropy: Tensor = torch.special.entr(weights).sum(-1).mean()
    return entropy


def _spelt(model: Transformer, ids: Tensor) -> list[str]:
    """Tokens as the vocabulary spells them, or their ids if there is no tokenizer."""
    tokenizer = model.tokenizer
    return [str(token) if tokenizer is None else tokenizer.token(token) for token in ids.tolist()]


def _readable(spelt: list[str]) -> tuple[str, ...]:
    """The texts of tokens, or their spelling if the text is blank or an incomplete character."""
    both = zip(texts(spelt), spelt, strict=True)
    return tuple(text if text.strip("\ufffd \n\t") else token for text, token in both)
