"""Run a model on a text and record all its attention."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pellucid.common.files import is_blank
from pellucid.common.untrusted import short_reason
from pellucid.common.wording import count, short
from pellucid.errors import ArgumentError
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import HeadTable
from pellucid.lens.layer_selection import Layers
from pellucid.lens.links import WordLink, links
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording
from pellucid.readers import Checkpoint, open_checkpoint
from pellucid.readers.outcomes import open_answering

Step = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was measured when a model read a text."""

    model: str
    tokens: int
    target_tokens: int | None
    recording: Recording
    table: HeadTable
    strongest: list[WordLink]


def look(
    text: str,
    *,
    target: str | None = None,
    model: str | None = None,
    layers: Layers | None = None,
    max_tokens: int | None = None,
    top: int = 10,
    save: Path | None = None,
    overwrite: bool = False,
    step: Step,
) -> Seen:
    """Run a model on a text, and measure every head.

    Args:
        text: the input.
        target: the input of the decoder of an encoder-decoder; None is `text`.
        model: as for `open_checkpoint`.
        layers: as for `watch`.
        max_tokens: cut longer texts to this length.
        top: how many of the strongest links to find.
        save: where to save the recording.
        overwrite: whether an existing recording may be replaced.
        step: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: the text is too long for the model, or no attention can be recorded.
        FileError: the model cannot be opened, or the recording cannot be written.
    """
    if top < 0:
        raise ArgumentError(f"--top must be 0 or more, not {top}")
    checkpoint, inputs, seen = recorded(text, target, model, layers, max_tokens, step)
    if save is not None:
        seen.save(save, overwrite=overwrite)
    table = heads(seen, progress=lambda done, all_: step("looking at heads", done, all_))
    strongest: list[WordLink] = []
    if top:
        strongest = links(
            seen, table, top, progress=lambda done, all_: step("looking for links", done, all_)
        )
    target_ids = inputs.get("decoder_input_ids")
    return Seen(
        model=checkpoint.name,
        tokens=inputs["input_ids"].shape[1],
        target_tokens=None if target_ids is None else target_ids.shape[1],
        recording=seen,
        table=table,
        strongest=strongest,
    )


def recorded(
    text: str,
    target: str | None,
    model: str | None,
    layers: Layers | None,
    max_tokens: int | None,
    step: Step,
    values_up_to: int = 0,
    answers: bool = False,
) -> tuple[Checkpoint, dict[str, torch.Tensor], Recording]:
    """Run a model on a text; arguments as for `look`.

    For a text of at most `values_up_to` tokens, the value vectors are recorded as well. With
    `answers`, the model is opened with its head, as by `open_answering`.

    Returns:
        The model, its inputs, and the recording.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ArgumentError(f"--max-tokens must be 1 or more, not {max_tokens}")
    step("opening the model", 0, 1)
    checkpoint = open_answering(model) if answers else open_checkpoint(model, whole=True)
    inputs = inputs_of(text, target, checkpoint, max_tokens)
    tokens = inputs["input_ids"].shape[1]
    step(f"reading {count(tokens, 'token')}", 0, 1)
    values = tokens <= values_up_to
    with watch(checkpoint.model, layers, values=values, tokenizer=checkpoint.tokenizer) as seen:
        checkpoint.run(**inputs)
    seen.alignment_heads = checkpoint.alignment_heads
    if not seen.records:
        unseen = short(", ".join(seen.unseen) or "nothing that looks like attention", 100)
        raise ArgumentError(
            f"model {checkpoint.name} made no attention call that can be recorded; unseen: {unseen}"
        )
    return checkpoint, inputs, seen


def inputs_of(
    text: str, target: str | None, checkpoint: Checkpoint, max_tokens: int | None
) -> dict[str, torch.Tensor]:
    """The inputs of a model, (1, tokens) each; arguments and errors as for `look`."""
    is_both = checkpoint.is_both
    if target is not None and not is_both:
        raise ArgumentError(f"--target needs an encoder-decoder, and {checkpoint.name} is not one")
    ids = _ids("text", text, checkpoint, max_tokens)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if is_both:
        if target is not None and is_blank(target):
            raise ArgumentError("--target is empty; give a text for the decoder")
        ids = _ids("target", text if target is None else target, checkpoint, max_tokens)
        start = checkpoint.starts_target
        if start is not None:  # shifted right, as in training
            ids = torch.cat([torch.tensor([[start]]), ids[:, :-1]], 1)
        inputs["decoder_input_ids"] = ids
    return inputs


def _ids(name: str, text: str, checkpoint: Checkpoint, max_tokens: int | None) -> torch.Tensor:
    """(1, tokens) ids of a text, checked against the limits of the model."""
    side = {"text_target": text} if name == "target" else {"text": text}
    if max_tokens is not None:
        marks = checkpoint.tokenizer.num_special_tokens_to_add()
        if max_tokens <= marks:
            raise ArgumentError(
                f"--max-tokens must be {marks + 1} or more for {checkpoint.name}, which adds "
                f"{count(marks, 'special token')}; got {max_tokens}"
            )
    try:
        ids = checkpoint.tokenizer(
            **side,
            verbose=False,  # its warning about the length would only precede our error
            truncation=max_tokens is not None,
            max_length=max_tokens,
        )["input_ids"]
    except Exception as error:  # tokenizers has no error class of its own
        reason = short_reason(error)
        raise ArgumentError(
            f"the tokenizer of {checkpoint.name} cannot read this: {reason}"
        ) from error
    if not ids:
        raise ArgumentError(f"the {name} has no tokens that {checkpoint.name} knows")
    size = _vocabulary_size(name, checkpoint)
    if size is not None and max(ids) >= size:
        raise ArgumentError(
            f"tokenizer and model of {checkpoint.name} do not match: the {name} has token "
            f"{max(ids):,}, but the model's vocabulary ends at {size - 1:,}"
        )
    limit = checkpoint.limit
    if limit is not None and len(ids) > limit:
        raise ArgumentError(
            f"the {name} has {len(ids):,} tokens, but {checkpoint.name} has {limit:,} positions; "
            f"--max-tokens {limit} reads the first {limit:,}"
        )
    return torch.tensor([ids])


def _vocabulary_size(name: str, checkpoint: Checkpoint) -> int | None:
    """The vocabulary size of the model or, for the target, of its decoder; None if unknown."""
    model = checkpoint.model
    try:
        part = model.get_decoder() if name == "target" else model
        return getattr(part.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):  # some models do not have these methods
        return None
