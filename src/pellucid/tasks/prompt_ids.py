"""The ids of prompts, without a token that would end them, truncated to the model's positions."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.common.wording import count
from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.models import Decoder
from pellucid.tasks.checked_texts import checked


def ids_of_prompts(
    model: Decoder,
    prompts: Sequence[str] | Tensor,
    max_tokens: int,
    strict: bool,
    names: Sequence[str] | None,
    plain: bool,
) -> list[list[int]]:
    """The ids of each prompt, truncated to the model's positions."""
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
        ids, marks = _encoded(model, prompts, names, plain)
    limit = model.config.positions
    if limit is None:
        return ids
    too_long = [number for number, prompt_ids in enumerate(ids) if len(prompt_ids) > limit]
    if not too_long:
        return ids
    longest = max(too_long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"{names[longest]} has {len(ids[longest]):,} tokens, but the model has {limit:,} "
            "positions"
        )
    kept = limit - min(max_tokens, limit // 2)  # the rest is for the continuation
    lost = sum(len(ids[number]) - kept for number in too_long)
    warnings.warn(
        f"{count(len(too_long), 'prompt')} of {len(ids)} truncated to the last {kept:,} tokens, "
        f"since the model has {limit:,} positions: {lost:,} tokens are lost; the longest prompt "
        f"has {len(ids[longest]):,}",
        stacklevel=4,
    )
    for number in too_long:
        front = min(marks[number], kept - 1)
        ids[number] = ids[number][:front] + ids[number][front - kept :]
    return ids


def _encoded(
    model: Decoder, prompts: Sequence[str], names: Sequence[str], plain: bool
) -> tuple[list[list[int]], list[int]]:
    """The ids of texts without special tokens at the end, and the number of those at the start."""
    if model.tokenizer is None:
        raise TypeMismatchError("model has no tokenizer; load it with one, or pass ids")
    bare = model.tokenizer.encode(prompts, special=False)
    whole = bare if plain else model.tokenizer.encode(prompts)
    ids, marks = [], []
    for name, with_marks, text in zip(names, whole, bare, strict=True):
        if not text:
            raise ArgumentError(f"{name} has no tokens in the model's vocabulary")
        # A special token after the text would tell the model that it has ended.
        starts = range(len(with_marks) - len(text) + 1)
        front = next((at for at in starts if with_marks[at : at + len(text)] == text), None)
        ids.append(with_marks if front is None else with_marks[:front] + text)
        marks.append(front or 0)
    return ids, marks
