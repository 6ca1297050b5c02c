"""What each new word of a text looked at as it was written.

A token is written from what the one before it sees. So the row of that one, over all layers and
heads, is what the new token looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.lens import watch
from pellucid.lens.spelling import is_punctuation, words
from pellucid.models.stacks import Decoder
from pellucid.text.stream_decoder import Unfolding

ROWS = 128
"""Queries whose weights are made at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A word that was looked at."""

    word: int
    share: float
    """Of all attention, the mean over layers and heads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a new word looked at."""

    word: int
    sources: tuple[Source, ...]
    """The strongest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """A text in words, and what the new ones looked at."""

    pieces: tuple[str, ...]
    """The text that each token adds; nothing where a letter is not whole yet."""
    owners: tuple[int, ...]
    """Of each token, the number of its word."""
    words: tuple[str, ...]
    new: tuple[Look, ...]


def looks(model: Decoder, prompt: Sequence[int], ids: Sequence[int]) -> Looks:
    """What each new word looked at, found by one more pass over the text under a watch.

    Left out is what would fill every such list: the word just before, which each word looks at;
    the word of the first token, where heads put attention that they have no use for (Xiao et al.
    2024, "attention sinks"); punctuation and the model's own marks. Shares are of all attention,
    and so sum to less than 1.

    Args:
        model: a decoder with its tokenizer.
        prompt: ids that were read.
        ids: ids that were written, at least one.
    """
    assert model.tokenizer is not None
    tokens = [*prompt, *ids]
    weights = _weights(model, tokens, len(prompt))
    found = words([model.tokenizer.token(number) for number in tokens])
    owner = torch.empty(len(tokens), dtype=torch.int64)
    for number, word in enumerate(found):
        owner[list(word.positions)] = number
    by_word = torch.zeros(len(weights), len(found), dtype=weights.dtype)
    by_word.index_add_(1, owner[: weights.shape[1]], weights)
    tells = torch.tensor(
        [not (word.is_special or is_punctuation(word.text)) for word in found], dtype=torch.bool
    )
    tells[owner[0]] = False
    new = []
    for number, word in enumerate(found):
        rows = [place - len(prompt) for place in word.positions if place >= len(prompt)]
        if not rows or word.is_special or is_punctuation(word.text):
            continue
        shares = by_word[rows].mean(0) * tells
        shares[number] = 0
        shares[owner[word.positions[0] - 1]] = 0
        order = shares.argsort(descending=True)[: int((shares > 0).sum())].tolist()
        sources = tuple(Source(word=place, share=float(shares[place])) for place in order)
        new.append(Look(word=number, sources=sources))
    unfolding = Unfolding(model.tokenizer)
    pieces = [unfolding.add(number) for number in tokens]
    return Looks(
        pieces=(*pieces[:-1], pieces[-1] + unfolding.end()),
        owners=tuple(owner.tolist()),
        words=tuple(word.text for word in found),
        new=tuple(new),
    )


@torch.no_grad()
def _weights(model: Decoder, tokens: list[int], start: int) -> Tensor:
    """(new tokens, all but the last), what each new token was written from."""
    with watch(model) as seen:
        model(torch.tensor([tokens[:-1]], device=model.device), last=True)
    records = seen.records
    total = torch.zeros(len(tokens) - start, len(tokens) - 1)
    for record in records:
        for row in range(0, len(total), ROWS):
            block = record.weights[0, :, start - 1 + row : start - 1 + row + ROWS]
            total[row : row + ROWS] += block.mean(0).float().cpu()
    return total / len(records)
