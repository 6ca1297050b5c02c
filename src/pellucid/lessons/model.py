"""A walk through one head of a real model, on a sentence of one's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.attention.reference import Stages, stages
from pellucid.common.files import printable
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError, OutOfRangeError, TooLargeError
from pellucid.lens import Record, watch
from pellucid.lessons.heads import Worth, telling_word, worth
from pellucid.lessons.sentences import Speaker
from pellucid.lessons.steps import stage_steps
from pellucid.lessons.walk import ROLES, Step, Walk, find_token, matrix, rows_shown
from pellucid.readers import Checkpoint, open_checkpoint

SPLIT_WORDS = 3
"""Words in pieces that are named."""
MOST_TOKENS = 1024
"""Tokens of a walk: all its numbers are held, n x n of them a head and step."""

_SPACES = str.maketrans({" ": "␣", "\n": "⏎"})


@dataclass(frozen=True)
class _Reading:
    """A sentence as the model reads it."""

    ids: Tensor
    """(tokens,)"""
    tokens: tuple[str, ...]
    marks: tuple[str, ...]
    """The tokens that are the model's own, such as [CLS]."""
    words: Tensor
    """(tokens,) bool, False for those and for punctuation."""
    spans: tuple[tuple[int, int], ...]
    """Where in the sentence each token stands; empty if the tokenizer does not say."""


def walk_model(
    sentence: str,
    *,
    model: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: str | None = None,
    causal: bool = False,
) -> Walk:
    """The walk of one head, with the queries, keys and values that the model really used.

    Args:
        sentence: what the model reads.
        model: as for `open_checkpoint`.
        layer: from 0; the one most worth looking at if None.
        head: from 0; likewise.
        query: show the rows of this word alone.
        causal: hide from each token those after it, in this head, for its given numbers.
    """
    if not sentence.strip():
        raise ArgumentError('sentence is empty; give some words, like "Write a poem"')
    if sentence != sentence.encode(errors="ignore").decode():
        raise ArgumentError("sentence holds bytes that are not UTF-8 text")
    checkpoint = open_checkpoint(model)
    reading = _read(sentence, checkpoint)
    focus = _find_word(query, sentence, reading) if query else ()
    records = _run(checkpoint, reading)
    layer, head, why = _choose(records, reading.words, causal, layer, head, checkpoint.name)
    record = records[layer]
    heads, pairs = record.query.shape[1], record.key.shape[1]
    pair = head * pairs // heads
    assert record.value is not None  # it was asked for
    query_head = record.query[0, head].double()
    key_head, value_head = record.key[0, pair].double(), record.value[0, pair].double()
    visible = record.weights.masked[0, head] > -torch.inf
    added = causal and bool(visible.triu(1).any())
    if added:
        visible = visible.tril()

    tokens = reading.tokens
    weights = _weights(record, causal)[head]
    speaker = focus[0] if focus else telling_word(weights, reading.words)
    key_dim = query_head.shape[1]
    factor = key_dim**-0.5 if record.scale is None else record.scale
    bias = _of_head(record.bias, record.weights.shape, head)
    batched = stages(
        query_head[None],
        key_head[None],
        value_head[None],
        visible,
        bias=bias,
        scale=factor,
        softcap=record.softcap,
        sinks=None if record.sinks is None else record.sinks[head : head + 1].double(),
    )
    about = [
        f"{checkpoint.name}, layer {layer} (of 0 to {len(records) - 1}), "
        f"head {head} (of 0 to {heads - 1})",
        why,
    ]
    if pairs < heads:
        about.append(
            f"{heads} heads share {count(pairs, 'key and value head')}: this reads {pair}."
        )
    about += _split_words(sentence, reading)
    if added:
        about.append("With a causal mask put on the head's own queries, keys and values.")
    return Walk(
        title=sentence,
        about=tuple(about),
        tokens=tokens,
        steps=(
            _token_step(reading),
            *(
                _projected(tokens, speaker, role, numbers, shown)
                for role, numbers, shown in (
                    ("query", query_head, focus),
                    ("key", key_head, ()),
                    ("value", value_head, ()),
                )
            ),
            *stage_steps(
                tokens,
                Stages(*(part[0] for part in batched)),
                key_dim=key_dim,
                speaker=Speaker(tokens, speaker),
                factor=factor,
                focus=focus,
                visible=visible,
                bias=bias,
                bias_name="position bias",
                softcap=record.softcap,
                has_sink=record.sinks is not None,
                decimals=2,
            ),
        ),
        facts={
            "model": checkpoint.name,
            "layer": layer,
            "head": head,
            "causal": causal,
            "why": why,
        },
    )


