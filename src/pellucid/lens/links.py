"""The strongest links from word to word, over all heads: what one would point at first."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.lens.head_table import HeadTable
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import Word, is_punctuation, words

__all__ = ["WordLink", "links"]

KEYS_EACH = 8
"""Each query's strongest keys, among which a telling one is looked for."""
LINKS_EACH = 2
"""Links of one head, so that no head fills the list."""
POSITIONAL = ("itself", "previous token", "next token", "first token")
"""Roles of heads whose links are told by their role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordLink:
    """A head that looks from one word to another."""

    layer: int
    head: int
    name: str
    """The module's."""
    query: str
    key: str
    """The words."""
    query_position: int
    key_position: int
    """The tokens between which the weight is."""
    weight: float
    stack: str = ""
    """As that of a `HeadRow`."""


def links(
    seen: Recording,
    table: HeadTable,
    count: int = 10,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[WordLink]:
    """The strongest weights between two words of the first item, strongest first.

    Left out is what would fill every such list: what goes to the word itself, to the first token,
    to or from punctuation and the model's own marks; and heads whose role says all, such as that
    of the previous token. Each pair of words is there once, each head at most twice.

    Args:
        seen: what was recorded, with the tokens' spelling known.
        table: what `heads` says of it.
        count: how many links.
        progress: called after each module with how many are done, and of how many.
    """
    rows = {(row.name, row.head): row for row in table}
    records = seen.latest()
    found: list[WordLink] = []
    for done, record in enumerate(records, start=1):
        told = [
            record.is_cross or rows[record.name, head].role not in POSITIONAL
            for head in range(record.shape[-3])
        ]
        sides = _of_tokens(seen, record.query_ids), _of_tokens(seen, record.key_ids)
        if sides[0] and sides[1] and any(told):
            for head, query, key, weight in _of_record(record, told, *sides):
                row = rows[record.name, head]
                found.append(
                    WordLink(
                        layer=row.layer,
                        head=head,
                        name=record.name,
                        query=sides[0][query].text,
                        key=sides[1][key].text,
                        query_position=query,
                        key_position=key,
                        weight=weight,
                        stack=row.stack,
                    )
                )
        if progress is not None:
            progress(done, len(records))
    found.sort(key=lambda link: -link.weight)
    once: dict[tuple[str, str], WordLink] = {}
    for link in found:
        once.setdefault((link.query.casefold(), link.key.casefold()), link)
    return list(once.values())[:count]


def _of_tokens(seen: Recording, ids: Tensor | None) -> list[Word]:
    """The word of each token of the first item; none where they are not known."""
    if ids is None:
        return []
    names = seen.strings(ids.reshape(-1, ids.shape[-1])[0])
    found = [Word("", ())] * len(names)
    for word in words(names):
        for position in word.positions:
            found[position] = word
    return found


def _of_record(
    record: Record, told: list[bool], queries: list[Word], keys: list[Word]
) -> list[tuple[int, int, int, float]]:
    """Head, query, key and weight of each head's strongest links."""
    with torch.no_grad():
        values, indices = record.weights.top(min(KEYS_EACH, len(keys)))
    heads, count = record.shape[-3], len(queries)
    values, indices = (x.reshape(-1, heads, count, x.shape[-1])[0] for x in (values, indices))
    device = values.device
    places = indices.clamp_min(0)
    key_tells = torch.tensor([_tells(word) for word in keys], device=device)
    key_tells[0] = False
    tells = (indices >= 0) & key_tells[places]
    tells &= torch.tensor([_tells(word) for word in queries], device=device)[:, None]
    tells &= torch.tensor(told, device=device)[:, None, None]
    if not record.is_cross:  # each word by its last token
        own = torch.tensor([word.positions[-1] for word in queries], device=device)
        tells &= torch.tensor([word.positions[-1] for word in keys], device=device)[
            places
        ] != own.unsqueeze(-1)
    strengths = values.masked_fill(~tells, 0).flatten(1)
    best = strengths.topk(min(LINKS_EACH, strengths.shape[-1]))
    found = []
    for head in range(heads):
        for weight, place in zip(
            best.values[head].tolist(), best.indices[head].tolist(), strict=True
        ):
            if weight > 0:
                query, rank = divmod(place, indices.shape[-1])
                found.append((head, query, int(indices[head, query, rank]), weight))
    return found


def _tells(word: Word) -> bool:
    return bool(word.text.strip()) and not (word.is_special or is_punctuation(word.text))
