"""Translation by an encoder-decoder and beam search."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid import pretrained
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.alignment import Alignment, align_by, plain_words
from pellucid.models import EncoderDecoder, load
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.beam import Beam, search
from pellucid.tasks.checked_texts import ids_of
from pellucid.tasks.language_pair import Pair, pair_of
from pellucid.tasks.whole_numbers import LONGEST, check_whole

BATCH_TOKENS = 2048
"""Source tokens of a batch: enough to use all cores, and few enough for memory."""
ROWS = 512
"""The most beams of a batch; each has logits over the whole vocabulary."""
BEAMS = 4
LENGTH_PENALTY = 10.0
"""The largest absolute value; beyond it, powers of lengths overflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A text and its translation."""

    source: str
    text: str
    score: float
    """Log-probability / length ** length_penalty."""
    source_ids: list[int]
    """The ids that the model read."""
    ids: list[int]
    """The target ids without the start token, with the stop token."""
    start: int | None = None
    """The start token; by default that of the model."""


def open_translator(path: str | Path = pretrained.TRANSLATOR) -> EncoderDecoder:
    """Load an encoder-decoder with its tokenizer: Pellucid's own, English to Spanish, by default.

    Args:
        path: as for `pellucid.load`.

    Raises:
        FileError: the model does not exist or cannot be loaded.
        ArgumentError: the model is not an encoder-decoder, or has no tokenizer.
        MissingExtraError: an extra that loading needs is not installed.
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
    source: str | None = None,
    target: str | None = None,
    beams: int | None = None,
    length_penalty: float | None = None,
    max_tokens: int | None = None,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Translation]:
    """Translate texts by beam search, in the order given.

    Texts of similar length are translated together; up to rounding, a translation does not depend
    on the other texts. A prefix that a model expects is part of the text: "translate English to
    German: " for T5. The padding token is never generated.

    Defaults come from the checkpoint's generation_config.json, as do the forced first token and
    early stopping (see `model.generation`). A warning names the settings of that file that are not
    supported, such as `no_repeat_ngram_size`.

    Args:
        model: an encoder-decoder that was loaded with its tokenizer.
        texts: any number of texts, none blank.
        source, target: the languages of the texts and of the translations, if the model has several
            (`model.tokenizer.languages`), such as "en" or "eng_Latn". By default those of the
            checkpoint.
        beams: the beam width, up to 512; 1 is greedy. By default the checkpoint's, or 4.
        length_penalty: above 0 favours long translations, below 0 short ones; at 1 the score is
            the mean log-probability per token. By default the checkpoint's, or 1.
        max_tokens: the most tokens of a translation, including the stop token, which is forced at
            that length. By default three times the source tokens plus 50, or the checkpoint's
            limit if that is lower.
        strict: refuse a text that is too long instead of truncating it with a warning.
        names: what errors call each text; "texts[2]" and so on by default.
        batch_tokens: the most source tokens of a batch, including padding; a longer text has a
            batch of its own.
        progress: called after each batch with the number of texts done and the total.

    Raises:
        ArgumentError: a text is blank, not valid Unicode or, with `strict`, too long; or a number
            is out of range.
        TypeMismatchError: the model is not an encoder-decoder with a tokenizer, or a text is not a
            str.
        TooLargeError: there is not enough memory for the cache.
    """
    _check_model(model)
    assert model.tokenizer is not None
    beams, length_penalty = search_of(model, beams, length_penalty)
    pair = pair_of(model, source, target)
    check_whole("batch_tokens", batch_tokens, most=LONGEST)
    if max_tokens is not None:
        check_whole("max_tokens", max_tokens, most=LONGEST)
    sources = pair.marked(ids_of(model, pair.begun(texts), strict, names))
    _warn_of_unsupported(model.generation)
    translations: dict[int, Translation] = {}
    for batch in _batches([len(ids) for ids in sources], batch_tokens, ROWS // beams):
        batch_ids = [sources[number] for number in batch]
        results = _best(model, batch_ids, beams, length_penalty, max_tokens, pair)
        for number, best in zip(batch, results, strict=True):
            translations[number] = Translation(
                source=texts[number],
                text=model.tokenizer.decode(best.ids).strip(),
                score=best.score,
                source_ids=sources[number],
                ids=list(best.ids),
                start=pair.start,
            )
        if progress is not None:
            progress(len(translations), len(sources))
    return [translations[number] for number in range(len(sources))]


def search_of(
    model: EncoderDecoder, beams: int | None = None, length_penalty: float | None = None
) -> tuple[int, float]:
    """The beam width and the length penalty of `translate`, with the model's own as defaults.

    Raises:
        ArgumentError, TypeMismatchError: as `translate`.
    """
    generation = model.generation
    if beams is None:
        beams = BEAMS if generation.num_beams is None else generation.num_beams
    if length_penalty is None:
        length_penalty = 1.0 if generation.length_penalty is None else generation.length_penalty
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
    """Align the words of a translation with those of its source, by cross-attention.

    The weights, (target words, source words), are the mean over the model's alignment heads
    (`model.generation.alignment_heads`), or over all heads if it names none. Special tokens are
    left out. It takes one watched pass; `pellucid.lens.align` can choose layers and heads.

    Raises:
        ArgumentError: the source or the translation has no words.
        TypeMismatchError: the model is not an encoder-decoder with a tokenizer.
    """
    _check_model(model)
    assert model.tokenizer is not None
    start = model.config.start if translation.start is None else translation.start
    assert start is not None
    device, target = model.device, [start, *translation.ids]
    with torch.no_grad():
        _, recording = model(
            torch.tensor([translation.source_ids], device=device),
            torch.tensor([target[:-1]], device=device),
            watch=True,
        )
    marks = {*model.config.stop, start, model.config.padding}
    if model.tokenizer.languages is not None:
        marks |= {*model.tokenizer.languages.ids.values()}
    source_words, target_words = (
        plain_words([model.tokenizer.token(number) for number in ids], ids, marks)
        for ids in (translation.source_ids, target)
    )
    return align_by(
        recording, model.alignment_heads, source_words=source_words, target_words=target_words
    )


def _best(
    model: EncoderDecoder,
    sources: list[list[int]],
    beams: int,
    length_penalty: float,
    max_tokens: int | None,
    pair: Pair,
) -> Iterator[Beam]:
    config, device = model.config, model.device
    padding = config.padding
    lengths = torch.tensor([len(ids) for ids in sources])
    padded = torch.full((len(sources), int(lengths.max())), padding or 0)
    for row, ids in zip(padded, sources, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    results = search(
        model,
        padded.to(device),
        lengths.to(device),
        beams=beams,
        max_tokens=_limits(lengths, model.generation) if max_tokens is None else max_tokens,
        length_penalty=length_penalty,
        banned=[] if padding is None or padding in config.stop else [padding],
        forced_start=pair.first,
        start=pair.start,
        forced_stop=config.stop[0],
        early=bool(model.generation.early_stopping),
    )
    return (candidates[0] for candidates in results)


def _limits(lengths: torch.Tensor, generation: Generation) -> torch.Tensor:
    """The default max_tokens of each translation."""
    limits = 3 * lengths + 50
    if generation.max_new_tokens is not None:
        return limits.clamp(max=generation.max_new_tokens)
    if generation.max_length is not None:
        return limits.clamp(max=generation.max_length - 1)  # which counts the start token
    return limits


def _warn_of_unsupported(generation: Generation) -> None:
    """Warn of unsupported settings; Python shows the same warning only once."""
    unsupported = dict(generation.others)
    if generation.do_sample:
        unsupported["do_sample"] = True
    if generation.repetition_penalty not in (None, 1):
        unsupported["repetition_penalty"] = generation.repetition_penalty
    if unsupported:
        settings = listing([f"{name} = {value}" for name, value in sorted(unsupported.items())])
        warnings.warn(
            f"the model's generation_config.json sets {settings}, which translation does not "
            "support",
            stacklevel=3,
        )


def _batches(lengths: list[int], tokens: int, texts: int) -> Iterator[list[int]]:
    """Batches of text numbers, the longest first, with at most so many texts and padded tokens."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        count = max(1, min(texts, tokens // lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _check_model(model: Any) -> None:
    if not isinstance(model, EncoderDecoder):
        raise TypeMismatchError(f"model must be an EncoderDecoder, not {type(model).__name__}")
    if model.tokenizer is None:
        raise TypeMismatchError("model must have been loaded with its tokenizer")
    has_start = model.config.start is not None or model.tokenizer.languages is not None
    if not has_start or not model.config.stop:
        raise ArgumentError("translation needs a start and a stop token in the model's config")
