"""heads(): what each head does, in numbers, and the name of its role where that is clear."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pellucid.lens.head_patterns import Positions
from pellucid.lens.head_table import SHARES, HeadRow, HeadTable
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.real_tokens import real_given_received, with_query_positions
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording
from pellucid.lens.spelling import is_punctuation, is_special, texts

CLEAR = 0.4
"""The share of attention from which a role is clear."""
EVEN = 0.9
"""The share of the maximum entropy from which a head is broad."""
ROLES = {
    "itself": "itself",
    "previous": "previous token",
    "next": "next token",
    "duplicates": "duplicates",
    "induction": "induction",
}
"""Columns whose largest share names the role, and these names."""


def heads(
    seen: Recording | Record | Iterable[Record],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> HeadTable:
    """Measure every head of the latest call of every module.

    The measurements are averages over the real queries of all items of the batch. Padding
    (positions that the mask hides from themselves and from all others) and rows that see no key do
    not count. `previous`, `next`, `duplicates` and `induction` are averages over the queries that
    can see such a position, and NaN if none can. A position after an earlier occurrence that is the
    query itself is not induction. `punctuation` covers tokens without a letter or digit (as BERT
    defines them: Unicode punctuation, all other ASCII signs, line breaks), and `special` the tokens
    that the tokenizer calls special, such as [CLS], [SEP], </s> and <|im_end|>, whatever they look
    like; without its knowledge, those in such brackets. In cross-attention, distance, itself,
    previous, next, duplicates and induction are NaN. Without token ids, or without a tokenizer, the
    columns that need them are NaN. Shares are shares of all attention, including what learned sinks
    take.

    The role is "broad" if the entropy is at least 0.9 of its maximum. Otherwise it is the largest
    of itself, previous, next, duplicates and induction, if that is at least 0.4; then "first token"
    and then the larger of "punctuation" and "special tokens", by the same threshold. So a head that
    falls back to the first token when it finds no match is named after its match.

    Memory is O(n) per head. The cost is one pass over the weights for the statistics and one for
    punctuation and special tokens, the pairs of equal tokens for duplicates, and single weights for
    the rest.
    Placeholders for images or audio, which share one id, are not duplicates of each other.

    Sources: previous-token and induction heads (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits"; Olsson et al. 2022, "In-context Learning and Induction Heads"); the first
    token (Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks");
    duplicate-token heads (Wang et al. 2023, "Interpretability in the Wild"); special tokens,
    punctuation, next token, broad heads (Clark et al. 2019, "What Does BERT Look At?").

    Args:
        seen: a recording, a record, or several records.
        progress: called after each module with the number of modules done and the total.

    Raises:
        TypeMismatchError: seen is neither a recording nor records.
    """
    seen = as_recording(seen)
    rows: list[HeadRow] = []
    for done, module_rows in enumerate(heads_by_module(seen), start=1):
        rows += module_rows
        if progress is not None:
            progress(done, len(seen.latest()))
    return HeadTable(rows)


def heads_by_module(seen: Recording) -> Iterator[list[HeadRow]]:
    """The rows of `heads`, one module at a time."""
    records = seen.latest()
    for (stack, layer), record in zip(label_layers(records), records, strict=True):
        with torch.no_grad():
            rows = _measure(seen, record, stack, layer)
        yield rows


def _measure(seen: Recording, record: Record, stack: str, layer: int) -> list[HeadRow]:
    """The rows of one attention."""
    weights, own = with_query_positions(record)
    statistics = weights.statistics(top=1)
    received, entropy, distance, peak = (
        x.reshape(-1, *x.shape[-2:])
        for x in (
            statistics.received,
            statistics.entropy,
            statistics.mean_distance,
            statistics.peak,
        )
    )
    real_keys, real_queries = real_given_received(record, weights, own, received)
    counted = (peak > 0) & real_queries[:, None]

    def mean(values: Tensor, among: Tensor | None = None) -> list[float]:
        """The mean of (batch, heads, queries) for each head."""
        flags = counted if among is None else counted & among
        total = values.double().masked_fill(~flags, 0).sum((0, 2))
        return (total / flags.sum((0, 2))).tolist()

    positions = Positions(weights, own, real_keys)
    unknown = [math.nan] * weights.shape[-3]
    columns = dict.fromkeys(("distance", *SHARES), unknown)
    columns["entropy"] = mean(entropy)
    first = real_keys.int().argmax(-1, keepdim=True).expand_as(own)
    columns["first"] = mean(positions.weights_at(first))
    key_ids = _key_ids(record)
    flags = None if key_ids is None else _punctuation_and_special(seen, key_ids)
    if flags is not None:
        as_values = flags.to(weights.dtype).reshape(*weights.shape[:-3], 1, -1, 2)
        on_punctuation, on_special = (weights @ as_values).unbind(-1)
        columns["punctuation"] = mean(on_punctuation.reshape(entropy.shape))
        columns["special"] = mean(on_special.reshape(entropy.shape))
    if not record.is_cross:
        columns["distance"] = mean(distance)
        targets = {"itself": own, "previous": own - 1, "next": own + 1}
        if key_ids is not None:
            distinct = _with_distinct_placeholders(key_ids, seen.placeholder_ids)
            columns["duplicates"] = mean(*positions.duplicates(distinct))
            targets["induction"] = positions.after_last_occurrence(distinct)
        for name, target in targets.items():
            visible = positions.visible(target)
            if bool(visible.any()):
                columns[name] = mean(positions.weights_at(target), visible)
    maxima = mean(weights.visible().reshape(entropy.shape).double().log())
    rows = []
    for head, values in enumerate(zip(*columns.values(), strict=True)):
        numbers = dict(zip(columns, values, strict=True))
        row = HeadRow(layer=layer, head=head, name=record.name, role="", stack=stack, **numbers)
        rows.append(replace(row, role=_role(row, maxima[head])))
    return rows


def _key_ids(record: Record) -> Tensor | None:
    """(batch, keys) token ids, if they are known."""
    ids = record.key_ids
    if ids is None and not record.is_cross:
        ids = record.query_ids
    keys = record.shape[-1]
    return None if ids is None or ids.shape[-1] != keys else ids.reshape(-1, keys)


def _with_distinct_placeholders(ids: Tensor, placeholders: frozenset[int]) -> Tensor:
    """The ids, with a different negative number for each placeholder."""
    if not placeholders:
        return ids
    is_placeholder = torch.isin(ids, torch.tensor(sorted(placeholders), device=ids.device))
    position = torch.arange(ids.shape[-1], device=ids.device)
    return torch.where(is_placeholder, -1 - position, ids)


def _punctuation_and_special(seen: Recording, ids: Tensor) -> Tensor | None:
    """(batch, keys, 2) bool, which tokens are punctuation, and which special; never both.

    None without a tokenizer. Placeholders for images or audio are neither: what stands there is no
    special token.
    """
    distinct, place = ids.unique(return_inverse=True)
    numbers, tokens = distinct.tolist(), seen.strings(distinct)
    if tokens == [str(number) for number in numbers]:
        return None
    known = seen.special_ids
    flags = []
    for number, token, text in zip(numbers, tokens, texts(tokens), strict=True):
        special = number in known if known else is_special(token)
        stands_for_another = number in seen.placeholder_ids
        flags.append(
            (
                is_punctuation(text) and not special and not stands_for_another,
                special and not stands_for_another,
            )
        )
    return torch.tensor(flags, device=ids.device)[place]


def _role(row: HeadRow, max_entropy: float) -> str:
    if max_entropy > 0 and row.entropy >= EVEN * max_entropy:
        return "broad"
    shares = {role: getattr(row, name) for name, role in ROLES.items()}
    clear = {role: share for role, share in shares.items() if share >= CLEAR}
    if clear:
        return max(clear, key=lambda role: clear[role])
    if row.first >= CLEAR:
        return "first token"
    others = {"punctuation": row.punctuation, "special tokens": row.special}
    role = max(others, key=lambda role: others[role])
    return role if others[role] >= CLEAR else ""
