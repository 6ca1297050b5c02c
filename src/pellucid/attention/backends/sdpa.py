"""Attention by PyTorch's fused kernels, which keep the logsumexp that the public function drops.

A mask is covered with pieces: rectangles that one kernel call can do, whole, causal, or with a
small tile of the mask. What no query of a range sees is not touched. Pieces that share rows are
merged by their logsumexp (Dao 2023, "FlashAttention-2", section 3.1); since the backward kernels
take the merged context and logsumexp, their gradients simply add up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.attention import intervals
from pellucid.attention.backends import kernels
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.masks import Band, Mask
from pellucid.attention.scores import Scores

BAND_ROWS = 128
"""Rows of a piece whose mask is neither whole nor causal: a window pays for its rows too."""
MOST_SPANS = 4
"""Separate ranges of keys that get a kernel call each; more are gathered into one."""
LEAST_ROWS = 16
"""Documents shorter than this on average are not worth a kernel call each."""


def refuse(scores: Scores, value: Tensor, dropout: float) -> str | None:
    if not scores.energy.is_dot_product:
        return f"no fused kernel knows the energy {type(scores.energy).__name__}"
    if scores.softcap is not None:
        return "no fused kernel in PyTorch has a softcap"
    if dropout:
        return "dropout inside the fused kernels hides which weights were dropped"
    if scores.bias is not None and scores.bias.requires_grad and torch.is_grad_enabled():
        return "the fused kernels give no gradient for bias"
    return kernels.refuse(scores.query, value)


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of the matrix that one kernel call can do."""

    items: slice
    rows: slice
    cols: slice
    causal: bool = False
    """Query i sees key j iff j <= i, counted from the rectangle's corner."""
    mask: Mask | None = None
    """The mask of one item, counted from the rectangle's corner."""
    only: Tensor | None = None
    """Those of the columns, counted from the corner, that any row sees; None = all."""

    def covers(self, scores: Scores) -> bool:
        """Whether it is the whole matrix, and nothing need be cut out."""
        batch, _, queries, keys = scores.shape
        whole = (self.items.stop, self.rows.stop, self.cols.stop) == (batch, queries, keys)
        starts = self.items.start + self.rows.start + self.cols.start
        return whole and starts == 0 and self.only is None

    @property
    def keys(self) -> tuple[slice | Tensor, ...]:
        """Where the piece's keys are in a (batch, heads, keys, ...) tensor."""
        cols = self.cols if self.only is None else self.only + self.cols.start
        return (self.items, slice(None), cols)

    @property
    def queries(self) -> tuple[slice, ...]:
        """Where the piece's queries are in a (batch, heads, queries, ...) tensor."""
        return (self.items, slice(None), self.rows)


def pieces(scores: Scores) -> list[Piece]:
    """Cover all that is visible, and as little else as whole kernel calls allow."""
    batch, _, queries, keys = scores.shape
    mask, everything = scores.mask, slice(0, batch)
    if batch == 0:
        return []
    if mask is None:
        return [Piece(everything, slice(0, queries), slice(0, keys))]
    if _is_causal(mask) and mask.offset == 0 and scores.bias is None:  # most calls there are
        return [Piece(everything, slice(0, queries), slice(0, min(queries, keys)), causal=True)]
    parts = (
        [(everything, mask)]
        if mask.batch is None
        else [(slice(item, item + 1), mask.at(item)) for item in range(batch)]
    )
    biased = scores.bias is not None
    return [
        piece
        for items, part in parts
        for start, stop in pairwise(_cuts(part, queries))
        for piece in _cover(part, items, start, stop, keys, biased)
    ]


def _cuts(mask: Mask, queries: int) -> list[int]:
    cuts = sorted({0, queries, *mask.breaks()})
    return cuts if len(cuts) < 3 + queries // LEAST_ROWS else [0, queries]


def _cover(
    mask: Mask, items: slice, start: int, stop: int, keys: int, biased: bool
) -> Iterator[Piece]:
    some = mask.spans(start, stop, keys).some
    rows = slice(start, stop)
    inner = [mask.restrict(rows, slice(*span), keys) for span in some]
    # With a bias, whether a row sees anything must be read off the sum of bias and mask.
    easy = len(some) == 1 and (inner[0] is None or (_is_causal(inner[0]) and not biased))
    if not easy and stop - start > BAND_ROWS:
        for at in range(start, stop, BAND_ROWS):
            yield from _cover(mask, items, at, min(at + BAND_ROWS, stop), keys, biased)
        return
    if len(some) > MOST_SPANS:
        hull = slice(some[0][0], some[-1][1])
        only = intervals.positions(some, torch.device("cpu")) - hull.start
        yield Piece(items, rows, hull, mask=mask.restrict(rows, hull, keys), only=only)
        return
    for (low, high), part in zip(some, inner, strict=True):
        if part is not None and _is_causal(part) and not biased:
            yield from _causal(part, items, rows, slice(low, high))
        else:
            yield Piece(items, rows, slice(low, high), mask=part)


def _is_causal(mask: Mask | None) -> bool:
    return isinstance(mask, Band) and mask.left is None and mask.right == 0


def _causal(band: Mask, items: slice, rows: slice, cols: slice) -> Iterator[Piece]:
    """A causal rectangle: what all rows see, and the triangle that is left."""
    offset = int(band.offset or 0)
    if offset >= 0:
        # Row 0 sees columns 0 to offset: those before `offset` are seen by all.
        yield from [Piece(items, rows, slice(cols.start, cols.start + offset))] if offset else []
        yield Piece(items, rows, slice(cols.start + offset, cols.stop), causal=True)
    else:
        yield Piece(items, slice(rows.start - offset, rows.stop), cols, causal=True)


