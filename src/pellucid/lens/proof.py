"""Proofs: rows that are recomputed from a record must be those of the model.

They are recomputed in float32 or better. The difference that is allowed follows from the dtype in
which the model computed (see `_allowance`).
"""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attention import intervals
from pellucid.attention.masks import Extent, Mask
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.pieces import Part, Pieces
from pellucid.lens.recomputation import (
    lengths,
    of_item,
    product,
    scores_of,
    weights_of,
)
from pellucid.lens.record import SMALLEST, Proof, Record
from pellucid.lens.score_scan import HIDDEN, ScoreScan

ROWS = 3
"""Rows that are drawn from each call whose function is known."""
TRIES = 8
"""How often rows are drawn if they see no key, or all keys with equal weights."""
NUMBERS_AT_ONCE = 2**20
"""Scores that are computed together if every row is proven."""
SCORE_ROUNDINGS = 2
"""Roundings of a score: the product, and the sum with what is added to it."""
OTHER_ROUNDINGS = 4
"""Roundings after that: the weight, the sum of weights, the context, and its storage."""
EXPONENTIAL = 2 * 20
"""Roundings of an exponential in a fused kernel, which is accurate to 20 ulp."""
SUMMATION = 16
"""Roundings of a sum in float32 or better: kernels add in vectors and blocks, so that the error
grows much more slowly than the number of terms."""
UNEVEN_ROWS = 32
"""Rows whose keys are added up together although they see different ones."""
LOST = 2**-14
"""The largest relative error of a row's weights from rounding its largest score; if it is larger,
weights that the model has computed in float32 or better are recorded themselves."""
SIGNED_SUMS = 16
"""Roundings of a sum with random signs, in units of the square root of the number of terms."""
_draw = random.Random()


class Contradiction(Exception):  # noqa: N818 - not a user's error: a module becomes unseen
    """A record is not what the model used."""


@dataclass(eq=False, kw_only=True, slots=True)
class Evidence:
    """What the model computed for some queries of a record."""

    record: Record
    value: Part | None = None
    """(batch, kv_heads, keys, value_dim), for the recorded keys."""
    context: Tensor | None = None
    """(batch, heads, queries, value_dim), or (batch, queries, model_dim) after the projection."""
    weights: Tensor | None = None
    """(batch, heads, queries, keys), if the model computed them: proof instead of a context."""
    first: int = 0
    """The first of these queries in the record."""
    projection: tuple[Tensor, Tensor | None] | None = None
    without: Tensor | None = None
    """(batch or 1, queries) bool: rows that are not compared."""
    every_row: bool = False


def prove(evidence: Evidence) -> Proof:
    """Recompute a few random rows, or every row.

    Raises:
        Contradiction: the record gives something else than the model computed.
    """
    record = evidence.record
    theirs = evidence.context if evidence.weights is None else evidence.weights
    assert theirs is not None
    batch, queries = prod(record.shape[:-3]), theirs.shape[-2]
    proof = Proof(0, batch * queries, reason="no key is seen")
    with torch.no_grad(), _without_autocast(theirs.device):
        value = None if evidence.value is None else Pieces(evidence.value).tensor
        # If the drawn rows are all padding, every row is tried until one counts.
        attempts = [(_drawn_rows, min(ROWS, queries)), (_every_row, 1)]
        for rows_of_items, enough in attempts[1:] if evidence.every_row else attempts:
            for item, rows in rows_of_items(evidence, batch, queries):
                if not rows:
                    continue
                part = _compared(evidence, theirs[item], value, item, rows)
                if not part.error <= part.allowed:
                    raise Contradiction(
                        "does more than attention as Pellucid knows it: its weights give a "
                        f"context that is off by {part.error:.1g}, where rounding allows "
                        f"{part.allowed:.1g}"
                    )
                proof = proof.joined(part)
                if proof.rows >= enough and not evidence.every_row:
                    return proof
            if proof.rows:
                break
    return proof


def random_factors(count: int) -> Tensor:
    """(count,) float64: random numbers from 1 to 2 of either sign, exact in float32."""
    bits = torch.frombuffer(bytearray(_draw.randbytes(4 * count)), dtype=torch.int32)
    size = 1 + (bits >> 8 & (2**23 - 1)).double() / 2**23
    return torch.where(bits < 0, -size, size)


