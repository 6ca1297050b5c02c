"""Sentences and clauses of a text in any language, as places in it.

sentencex (Wikimedia) finds the ends of sentences by rules and abbreviations for some 240 languages.
Beside it, pysbd knows 22 languages, takes 200 times as long, and cuts web addresses at their
question marks; neural splitters are as large as a translator.
"""

import re
from collections.abc import Callable, Sequence

Span = tuple[int, int]
"""The start and the end of a part of a text."""
STOPS = "。．！？｡؟۔।॥…"
"""Ends of sentences after which no space needs to follow."""
CLOSING = "\"'”’»›)]}」』）》〉】"
CLAUSE = re.compile(r"(?:[,;:—–](?=\s)|[，、；：،؛])\s*")
SPACE = re.compile(r"\s+")
INITIAL = re.compile(r"\w\.\s*")


def sentence_spans(text: str, language: str = "en", whole: Sequence[Span] = ()) -> list[Span]:
    """The places of the sentences of a text, without the spaces around them.

    Args:
        text: any text.
        language: of the abbreviations, by ISO 639-1; stops of all scripts count in each.
        whole: places that no sentence may end in.
    """
    import sentencex

    spans: list[Span] = []
    start = end = 0
    for piece in sentencex.segment(language, text):
        end += len(piece)
        if _is_end(text, start, end) and not any(first < end < last for first, last in whole):
            spans.append((start, end))
            start = end
    if start < len(text):
        spans.append((start, len(text)))
    trimmed = (_trimmed(text, span) for span in spans)
    return [span for span in trimmed if span[0] < span[1]]


def _is_end(text: str, start: int, end: int) -> bool:
    """Whether what sentencex takes for the end of a sentence is one."""
    piece = text[start:end]
    if INITIAL.fullmatch(piece):  # the "M." of "M. Dupont"
        return False
    bare = piece.rstrip(CLOSING)
    return piece[-1:].isspace() or end == len(text) or bare[-1:] in STOPS


def _trimmed(text: str, span: Span) -> Span:
    start, end = span
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def clause_spans(text: str, span: Span, fits: Callable[[str], bool]) -> list[Span]:
    """The places of the parts of a sentence, each as long as fits: cut at clause marks, else at
    spaces, else anywhere.

    Args:
        text: that the sentence is in.
        span: of the sentence.
        fits: whether a part is short enough.
    """
    start, end = span
    spans = []
    while start < end and not fits(text[start:end]):
        cut = next(
            (
                offset
                for offsets in (_after(CLAUSE, text, span), _after(SPACE, text, span), range(end))
                if (offset := _furthest(text, start, end, offsets, fits)) is not None
            ),
            start + 1,
        )
        spans.append((start, cut))
        start = cut
    trimmed = (_trimmed(text, part) for part in (*spans, (start, end)))
    return [part for part in trimmed if part[0] < part[1]]


def _after(mark: re.Pattern[str], text: str, span: Span) -> list[int]:
    return [match.end() for match in mark.finditer(text, *span)]


def _furthest(
    text: str, start: int, end: int, offsets: Sequence[int], fits: Callable[[str], bool]
) -> int | None:
    """The last of the places up to which the text fits; None if there is none."""
    inner = [offset for offset in offsets if start < offset < end]
    low, high = 0, len(inner)
    while low < high:
        middle = (low + high) // 2
        if fits(text[start : inner[middle]].rstrip()):
            low = middle + 1
        else:
            high = middle
    return inner[low - 1] if low else None
