"""Texts of one language into another, by an encoder-decoder and beam search."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid import pretrained
from pellucid.common.files import is_blank
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.alignment import Alignment, align
from pellucid.lens.spelling import words
from pellucid.models import EncoderDecoder, load
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.beam import Beam, search
from pellucid.tasks.checked_texts import ids_of
from pellucid.tasks.whole_numbers import LONGEST, check_whole

BATCH_TOKENS = 2048
"""Source tokens that are translated together: enough for the cores, and little to hold."""
ROWS = 512
"""Translations that run at once, beams included: each has a score for every token there is."""
BEAMS = 4
LENGTH_PENALTY = 10.0
"""The most, up and down: beyond it powers of lengths are no numbers any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A text and what it became."""

    source: str
    text: str
    score: float
    """Of the search: log-probability over length ** length_penalty."""
    source_ids: list[int]
    """As the model read them."""
    ids: list[int]
    """As written, without the start, with the stop."""


def open_translator(path: str | Path = pretrained.TRANSLATOR) -> EncoderDecoder:
    """An encoder-decoder with its tokenizer: Pellucid's own, English to Spanish, or Marian, T5 or
    BART, say.

    Args:
        path: as for `pellucid.load`.

    Raises:
        FileError: there is no such model, or it cannot be loaded.
        ArgumentError: it is no encoder-decoder, or has no tokenizer.
        MissingExtraError: what is needed to load it is not installed.
    """
    model = load(path)
    if not isinstance(model, EncoderDecoder):
        kind = {"encoder": "an encoder", "decoder": "a decoder"}[model.kind]
        raise ArgumentError(f"model '{path}' is {kind}; translation needs an encoder-decoder")
    if model.tokenizer is None:
        raise ArgumentError(f"model '{path}' has no tokenizer")
    return model


def translate(
    model: EncoderDecoder,
    texts: Sequence[str],
    *,
    beams: int | None = None,
    length_penalty: float | None = None,
    max_tokens: int | None = None,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Translation]:
    """The likeliest translation of each text that beam search finds, in the order given.

    Texts of about the same length are translated together; what one becomes does not depend on
    the others, up to rounding. What a model has to be told stands in the text: one for T5 begins
    with "translate English to German: ", one for a Marian of several languages with ">>deu<< ".

    Padding is never written, and takes no probability from what is.

    Defaults come from the checkpoint's generation_config.json, and so do the first token of a
    translation and whether the search ends early (see `model.generation`). A warning names the
    settings of that file that are not supported here, such as `no_repeat_ngram_size`.

    Args:
        model: an encoder-decoder that was loaded with its tokenizer.
        texts: any number of them, none blank.
        beams: translations that run at once for each text, up to 512; 1 is greedy. 4 where the
            checkpoint says nothing.
        length_penalty: above 0 favours long translations, below 0 short ones; at 1, as where the
            checkpoint says nothing, the score is the mean log-probability of a token.
        max_tokens: of a translation, its stop included, which comes last whatever its probability.
            Three times those of the text and 50 more unless given, and no more than the checkpoint
            says.
        strict: refuse a text that is longer than the model reads, rather than cut it and warn.
        names: what to call each text in an error; "texts[2]" and so on unless given.
        batch_tokens: source tokens of a batch, padding included; a text that has more is alone.
        progress: called after each batch, with the texts done and all.

    Raises:
        ArgumentError: a text is blank, is no Unicode text or, with `strict`, too long; or a number
            is outside what is allowed.
        TypeMismatchError: the model is no encoder-decoder with a tokenizer, or a text no str.
        TooLargeError: there is no memory for so many tokens.
    """
    _check_model(model)
    assert model.tokenizer is not None
    beams, length_penalty = search_of(model, beams, length_penalty)
    check_whole("batch_tokens", batch_tokens, most=LONGEST)
    if max_tokens is not None:
        check_whole("max_tokens", max_tokens, most=LONGEST)
    sources = ids_of(model, texts, strict, names)
    _warn_of_unsupported(model.generation)
    found: dict[int, Translation] = {}
    for batch in _batches([len(ids) for ids in sources], batch_tokens, ROWS // beams):
        read = [sources[number] for number in batch]
        written = _best(model, read, beams, length_penalty, max_tokens)
        for number, best in zip(batch, written, strict=True):
            found[number] = Translation(
                source=texts[number],
                text=model.tokenizer.decode(best.ids).strip(),
                score=best.score,
                source_ids=sources[number],
                ids=list(best.ids),
            )
        if progress is not None:
            progress(len(found), len(sources))
    return [found[number] for number in range(len(sources))]


def search_of(
    model: EncoderDecoder, beams: int | None = None, length_penalty: float | None = None
) -> tuple[int, float]:
    """How many beams `translate` searches with and its length penalty, where these are given.

    Raises:
        ArgumentError, TypeMismatchError: as `translate`.
    """
    asked = model.generation
    if beams is None:
        beams = BEAMS if asked.num_beams is None else asked.num_beams
    if length_penalty is None:
        length_penalty = 1.0 if asked.length_penalty is None else asked.length_penalty
    check_whole("beams", beams, most=ROWS)
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, int | float):
        raise TypeMismatchError(f"length_penalty must be a number, not {length_penalty!r}")
    if not -LENGTH_PENALTY <= length_penalty <= LENGTH_PENALTY:
        raise ArgumentError(
            f"length_penalty must be from {-LENGTH_PENALTY:g} to {LENGTH_PENALTY:g}, "
            f"not {length_penalty}"
        )
    return beams, length_penalty


def alignment(model: EncoderDecoder, translation: Translation) -> Alignment:
    """Which source words each word of a translation was made of: the mean of the heads that the
    model names for it (`model.generation.alignment_heads`), or of all cross-attention.

    (target words, source words), the model's own marks left out on both sides. One pass over source
    and translation, watched; see `pellucid.lens.align`, which can choose layers and heads.

    Raises:
        ArgumentError: there are no words on one side: the translation is empty, say.
        TypeMismatchError: the model is no encoder-decoder with a tokenizer.
    """
    _check_model(model)
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
        # A space is left alone before what the tokenizer does not know.
        sides.append([one for one in plain if not (one.is_special or is_blank(one.text))])
    named = model.generation.alignment_heads or [(None, None)]
    grids = [
        align(
            seen,
            layers=None if layer is None else [f"decoder.blocks.{layer}.cross"],
            heads=head,
            source_words=sides[0],
            target_words=sides[1],
        )
        for layer, head in named
    ]
    return replace(grids[0], weights=torch.stack([grid.weights for grid in grids]).mean(0))


def _best(
    model: EncoderDecoder,
    sources: list[list[int]],
    beams: int,
    length_penalty: float,
    max_tokens: int | None,
) -> Iterator[Beam]:
    config, device = model.config, model.device
    padding = config.padding
    lengths = torch.tensor([len(ids) for ids in sources])
    padded = torch.full((len(sources), int(lengths.max())), padding or 0)
    for row, ids in zip(padded, sources, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    found = search(
        model,
        padded.to(device),
        lengths.to(device),
        beams=beams,
        max_tokens=_limits(lengths, model.generation) if max_tokens is None else max_tokens,
        length_penalty=length_penalty,
        banned=[] if padding is None or padding in config.stop else [padding],
        forced_start=model.generation.forced_bos_token_id,
        forced_stop=config.stop[0],
        early=bool(model.generation.early_stopping),
    )
    return (best[0] for best in found)


def _limits(lengths: torch.Tensor, asked: Generation) -> torch.Tensor:
    """The most tokens of each translation where the caller says none."""
    limits = 3 * lengths + 50
    if asked.max_new_tokens is not None:
        return limits.clamp(max=asked.max_new_tokens)
    if asked.max_length is not None:
        return limits.clamp(max=asked.max_length - 1)  # the start counts there
    return limits


def _warn_of_unsupported(asked: Generation) -> None:
    """Once for a checkpoint's settings: Python shows the same warning of one place only once."""
    unsupported = dict(asked.others)
    if asked.do_sample:
        unsupported["do_sample"] = True
    if asked.repetition_penalty not in (None, 1):
        unsupported["repetition_penalty"] = asked.repetition_penalty
    if unsupported:
        said = listing([f"{name} = {value}" for name, value in sorted(unsupported.items())])
        warnings.warn(
            f"the model's generation_config.json says {said}, which translation does not support",
            stacklevel=3,
        )


def _batches(lengths: list[int], tokens: int, texts: int) -> Iterator[list[int]]:
    """Numbers of texts, the longest first: so many, and padded to the longest so many tokens."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        count = max(1, min(texts, tokens // lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _check_model(model: Any) -> None:
    if not isinstance(model, EncoderDecoder):
        raise TypeMismatchError(
            f"model must be an EncoderDecoder, which translates, not {type(model).__name__}"
        )
    if model.tokenizer is None:
        raise TypeMismatchError("model must have been loaded with its tokenizer, to read text")
    if model.config.start is None or not model.config.stop:
        raise ArgumentError("the model's config has no start and stop, which translation needs")
