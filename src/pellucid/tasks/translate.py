"""Texts of one language into another, by an encoder-decoder and beam search."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.align import Alignment, align
from pellucid.lens.words import words
from pellucid.models.stacks import EncoderDecoder
from pellucid.tasks.beam import Beam, search
from pellucid.tasks.reading import ids_of

BATCH_TOKENS = 2048
"""Source tokens that are translated together: enough for the cores, and little to hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A text and what it became."""

    source: str
    text: str
    score: float
    """Of the search: log-probability over length ** length_penalty."""
    source_ids: list[int]
    ids: list[int]
    """As written, without the start, with the stop."""


def translate(
    model: EncoderDecoder,
    texts: Sequence[str],
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    max_tokens: int | None = None,
    strict: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Translation]:
    """The likeliest translation of each text that beam search finds, in the order given.

    Texts of about the same length are translated together; what one becomes does not depend on
    the others, up to rounding.

    Args:
        model: an encoder-decoder that was loaded with its tokenizer.
        texts: any number of them, none blank.
        beams: translations that run at once for each text; 1 is greedy.
        length_penalty: above 1 favours long translations.
        max_tokens: of a translation; twice the longest text of its batch and 20 more unless given.
        strict: refuse a text that is longer than the model reads, rather than cut it and warn.
        batch_tokens: source tokens of a batch, padding included.
        progress: called after each batch, with the texts done and all.

    Raises:
        ArgumentError: a text is blank, is no Unicode text, or, with `strict`, too long; or beams or
            max_tokens below 1.
        TypeMismatchError: the model is no encoder-decoder with a tokenizer, or a text no str.
    """
    _check(model)
    sources = ids_of(model, texts, strict)
    found: list[Translation | None] = [None] * len(sources)
    done = 0
    for batch in _batches([len(ids) for ids in sources], batch_tokens):
        read = [sources[number] for number in batch]
        for number, best in zip(
            batch, _best(model, read, beams, length_penalty, max_tokens), strict=True
        ):
            assert model.tokenizer is not None
            found[number] = Translation(
                source=texts[number],
                text=model.tokenizer.decode(best.ids),
                score=best.score,
                source_ids=sources[number],
                ids=list(best.ids),
            )
        done += len(batch)
        if progress is not None:
            progress(done, len(sources))
    return [one for one in found if one is not None]


def alignment(model: EncoderDecoder, translation: Translation) -> Alignment:
    """Which source words each word of a translation was made of: the mean of all cross-attention.

    One pass over source and translation, watched; see `lens.align`.
    """
    _check(model)
    assert model.config.start is not None
    assert model.tokenizer is not None
    device, written = model.device, [model.config.start, *translation.ids]
    with torch.no_grad():
        _, seen = model(
            torch.tensor([translation.source_ids], device=device),
            torch.tensor([written[:-1]], device=device),
            watch=True,
        )
    marks = {*model.config.stop, model.config.start, model.config.padding}
    token = model.tokenizer.token
    sides = []
    for ids in (translation.source_ids, written):
        all_words = words([token(number) for number in ids])
        plain = (one for one in all_words if not any(ids[at] in marks for at in one.positions))
        sides.append([one for one in plain if not one.is_special])
    return align(seen, source_words=sides[0], target_words=sides[1])


def _best(
    model: EncoderDecoder,
    sources: list[list[int]],
    beams: int,
    length_penalty: float,
    max_tokens: int | None,
) -> Iterator[Beam]:
    config = model.config
    lengths = torch.tensor([len(ids) for ids in sources])
    longest = int(lengths.max())
    padded = torch.full((len(sources), longest), config.padding or 0)
    for row, ids in zip(padded, sources, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    found = search(
        model,
        padded.to(model.device),
        lengths.to(model.device),
        beams=beams,
        max_tokens=2 * longest + 20 if max_tokens is None else max_tokens,
        length_penalty=length_penalty,
        banned=_banned(model),
    )
    return (best[0] for best in found)


def _banned(model: EncoderDecoder) -> list[int]:
    """Padding, which is no text, though a model may give it a probability."""
    padding = model.config.padding
    return [] if padding is None or padding in model.config.stop else [padding]


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Numbers of texts, the longest first, as many as padded to the longest have `most` tokens."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        count = max(1, most // lengths[order[start]])
        yield order[start : start + count]
        start += count


def _check(model: EncoderDecoder) -> None:
    if not isinstance(model, EncoderDecoder) or model.tokenizer is None:
        raise TypeMismatchError(
            "model must be an EncoderDecoder that was loaded with its tokenizer, as translation "
            f"needs; it is a {type(model).__name__}"
        )
    if model.config.start is None or not model.config.stop:
        raise ArgumentError("the model's config has no start and stop, which translation needs")
