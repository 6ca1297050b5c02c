"""The strongest links from word to word over all heads."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.lens.head_table import HeadTable
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import Word, is_punctuation, words

__all__ = ["WordLink", "links"]

KEYS_PER_QUERY = 8
"""The strongest keys of each query that are candidates."""
LINKS_PER_HEAD = 2
POSITIONAL = ("itself", "previous token", "next token", "first token")
"""Roles that already say where a head looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordLink:
    """The weight that one head gives from one word to another."""

    layer: int
    head: int
    name: str
    """The name of the module."""
    query: str
    key: str
    """The words."""
    query_position: int
    key_position: int
    """The positions of the tokens."""
    weight: float
    stack: str = ""
    """As `HeadRow.stack`."""


def links(
    seen: Recording,
    table: HeadTable,
    count: int = 10,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[WordLink]:
    """The strongest weights between two words of the first item, strongest first.

    Left out are weights from a word to itself, weights on the first token, and weights to or from
    punctuation and special tokens, which would fill every list; and heads with a positional role,
    such as "previous token". Each pair of words occurs once, and each head at most twice.

    Args:
        seen: a recording with a tokenizer or a vocabulary.
        table: what `heads` returns for it.
        count: the number of links.
        progress: called after each module with the number of modules done and the total.
    """
    rows = {(row.name, row.head): row for row in table}
    records = seen.latest()
    candidates: list[WordLink] = []
    for done, record in enumerate(records, start=1):
        eligible = [
            record.is_cross or rows[record.name, head].role not in POSITIONAL
            for head in range(record.shape[-3])
        ]
        queries = _word_of_token(seen, record.query_ids)
        keys = _word_of_token(seen, record.key_ids)
        if queries and keys and any(eligible):
            for head, query, key, weight in _strongest(record, eligible, queries, keys):
                row = rows[record.name, head]
                candidates.append(
                    WordLink(
                        layer=row.layer,
                        head=head,
                        name=record.name,
                        query=queries[query].text,
                        key=keys[key].text,
                        query_position=query,
                        key_position=key,
                        weight=weight,
                        stack=row.stack,
                    )
                )
        if progress is not None:
            progress(done, len(records))
    candidates.sort(key=lambda link: -link.weight)
    unique: dict[tuple[str, str], WordLink] = {}
    for link in candidates:
        unique.setdefault((link.query.casefold(), link.key.casefold()), link)
    return list(unique.values())[:count]


def _word_of_token(seen: Recording, ids: Tensor | None) -> list[Word]:
    """The word of each token of the first item; empty if the ids are unknown."""
    if ids is None:
        return []
    tokens = seen.strings(ids.reshape(-1, ids.shape[-1])[0])
    word_of = [Word("", ())] * len(tokens)
    for word in words(tokens):
        for position in word.positions:
            word_of[position] = word
    return word_of


def _strongest(
    record: Record, eligible: list[bool], queries: list[Word], keys: list[Word]
) -> list[tuple[int, int, int, float]]:
    """Head, query, key and weight of the strongest links of each eligible head."""
    with torch.no_grad():
        values, indices = record.weights.top(min(KEYS_PER_QUERY, len(keys)))
    heads, count = record.shape[-3], len(queries)
    values, indices = (x.reshape(-1, heads, count, x.shape[-1])[0] for x in (values, indices))
    device = values.device
    positions = indices.clamp_min(0)
    key_counts = torch.tensor([_is_content(word) for word in keys], device=device)
    key_counts[0] = False
    counts = (indices >= 0) & key_counts[positions]
    counts &= torch.tensor([_is_content(word) for word in queries], device=device)[:, None]
    counts &= torch.tensor(eligible, device=device)[:, None, None]
    if not record.is_cross:  # a word is identified by its last token
        own = torch.tensor([word.positions[-1] for word in queries], device=device)
        other = torch.tensor([word.positions[-1] for word in keys], device=device)[positions]
        counts &= other != own.unsqueeze(-1)
    strengths = values.masked_fill(~counts, 0).flatten(1)
    best = strengths.topk(min(LINKS_PER_HEAD, strengths.shape[-1]))
    strongest = []
    for head in range(heads):
        for weight, place in zip(
            best.values[head].tolist(), best.indices[head].tolist(), strict=True
        ):
            if weight > 0:
                query, rank = divmod(place, indices.shape[-1])
                strongest.append((head, query, int(indices[head, query, rank]), weight))
    return strongest


def _is_content(word: Word) -> bool:
    return bool(word.text.strip()) and not (word.is_special or is_punctuation(word.text))
