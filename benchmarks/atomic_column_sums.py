"""A peer: column sums of the weights as one would write them in Triton, with atomic additions.

A program has a tile of queries, reads the keys and adds each tile's sums to what others add to.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLS = 64, 64
LOG2_E = 1.4426950408889634


@triton.jit
def _kernel(query, key, lse, out, tokens, scale, CAUSAL: tl.constexpr, DIM: tl.constexpr,
            ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    rows, dims = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    base = head * tokens * DIM
    inside = (rows < tokens)[:, None]
    queries = tl.load(query + base + rows[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
    shift = tl.load(lse + head * tokens + rows, mask=rows < tokens, other=float("inf"))
    high = tokens
    if CAUSAL:
        high = tl.minimum((tl.program_id(0) + 1) * ROWS, tokens)
    for start in range(0, high, COLS):
        cols = start + tl.arange(0, COLS)
        places = key + base + cols[:, None] * DIM + dims[None, :]
        keys = tl.load(places, mask=(cols < tokens)[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        weights = tl.exp2(scores - shift[:, None])
        if CAUSAL:
            weights = tl.where(rows[:, None] >= cols[None, :], weights, 0.0)
        tl.atomic_add(out + head * tokens + cols, tl.sum(weights, 0), mask=cols < tokens)


def column_sums(query: Tensor, key: Tensor, logsumexp: Tensor, causal: bool) -> Tensor:
    """(1, heads, tokens) of query and key (1, heads, tokens, a power of 2), contiguous."""
    _, heads, tokens, dim = query.shape
    out = torch.zeros(1, heads, tokens, device=query.device)
    shift = (logsumexp.float() * LOG2_E).contiguous()
    grid = (triton.cdiv(tokens, ROWS), heads)
    options = {"CAUSAL": causal, "DIM": dim, "ROWS": ROWS, "COLS": COLS}
    _kernel[grid](query, key, shift, out, tokens, dim**-0.5 * LOG2_E, **options)
    return out
