"""Translation by an encoder-decoder and beam search."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid import pretrained
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models import EncoderDecoder, load
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.beam import Beam, search
from pellucid.tasks.checked_texts import checked, ids_of
from pellucid.tasks.decoders import CUTS
from pellucid.tasks.language_pair import Pair, pair_of
from pellucid.tasks.line_parts import PROTECTIONS, Part, Protection, Reader, around_kept, keeping
from pellucid.tasks.logit_rules import RULES, Rule, rules_of
from pellucid.tasks.translated import Translation, Written, assembled
from pellucid.tasks.whole_numbers import LONGEST, check_whole
from pellucid.text.languages import iso_639_1

BATCH_TOKENS = 2048
"""Source tokens of a batch: enough to use all cores, and few enough for memory."""
ROWS = 512
"""The most beams of a batch; each has logits over the whole vocabulary."""
BEAMS = 4
LENGTH_PENALTY = 10.0
"""The largest absolute value; beyond it, powers of lengths overflow."""


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
    whole: bool = False,
    protect: Protection = "changed",
    beams: int | None = None,
    length_penalty: float | None = None,
    max_tokens: int | None = None,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Translation]:
    """Translate texts by beam search, in the order given.

    A text is translated sentence by sentence, and the translations are joined with the spaces
    between the sentences. A sentence with more tokens than the model reads is cut at commas, or
    else at spaces, with a warning.

    Sentences of similar length are translated together; up to rounding, a translation does not
    depend on the others. A prefix that a model expects is part of the text, and repeated before
    each sentence: "translate English to German: " for T5. The padding token is never generated.

    Defaults come from the checkpoint's generation_config.json, as do the forced first token and
    early stopping (see `model.generation`) and the rules on logits, such as `no_repeat_ngram_size`
    (see `logit_rules`). A warning names the settings of that file that are not supported.

    Args:
        model: an encoder-decoder that was loaded with its tokenizer.
        texts: any number of texts, none blank.
        source, target: the languages of the texts and of the translations, if the model has several
            (`model.tokenizer.languages`), such as "en" or "eng_Latn". By default those of the
            checkpoint.
        whole: leave texts whole, as a model for summaries needs; those that are too long are cut
            short with a warning.
        protect: which web and e-mail addresses, tags, placeholders ({name}, %s) and numbers are
            kept as they are: those that would be lost or changed ("changed"), only those that the
            tokenizer cannot spell ("unknown"), "all" or "none". With `whole`, "changed" is
            "unknown": a summary need not have all.
        beams: the beam width, up to 512; 1 is greedy. By default the checkpoint's, or 4.
        length_penalty: above 0 favours long translations, below 0 short ones; at 1 the score is
            the mean log-probability per token. By default the checkpoint's, or 1.
        max_tokens: the most tokens of the translation of a sentence, including the stop token,
            which is forced at that length. By default three times the source tokens plus 50, or
            the checkpoint's limit if that is lower.
        strict: refuse a sentence that is too long instead of cutting it with a warning.
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
    check_translator(model)
    assert model.tokenizer is not None
    beams, length_penalty = search_of(model, beams, length_penalty)
    pair = pair_of(model, source, target)
    check_whole("batch_tokens", batch_tokens, most=LONGEST)
    if max_tokens is not None:
        check_whole("max_tokens", max_tokens, most=LONGEST)
    if protect not in PROTECTIONS:
        raise ArgumentError(f"protect must be one of {', '.join(PROTECTIONS)}, not {protect!r}")
    names = checked("texts", texts, names)
    rules = _rules_of(model)
    reader = _reader(model, pair, whole, protect)
    divided = _divided(model, texts, names, reader, strict)

    def run(
        todo: list[tuple[int, Part]], sources: list[list[int]], done: int
    ) -> dict[int, Written]:
        """What the model writes for parts of lines, by `id` of the part."""
        assert model.tokenizer is not None
        written = {}
        waiting = Counter(line for line, _ in todo)
        for batch in _batches([len(ids) for ids in sources], batch_tokens, ROWS // beams):
            batch_ids = [sources[number] for number in batch]
            best = _best(model, batch_ids, beams, length_penalty, max_tokens, pair, rules)
            for number, beam in zip(batch, best, strict=True):
                line, part = todo[number]
                text = model.tokenizer.decode(beam.ids).strip()
                written[id(part)] = Written(source_ids=sources[number], beam=beam, text=text)
                waiting[line] -= 1
            if progress is not None:
                progress(done + sum(not left for left in waiting.values()), len(texts))
        return written

    def run_again(todo: list[tuple[int, Part]], done: int) -> dict[int, Written]:
        """What it writes for parts in lines, of which so many are done."""
        reads, named = _read_of(todo, pair, names)
        return run(todo, pair.marked(ids_of(model, reads, strict, named)), done)

    todo = [(line, part) for line, parts in enumerate(divided) for part in parts if part.reads]
    reads, named = _read_of(todo, pair, names)
    # Here, not in a function, so that its warning names the line of the caller.
    written = run(todo, pair.marked(ids_of(model, reads, strict, named)), 0)
    first = [list(parts) for parts in divided]  # which live as long as their `id`s are keys
    again: list[tuple[int, Part]] = []
    if protect == "changed" and not whole:
        for line, part in todo:
            if (other := keeping(texts[line], part, written[id(part)].text)) is not None:
                pieces = reader.fitting(texts[line], other)
                place = divided[line].index(part)
                divided[line][place : place + 1] = pieces
                again += [(line, piece) for piece in pieces if piece.reads]
        if again:
            written |= run_again(again, len(texts) - len({line for line, _ in again}))
    again, second = [], list(divided)
    for line, parts in enumerate(divided):
        pieces = []
        for part in parts:
            if part.reads is None or part.restored(written[id(part)].text) is not None:
                pieces.append(part)
                continue
            smaller = around_kept(texts[line], part)
            pieces += smaller
            again += [(line, piece) for piece in smaller if piece.reads]
        second[line], divided[line] = parts, pieces
    if again:
        written |= run_again(again, len(texts) - len({line for line, _ in again}))
    del first, second
    return [
        assembled(text, parts, written, pair.start, length_penalty)
        for text, parts in zip(texts, divided, strict=True)
    ]


def _read_of(
    todo: Sequence[tuple[int, Part]], pair: Pair, names: Sequence[str]
) -> tuple[Sequence[str], list[str]]:
    """What the model reads of parts of lines, and the name of each line."""
    return pair.begun([part.reads or "" for _, part in todo]), [names[line] for line, _ in todo]


def _divided(
    model: EncoderDecoder,
    texts: Sequence[str],
    names: Sequence[str],
    reader: Reader,
    strict: bool,
) -> list[list[Part]]:
    """The parts of each text, with a warning, or an error if strict, of sentences that are cut."""
    divided, too_long = [], 0
    for name, text in zip(names, texts, strict=True):
        parts, cut = reader.parts(text)
        divided.append(parts)
        too_long += cut
        if cut and strict:
            raise ArgumentError(
                f"{name} has a sentence of more than {model.config.longest:,} tokens, the most "
                "that the model reads"
            )
    if too_long:
        warnings.warn(
            f"{count(too_long, 'sentence')} of more than {model.config.longest:,} tokens, the "
            "model's maximum, cut at commas or spaces and translated in parts",
            stacklevel=3,
        )
    return divided


def _reader(model: EncoderDecoder, pair: Pair, whole: bool, protect: Protection) -> Reader:
    """How texts are divided for a model."""
    tokenizer, limit = model.tokenizer, model.config.longest
    assert tokenizer is not None
    languages = tokenizer.languages
    code = pair.source or (languages and languages.source) or "en"

    def fits(part: str) -> bool:
        [ids] = pair.marked(tokenizer.encode(pair.begun([part])))
        return limit is None or len(ids) <= limit

    def spells(part: str) -> bool:
        written = tokenizer.decode(tokenizer.encode([part], special=False)[0])
        return written.replace(" ", "") == part.replace(" ", "")

    return Reader(fits=fits, spells=spells, language=iso_639_1(code), protect=protect, whole=whole)


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


def _best(
    model: EncoderDecoder,
    sources: list[list[int]],
    beams: int,
    length_penalty: float,
    max_tokens: int | None,
    pair: Pair,
    rules: Sequence[Rule],
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
        rules=rules,
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


def _rules_of(model: EncoderDecoder) -> list[Rule]:
    """The rules of the model's generation_config.json, with a warning of what is not supported;
    Python shows the same warning only once.
    """
    generation = model.generation
    settings = dict(generation.others)
    if generation.repetition_penalty not in (None, 1):
        settings["repetition_penalty"] = generation.repetition_penalty
    # What only matters where tokens are sampled is part of that.
    cuts = () if generation.do_sample else CUTS
    unsupported = {
        name: value for name, value in settings.items() if name not in RULES and name not in cuts
    }
    if generation.do_sample:
        unsupported["do_sample"] = True
    if unsupported:
        named = listing([f"{name} = {value}" for name, value in sorted(unsupported.items())])
        warnings.warn(
            f"the model's generation_config.json sets {named}, which translation does not support",
            stacklevel=3,
        )
    return rules_of(settings, model.config.stop, model.config.vocabulary)


def _batches(lengths: list[int], tokens: int, texts: int) -> Iterator[list[int]]:
    """Batches of text numbers, the longest first, with at most so many texts and padded tokens."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        count = max(1, min(texts, tokens // lengths[order[start]]))
        yield order[start : start + count]
        start += count


def check_translator(model: Any) -> None:
    if not isinstance(model, EncoderDecoder):
        raise TypeMismatchError(f"model must be an EncoderDecoder, not {type(model).__name__}")
    if model.tokenizer is None:
        raise TypeMismatchError("model must have been loaded with its tokenizer")
    has_start = model.config.start is not None or model.tokenizer.languages is not None
    if not has_start or not model.config.stop:
        raise ArgumentError("translation needs a start and a stop token in the model's config")
