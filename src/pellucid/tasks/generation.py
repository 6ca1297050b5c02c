"""Text that goes on where a prompt ends, a token at a time.

The prompts are read in one pass, each once for all of its samples, and every token after that is
one step over a cache that was set aside at the start. A text that has ended leaves the batch.
"""

import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid import pretrained
from pellucid.common.wording import count
from pellucid.errors import (
    ArgumentError,
    ShapeError,
    TooLargeError,
    TypeMismatchError,
)
from pellucid.layers.cache import Cache
from pellucid.layers.config import Config
from pellucid.models import Decoder, EncoderDecoder, load
from pellucid.tasks.checked_texts import checked
from pellucid.tasks.sampling import Sampling, choose
from pellucid.tasks.whole_numbers import LONGEST, check_whole
from pellucid.text.stream_decoder import Unfolding
from pellucid.text.tokenizer import Tokenizer

BATCH = 8
"""Texts that are written at a time: so many share one reading of the weights at little cost."""
MAX_TOKENS = 128
SAMPLES = 2**16
"""The most of a prompt."""

Ending = Literal["stop id", "stop string", "max_tokens", "positions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """A text that was written."""

    prompt: int
    """The number of its prompt, from 0."""
    sample: int
    """Which of the prompt's texts, from 0."""
    text: str
    """What was written, without the prompt; "" where the model has no tokenizer."""
    prompt_ids: list[int]
    """What the model read."""
    ids: list[int]
    """Of the new tokens, without the stop id; with those that make up a stop string."""
    stopped: Ending
    """Why it ended: the model said so, a stop string came, there were as many tokens as were asked
    for, or the model has positions for no more."""
    seconds: float
    """From when its batch was begun, the prompts' reading included, to its end."""

    @property
    def tokens_per_second(self) -> float:
        return len(self.ids) / self.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What one more token adds to a text."""

    prompt: int
    sample: int
    id: int
    """Of the token; at the end it may be a stop id, which is no part of the text."""
    text: str
    """What comes next, and will not change; often a word, sometimes nothing."""
    done: Generated | None = None
    """All of the text, where this is its end."""


def generate(
    model: Decoder,
    prompts: Sequence[str] | Tensor,
    *,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    seed: int | None = None,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch: int = BATCH,
    on_token: Callable[[Piece], None] | None = None,
) -> list[Generated]:
    """The texts that go on from each prompt, those of one prompt after another.

    Args:
        model: a decoder; its tokenizer reads and writes the text.
        prompts: texts, none blank; or ids, (batch, tokens), int64 or int32.
        max_tokens: the most that are written.
        sampling: how each token is chosen; unless given the likeliest, those that were there before
            less likely as the model asks (see `penalty_of`).
        stop: strings that end a text, and are no part of it.
        samples: texts of each prompt.
        seed: where random numbers start: sample number n of a prompt is the same with the same
            seed, up to rounding, whatever is written beside it. Others each time unless given.
        strict: refuse a prompt that is longer than the model reads, rather than cut and warn.
        names: what to call each prompt in an error, as "line 3 of a.txt"; "prompts[2]" unless
            given.
        batch: how many texts are written at a time.
        on_token: called with each `Piece` as it is written.

    Raises:
        TypeMismatchError: the model is no decoder, has no tokenizer though there is text, or
            prompts are neither texts nor ids.
        ArgumentError: a prompt is blank, no Unicode text or, with `strict`, too long; or a number
            is outside what is allowed.
        ShapeError, OutOfRangeError: ids that are none of the model's.
        TooLargeError: there is no memory for so many tokens.
    """
    found = []
    for piece in stream(
        model,
        prompts,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=stop,
        samples=samples,
        seed=seed,
        strict=strict,
        names=names,
        batch=batch,
    ):
        if on_token is not None:
            on_token(piece)
        if piece.done is not None:
            found.append(piece.done)
    return sorted(found, key=lambda one: (one.prompt, one.sample))


def stream(
    model: Decoder,
    prompts: Sequence[str] | Tensor,
    *,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    seed: int | None = None,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch: int = BATCH,
) -> Iterator[Piece]:
    """As `generate`, but each piece of text as soon as it is certain.

    What is wrong with the arguments is said at once, and not when the first piece is asked for.
    """
    model = as_decoder(model)
    if sampling is None:
        sampling = Sampling(temperature=0, repetition_penalty=penalty_of(model))
    check_numbers(max_tokens=max_tokens, sampling=sampling, samples=samples, seed=seed, batch=batch)
    if isinstance(stop, str) or not all(isinstance(one, str) for one in stop):
        raise TypeMismatchError(f"stop must be several str, not {stop!r}")
    if "" in stop:
        raise ArgumentError("stop holds an empty string, which comes at once")
    if stop and model.tokenizer is None:
        raise TypeMismatchError("stop strings need a model that was loaded with its tokenizer")
    ids = _ids_of(model, prompts, max_tokens, strict, names)
    seed = secrets.randbits(62) if seed is None else seed
    texts = [
        _Text(number, sample, one, model.tokenizer, stop, seed)
        for number, one in enumerate(ids)
        for sample in range(samples)
    ]
    return _written(model, texts, max_tokens, sampling, batch)


def penalty_of(model: Decoder) -> float:
    """The repetition penalty that its generation_config.json asks for; 1 where it says nothing."""
    asked = model.generation.repetition_penalty
    return 1.0 if asked is None else asked


def check_numbers(
    *, max_tokens: int, sampling: Sampling, samples: int, seed: int | None, batch: int = BATCH
) -> None:
    """Refuse what `generate` cannot be asked for, as it does itself.

    Raises:
        TypeMismatchError: a number that is none, or sampling that is no `Sampling`.
        ArgumentError: one outside what is allowed, or several samples that are all the same.
    """
    check_whole("max_tokens", max_tokens, most=LONGEST)
    check_whole("samples", samples, most=SAMPLES)
    check_whole("batch", batch)
    if seed is not None:
        check_whole("seed", seed, 0, 2**63 - 1)
    if not isinstance(sampling, Sampling):
        raise TypeMismatchError(f"sampling must be a Sampling, not {sampling!r}")
    if samples > 1 and sampling.is_greedy:
        raise ArgumentError(f"at temperature 0 all {samples} samples are the same; ask for one")


@dataclass(eq=False)
class _Text:
    """A text that is being written."""

    prompt: int
    sample: int
    read: list[int]
    tokenizer: Tokenizer | None
    stop: Sequence[str]
    seed: int
    ids: list[int] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        # A sequence of seeds, for sample 1 of seed 0 has nothing to do with sample 0 of seed 1.
        [start] = np.random.SeedSequence([self.seed, self.sample]).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(start))
        self.unfolding = None
        if self.tokenizer is not None:
            self.unfolding = Unfolding(self.tokenizer, self.read, self.stop)

    def add(self, number: int, max_tokens: int, config: Config) -> tuple[str, Ending | None]:
        """One more token; gives the text that is certain by it, and why it is the last if it is."""
        ending: Ending | None = None
        text = ""
        if number in config.stop:
            ending = "stop id"
        else:
            self.ids.append(number)
            if self.unfolding is not None:
                text = self.unfolding.add(number)
            if self.unfolding is not None and self.unfolding.is_stopped:
                ending = "stop string"
            elif len(self.ids) == max_tokens:
                ending = "max_tokens"
            elif config.positions is not None:
                # The last token needs no position: nothing is asked of what comes after it.
                is_full = len(self.read) + len(self.ids) >= config.positions
                ending = "positions" if is_full else None
        if ending is not None and self.unfolding is not None:
            text += self.unfolding.end()
        self.text += text
        return text, ending

    def done(self, stopped: Ending, begun: float) -> Generated:
        return Generated(
            prompt=self.prompt,
            sample=self.sample,
            text=self.text,
            prompt_ids=self.read,
            ids=self.ids,
            stopped=stopped,
            seconds=time.perf_counter() - begun,
        )


@torch.no_grad()
def _written(
    model: Decoder, texts: list[_Text], max_tokens: int, sampling: Sampling, batch: int
) -> Iterator[Piece]:
    for start in range(0, len(texts), batch):
        yield from _one_batch(model, texts[start : start + batch], max_tokens, sampling)


def _one_batch(
    model: Decoder, texts: list[_Text], max_tokens: int, sampling: Sampling
) -> Iterator[Piece]:
    begun = time.perf_counter()
    config, device = model.config, model.device
    logits, cache = _read(model, texts, max_tokens)
    seen = _seen(texts, config.vocabulary, device) if sampling.repetition_penalty != 1 else None
    while True:
        chosen = choose(logits, sampling, [text.generator for text in texts], seen)
        if seen is not None:
            seen.scatter_(1, chosen.unsqueeze(1), True)
        running = []
        for row, (text, number) in enumerate(zip(texts, chosen.tolist(), strict=True)):
            new, ending = text.add(number, max_tokens, config)
            done = None if ending is None else text.done(ending, begun)
            yield Piece(prompt=text.prompt, sample=text.sample, id=number, text=new, done=done)
            if ending is None:
                running.append(row)
        if not running:
            return
        if len(running) < len(texts):
            rows = torch.tensor(running, device=device)
            texts, chosen = [texts[row] for row in running], chosen[rows]
            seen = None if seen is None else seen[rows]
            cache.select(rows)
        logits = model(chosen.unsqueeze(1), cache=cache, last=True)


def _read(model: Decoder, texts: list[_Text], max_tokens: int) -> tuple[Tensor, Cache]:
    """Logits of what comes after each prompt, (texts, vocabulary), and the cache to go on with.

    Raises:
        TooLargeError: there is no memory for the cache.
    """
    config, device = model.config, model.device
    prompts = {text.prompt: text.read for text in texts}  # each is read once
    lengths = torch.tensor([len(ids) for ids in prompts.values()])
    longest = int(lengths.max())
    capacity = longest + max_tokens - 1  # the last token is not read
    if config.positions is not None:
        capacity = max(longest, min(capacity, config.positions))
    try:
        cache = model.cache(len(prompts), capacity)
    except RuntimeError as error:  # torch has no error of its own for that on the CPU
        raise TooLargeError(
            f"there is no memory for {count(len(prompts), 'text')} of {capacity:,} tokens; "
            "lower max_tokens"
        ) from error
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, one in zip(ids, prompts.values(), strict=True):
        row[: len(one)] = torch.tensor(one)
    are_even = bool((lengths == longest).all())
    lengths = lengths.to(device)
    logits: Tensor = model(
        ids.to(device), cache=cache, lengths=None if are_even else lengths, last=True
    )
    if len(prompts) < len(texts):
        numbers = list(prompts)
        rows = torch.tensor([numbers.index(text.prompt) for text in texts], device=device)
        cache.select(rows)
        logits = logits[rows]
    return logits, cache


def _seen(texts: list[_Text], vocabulary: int, device: torch.device) -> Tensor:
    """(texts, vocabulary) bool, the tokens of each prompt."""
    seen = torch.zeros(len(texts), vocabulary, dtype=torch.bool)
    for row, text in zip(seen, texts, strict=True):
        row[torch.tensor(text.read)] = True
    return seen.to(device)


def open_writer(path: str | Path = pretrained.DECODER) -> Decoder:
    """A decoder with its tokenizer: Pellucid's own, or GPT-2 or Llama, say.

    Args:
        path: as for `pellucid.load`.

    Raises:
        FileError: there is no such model, or it cannot be loaded.
        TypeMismatchError: it is no decoder.
        ArgumentError: it has no tokenizer.
        MissingExtraError: what is needed to load it is not installed.
    """
    model = as_decoder(load(path))
    if model.tokenizer is None:
        raise ArgumentError(f"model '{path}' has no tokenizer")
    return model


def as_decoder(model: Any) -> Decoder:
    """The model, if it is one that writes text.

    Raises:
        TypeMismatchError: it is another.
    """
    if isinstance(model, EncoderDecoder):
        raise TypeMismatchError(
            "model must be a Decoder; this is an EncoderDecoder, which pellucid translate is for"
        )
    if not isinstance(model, Decoder):
        raise TypeMismatchError(
            f"model must be a Decoder, which writes text, not {type(model).__name__}"
        )
    return model


def _ids_of(
    model: Decoder,
    prompts: Sequence[str] | Tensor,
    max_tokens: int,
    strict: bool,
    names: Sequence[str] | None,
) -> list[list[int]]:
    """What the model reads of each prompt."""
    if isinstance(prompts, Tensor):
        if prompts.dtype not in (torch.int64, torch.int32):
            raise TypeMismatchError(f"prompts must be int64 or int32, not {prompts.dtype}")
        if prompts.ndim != 2 or 0 in prompts.shape:
            raise ShapeError(
                f"prompts must be (batch, tokens), not of shape {tuple(prompts.shape)}"
            )
        ids, marks = prompts.tolist(), [0] * len(prompts)
        names = [f"prompts[{number}]" for number in range(len(ids))] if names is None else names
    else:
        names = checked("prompts", prompts, names)
        ids, marks = _encoded(model, prompts, names)
    most = model.config.positions
    long = [] if most is None else [number for number, one in enumerate(ids) if len(one) > most]
    if most is None or not long:
        return ids
    longest = max(long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"{names[longest]} has {len(ids[longest]):,} tokens, but the model has positions for "
            f"{most:,}"
        )
    kept = most - min(max_tokens, most // 2)  # the rest is for what is written
    lost = sum(len(ids[number]) - kept for number in long)
    warnings.warn(
        f"{count(len(long), 'prompt')} of {len(ids)} cut to the last {kept:,} tokens, since the "
        f"model has positions for {most:,}: {lost:,} tokens are lost; the longest prompt has "
        f"{len(ids[longest]):,}",
        stacklevel=4,
    )
    for number in long:
        front = min(marks[number], kept - 1)
        ids[number] = ids[number][:front] + ids[number][front - kept :]
    return ids


def _encoded(
    model: Decoder, prompts: Sequence[str], names: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Ids of texts, and how many of each are the model's own marks, which stand in front."""
    if model.tokenizer is None:
        raise TypeMismatchError("model has no tokenizer; load it with one, or give ids")
    whole = model.tokenizer.encode(prompts)
    plain = model.tokenizer.encode(prompts, special=False)
    ids, marks = [], []
    for number, (one, text) in enumerate(zip(whole, plain, strict=True)):
        if not text:
            raise ArgumentError(f"{names[number]} has no tokens that the model knows")
        # Marks behind the text would say that it has ended.
        places = range(len(one) - len(text) + 1)
        front = next((place for place in places if one[place : place + len(text)] == text), None)
        ids.append(one if front is None else one[:front] + text)
        marks.append(front or 0)
    return ids, marks
