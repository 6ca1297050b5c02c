"""A text and its translation, put together from those of its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pellucid.tasks.beam import Beam
from pellucid.tasks.line_parts import Part, joined
from pellucid.text.sentences import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A part of a text that the model read, and its translation."""

    source: Span
    """Its place in the text."""
    text: Span
    """Its place in the translation."""
    score: float
    """Log-probability / length ** length_penalty."""
    source_ids: list[int]
    """The ids that the model read."""
    ids: list[int]
    """The target ids without the start token, with the stop token."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names that the model read, and what is kept in their places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A text and its translation."""

    source: str
    text: str
    score: float
    """Log-probability / length ** length_penalty, of all sentences together."""
    source_ids: list[int]
    """The ids that the model read, of one sentence after the other."""
    ids: list[int]
    """The target ids without the start token, with the stop token of each sentence."""
    start: int | None = None
    """The start token; by default that of the model."""
    sentences: tuple[Sentence, ...] = ()
    """The parts that were translated one by one."""
    protected: tuple[str, ...] = ()
    """What was kept as it is: addresses, tags, placeholders, numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a model wrote for a part."""

    source_ids: list[int]
    beam: Beam
    text: str


def assembled(
    text: str,
    parts: Sequence[Part],
    written: Mapping[int, Written],
    start: int | None,
    length_penalty: float,
) -> Translation:
    """The translation of a text.

    Args:
        text: the text.
        parts: of the text, in their order.
        found: by `id` of the part.
        start: the start token.
        length_penalty: of the scores.
    """
    texts = []
    for part in parts:
        text_of = None if part.reads is None else part.restored(written[id(part)].text)
        texts.append(text[slice(*part.span)] if text_of is None else text_of)
    whole, spans = joined(text, [part.span for part in parts], texts)
    sentences = tuple(
        Sentence(
            source=part.span,
            text=span,
            score=written[id(part)].beam.score,
            source_ids=written[id(part)].source_ids,
            ids=list(written[id(part)].beam.ids),
            names=part.names,
        )
        for part, span in zip(parts, spans, strict=True)
        if part.reads is not None
    )
    kept = [
        word
        for part in parts
        for word in (part.names.values() if part.reads else [text[slice(*part.span)]])
    ]
    return Translation(
        source=text,
        text=whole,
        score=_score(sentences, length_penalty),
        source_ids=[number for sentence in sentences for number in sentence.source_ids],
        ids=[number for sentence in sentences for number in sentence.ids],
        start=start,
        sentences=sentences,
        protected=tuple(word for word in kept if any(map(str.isalnum, word))),
    )


def _score(sentences: Sequence[Sentence], length_penalty: float) -> float:
    if len(sentences) == 1:
        return sentences[0].score
    total = sum(sentence.score * len(sentence.ids) ** length_penalty for sentence in sentences)
    length = sum(len(sentence.ids) for sentence in sentences)
    return total / length**length_penalty if sentences else 0.0
