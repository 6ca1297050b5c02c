"""why(): a score as an exact sum of terms, source of the query's stream x source of the key's."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens.layer_selection import select_records
from pellucid.lens.module_names import ancestors
from pellucid.lens.record import Record
from pellucid.lens.tracing.question import index_of
from pellucid.lens.tracing.residual_stream import ResidualStream
from pellucid.lens.tracing.stream_rows import stream_rows
from pellucid.lens.tracing.stream_vectors import stream_vectors
from pellucid.lens.tracing.written import Source, Start

__all__ = ["Term", "Why", "why"]

ALLOWED = 1e-5
"""How far the sum of the terms may be from the score, over |q| |k| scale if that is above 1; in
half precision, 8 roundings."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a score."""

    query: Source
    key: Source
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:+.4f}  {self.query} x {self.key}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Why:
    """A score as a sum: see `why`."""

    layer: str
    """The name of the module that attends."""
    head: int
    query: int
    key: int
    against: int | None
    """The key whose score is subtracted."""
    score: float
    """The model's scaled score, before mask, softcap and softmax; or the difference of two."""
    weight: float
    """What the softmax made of the key's."""
    terms: Tensor
    """(query sources, key sources) float64, which add up to the score, without `position_bias`."""
    query_sources: list[Source]
    key_sources: list[Source]
    position_bias: float
    """What ALiBi or relative positions add to the score, or to the difference; 0 if there are
    none."""
    allowed: float

    @property
    def missing(self) -> float:
        """The score less the sum of its terms."""
        return self.score - self.position_bias - float(self.terms.sum())

    @property
    def is_exact(self) -> bool:
        """Whether what is missing is within rounding."""
        return abs(self.missing) <= self.allowed

    def of_query(self) -> dict[Source, float]:
        """What each source of the query's stream gives, with all of the key."""
        return dict(zip(self.query_sources, self.terms.sum(1).tolist(), strict=True))

    def of_key(self) -> dict[Source, float]:
        """What each source of the key's stream gives, with all of the query."""
        return dict(zip(self.key_sources, self.terms.sum(0).tolist(), strict=True))

    def top(self, count: int = 10) -> list[Term]:
        """The largest terms, by size."""
        order = self.terms.abs().flatten().argsort(descending=True)[:count].tolist()
        columns = len(self.key_sources)
        return [
            Term(
                self.query_sources[i // columns],
                self.key_sources[i % columns],
                float(self.terms[i // columns, i % columns]),
            )
            for i in order
        ]

    def __str__(self) -> str:
        less = "" if self.against is None else f" less that of key {self.against}"
        lines = [
            f"{self.layer}, head {self.head}, query {self.query}, key {self.key}: "
            f"score{less} {self.score:.4f}, weight {self.weight:.4f}",
            *map(str, self.top()),
        ]
        if self.position_bias:
            lines.append(f"{self.position_bias:+.4f}  position bias")
        reason = "norms are frozen" if self.is_exact else "what lies between is not linear"
        lines.append(f"{self.terms.numel()} terms; missing {self.missing:.1e}, as {reason}")
        return "\n".join(lines)


@torch.enable_grad()
def why(
    stream: ResidualStream,
    layer: int | str,
    head: int,
    query: int,
    key: int,
    *,
    against: int | None = None,
    item: int = 0,
    each_head: bool = False,
) -> Why:
    """Why a head looks from a query to a key: its score, as an exact sum of terms.

        score = scale * q . k,   q = sum of q_s over the sources of the query's stream, k likewise
        term  = scale * q_s . k_t

    A source is an embedding, an earlier layer's attention or feed-forward part, or a bias. q_s is
    what the source gives to the query through everything between: norms with the scale that they
    had, W_query, norms of queries, and the rotation of its position. The norms being frozen is all
    that is assumed: the terms say what each source gave, not what the score would be without it,
    since the norms would then have another scale.

    Args:
        stream: a run of the model, of `residual_stream`.
        layer: the number of a layer, or the name of a module that attends.
        head: from 0.
        query: a position, from the end if negative.
        key: a position, likewise.
        against: another one, whose score is subtracted: why there rather than here. A softmax
            depends on differences alone.
        item: of the batch.
        each_head: each head of earlier layers, instead of the heads of a layer together.

    Raises:
        ArgumentError: the layer has several attentions, the model ran otherwise than once, or
            `against` is the key itself.
        OutOfRangeError: there is no such head, position or item.
        UnknownNameError: there is no such layer.
    """
    if not isinstance(stream, ResidualStream):
        raise TypeMismatchError(
            f"stream must be what lens.residual_stream(model) opens, not {type(stream).__name__}"
        )
    record = _record(stream, layer)
    if record.kept == "weights":
        raise ArgumentError(
            f"'{record.name}' computes its scores in code of its own, of which only weights are "
            "seen; pellucid.load opens many such models as Pellucid's own, which can be taken apart"
        )
    batch, heads, queries, keys = record.shape
    item = index_of("item", item, batch)
    head = index_of("head", head, heads)
    query, key = index_of("query", query, queries), index_of("key", key, keys)
    q = record.query[item, head]
    k = record.key[item, head * record.key.shape[1] // heads]
    scale = 1 / math.sqrt(q.shape[-1]) if record.scale is None else record.scale
    query_sources, of_query = _vectors(stream, record, q, query, item, each_head)
    key_sources, of_key = _vectors(stream, record, k, key, item, each_head)
    other = None
    if against is not None:
        other = index_of("against", against, keys)
        if other == key:
            raise ArgumentError(f"against is the key itself, {key}; name another")
        given = dict(zip(key_sources, of_key, strict=True))
        others = _vectors(stream, record, k, other, item, each_head)
        for source, vector in zip(*others, strict=True):
            given[source] = given.get(source, torch.zeros_like(vector)) - vector
        key_sources, of_key = list(given), torch.stack(list(given.values()))
    row, to = q[query].detach().double(), k.detach().double()
    towards = to[key] if other is None else to[key] - to[other]
    added = 0.0
    if record.bias is not None:
        biases = record.bias.detach().expand(*record.shape)[item, head, query]
        added = float(biases[key] if other is None else biases[key] - biases[other])
    sizes = to[key].norm() if other is None else to[key].norm() + to[other].norm()
    size = max(1.0, scale * float(row.norm() * sizes))
    return Why(
        layer=record.name,
        head=head,
        query=query,
        key=key,
        against=other,
        score=scale * float(row @ towards) + added,
        weight=float(record.weights[item, head, query, key].detach()),
        terms=(scale * of_query @ of_key.T).cpu(),
        query_sources=query_sources,
        key_sources=key_sources,
        position_bias=added,
        allowed=max(ALLOWED, 8 * torch.finfo(q.dtype).eps) * size,
    )


def _record(stream: ResidualStream, layer: int | str) -> Record:
    records = select_records(stream.seen.latest(), layer)
    if len(records) > 1:
        names = ", ".join(f"'{record.name}'" for record in records)
        raise ArgumentError(f"layer {layer!r} has several attentions; name one of {names}")
    return records[0]


def _vectors(
    stream: ResidualStream, record: Record, rows: Tensor, position: int, item: int, each_head: bool
) -> tuple[list[Source], Tensor]:
    """What each source gives to the row of one position: the sources, and (sources, dim).

    Args:
        stream: of the run.
        record: of the attention.
        rows: (tokens, dim), queries or keys of one head.
        position: of the row.
        item: of the batch.
        each_head: each head of an attention, instead of all together.
    """
    row = rows[position]
    if not row.requires_grad:
        raise ArgumentError("the model ran without gradients, so that its sums are not known")
    block = next((name for name in ancestors(record.name)[1:] if name in stream.blocks), None)
    if block is not None and not record.is_cross:
        before = stream_rows(stream, block, position, item, each_head)
        if before is not None:
            return _through_block(stream, stream.blocks[block], row, before, position, item)
    vectors = stream_vectors(stream, row, position, item, each_head)
    return list(vectors), torch.stack(list(vectors.values()))


def _through_block(
    stream: ResidualStream,
    start: Start,
    row: Tensor,
    before: dict[Source, Tensor],
    position: int,
    item: int,
) -> tuple[list[Source], Tensor]:
    """What vectors of the stream before a block give to a row in it, and biases on the way: the
    sources, and (sources, dim).
    """
    after = stream.written[start.before :]
    columns = [
        torch.autograd.grad(
            number,
            [start.x, *(written.leaf for written in after)],
            retain_graph=True,
            allow_unused=True,
        )
        for number in row.unbind()
    ]
    matrix = torch.stack([column[0][item, position].double() for column in columns])
    vectors = {source: matrix @ part for source, part in before.items()}
    for index, written in enumerate(after, start=1):
        if columns[0][index] is not None:
            amounts = [written.amounts(column[index], item).sum() for column in columns]
            vectors[written.source] = torch.stack(amounts)
    return list(vectors), torch.stack(list(vectors.values()))