def prove_scores(
    scan: ScoreScan,
    factors: Tensor,
    query: Tensor,
    key: Tensor,
    scale: float,
    inferred: InferredMask,
) -> Proof | None:
    """Prove that every row of a model's scores is scale * query @ key.T under a mask.

    Each row is added up with random factors, and compared with the sum that it should have. That
    takes one scan of the scores, and products of matrices only where the mask is uneven. A row that
    differs is found almost surely. (Freivalds 1977, "Probabilistic machines can use less running
    time".)

    Args:
        scan: a scan of the scores, which are float32 or better.
        factors: (keys,) the factors of its sums, in the dtype of the scores.
        query: (batch, heads, queries, dim)
        key: (batch, heads or 1, keys, dim)
        scale: the scale of the scores.
        inferred: the mask of the scores.

    Returns:
        The proof; None if a row differs.
    """
    batch, heads, queries, keys = scan.scores.shape
    if inferred.uniform is not None or scan.sums is None:
        return None
    query, key = (query * scale).to(factors), key.to(factors)
    longest = torch.linalg.vector_norm(key, dim=-1).amax(-1)[..., None, None]
    length = torch.linalg.vector_norm(query, dim=-1, keepdim=True) * longest
    unit = torch.finfo(factors.dtype).eps / 2
    allowed = SIGNED_SUMS * unit * keys**0.5 * (1 + length)
    query, key, factors = query.double(), key.double(), factors.double()
    seen_keys = query.new_zeros(query.shape)  # the sums of each row
    rule = inferred.mask
    if rule is not None:
        rule = rule.bind(Extent(torch.Size((batch,)), heads, queries, keys, key.device))
    items = [slice(0, batch)]
    if rule is not None and rule.batch is not None:
        items = [slice(item, item + 1) for item in range(batch)]
    for item in items:
        part = None if rule is None else rule.at(item.start) if rule.batch is not None else rule
        for rows, columns, uneven in _regions(part, slice(0, queries), ((0, keys),), keys):
            of_keys = factors[columns].unsqueeze(0)
            if uneven:
                of_keys = of_keys * scan.seen[item, :, rows, columns]
            seen_keys[item, :, rows] += of_keys @ key[item, :, columns]
    ours = (query * seen_keys).sum(-1, keepdim=True)
    proof = _proof_of(ours, scan.sums.unsqueeze(-1), allowed, batch * queries)
    return replace(proof, of=batch * queries) if proof.error <= proof.allowed else None


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _regions(
    rule: Mask | None, rows: slice, within: intervals.Intervals, keys: int
) -> Iterator[tuple[slice, slice, bool]]:
    """Rectangles, of rows and columns, that cover all that some rows see.

    The third value says whether a rectangle has hidden entries too; then it has few rows.
    """
    some = every = within
    if rule is not None:
        some, every = rule.spans(rows.start, rows.stop, keys)
    for start, stop in intervals.intersection(within, every):
        yield rows, slice(start, stop), False
    rest = intervals.intersection(some, intervals.complement(every, keys))
    rest = intervals.intersection(within, rest)
    if rest and rows.stop - rows.start > UNEVEN_ROWS:
        middle = (rows.start + rows.stop) // 2
        yield from _regions(rule, slice(rows.start, middle), rest, keys)
        yield from _regions(rule, slice(middle, rows.stop), rest, keys)
    else:
        for start, stop in rest:
            yield rows, slice(start, stop), True


