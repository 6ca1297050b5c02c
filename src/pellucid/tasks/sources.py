"""The words that each generated word attended to.

A token is predicted at the position of the token before it, so the attention row of that position,
averaged over all layers and heads, is what the new token attended to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.lens import watch
from pellucid.lens.spelling import is_punctuation, words
from pellucid.models.architectures import Decoder
from pellucid.text.stream_decoder import Unfolding

ROWS = 128
"""Queries whose weights are computed at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A word that was attended to."""

    word: int
    share: float
    """Its share of the attention, averaged over layers and heads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The words that a generated word attended to."""

    word: int
    sources: tuple[Source, ...]
    """The strongest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """A text in words, and what its generated words attended to."""

    pieces: tuple[str, ...]
    """The text that each token adds; "" while a character is incomplete."""
    owners: tuple[int, ...]
    """The number of each token's word."""
    words: tuple[str, ...]
    new: tuple[Look, ...]
    """One per generated word."""


def looks(model: Decoder, prompt: Sequence[int], ids: Sequence[int]) -> Looks:
    """What each generated word attended to, from one more pass over the text under a watch.

    Words that would be in every list are left out: the word just before; the word of the first
    token, an attention sink (Xiao et al. 2024); punctuation and special tokens. Shares are of all
    attention, so they sum to less than 1.

    Args:
        model: a decoder with its tokenizer.
        prompt: the ids that were read.
        ids: the ids that were generated, at least one.
    """
    assert model.tokenizer is not None
    tokens = [*prompt, *ids]
    weights = _weights(model, tokens, len(prompt))
    all_words = words([model.tokenizer.token(token) for token in tokens])
    owner = torch.empty(len(tokens), dtype=torch.int64)
    for number, word in enumerate(all_words):
        owner[list(word.positions)] = number
    by_word = torch.zeros(len(weights), len(all_words), dtype=weights.dtype)
    by_word.index_add_(1, owner[: weights.shape[1]], weights)
    is_content = torch.tensor(
        [not (word.is_special or is_punctuation(word.text)) for word in all_words]
    )
    is_source = is_content.clone()
    is_source[owner[0]] = False
    new = []
    for number, word in enumerate(all_words):
        rows = [place - len(prompt) for place in word.positions if place >= len(prompt)]
        if not rows or not is_content[number]:
            continue
        shares = by_word[rows].mean(0) * is_source
        shares[number] = 0
        shares[owner[word.positions[0] - 1]] = 0
        order = shares.argsort(descending=True)[: int((shares > 0).sum())].tolist()
        sources = tuple(Source(word=place, share=float(shares[place])) for place in order)
        new.append(Look(word=number, sources=sources))
    decoder = Unfolding(model.tokenizer)
    pieces = [decoder.add(token) for token in tokens]
    return Looks(
        pieces=(*pieces[:-1], pieces[-1] + decoder.end()),
        owners=tuple(owner.tolist()),
        words=tuple(word.text for word in all_words),
        new=tuple(new),
    )


@torch.no_grad()
def _weights(model: Decoder, tokens: list[int], start: int) -> Tensor:
    """The mean attention row that predicted each new token, (new tokens, tokens but the last)."""
    with watch(model) as recording:
        model(torch.tensor([tokens[:-1]], device=model.device), last=True)
    total = torch.zeros(len(tokens) - start, len(tokens) - 1)
    for record in recording.records:
        for row in range(0, len(total), ROWS):
            block = record.weights[0, :, start - 1 + row : start - 1 + row + ROWS]
            total[row : row + ROWS] += block.mean(0).float().cpu()
    return total / len(recording.records)