def _read(sentence: str, checkpoint: Checkpoint) -> _Reading:
    tokenizer = checkpoint.tokenizer
    # Its own warning about the length would only precede our error.
    encoded = tokenizer(
        sentence, return_offsets_mapping=tokenizer.is_fast, verbose=False, truncation=False
    )
    ids = encoded["input_ids"]
    if not ids:
        raise ArgumentError(f"sentence {sentence!r} has no tokens that the model knows")
    if checkpoint.limit is not None and len(ids) > checkpoint.limit:
        raise ArgumentError(
            f"sentence has {len(ids)} tokens, but {checkpoint.name} takes at most "
            f"{checkpoint.limit}"
        )
    if len(ids) > MOST_TOKENS:
        raise TooLargeError(
            f"sentence has {len(ids)} tokens; a walk shows every number, of at most {MOST_TOKENS}. "
            "For longer texts use pellucid.watch"
        )
    special = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
    spans = tuple(encoded["offset_mapping"]) if tokenizer.is_fast else ()
    texts, tokens = _labels(sentence, spans, tokenizer, ids)
    return _Reading(
        ids=torch.tensor(ids),
        tokens=tokens,
        marks=tuple(token for token, mark in zip(tokens, special, strict=True) if mark),
        words=torch.tensor(
            [
                not mark and any(letter.isalnum() for letter in text)
                for mark, text in zip(special, texts, strict=True)
            ]
        ),
        spans=spans,
    )


def _labels(
    sentence: str, spans: Sequence[tuple[int, int]], tokenizer: Any, ids: Sequence[int]
) -> tuple[list[str], tuple[str, ...]]:
    """Each token as text, and what it is called: a piece of a letter is that letter, and "é 1/2".

    What is no text of its own and stands for nothing in the sentence is as the vocabulary spells
    it.
    """
    read = [str(tokenizer.decode([number])) for number in ids]
    texts = [text.strip() or text.translate(_SPACES) for text in read]
    pieces = [place for place, text in enumerate(texts) if not text or "\ufffd" in text]
    ends = {place: spans[place][1] if spans else None for place in pieces}
    labels = dict(enumerate(texts))
    for place in pieces:
        whole = sentence[slice(*spans[place])].strip() if spans else ""
        texts[place] = labels[place] = whole or str(tokenizer.convert_ids_to_tokens(ids[place]))
        others = [other for other in pieces if ends[other] == ends[place]]
        if whole and len(others) > 1:
            labels[place] += f" {others.index(place) + 1}/{len(others)}"
    return texts, tuple(map(printable, labels.values()))


def _find_word(word: str, sentence: str, reading: _Reading) -> tuple[int, ...]:
    """The tokens that make up a word, wherever it stands; a single token's name does too."""
    spans = [
        match.span()
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.IGNORECASE)
    ]
    positions = tuple(
        token
        for token, (start, stop) in enumerate(reading.spans)
        if any(start < end and begin < stop for begin, end in spans)
    )
    return positions or find_token(reading.tokens, word)


def _run(checkpoint: Checkpoint, reading: _Reading) -> list[Record]:
    """The self-attention of each layer, in order."""
    ids = reading.ids[None]
    with watch(checkpoint.model, values=True) as seen:
        checkpoint.run(input_ids=ids, attention_mask=torch.ones_like(ids))
    tokens = ids.shape[1]
    records = [
        record for record in seen.records if record.query.shape[2] == record.key.shape[2] == tokens
    ]
    if not records:
        unseen = short(", ".join(seen.unseen) or "nothing that looks like attention", 100)
        raise ArgumentError(
            f"model {checkpoint.name} made no attention call that can be recorded; unseen: {unseen}"
        )
    return records