def _every_row(evidence: Evidence, batch: int, queries: int) -> Iterator[tuple[int, list[int]]]:
    """Every row of every item, a block at a time."""
    heads, keys = evidence.record.shape[-3], evidence.record.shape[-1]
    step = max(1, NUMBERS_AT_ONCE // max(1, heads * keys))
    for item in range(batch):
        for start in range(0, queries, step):
            yield item, _visible_rows(evidence, item, range(start, min(start + step, queries)))


def _drawn_rows(evidence: Evidence, batch: int, queries: int) -> Iterator[tuple[int, list[int]]]:
    """A few random rows of a random item, drawn again if they are padding."""
    for _ in range(TRIES if batch and queries else 0):
        item = _draw.randrange(batch)
        rows = _draw.sample(range(queries), min(ROWS, queries))
        yield item, _visible_rows(evidence, item, rows)


def _visible_rows(evidence: Evidence, item: int, rows: "range | list[int]") -> list[int]:
    if evidence.without is None:
        return list(rows)
    blank = of_item(evidence.without, item).tolist()
    return [row for row in rows if not blank[evidence.first + row]]


def _compared(
    evidence: Evidence, theirs: Tensor, value: Tensor | None, item: int, rows: list[int]
) -> Proof:
    """Compare some rows of an item with the model's."""
    record = evidence.record
    device = theirs.device
    chosen = torch.tensor(rows, device=device)
    theirs = theirs[..., chosen, :]
    positions = (chosen + evidence.first).to(record.queries.tensor.device)
    unit, least = _unit(theirs.dtype, theirs.device), _smallest_positive(theirs.dtype)
    if record.kept == "weights":
        weights = record.queries.tensor[item][:, positions]
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        largest = torch.zeros_like(weights[..., :1])
        # They may be kept in a shorter dtype.
        unit = max(unit, _unit(record.queries.dtype, theirs.device))
    else:
        scores = scores_of(record, item, positions)
        weights = weights_of(record, scores, item, positions)
        kept = record.queries.dtype
        sizes = scores.abs()
        if record.biases or record.mask is not None:
            sizes.masked_fill_(scores <= HIDDEN, 0)
        best = scores.amax(-1, keepdim=True).nan_to_num_(neginf=0).abs_()
        largest = torch.maximum(sizes.amax(-1, keepdim=True), best)
        is_fine = evidence.weights is not None and unit <= torch.finfo(torch.float32).eps / 2
        if is_fine and unit * float(best.amax()) > LOST:
            raise Contradiction("adds numbers to its scores that leave few digits of them")
        if _unit(kept, theirs.device) > unit:  # each product is rounded, and not their sum
            unit = _unit(kept, theirs.device)
            largest = torch.maximum(largest, lengths(record, item, positions))
    theirs = theirs.to(weights)
    counted = len(rows) if evidence.every_row else _informative(weights)
    ours = torch.finfo(weights.dtype).eps / 2
    relative = _allowance(unit, ours, largest)
    if evidence.weights is not None:
        proof = _proof_of(weights, theirs, weights * relative + least, counted)
        if proof.error <= proof.allowed or record.kept == "weights":
            return proof
        relative = _allowance(unit, ours, torch.maximum(largest, lengths(record, item, positions)))
        return _proof_of(weights, theirs, weights * relative + least, counted)
    assert value is not None
    value = value[item].to(weights)
    context = product(weights, value)
    if evidence.projection is not None:
        weight, bias = (None if x is None else x.to(context) for x in evidence.projection)
        assert weight is not None
        allowed = product(weights, value.abs()) * (relative + SUMMATION * unit)
        context, allowed = (x.transpose(0, 1).flatten(1) for x in (context, allowed))
        context = nn.functional.linear(context, weight, bias)
        allowed = nn.functional.linear(allowed, weight.abs()) + context.abs() * unit
        return _proof_of(context, theirs, allowed, counted)
    proof = _proof_of(context, theirs, context.abs().amax(-1, keepdim=True) * relative, counted)
    if proof.error <= proof.allowed:
        return proof
    # The terms may be larger than their sum, in scores and in contexts.
    if record.kept != "weights":
        relative = _allowance(unit, ours, torch.maximum(largest, lengths(record, item, positions)))
    magnitude = product(weights, value.abs()).amax(-1, keepdim=True)
    lost = value.abs().sum(-2).amax() * least
    return _proof_of(context, theirs, magnitude * relative + lost, counted)


def _informative(weights: Tensor) -> int:
    """The number of rows, of (heads, rows, keys), whose weights differ, or that have one key."""
    if weights.shape[-1] == 1:
        return weights.shape[-2]
    return int((weights.amin(-1) < weights.amax(-1)).any(0).sum())


def _proof_of(ours: Tensor, theirs: Tensor, allowed: Tensor, rows: int) -> Proof:
    """The proof from the entry whose difference is the largest relative to what is allowed."""
    difference = (ours - theirs).abs_()
    if allowed.shape[-1] == 1:
        difference = difference.amax(-1, keepdim=True)
    excess = difference / (allowed + SMALLEST)
    worst = excess.argmax()
    error = float(difference.flatten()[worst])
    if error != error:  # a row that sees no key is 0 or NaN, depending on the kernel
        if bool(ours.isnan().any()) or bool(theirs.isinf().any()):
            ours, theirs = (
                x.nan_to_num(posinf=torch.inf, neginf=-torch.inf) for x in (ours, theirs)
            )
            same = ours == theirs
            ours, theirs = ours.masked_fill(same, 0), theirs.masked_fill(same, 0)
        return _proof_of(ours, theirs.nan_to_num(), allowed.nan_to_num(), rows)
    return Proof(rows, 0, error, float((allowed + SMALLEST).expand_as(excess).flatten()[worst]))


def _allowance(unit: float, ours: float, largest: Tensor) -> Tensor:
    """The error of a context from rounding, relative to sum_j w_ij |v_j|.

    A rounded score is off by up to `unit` times its size; so is its weight, and so is the sum of
    all weights. Each later operation is rounded once.

    Args:
        unit: the unit roundoff of the dtype in which the model computes.
        ours: the unit roundoff of sums, which are float32 or better.
        largest: the largest score of each row.
    """
    rounded = 2 * SCORE_ROUNDINGS * unit if unit > ours else 0.0
    # Exponentials enter each weight and their sum, in the model and in the record.
    of_scores = (rounded + SUMMATION * ours) * (1 + largest) + 4 * EXPONENTIAL * ours
    return torch.expm1(of_scores) + OTHER_ROUNDINGS * unit


def _unit(dtype: torch.dtype, device: torch.device) -> float:
    """The unit roundoff of products in a dtype, with the precision that is set."""
    if dtype == torch.float32:
        precision = torch.get_float32_matmul_precision()
        if precision != "highest":  # bfloat16 on CPUs, TF32 on accelerators
            return float(2**-9 if precision == "medium" or device.type == "cpu" else 2**-11)
    return torch.finfo(dtype).eps / 2


def _smallest_positive(dtype: torch.dtype) -> float:
    """The smallest positive number of a dtype, below which weights are lost."""
    info = torch.finfo(dtype)
    return float(info.smallest_normal * info.eps)
