"""The residual stream of some tokens before a block, as a sum of vectors: a short cut for `why`.

What is written passes no norm on its way to a later block (Llama, GPT-2), or every norm that comes
after it (BERT). Each way is tried; the one whose vectors add up to what the block read is right.
"""

import torch
from torch import Tensor

from pellucid.lens.tracing.residual_stream import ResidualStream
from pellucid.lens.tracing.written import Source, Start, Written, unnamed

ALLOWED = 32
"""Roundings of the largest number that the sum may be off by."""


def stream_rows(
    stream: ResidualStream, block: str, rows: Tensor, item: int, each_head: bool
) -> dict[Source, Tensor] | None:
    """What each source gave to the stream that a block reads.

    Args:
        stream: of a run.
        block: the name of the block.
        rows: (rows,) positions of tokens.
        item: of the batch.
        each_head: each head of an attention, instead of all together.

    Returns:
        (rows, width) float64 for each source; None if they come another way than those above.
    """
    stream.check_run()
    end = stream.blocks[block]
    stack = [name for name in stream.parts.starts() if name in stream.blocks]
    starts = [stream.blocks[name] for name in stack]
    start = max((one for one in starts if one.before <= end.before), key=lambda one: one.before)
    read = end.x[item, rows].detach().double()
    allowed = ALLOWED * torch.finfo(end.x.dtype).eps
    for passes_all in (False, True):
        found = _summands(stream, start, end, passes_all, rows, item, each_head)
        if found is None:
            return None
        total = sum(found.values(), torch.zeros_like(read))
        sizes = sum((x.abs() for x in found.values()), torch.zeros_like(read))
        if bool(((total - read).abs() <= allowed * (sizes.max() + read.abs().max())).all()):
            return found
    return None


def _summands(
    stream: ResidualStream,
    start: Start,
    end: Start,
    passes_all: bool,
    rows: Tensor,
    item: int,
    each_head: bool,
) -> dict[Source, Tensor] | None:
    """The vectors, if every norm is passed, or only those before the first block."""
    width = end.x.shape[-1]
    written = stream.written[: end.before]
    reached = torch.autograd.grad(
        end.x.sum(), [one.leaf for one in written], retain_graph=True, allow_unused=True
    )

    def through(x: Tensor, since: int, until: int) -> Tensor:
        """A vector after some of the norms."""
        for norm in stream.norms[since:until]:
            if norm.weight is None or len(norm.weight) == width:
                x = norm.of_rows(item, rows).linear(x)
        return x

    found: dict[Source, Tensor] = {}
    first = start.table(written)
    at_start = torch.zeros(len(rows), width, dtype=torch.float64, device=end.x.device)
    for place, one in enumerate(written):
        if place < first or reached[place] is None:
            continue
        vectors = _vectors(stream, one, rows, item, each_head)
        if vectors is None or any(x.shape[-1] != width for x in vectors.values()):
            return None
        for source, x in vectors.items():
            if place < start.before:
                x = through(x, one.norms, start.norms)
                at_start = at_start + x
                x = through(x, start.norms, end.norms) if passes_all else x
            elif passes_all:
                x = through(x, one.norms, end.norms)
            found[source] = found.get(source, 0) + x
    rest = start.x[item, rows].detach().double() - at_start
    if not start.is_rounding(rest, at_start.abs().amax(-1, keepdim=True)):
        passed = through(rest, start.norms, end.norms) if passes_all else rest
        found[unnamed(stream.written)] = passed
    return found


def _vectors(
    stream: ResidualStream, one: Written, rows: Tensor, item: int, each_head: bool
) -> dict[Source, Tensor] | None:
    """What a module wrote at some tokens, (rows, width) each; of an attention after its output
    projection, without its bias.
    """
    value = one.of_item(item)
    value = value[rows] if len(value) > 1 else value.expand(len(rows), *value.shape[1:])
    if one.heads is None:
        return {one.source: value} if value.ndim == 2 else None
    output = next(x.output for x in stream.parts.attentions if x.name == one.source.name)
    module = stream.parts.modules[output]
    context = value.unflatten(-1, (one.heads, -1))  # (rows, heads, dim)
    alone = torch.eye(one.heads, device=value.device, dtype=value.dtype)[:, None, :, None]
    alone = (alone * context if each_head else context[None]).flatten(-2)  # (heads or 1, rows, ...)
    with torch.no_grad():
        zeros = torch.zeros_like(alone[:1])
        written = module(torch.cat([zeros, alone]).to(one.leaf.dtype)).double()
    sources = one.source.of_heads(one.heads) if each_head else [one.source]
    return dict(zip(sources, written[1:] - written[0], strict=True))