def _choose(
    records: list[Record],
    words: Tensor,
    causal: bool,
    layer: int | None,
    head: int | None,
    model: str,
) -> tuple[int, int, str]:
    """The layer, the head and why, under the mask that is shown; what is given stays as it is."""
    _check("layer", layer, len(records), model)
    _check("head", head, records[layer or 0].query.shape[1], model)
    best: tuple[int, int, Worth] | None = None
    heads = 0
    for number, record in enumerate(records):
        if layer not in (None, number):
            continue
        visible = record.weights.masked[0] > -torch.inf
        worths = worth(_weights(record, causal), visible.tril() if causal else visible, words)
        for index, value in enumerate(worths):
            if head not in (None, index):
                continue
            heads += 1
            if best is None or value.total > best[2].total:
                best = (number, index, value)
    if best is None:
        alone = "No word here has another to look at, by which heads could be told apart."
        return layer or 0, head or 0, alone
    number, index, value = best
    if layer is not None and head is not None:
        return number, index, f"The head you chose is {value.why()}."
    if value.total == 0:
        return number, index, "No head looks from one word to another here: this is the first."
    return number, index, f"Chosen of {count(heads, 'head')} as the most telling: {value.why()}."


def _weights(record: Record, causal: bool) -> Tensor:
    """(heads, tokens, tokens); with a causal mask put on them, if that is asked."""
    weights = record.weights[0]
    if not causal:
        return weights
    kept = weights.tril()  # what the hidden keys had goes to the others, and to any sink, in step
    return kept / (1 - (weights - kept).sum(dim=-1, keepdim=True)).clamp_min(1e-12)


def _check(name: str, given: int | None, available: int, model: str) -> None:
    if given is not None and not 0 <= given < available:
        raise OutOfRangeError(
            f"{name} {given} is out of range: {model} has {count(available, name)}, "
            f"0 to {available - 1}"
        )


def _split_words(sentence: str, reading: _Reading) -> list[str]:
    """A line for the words that the model reads in several tokens, if there are any."""
    split = []
    for word in re.finditer(r"\w+", sentence):
        inside = [
            token.strip()
            for token, (start, end) in zip(reading.tokens, reading.spans, strict=False)
            if start < word.end() and word.start() < end
        ]
        if len(inside) > 1:
            split.append(f"'{printable(word[0])}' = {' + '.join(inside)}")
    if not split:
        return []
    more = f" and {len(split) - SPLIT_WORDS} more" if len(split) > SPLIT_WORDS else ""
    return [f"Words that the model reads in pieces: {', '.join(split[:SPLIT_WORDS])}{more}."]


def _token_step(reading: _Reading) -> Step:
    tokens = len(reading.tokens)
    own = ""
    if reading.marks:
        marks = listing([f"'{mark}'" for mark in dict.fromkeys(reading.marks)])
        own = (
            f", {len(reading.marks)} of them its own: {marks}. It marks where a text begins or "
            "ends, and a head with nothing to look for rests on it"
        )
    return Step(
        name="tokens",
        formula="ids = tokenizer(sentence)",
        sentence=f"The model reads {count(tokens, 'token')}{own}.",
        matrices=(matrix("token", reading.ids[:, None], reading.tokens, ("id",), kind="count"),),
    )


def _projected(
    tokens: tuple[str, ...], speaker: int, role: str, numbers: Tensor, focus: tuple[int, ...]
) -> Step:
    letter = ROLES[role]
    shown, labels = rows_shown(tokens, focus)
    return Step(
        name=role,
        formula=f"{letter} = X · W_{role}, with the bias and rotation that the model adds, if any",
        sentence=Speaker(tokens, speaker).vectors(role, numbers),
        matrices=(matrix(letter, numbers[shown], labels, decimals=2),),
    )


def _of_head(bias: Tensor | None, shape: torch.Size, head: int) -> Tensor | None:
    return None if bias is None else bias.expand(shape)[0, head].double()
