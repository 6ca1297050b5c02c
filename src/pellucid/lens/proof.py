"""A recorder that proves itself: what was recorded must give what the model got.

Rows of every call are computed again from the record, in float32 or better. How far they may be
from what the model got follows from the dtype that the model computed in (see `_allowance`).
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from pellucid.attention import intervals
from pellucid.attention.masks import Extent, Mask, Spans
from pellucid.lens.recognise import HIDDEN, Recognised
from pellucid.lens.record import SMALLEST, Part, Pieces, Proof, Record

__all__ = ["Contradiction", "Evidence", "prove", "prove_scores"]

ROWS = 3
"""Rows that are drawn of each call whose function is known."""
TRIES = 8
"""How often rows are drawn again where they show no key, or all keys alike."""
NUMBERS_AT_ONCE = 2**20
"""Scores that are computed together where every row is proven."""
SCORE_ROUNDINGS = 2
"""Roundings of a score, each of its own size: the product, and what is added to it."""
OTHER_ROUNDINGS = 4
"""Roundings after that: the weight, its sum, the context, and what that is stored in."""
EXPONENTIAL = 2 * 20
"""Roundings of an exponential in a fused kernel: it is good to 20 units in the last place."""
SUMMATION = 16
"""Roundings of a sum in float32 or better: kernels add up in vectors and blocks, so that they grow
much more slowly than the number of terms."""
ROWS_SIGNED, COLUMNS_SIGNED = 128, 512
"""Rows that are added up together, and how many of their scores in float32."""
LOST = 2**-14
"""What the rounding of the best score of a row may do to its weights; where that is more, weights
that the model has made in float32 or better are kept as they are."""
SIGNED_SUMS = 16
"""Roundings of a sum with random signs, in units of the square root of how many it adds up."""
_draw = random.Random()


class Contradiction(Exception):  # noqa: N818 - no error of the user's: a module becomes unseen
    """What was recorded is not what the model used."""


@dataclass(eq=False, kw_only=True, slots=True)
class Evidence:
    """What the model got for some queries of a record."""

    record: Record
    value: Part | None = None
    """(batch, kv_heads, keys, value_dim), of the keys that were recorded."""
    context: Tensor | None = None
    """(batch, heads, queries, value_dim), or (batch, queries, model_dim) after the projection."""
    weights: Tensor | None = None
    """(batch, heads, queries, keys), where the model has made them: proof in place of a context."""
    first: int = 0
    """Which query of the record comes first here."""
    projection: tuple[Tensor, Tensor | None] | None = None
    without: Tensor | None = None
    """(batch or 1, queries) bool: rows that are left out."""
    every_row: bool = False


def prove(evidence: Evidence) -> Proof:
    """Compute a few rows again, other ones each time, or every row.

    Raises:
        Contradiction: the record gives something else than the model got.
    """
    record = evidence.record
    theirs = evidence.context if evidence.weights is None else evidence.weights
    assert theirs is not None
    batch, queries = prod(record.shape[:-3]), theirs.shape[-2]
    proof = Proof(0, batch * queries, reason="no key is seen")
    with torch.no_grad(), torch.autocast(theirs.device.type, enabled=False):
        value = None if evidence.value is None else Pieces(evidence.value).tensor
        for item, rows in _places(evidence, batch, queries):
            if rows:
                found = _compared(evidence, theirs[item], value, item, rows)
                if not found.error <= found.allowed:
                    raise Contradiction(
                        "does more than attention as Pellucid knows it: its weights give a "
                        f"context that is off by {found.error:.1g}, where rounding allows "
                        f"{found.allowed:.1g}"
                    )
                proof = proof.joined(found)
                if proof.rows >= min(ROWS, queries) and not evidence.every_row:
                    break
    return proof


def prove_scores(
    scores: Tensor, query: Tensor, key: Tensor, scale: float, read: Recognised
) -> Proof | None:
    """Whether every row of scores that a model has made is scale * query @ key.T under a mask.

    Each row is added up with random factors, from 1 to 2 and of either sign, and so is what it
    should be: that takes one look at the scores, and no product of matrices but where the mask is
    uneven. A row that differs shows, but by a rare chance. (Freivalds 1977, "Probabilistic machines
    can use less running time".)

    Args:
        scores: (batch, heads, queries, keys), float32 or better: a shorter dtype tells too little.
        query: (batch, heads, queries, dim)
        key: (batch, heads or 1, keys, dim)
        scale: of the products.
        read: the mask of the scores, which hides what it hides in all of them.

    Returns:
        None where a row is something else.
    """
    batch, heads, queries, keys = scores.shape
    if read.uniform is not None:
        return None
    drawn = torch.tensor([_draw.uniform(1, 2) * _draw.choice((-1, 1)) for _ in range(keys)])
    signs = drawn.unsqueeze(-1).to(scores)
    query, key = (query * scale).to(scores), key.to(scores)
    before = nn.functional.pad((key * signs).double().cumsum(-2), (0, 0, 1, 0))
    longest = torch.linalg.vector_norm(key, dim=-1).amax(-1)[..., None, None]
    length = torch.linalg.vector_norm(query, dim=-1, keepdim=True) * longest
    unit = torch.finfo(scores.dtype).eps / 2
    allowed = SIGNED_SUMS * unit * keys**0.5 * (1 + length)
    rule = read.mask
    if rule is not None:
        rule = rule.bind(Extent(torch.Size((batch,)), heads, queries, keys, scores.device))
    items = [slice(0, batch)]
    if rule is not None and rule.batch is not None:
        items = [slice(item, item + 1) for item in range(batch)]
    proof = Proof(0, batch * queries)
    for item in items:
        part = None if rule is None else rule.at(item.start) if rule.batch is not None else rule
        for rows in _alike(part, queries, keys):
            off = _signed(scores[item], query[item], key[item], before[item], signs, part, rows)
            found = _judged(off, torch.zeros_like(off), allowed[item, :, rows], 0)
            if not found.error <= found.allowed:
                return None
            done = (item.stop - item.start) * (rows.stop - rows.start)
            proof = proof.joined(replace(found, rows=done))
    return proof


def _alike(rule: Mask | None, queries: int, keys: int) -> Iterator[slice]:
    """Rows to be added up together: all of them where they see the same keys."""
    spans = None if rule is None else rule.spans(0, queries, keys)
    step = queries if spans is None or spans.some == spans.every else ROWS_SIGNED
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _sums(scores: Tensor, factors: Tensor) -> Tensor:
    """(items, heads, rows, 1), of (items, heads, rows, columns) that is a part of a whole."""
    *outer, columns = scores.shape
    if scores.stride(1) == scores.shape[2] * scores.stride(2) or scores.shape[1] == 1:
        with suppress(RuntimeError):  # rows that lie behind each other are one matrix
            return (scores.view(-1, columns) @ factors).view(*outer, 1)
    each = [head @ factors for head in scores.flatten(0, 1)]
    return torch.stack(each).view(*outer, 1)


def _signed(
    scores: Tensor,
    query: Tensor,
    key: Tensor,
    before: Tensor,
    signs: Tensor,
    rule: Mask | None,
    rows: slice,
) -> Tensor:
    """(items, heads, rows, 1): sums of the differences of some rows, with signs.

    Args:
        scores, query, key: as those of `prove_scores`, of some items.
        before: (items, heads or 1, keys + 1, dim) sums of the keys before each, with signs.
        signs: (keys, 1)
        rule: the mask of these items.
        rows: which rows.
    """
    keys = key.shape[-2]
    spans = Spans(((0, keys),), ((0, keys),))
    if rule is not None:
        spans = rule.spans(rows.start, rows.stop, keys)
    some, theirs = query[:, :, rows], scores[:, :, rows]
    off = torch.zeros_like(theirs[..., :1], dtype=torch.float64)
    for start, stop in spans.every:
        off += some.double() @ (before[:, :, stop] - before[:, :, start]).unsqueeze(-1)
        for first in range(start, stop, COLUMNS_SIGNED):
            columns = slice(first, min(first + COLUMNS_SIGNED, stop))
            off -= _sums(theirs[..., columns], signs[columns, 0])
    for start, stop in intervals.intersection(spans.some, intervals.complement(spans.every, keys)):
        columns = slice(start, stop)
        assert rule is not None
        shown = rule.tile(slice(0, query.shape[1]), rows, columns, scores.device)
        apart = some @ key[:, :, columns].mT - theirs[..., columns]
        off += apart.masked_fill(~shown, 0) @ signs[columns]
    return off


def _places(evidence: Evidence, batch: int, queries: int) -> Iterator[tuple[int, list[int]]]:
    """Items of the batch, and rows of each."""
    if evidence.every_row:
        heads, keys = evidence.record.shape[-3], evidence.record.shape[-1]
        step = max(1, NUMBERS_AT_ONCE // max(1, heads * keys))
        for item in range(batch):
            for start in range(0, queries, step):
                yield item, _shown(evidence, item, range(start, min(start + step, queries)))
    elif batch and queries:
        for _ in range(TRIES):  # rows of padding tell nothing: others are drawn for them
            item = _draw.randrange(batch)
            rows = _draw.sample(range(queries), min(ROWS, queries))
            yield item, _shown(evidence, item, rows)


def _shown(evidence: Evidence, item: int, rows: "range | list[int]") -> list[int]:
    if evidence.without is None:
        return list(rows)
    blank = _of_item(evidence.without, item).tolist()
    return [row for row in rows if not blank[evidence.first + row]]


def _compared(
    evidence: Evidence, theirs: Tensor, value: Tensor | None, item: int, rows: list[int]
) -> Proof:
    """Some rows of an item, theirs and ours."""
    record = evidence.record
    places = [evidence.first + row for row in rows]
    unit, least = _unit(theirs.dtype, theirs.device), _least(theirs.dtype)
    if record.kept == "weights":
        weights = record.queries.tensor[item][:, places]
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        largest = torch.zeros_like(weights[..., :1])
    else:
        scores = _scores(record, item, places)
        weights = _weights(record, scores, item, places)
        kept = record.queries.dtype
        best = scores.amax(-1, keepdim=True).nan_to_num_(neginf=0).abs_()
        largest = scores.abs().masked_fill_(scores <= HIDDEN, 0).amax(-1, keepdim=True)
        largest = torch.maximum(largest, best)
        is_fine = evidence.weights is not None and unit <= torch.finfo(torch.float32).eps / 2
        if is_fine and unit * float(best.amax()) > LOST:
            raise Contradiction("adds numbers to its scores that leave few digits of them")
        if _unit(kept, theirs.device) > unit:  # shortened: each product is off, not their sum
            unit = _unit(kept, theirs.device)
            largest = torch.maximum(largest, _length(record, item, places))
    theirs = theirs[..., rows, :].to(weights)
    told = len(rows) if evidence.every_row else _telling(weights)
    ours = torch.finfo(weights.dtype).eps / 2
    relative = _allowance(unit, ours, largest)
    if evidence.weights is not None:
        found = _judged(weights, theirs, weights * relative + least, told)
        if found.error <= found.allowed or record.kept == "weights":
            return found
        relative = _allowance(unit, ours, torch.maximum(largest, _length(record, item, places)))
        return _judged(weights, theirs, weights * relative + least, told)
    assert value is not None
    value = value[item].to(weights)
    context = _product(weights, value)
    if evidence.projection is not None:
        weight, bias = (None if x is None else x.to(context) for x in evidence.projection)
        assert weight is not None
        allowed = _product(weights, value.abs()) * (relative + SUMMATION * unit)
        context, allowed = (x.transpose(0, 1).flatten(1) for x in (context, allowed))
        context = nn.functional.linear(context, weight, bias)
        allowed = nn.functional.linear(allowed, weight.abs()) + context.abs() * unit
        return _judged(context, theirs, allowed, told)
    found = _judged(context, theirs, context.abs().amax(-1, keepdim=True) * relative, told)
    if found.error <= found.allowed:
        return found
    # What is added up may be larger than the sum, in scores and contexts.
    if record.kept != "weights":
        relative = _allowance(unit, ours, torch.maximum(largest, _length(record, item, places)))
    magnitude = _product(weights, value.abs()).amax(-1, keepdim=True)
    lost = value.abs().sum(-2).amax() * least
    return _judged(context, theirs, magnitude * relative + lost, told)


def _telling(weights: Tensor) -> int:
    """How many rows, (heads, rows, keys), show a key more than another, or have but one."""
    if weights.shape[-1] == 1:
        return weights.shape[-2]
    low, high = weights.aminmax(dim=-1)
    return int((low < high).any(0).sum())


def _judged(ours: Tensor, theirs: Tensor, allowed: Tensor, rows: int) -> Proof:
    """The place where the difference is largest over what is allowed there."""
    difference = (ours - theirs).abs_()
    excess = difference / (allowed + SMALLEST)
    worst = excess.argmax()
    error = float(difference.flatten()[worst])
    if error != error:  # what a row is that sees nothing, zero or NaN, is the kernel's own
        if bool(ours.isnan().any()) or bool(theirs.isinf().any()):
            ours, theirs = (
                x.nan_to_num(posinf=torch.inf, neginf=-torch.inf) for x in (ours, theirs)
            )
            same = ours == theirs
            ours, theirs = ours.masked_fill(same, 0), theirs.masked_fill(same, 0)
        return _judged(ours, theirs.nan_to_num(), allowed.nan_to_num(), rows)
    return Proof(rows, 0, error, float((allowed + SMALLEST).expand_as(excess).flatten()[worst]))


def _allowance(unit: float, ours: float, largest: Tensor) -> Tensor:
    """What rounding may do to a context, relative to sum_j w_ij |v_j|.

    A score that is rounded is off by up to `unit` times its size; its weight by as much, and the
    sum of all weights as well. What comes after is rounded once each.

    Args:
        unit: unit roundoff of what the model computes in.
        ours: unit roundoff of sums, which are float32 or better.
        largest: the largest score of each row.
    """
    rounded = 2 * SCORE_ROUNDINGS * unit if unit > ours else 0.0
    # Exponentials go into each weight and into their sum, the model's and, by it, the record's.
    of_scores = (rounded + SUMMATION * ours) * (1 + largest) + 4 * EXPONENTIAL * ours
    return torch.expm1(of_scores) + OTHER_ROUNDINGS * unit


def _unit(dtype: torch.dtype, device: torch.device) -> float:
    """Unit roundoff of products in a dtype, as the machine is set to make them."""
    if dtype == torch.float32:
        precision = torch.get_float32_matmul_precision()
        if precision != "highest":  # bfloat16 on CPUs, TF32 on accelerators
            return float(2**-9 if precision == "medium" or device.type == "cpu" else 2**-11)
    return torch.finfo(dtype).eps / 2


def _least(dtype: torch.dtype) -> float:
    """The smallest number above zero of a dtype, below which weights are lost."""
    info = torch.finfo(dtype)
    return float(info.smallest_normal * info.eps)


def _length(record: Record, item: int, rows: list[int]) -> Tensor:
    """(heads, rows, 1): the scores that query and key could have, scale * |q| * max |k|."""
    query, key = record.queries.tensor[item][:, rows].float(), record.keys.tensor[item].float()
    longest = torch.linalg.vector_norm(key, dim=-1).amax(-1)
    longest = longest.repeat_interleave(len(query) // len(key))[:, None, None]
    length: Tensor = torch.linalg.vector_norm(query, dim=-1, keepdim=True) * longest
    return length * _scale(record)


def _scale(record: Record) -> float:
    scale = record.scale
    return float(record.queries.tensor.shape[-1] ** -0.5) if scale is None else scale


def _scores(record: Record, item: int, rows: list[int]) -> Tensor:
    """(heads, rows, keys) in float32 or better, -inf where hidden."""
    query, key = record.queries.tensor[item][:, rows], record.keys.tensor[item]
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    heads, count, dim = query.shape
    # Heads that share a key become more rows of one product.
    query = query.to(key).reshape(len(key), -1, dim)
    scores = ((query * _scale(record)) @ key.mT).view(heads, count, -1)
    if record.softcap is not None:
        scores = record.softcap * torch.tanh(scores / record.softcap)
    bias = record.bias
    if bias is not None:
        scores = scores + bias.expand(record.shape)[item][:, rows]
    uniform = record.visibility.uniform_rows(record.shape[-2])
    if uniform is not None:
        scores = scores.masked_fill(_of_item(uniform, item)[rows].unsqueeze(-1), 0)
    mask = record.mask
    if mask is not None:
        scores = scores.masked_fill(~_seen(mask, record, item, rows), -torch.inf)
    return scores


def _weights(record: Record, scores: Tensor, item: int, rows: list[int]) -> Tensor:
    if record.logsumexps is not None:
        logsumexp = record.logsumexps.tensor[item][:, rows].to(scores)
        return torch.exp(scores - logsumexp.unsqueeze(-1))
    if record.sinks is None:
        return scores.softmax(-1)
    sinks = record.sinks[:, None, None].to(scores).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


def _product(weights: Tensor, value: Tensor) -> Tensor:
    """(heads, rows, value_dim), of (heads, rows, keys) and (kv_heads, keys, value_dim)."""
    grouped = weights.reshape(len(value), -1, weights.shape[-1]) @ value
    return grouped.view(*weights.shape[:-1], -1)


def _seen(mask: Mask, record: Record, item: int, rows: list[int]) -> Tensor:
    """(heads or 1, rows, keys) bool."""
    batch, heads, queries, keys = record.shape
    device = record.keys.tensor.device
    bound = mask.bind(Extent(torch.Size((batch,)), heads, queries, keys, device))
    head, col = (torch.arange(size, device=device) for size in (heads, keys))
    row = torch.tensor(rows, device=device)
    number = torch.tensor(item, device=device)
    seen = bound.sees(number, head[:, None, None], row.unsqueeze(-1), col)
    return seen if seen.ndim > 1 else seen.unsqueeze(0)


def _of_item(flags: Tensor, item: int) -> Tensor:
    """(queries,) bool, of flags that are (batch or 1, queries)."""
    return flags[item if len(flags) > 1 else 0]