def forward(scores: Scores, value: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    query, key = scores.query, scores.key
    if value.shape[1] != key.shape[1]:  # `weights @ x` with an x for each query head
        key = key.repeat_interleave(scores.group, 1)
    if torch.is_grad_enabled() and (
        query.requires_grad or key.requires_grad or value.requires_grad
    ):
        return _Fused.apply(query, key, value, scores)  # type: ignore[no-any-return, no-untyped-call]
    return _run(query, key, value, scores, pieces(scores))


def _run(
    query: Tensor, key: Tensor, value: Tensor, scores: Scores, plan: list[Piece]
) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _ = scores.shape
    whole = (slice(0, batch), slice(0, queries))
    if len(plan) == 1 and (plan[0].items, plan[0].rows) == whole:
        return _run_piece(query, key, value, scores, plan[0])
    context = value.new_zeros(batch, heads, queries, value.shape[-1])
    logsumexp = value.new_full((batch, heads, queries), -torch.inf, dtype=scores.dtype)
    done = set()
    for piece in plan:
        place = piece.queries
        part, part_lse = _run_piece(query, key, value, scores, piece)
        if (rows := (piece.items.start, piece.rows.start)) in done:
            total = torch.logaddexp(logsumexp[place], part_lse)
            before, after = (
                torch.exp(lse - finite(total)).unsqueeze(-1) for lse in (logsumexp[place], part_lse)
            )
            part, part_lse = (context[place] * before + part * after).to(value.dtype), total
        context[place], logsumexp[place] = part, part_lse
        done.add(rows)
    return context, logsumexp


def _run_piece(
    query: Tensor, key: Tensor, value: Tensor, scores: Scores, piece: Piece
) -> tuple[Tensor, Tensor]:
    bias = _bias(scores, piece)
    if not piece.covers(scores):
        query, key, value = query[piece.queries], key[piece.keys], value[piece.keys]
    context, logsumexp = kernels.forward(query, key, value, piece.causal, bias, scores.scale)
    if bias is not None:  # what the kernels make of a row that sees nothing differs
        hidden = bias.amax(-1) == -torch.inf
        context = context.masked_fill(hidden.unsqueeze(-1), 0)
        logsumexp = logsumexp.masked_fill(hidden, -torch.inf)
    return context, logsumexp


def _bias(scores: Scores, piece: Piece) -> Tensor | None:
    """What the kernel adds to the scores: the bias, and -inf where the mask hides a key."""
    bias = None
    if scores.bias is not None:
        bias = scores.bias[piece.queries][..., piece.keys[-1]].to(scores.query.dtype)
    if piece.mask is not None:
        heads, rows, cols = (
            slice(0, n)
            for n in (
                scores.shape[1],
                piece.rows.stop - piece.rows.start,
                piece.cols.stop - piece.cols.start,
            )
        )
        tile = piece.mask.tile(heads, rows, cols, scores.query.device)
        tile = tile if piece.only is None else tile[..., piece.only]
        blank = scores.query.new_zeros(()) if bias is None else bias
        bias = torch.where(tile, blank, -torch.inf)
        bias = bias.unsqueeze(0) if bias.ndim == 3 else bias
    return bias if bias is None or bias.stride(-1) == 1 else bias.contiguous()


class _Fused(torch.autograd.Function):
    """Context and logsumexp, both differentiable."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.scores, ctx.plan = scores, pieces(scores)
        context, logsumexp = _run(query, key, value, scores, ctx.plan)
        ctx.save_for_backward(query, key, value, context, logsumexp)
        return context, logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_context: Tensor | None, of_lse: Tensor | None) -> tuple[Any, ...]:
        query, key, value, context, logsumexp = ctx.saved_tensors
        inputs = [query, key, value]
        grads = [torch.zeros_like(x) for x in inputs]
        if of_context is None:
            of_context = torch.zeros_like(context)
        if of_lse is not None:
            # The kernel's gradient of a score is weight * (grad . value - grad . out). One more
            # column, 1 in value, 0 in out, adds weight * of_lse: the gradient of the logsumexp.
            inputs[2] = _with_column(value, value.new_ones(1))
            context = _with_column(context, context.new_zeros(1))
            of_context = _with_column(of_context, of_lse.unsqueeze(-1))
        for piece in ctx.plan:
            rows, cols = piece.queries, piece.keys
            bias = _bias(ctx.scores, piece)
            part = query[rows]
            if bias is not None:  # a row that sees nothing may hold anything
                part = part.masked_fill((logsumexp[rows] == -torch.inf).unsqueeze(-1), 0)
            found = kernels.backward(
                of_context[rows].contiguous(),
                part,
                key[cols],
                inputs[2][cols],
                context[rows],
                finite(logsumexp[rows]).contiguous(),
                piece.causal,
                bias,
                ctx.scores.scale,
            )
            for grad, place, more in zip(grads, (rows, cols, cols), found, strict=True):
                grad[place] += more[..., : grad.shape[-1]]
        return *grads, None


def _with_column(tensor: Tensor, column: Tensor) -> Tensor:
    return torch.cat([tensor, column.to(tensor.dtype).expand(*tensor.shape[:-1], 1)], -1)
