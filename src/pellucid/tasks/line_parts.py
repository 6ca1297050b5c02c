"""A text in the parts that a translator reads one by one, and their translations joined again.

A part is a sentence, or a piece of one that is too long. What is to be kept, such as a web address,
is replaced by a short name while the model reads; if the name does not come back just once, the
part is cut there, and only what is around is translated.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise, product
from typing import Literal

from pellucid.text.kept_spans import kept_spans, lost_spans
from pellucid.text.sentences import Span, clause_spans, sentence_spans

Protection = Literal["changed", "unknown", "all", "none"]
PROTECTIONS = ("changed", "unknown", "all", "none")
NAMES = ("Ur", "Dan", "Ai", "Og", "Nod", "Levi")
"""What stands for what is kept: short names, which most translators repeat."""
SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu")
"""Of the names after those, in texts that keep more."""
OPENING, CLOSING = "¿¡«([“", ".,;:!?»)]”"
"""Marks that stand apart from what precedes and from what follows."""
LANGUAGE_MARK = re.compile(r"\s*(?:>>[^<>\s]+<<\s*|translate [A-Z]\w+ to [A-Z]\w+:\s*)")
"""What tells a model its language at the start of a text, and so of each part."""


@dataclass(kw_only=True, slots=True)
class Part:
    """A part of a text."""

    span: Span
    """Its place in the text."""
    reads: str | None
    """What the model reads; None if nothing is to be translated."""
    names: dict[str, str] = field(default_factory=dict)
    """What each name in it stands for."""

    def restored(self, translation: str) -> str | None:
        """The translation with what the names stand for; None if one is missing or doubled."""
        for name in self.names:
            if len(re.findall(rf"(?<!\w){name}(?!\w)", translation)) != 1:
                return None
        if not self.names:
            return translation
        any_name = rf"(?<!\w)(?:{'|'.join(self.names)})(?!\w)"
        return re.sub(any_name, lambda match: self.names[match[0]], translation)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How texts are divided."""

    fits: Callable[[str], bool]
    """Whether the model reads a part whole."""
    spells: Callable[[str], bool]
    """Whether its tokenizer has all of a text."""
    language: str = "en"
    protect: Protection = "changed"
    whole: bool = False
    """Whether texts are left whole."""

    def parts(self, text: str) -> tuple[list[Part], int]:
        """The parts of a text, and how many of its sentences were too long to be read whole."""
        match = LANGUAGE_MARK.match(text)
        start, prefix = (match.end(), match[0].lstrip()) if match else (0, "")
        kept = list(kept_spans(text))
        spans = [(start, len(text))]
        cut = 0
        if not self.whole:
            spans = []
            for first, last in sentence_spans(text[start:], self.language, _less(kept, start)):
                sentence = (first + start, last + start)
                pieces = [sentence]
                if not self.fits(prefix + text[slice(*sentence)]):
                    pieces = clause_spans(text, sentence, lambda part: self.fits(prefix + part))
                    cut += 1
                spans += pieces
        if self.protect != "all":
            kept = [span for span in kept if not self.spells(text[slice(*span)])]
        kept = [] if self.protect == "none" else kept
        if len(spans) == 1 and not kept:
            return [Part(span=spans[0], reads=text)], cut
        parts = (part_keeping(text, span, prefix, kept) for span in spans)
        return [piece for part in parts for piece in self.fitting(text, part)], cut

    def fitting(self, text: str, part: Part) -> list[Part]:
        """The part; those around what it keeps, if names make it longer than the model reads."""
        if self.whole or not part.names or part.reads is None or self.fits(part.reads):
            return [part]
        return around_kept(text, part)


