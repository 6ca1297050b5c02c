"""The residual stream of a token before a block, as a sum of vectors: a short cut for `why`.

What the first block reads, and what is written after that, passes no norm on its way to a later
block (Llama, GPT-2), or every norm that comes after it (BERT). Each way is tried; the one whose
vectors add up to what the block read is right.
"""

import torch
from torch import Tensor

from pellucid.lens.tracing.residual_stream import ResidualStream
from pellucid.lens.tracing.stream_vectors import start_vectors
from pellucid.lens.tracing.written import Source, Start, Written

ALLOWED = 32
"""Roundings of the largest number that the sum may be off by."""


def stream_rows(
    stream: ResidualStream, block: str, position: int, item: int, each_head: bool
) -> dict[Source, Tensor] | None:
    """What each source gave to the stream that a block reads.

    Args:
        stream: of a run.
        block: the name of the block.
        position: of the token.
        item: of the batch.
        each_head: each head of an attention, instead of all together.

    Returns:
        (width,) float64 for each source; None if they come another way than those above.
    """
    stream.check_run()
    end = stream.blocks[block]
    stack = [name for name in stream.parts.starts() if name in stream.blocks]
    starts = [stream.blocks[name] for name in stack]
    start = max(
        (candidate for candidate in starts if candidate.before <= end.before),
        key=lambda candidate: candidate.before,
    )
    read = end.x[item, position].detach().double()
    allowed = ALLOWED * torch.finfo(end.x.dtype).eps
    first = start_vectors(stream, start, position, item, each_head)
    for passes_all in (False, True):
        vectors = _summands(stream, start, end, first, passes_all, position, item, each_head)
        if vectors is None:
            return None
        total = sum(vectors.values(), torch.zeros_like(read))
        sizes = sum((x.abs() for x in vectors.values()), torch.zeros_like(read))
        if bool(((total - read).abs() <= allowed * (sizes.max() + read.abs().max())).all()):
            return vectors
    return None


def _summands(
    stream: ResidualStream,
    start: Start,
    end: Start,
    first: dict[Source, Tensor],
    passes_all: bool,
    position: int,
    item: int,
    each_head: bool,
) -> dict[Source, Tensor] | None:
    """The vectors, if every norm after the start is passed, or none."""
    width = end.x.shape[-1]
    written = stream.written[start.before : end.before]
    reached: tuple[Tensor | None, ...] = ()
    if written:  # none before the first block
        reached = torch.autograd.grad(
            end.x.sum(), [part.leaf for part in written], retain_graph=True, allow_unused=True
        )

    def through(x: Tensor, since: int) -> Tensor:
        """A vector after the norms from one on."""
        for norm in stream.norms[since : end.norms] if passes_all else ():
            if norm.weight is None or len(norm.weight) == width:
                x = norm.of_row(item, position).linear(x)
        return x

    summands = {source: through(x, start.norms) for source, x in first.items()}
    for part, gradient in zip(written, reached, strict=True):
        if gradient is None:
            continue
        vectors = _vectors(stream, part, position, item, each_head)
        if any(x.shape != (width,) for x in vectors.values()):
            return None
        for source, x in vectors.items():
            summands[source] = summands.get(source, 0) + through(x, part.norms)
    return summands


def _vectors(
    stream: ResidualStream, part: Written, position: int, item: int, each_head: bool
) -> dict[Source, Tensor]:
    """What a module wrote at a token, (width,) each; of an attention after its output projection,
    without its bias.
    """
    value = part.of_item(item)
    value = value[position if len(value) > 1 else 0]
    if part.heads is None:
        return {part.source: value}
    output = next(x.output for x in stream.parts.attentions if x.name == part.source.name)
    module = stream.parts.modules[output]
    context = value.unflatten(-1, (part.heads, -1))  # (heads, dim)
    alone = torch.eye(part.heads, device=value.device, dtype=value.dtype)[..., None]
    alone = (alone * context if each_head else context[None]).flatten(-2)  # (heads or 1, ...)
    with torch.no_grad():
        zeros = torch.zeros_like(alone[:1])
        written = module(torch.cat([zeros, alone]).to(part.leaf.dtype)).double()
    sources = part.source.of_heads(part.heads) if each_head else [part.source]
    return dict(zip(sources, written[1:] - written[0], strict=True))
