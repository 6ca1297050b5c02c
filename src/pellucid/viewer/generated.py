"""A generation for the page: the text, its attention weights, and the alternatives of each token.

The text is generated as usual and then read once more under a watch. That gives all weights and the
probabilities of each next token, as they were up to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.lens import watch
from pellucid.lens.layer_selection import Layers
from pellucid.lens.pieces import Pieces
from pellucid.lens.recording import Recording
from pellucid.models import Decoder, EncoderDecoder
from pellucid.readers import open_checkpoint
from pellucid.readers.forward_pass import Step
from pellucid.readers.hugging_face import TheirCheckpoint
from pellucid.tasks.compiling import compilation_named
from pellucid.tasks.decoders import penalty_of
from pellucid.tasks.generated_text import Ending, Piece
from pellucid.tasks.generation import generate
from pellucid.tasks.sampling import Sampling
from pellucid.tasks.translation import search_of, translate
from pellucid.tasks.whole_numbers import LONGEST
from pellucid.viewer.catalogue import MOST_VALUES, Generation, Rerun, Volume, is_causal

ALTERNATIVES = 5
"""Of each new token."""
AT_ONCE = 2**22
"""Logits computed at once."""
TEXT = "the text"
"""What to call it in an error."""


class RecordedGeneration(NamedTuple):
    """A recorded generation."""

    seen: Recording
    prompt: int
    ids: list[int]
    logits: Callable[[slice], Tensor]
    """Of a slice of the new tokens, (tokens, vocabulary)."""
    how: str
    vocabulary: int
    inputs: dict[str, Tensor]
    """Of the pass that was recorded, (1, tokens) each."""


def recorded_generation(
    text: str, title: str, model: str | None, layers: Layers | None, new_tokens: int, step: Step
) -> Volume:
    """A greedy continuation of a text, or its translation by the model's own beam search.

    Args:
        text: what it reads.
        title: what to call it.
        model: as for `open_checkpoint`.
        layers: those to record; all if None.
        new_tokens: the most to generate.
        step: called with the progress.

    Raises:
        ArgumentError: the text is blank or too long, or the model cannot generate.
        FileError: the model cannot be opened.
        MissingExtraError: what it needs is not installed.
    """
    if not 1 <= new_tokens <= LONGEST:
        raise ArgumentError(f"--new-tokens must be from 1 to {LONGEST:,}, not {new_tokens:,}")
    step("opening the model", 0, 1)
    with compilation_named(step):
        checkpoint = open_checkpoint(model, whole=True, writes=True)
        own = checkpoint.model
        if isinstance(checkpoint, TheirCheckpoint):
            generated = _of_transformers(checkpoint, text, layers, new_tokens, step)
        elif isinstance(own, Decoder):
            generated = _continued(own, text, layers, new_tokens, step)
        elif isinstance(own, EncoderDecoder):
            generated = _translated(own, text, layers, new_tokens, step)
        else:
            raise ArgumentError(
                f"model '{model}' is an encoder and cannot generate text; --new-tokens needs a "
                "decoder or an encoder-decoder"
            )
        steps = _steps(generated)
    if not len(generated.seen):
        raise ArgumentError(f"model '{model}' made no attention call that can be recorded")
    written = Generation(generated.prompt, generated.ids, steps, generated.how)
    return Volume(generated.seen, title, written, rerun=Rerun(model, generated.inputs))


def _continued(
    model: Decoder, text: str, layers: Layers | None, new_tokens: int, step: Step
) -> RecordedGeneration:
    pieces: list[Piece] = []

    def add(piece: Piece) -> None:
        pieces.append(piece)
        step("generating", len(pieces), new_tokens)

    penalty = penalty_of(model)
    greedy = Sampling(temperature=0, repetition_penalty=penalty)
    [done] = generate(
        model,
        [text],
        max_tokens=new_tokens,
        sampling=greedy,
        names=[TEXT],
        strict=True,
        on_token=add,
    )
    ids = [*done.prompt_ids, *(piece.id for piece in pieces)]
    inputs = {"input_ids": torch.tensor([ids[:-1]], device=model.device)}
    with _watched(model, layers, len(ids), step, model.tokenizer) as seen:
        x = model.decoder(inputs["input_ids"])
    how = "Decoding was greedy: the most likely token each time."
    if penalty != 1:
        how = (
            "Decoding was greedy: the most likely token each time, with the model's repetition "
            f"penalty of {penalty:g}."
        )
    prompt = len(done.prompt_ids)
    logits = _rows(model, x, prompt)
    vocabulary = model.config.vocabulary
    how = f"{how} {_ending_reason(done.stopped, new_tokens)}"
    return RecordedGeneration(seen, prompt, ids, logits, how, vocabulary, inputs)


def _translated(
    model: EncoderDecoder, text: str, layers: Layers | None, new_tokens: int, step: Step
) -> RecordedGeneration:
    step("generating", 0, 1)
    beams, _ = search_of(model)  # as `pellucid translate` does, so that both say the same
    whole: Any = {"whole": True, "protect": "none"}  # of one pass
    [done] = translate(model, [text], max_tokens=new_tokens, names=[TEXT], strict=True, **whole)
    assert model.config.start is not None  # or it would not have translated
    ids = [model.config.start, *done.ids]
    with _watched(model, layers, len(ids), step, model.tokenizer) as seen:
        source = torch.tensor([done.source_ids], device=model.device)
        target = torch.tensor([ids[:-1]], device=model.device)
        x = model.decoder(target, memory=model.encode(source))
    seen.alignment_heads = model.alignment_heads
    for record in seen.records:
        if record.is_cross:  # a watch cannot know that the encoder's call belongs to this one
            record.key_tokens = Pieces(source, -1)
    stopped: Ending = "max_tokens" if len(done.ids) == new_tokens else "stop id"
    reason = _ending_reason(stopped, new_tokens)
    how = f"Decoding was by beam search, with {count(beams, 'beam')}. {reason}"
    logits, vocabulary = _rows(model, x, 1), model.config.vocabulary
    inputs = {"input_ids": source, "decoder_input_ids": target}
    return RecordedGeneration(seen, 1, ids, logits, how, vocabulary, inputs)


def _of_transformers(
    checkpoint: TheirCheckpoint, text: str, layers: Layers | None, new_tokens: int, step: Step
) -> RecordedGeneration:
    name, tokenizer, config = checkpoint.name, checkpoint.tokenizer, checkpoint.model.config
    read = tokenizer(text, truncation=False)["input_ids"]
    is_both = config.is_encoder_decoder
    room = new_tokens
    if checkpoint.limit is not None:
        if not is_both:
            room = min(new_tokens, checkpoint.limit - len(read) + 1)
        if not read or room < 1 or len(read) > checkpoint.limit:
            raise ArgumentError(
                f"{TEXT} has {count(len(read), 'token')}, but {name} has positions for "
                f"{checkpoint.limit:,}"
            )
    step("generating", 0, 1)
    source = torch.tensor([read])
    ids = checkpoint.write(source, room)[0].tolist()
    prompt = 1 if is_both else len(read)
    target = torch.tensor([ids[:-1]])
    with _watched(checkpoint.model, layers, len(ids), step, tokenizer) as seen:
        inputs = {"input_ids": target}
        if is_both:
            inputs = {"input_ids": source, "decoder_input_ids": target}
        output = checkpoint.run(**inputs)
    if not any(map(is_causal, seen.records)):
        raise ArgumentError(f"{name} cannot generate text: its tokens attend to later tokens")
    new = output.logits[0, prompt - 1 :]
    stopped: Ending = "stop id" if len(ids) - prompt < room else "max_tokens"
    if stopped == "max_tokens" and room < new_tokens:
        stopped = "positions"
    reason = _ending_reason(stopped, new_tokens)
    how = f"Decoding was greedy: the most likely token each time. {reason}"
    return RecordedGeneration(seen, prompt, ids, lambda rows: new[rows], how, new.shape[-1], inputs)


@contextmanager
def _watched(
    model: Any, layers: Layers | None, tokens: int, step: Step, tokenizer: Any
) -> Iterator[Recording]:
    step(f"reading {count(tokens, 'token')}", 0, 1)
    values = tokens <= MOST_VALUES
    with torch.no_grad(), watch(model, layers, values=values, tokenizer=tokenizer) as seen:
        yield seen


def _rows(model: Decoder | EncoderDecoder, x: Tensor, prompt: int) -> Callable[[slice], Tensor]:
    """Logits of some of the new tokens, computed on demand."""
    new = x[0, prompt - 1 :]
    return lambda rows: model.logits(new[rows])


@torch.no_grad()
def _steps(generated: RecordedGeneration) -> list[list[tuple[int, float]]]:
    """The most likely tokens of each step, and the generated one."""
    new = generated.ids[generated.prompt :]
    block = max(1, AT_ONCE // generated.vocabulary)
    steps: list[list[tuple[int, float]]] = []
    for start in range(0, len(new), block):
        some = new[start : start + block]
        shares = generated.logits(slice(start, start + len(some))).float().softmax(-1)
        likeliest = shares.topk(min(ALTERNATIVES, shares.shape[-1]), -1)
        for row, number in enumerate(some):
            ids, values = likeliest.indices[row].tolist(), likeliest.values[row].tolist()
            step = list(zip(ids, values, strict=True))
            steps.append(step if number in ids else [*step, (number, float(shares[row, number]))])
    return steps


def _ending_reason(stopped: Ending, new_tokens: int) -> str:
    """Why generation stopped."""
    reasons: dict[Ending, str] = {
        "stop id": "The model ended the text.",
        "max_tokens": f"Generation stopped at the limit of {count(new_tokens, 'new token')}.",
        "positions": "Generation stopped at the model's last position.",
    }
    return reasons[stopped]
