"""Text generation: continue prompts, one token at a time.

The prompts of a batch are read in one forward pass, each once for all of its samples. Every later
token is one step over a preallocated KV cache. A text that has ended leaves the batch.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TooLargeError, TypeMismatchError
from pellucid.layers.bfloat16 import Precision, products, resolved
from pellucid.layers.cache import Cache
from pellucid.models import Decoder
from pellucid.tasks.beam import continuations
from pellucid.tasks.decoders import (
    as_decoder,
    ends_of,
    penalty_of,
    rules_of_model,
    sampling_of,
    stopping,
)
from pellucid.tasks.generated_text import Ending, Generated, Piece, RunningText
from pellucid.tasks.logit_rules import Rule
from pellucid.tasks.prefix_memory import Memory
from pellucid.tasks.prompt_ids import ids_of_prompts
from pellucid.tasks.sampling import Sampling, choose
from pellucid.tasks.whole_numbers import LONGEST, check_whole

BATCH = 8
"""Texts generated at a time; they share each read of the weights."""
MAX_TOKENS = 128
MOST_BEAMS = 512
SAMPLES = 2**16
"""The most samples of a prompt."""


class Options(TypedDict, total=False):
    """The keyword arguments of `stream`, which `generate` takes too."""

    max_tokens: int
    sampling: Sampling | None
    stop: Sequence[str]
    samples: int
    seed: int | None
    strict: bool
    names: Sequence[str] | None
    batch: int
    plain: bool
    memory: Memory | None
    beams: int
    precision: Precision


def generate(
    model: Decoder,
    prompts: Sequence[str] | Tensor,
    *,
    on_token: Callable[[Piece], None] | None = None,
    **options: Unpack[Options],
) -> list[Generated]:
    """Generate the continuations of each prompt, in the order of prompts and samples.

    Args:
        model: as for `stream`.
        prompts: as for `stream`.
        on_token: called with each `Piece` as it is generated.
        **options: max_tokens, sampling, stop, samples, seed, strict, names, batch, plain,
            memory, beams and precision, as for `stream`.

    Raises:
        ArgumentError, OutOfRangeError, ShapeError, TooLargeError, TypeMismatchError: as `stream`.
    """
    texts = []
    for piece in stream(model, prompts, **options):
        if on_token is not None:
            on_token(piece)
        if piece.done is not None:
            texts.append(piece.done)
    return sorted(texts, key=lambda text: (text.prompt, text.sample))


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
    plain: bool = False,
    memory: Memory | None = None,
    beams: int = 1,
    precision: Precision = "float32",
) -> Iterator[Piece]:
    """Generate the continuations of each prompt, and yield each piece of text once it is final.

    Errors in the arguments are raised at the call, not at the first piece. Of the model's
    generation_config.json, all settings that are rules on logits are applied (see `logit_rules`),
    and its stop strings; a warning names those that are not.

    Args:
        model: a decoder; its tokenizer encodes the prompts and decodes the text.
        prompts: texts, none blank; or ids, (batch, tokens), int64 or int32.
        max_tokens: the most tokens to generate.
        sampling: how each token is chosen; by default as the model's own settings say (see
            `sampling_of`): greedily, unless `do_sample` is true.
        stop: strings that end a text and are not part of it; a special token is one by itself.
        samples: the number of texts per prompt.
        seed: the random seed; random by default. Up to rounding, a sample depends only on the
            seed, its prompt and its index, not on the rest of the batch.
        strict: refuse a prompt that is too long instead of truncating it with a warning.
        names: what errors call each prompt, such as "line 3 of a.txt"; "prompts[2]" by default.
        batch: the number of texts generated at a time.
        plain: whether prompts have their special tokens already, as rendered conversations do.
        memory: of one prompt: what it begins with need not be read again.
        beams: above 1, the likeliest of so many texts is kept, by beam search (see
            `beam.continuations`, with the model's own length penalty and early stopping), and given
            whole. It takes the same penalty, rules and stops, and no sampling.
        precision: in which prompts are read: "float32"; "bfloat16", which is some times faster on
            processors with AMX (see `digits_lost`); or "auto" for the faster one.

    Raises:
        TypeMismatchError: the model is not a decoder, the prompts are texts and it has no
            tokenizer, or the prompts are neither texts nor ids.
        ArgumentError: a prompt is blank, not valid Unicode or, with `strict`, too long; a number
            is out of range; or precision is unknown, or is bfloat16 where that would be slower.
        ShapeError, OutOfRangeError: the ids have the wrong shape or are not in the vocabulary.
        TooLargeError: there is not enough memory for the cache.
    """
    model = as_decoder(model)
    if sampling is None and beams == 1:
        sampling = sampling_of(model)
    elif sampling is None:
        sampling = Sampling(temperature=0, repetition_penalty=penalty_of(model))
    check_numbers(max_tokens=max_tokens, sampling=sampling, samples=samples, seed=seed, batch=batch)
    if isinstance(stop, str) or not all(isinstance(string, str) for string in stop):
        raise TypeMismatchError(f"stop must be a list of str, not {stop!r}")
    if "" in stop:
        raise ArgumentError("stop contains an empty string, which would end every text at once")
    if stop and model.tokenizer is None:
        raise TypeMismatchError("stop strings need a model that was loaded with its tokenizer")
    check_whole("beams", beams, most=MOST_BEAMS)
    kind = resolved(precision, model.device)
    if beams > 1 and not (sampling.is_greedy and samples == 1 and memory is None):
        raise ArgumentError("beam search takes no sampling, samples or memory; use 1 beam")
    rules, strings = rules_of_model(model, sampling.repetition_penalty if beams > 1 else 1.0)
    ends, stop = ends_of(model, [*stop, *strings])
    ids = ids_of_prompts(model, prompts, max_tokens, strict, names, plain)
    if memory is not None and len(ids) * samples != 1:
        raise ArgumentError("memory is of one prompt and one sample")
    seed = secrets.randbits(62) if seed is None else seed
    texts = [
        RunningText(number, sample, prompt_ids, model.tokenizer, stop, seed)
        for number, prompt_ids in enumerate(ids)
        for sample in range(samples)
    ]
    choosing = _Choosing(sampling, rules, frozenset((*model.config.stop, *ends)), memory, kind)
    if beams > 1:
        return _searched(model, texts, max_tokens, choosing, beams)
    return _generated(model, texts, max_tokens, choosing, batch)


def _searched(
    model: Decoder, texts: list[RunningText], max_tokens: int, choosing: "_Choosing", beams: int
) -> Iterator[Piece]:
    """The best text of each prompt by beam search, in one piece for each."""
    settings = model.generation
    penalty = 1.0 if settings.length_penalty is None else settings.length_penalty
    for text in texts:
        start = time.perf_counter()
        with products(choosing.precision):
            hypotheses = continuations(
                model,
                text.prompt_ids,
                beams=beams,
                max_tokens=max_tokens,
                length_penalty=penalty,
                early=bool(settings.early_stopping),
                rules=choosing.rules,
                stop=sorted(choosing.ends),
                ends=stopping(model, text.prompt_ids, text.stop),
            )
        ending: Ending | None = None
        whole = ""
        for token in hypotheses[0].ids:
            new, ending = text.add(token, max_tokens, model.config, choosing.ends)
            whole += new
        done = text.done("positions" if ending is None else ending, start)
        yield Piece(prompt=text.prompt, sample=0, id=hypotheses[0].ids[-1], text=whole, done=done)


@dataclass(frozen=True, slots=True)
class _Choosing:
    """How tokens are chosen, and which end a text."""

    sampling: Sampling
    rules: Sequence[Rule]
    ends: frozenset[int]
    memory: Memory | None
    precision: Precision


COMPARED = 64
"""The most tokens that `digits_lost` reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsLost:
    """How far what follows a prompt that is read in bfloat16 is from that in float32."""

    compared: int
    """Tokens that were read in both."""
    largest_difference: float
    """Of a probability of a next token."""

    def __str__(self) -> str:
        return (
            f"prompts are read in bfloat16: compared on {count(self.compared, 'token')}, "
            "probabilities of the next one differ from those in float32 by "
            f"{self.largest_difference:.2g} at most"
        )


@torch.no_grad()
def digits_lost(model: Decoder, ids: Sequence[int]) -> DigitsLost:
    """Read some tokens in bfloat16 and in float32, and compare what follows each of them."""
    some = torch.tensor([ids[:COMPARED]], device=model.device)
    kinds: tuple[Precision, ...] = ("bfloat16", "float32")
    probabilities = []
    for kind in kinds:
        with products(kind):
            probabilities.append(model(some).float().softmax(-1))
    largest = (probabilities[0] - probabilities[1]).abs().max()
    return DigitsLost(compared=some.shape[1], largest_difference=float(largest))


def check_numbers(
    *, max_tokens: int, sampling: Sampling, samples: int, seed: int | None, batch: int = BATCH
) -> None:
    """Check the numbers that `generate` is called with, as it does itself.

    Raises:
        TypeMismatchError: a number has the wrong type, or sampling is not a `Sampling`.
        ArgumentError: a number is out of range, or several greedy samples are requested.
    """
    check_whole("max_tokens", max_tokens, most=LONGEST)
    check_whole("samples", samples, most=SAMPLES)
    check_whole("batch", batch)
    if seed is not None:
        check_whole("seed", seed, 0, 2**63 - 1)
    if not isinstance(sampling, Sampling):
        raise TypeMismatchError(f"sampling must be a Sampling, not {sampling!r}")
    if samples > 1 and sampling.is_greedy:
        raise ArgumentError(f"at temperature 0 all {samples} samples are identical; use samples=1")


@torch.no_grad()
def _generated(
    model: Decoder, texts: list[RunningText], max_tokens: int, choosing: _Choosing, batch: int
) -> Iterator[Piece]:
    for start in range(0, len(texts), batch):
        yield from _one_batch(model, texts[start : start + batch], max_tokens, choosing)


def _one_batch(
    model: Decoder, texts: list[RunningText], max_tokens: int, choosing: _Choosing
) -> Iterator[Piece]:
    start = time.perf_counter()
    config, device, sampling = model.config, model.device, choosing.sampling
    with products(choosing.precision):
        logits, cache = _prefill(model, texts, max_tokens, choosing.memory)
    seen = (
        _prompt_tokens(texts, config.vocabulary, device)
        if sampling.repetition_penalty != 1
        else None
    )
    while True:
        if choosing.rules:
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
            for text, row in zip(texts, logits, strict=True):
                for rule in choosing.rules:
                    rule(row, text.prompt_ids + text.ids, len(text.prompt_ids))
        chosen = choose(logits, sampling, [text.generator for text in texts], seen)
        if seen is not None:
            seen.scatter_(1, chosen.unsqueeze(1), True)
        running = []
        for row, (text, token) in enumerate(zip(texts, chosen.tolist(), strict=True)):
            new, ending = text.add(token, max_tokens, config, choosing.ends)
            done = None if ending is None else text.done(ending, start)
            yield Piece(prompt=text.prompt, sample=text.sample, id=token, text=new, done=done)
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
        if choosing.memory is not None:
            choosing.memory.ids += chosen.tolist()


def _prefill(
    model: Decoder, texts: list[RunningText], max_tokens: int, memory: Memory | None
) -> tuple[Tensor, Cache]:
    """The logits after each prompt, (texts, vocabulary), and the cache of the prompts.

    Raises:
        TooLargeError: there is not enough memory for the cache.
    """
    config, device = model.config, model.device
    prompts = {text.prompt: text.prompt_ids for text in texts}  # each is read once
    lengths = torch.tensor([len(ids) for ids in prompts.values()])
    longest = int(lengths.max())
    capacity = longest + max_tokens - 1  # the last token is not read
    if config.positions is not None:
        capacity = max(longest, min(capacity, config.positions))
    try:
        if memory is not None:
            return _continued(model, texts[0].prompt_ids, capacity, memory)
        cache = model.cache(len(prompts), capacity)
    except RuntimeError as error:  # torch raises nothing more specific on the CPU
        raise TooLargeError(
            f"there is no memory for {count(len(prompts), 'text')} of {capacity:,} tokens; "
            "lower max_tokens"
        ) from error
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt_ids in zip(ids, prompts.values(), strict=True):
        row[: len(prompt_ids)] = torch.tensor(prompt_ids)
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


def _continued(
    model: Decoder, ids: list[int], capacity: int, memory: Memory
) -> tuple[Tensor, Cache]:
    """As `_prefill`, of one prompt, reading only what follows the text in memory."""
    cache = memory.room_for(model, ids, capacity)
    new = ids[len(memory.ids) :]
    logits: Tensor = model(torch.tensor([new], device=model.device), cache=cache, last=True)
    memory.ids = list(ids)
    return logits, cache


def _prompt_tokens(texts: list[RunningText], vocabulary: int, device: torch.device) -> Tensor:
    """The tokens of each prompt, (texts, vocabulary) bool."""
    seen = torch.zeros(len(texts), vocabulary, dtype=torch.bool)
    for row, text in zip(seen, texts, strict=True):
        row[torch.tensor(text.prompt_ids)] = True
    return seen.to(device)
