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
from pellucid.lens.tracing.written import Source, Start, at_item

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
    score: float
    """The model's scaled score, before mask, softcap and softmax."""
    weight: float
    """What the softmax made of it."""
    terms: Tensor
    """(query sources, key sources) float64, which add up to the score, without `position_bias`."""
    query_sources: list[Source]
    key_sources: list[Source]
    position_bias: float
    """What ALiBi or relative positions add to the score; 0 if there are none."""
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
        lines = [
            f"{self.layer}, head {self.head}, query {self.query}, key {self.key}: "
            f"score {self.score:.4f}, weight {self.weight:.4f}",
            *map(str, self.top()),
        ]
        if self.position_bias:
            lines.append(f"{self.position_bias:+.4f}  position bias")
        lines.append(f"{self.terms.numel()} terms; missing {self.missing:.1e}, as norms are frozen")
        return "\n".join(lines)


@torch.enable_grad()
def why(
    stream: ResidualStream,
    layer: int | str,
    head: int,
    query: int,
    key: int,
    *,
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
        item: of the batch.
        each_head: each head of earlier layers, instead of the heads of a layer together.

    Raises:
        ArgumentError: the layer has several attentions, or the model ran otherwise than once.
        OutOfRangeError: there is no such head, position or item.
        UnknownNameError: there is no such layer.
    """
    if not isinstance(stream, ResidualStream):
        raise TypeMismatchError(
            f"stream must be what lens.residual_stream(model) opens, not {type(stream).__name__}"
        )
    record = _record(stream, layer)
    batch, heads, queries, keys = record.shape
    item = index_of("item", item, batch)
    head = index_of("head", head, heads)
    query, key = index_of("query", query, queries), index_of("key", key, keys)
    q = record.query[item, head]
    k = record.key[item, head * record.key.shape[1] // heads]
    scale = 1 / math.sqrt(q.shape[-1]) if record.scale is None else record.scale
    query_sources, of_query = _vectors(stream, record, q, query, item, each_head)
    key_sources, of_key = _vectors(stream, record, k, key, item, each_head)
    bias = record.bias
    added = 0.0
    if bias is not None:
        added = float(bias.detach().expand(*record.shape)[item, head, query, key])
    score = scale * float(q[query].detach().double() @ k[key].detach().double())
    size = scale * float(q[query].detach().norm() * k[key].detach().norm())
    return Why(
        layer=record.name,
        head=head,
        query=query,
        key=key,
        score=score + added,
        weight=float(record.weights[item, head, query, key].detach()),
        terms=(scale * of_query @ of_key.T).cpu(),
        query_sources=query_sources,
        key_sources=key_sources,
        position_bias=added,
        allowed=max(ALLOWED, 8 * torch.finfo(q.dtype).eps) * max(1.0, size),
    )


def _record(stream: ResidualStream, layer: int | str) -> Record:
    found = select_records(stream.seen.latest(), layer)
    if len(found) > 1:
        names = ", ".join(f"'{record.name}'" for record in found)
        raise ArgumentError(f"layer {layer!r} has several attentions; name one of {names}")
    return found[0]


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
        at = torch.tensor([position], device=rows.device)
        before = stream_rows(stream, block, at, item, each_head)
        if before is not None:
            vectors = {source: part[0] for source, part in before.items()}
            return _through_block(stream, stream.blocks[block], row, vectors, position, item)
    columns = [stream.amounts(number, item, each_head) for number in row.unbind()]
    sources = list(columns[0])
    found = [[column[source][position] for source in sources] for column in columns]
    return sources, torch.tensor(found, dtype=torch.float64).T.to(rows.device)


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
            number, [start.x, *(one.leaf for one in after)], retain_graph=True, allow_unused=True
        )
        for number in row.unbind()
    ]
    matrix = torch.stack([column[0][item, position].double() for column in columns])
    vectors = {source: matrix @ part for source, part in before.items()}
    for place, one in enumerate(after, start=1):
        if columns[0][place] is not None:
            gradients = torch.stack(
                [at_item(x[place], item)[position].double().flatten() for x in columns]
            )
            vectors[one.source] = gradients @ one.of_item(item)[0].flatten()
    return list(vectors), torch.stack(list(vectors.values()))