def part_keeping(text: str, span: Span, prefix: str, kept: Sequence[Span]) -> Part:
    """A part with names for what it keeps."""
    names: dict[str, str] = {}
    free = (name for name in _every_name() if name not in text)
    reads, place = "", span[0]
    for first, last in _inside(kept, span):
        name = next(free)
        names[name] = text[first:last]
        reads, place = reads + text[place:first] + name, last
    reads += text[place : span[1]]
    bare = re.sub("|".join(names) or "(?!)", "", reads)
    is_empty = not any(map(str.isalnum, bare))
    return Part(span=span, reads=None if is_empty else prefix + reads, names=names)


def _every_name() -> Iterator[str]:
    """Names without end: no two are the same, and none is part of another."""
    yield from NAMES
    for length in count(2):
        for syllables in product(SYLLABLES, repeat=length):
            yield "".join(syllables).capitalize()


def keeping(text: str, part: Part, translation: str) -> Part | None:
    """The part with names for what its translation, with names in it, lost; None if it lost
    nothing.
    """
    restored = part.restored(translation)
    lost = lost_spans(text, part.span, "" if restored is None else restored)
    if not lost or part.reads is None:
        return None
    match = LANGUAGE_MARK.match(part.reads)
    names = {text[slice(*span)] for span in lost} | {*part.names.values()}
    kept = [
        span for span in _inside(list(kept_spans(text)), part.span) if text[slice(*span)] in names
    ]
    return part_keeping(text, part.span, match[0] if match else "", kept)


def around_kept(text: str, part: Part) -> list[Part]:
    """The parts around what a part keeps."""
    match = LANGUAGE_MARK.match(part.reads or "")
    prefix = match[0] if match else ""
    kept = [
        span
        for span in _inside(list(kept_spans(text)), part.span)
        if text[slice(*span)] in part.names.values()
    ]
    edges = [part.span[0], *(edge for span in kept for edge in span), part.span[1]]
    parts = []
    for number, (first, last) in enumerate(pairwise(edges)):
        piece = text[first:last]
        bare = piece.strip()
        if not bare:
            continue
        first += len(piece) - len(piece.lstrip())
        is_read = number % 2 == 0 and any(map(str.isalnum, bare))
        span = first, first + len(bare)
        parts.append(Part(span=span, reads=prefix + bare if is_read else None))
    return parts


def _less(spans: Sequence[Span], start: int) -> list[Span]:
    return [(first - start, last - start) for first, last in spans]


def _inside(spans: Sequence[Span], span: Span) -> Iterator[Span]:
    return (inner for inner in spans if span[0] <= inner[0] and inner[1] <= span[1])


def joined(text: str, spans: Sequence[Span], translations: Sequence[str]) -> tuple[str, list[Span]]:
    """The translation of a text and the place of each part in it, with the spaces of the text.

    Chinese and Japanese have no spaces between sentences, which other languages need; and a model
    may leave out the mark that separated a part from its neighbour.

    Args:
        text: the text.
        spans: of its parts.
        translations: of the same.
    """
    whole, target_spans, end = "", [], None
    for (first, last), translation in zip(spans, translations, strict=True):
        gap = "" if end is None else text[end:first]
        if whole and translation:
            is_wide = _is_wide(whole[-1]) or _is_wide(translation[0])
            if gap == " " and is_wide:
                gap = ""
            elif gap == "" and not is_wide:
                is_bare = _lost_mark(text[first], translation[0], OPENING)
                is_bare |= _lost_mark(text[first - 1], whole[-1], CLOSING)
                gap = " " if is_bare or _is_wide(text[first - 1]) else ""
        target_spans.append((len(whole) + len(gap), len(whole) + len(gap) + len(translation)))
        whole, end = whole + gap + translation, last
    return whole, target_spans


def _lost_mark(before: str, after: str, apart: str) -> bool:
    """Whether the mark at the edge of a text became, in its translation, a letter, a digit or a
    mark that stands apart from what is beyond.
    """
    return not before.isalnum() and before != after and (after.isalnum() or after in apart)


def _is_wide(letter: str) -> bool:
    """Whether a letter or mark is Chinese or Japanese."""
    return unicodedata.east_asian_width(letter) in "WF"
