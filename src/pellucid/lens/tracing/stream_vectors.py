"""What each source gives to a vector of the run, such as a query, whatever lies between.

A vector q is affine in each source s. The product of its Jacobian with s takes two gradients: that
of p . q by s, which is linear in p, and of its product with s by p (Townsend 2017, "A new trick for
calculating Jacobian vector products").
"""

import torch
from torch import Tensor

from pellucid.lens.tracing.residual_stream import ResidualStream
from pellucid.lens.tracing.written import Source, Start


def stream_vectors(
    stream: ResidualStream, row: Tensor, position: int, item: int, each_head: bool
) -> dict[Source, Tensor]:
    """What each source gives to a vector of one token.

    Args:
        stream: of a run.
        row: (dim,), in the graph of the run.
        position: of the token.
        item: of the batch.
        each_head: each head of an attention, instead of all together.

    Returns:
        (dim,) float64 for each source that reaches it.
    """
    stream.check_run()
    starts = [stream.blocks[name] for name in stream.parts.starts() if name in stream.blocks]
    vectors, gradients, probe = _pushed(stream, row, [start.x for start in starts], item, each_head)
    for start, gradient in zip(starts, gradients, strict=True):
        if gradient is not None and start.x is not row:
            rest = start_vectors(stream, start, position, item, False).get(stream.unnamed())
            if rest is not None:
                vectors[stream.unnamed()] = _along(probe, gradient[item, position].double() @ rest)
    return vectors


def start_vectors(
    stream: ResidualStream, start: Start, position: int, item: int, each_head: bool
) -> dict[Source, Tensor]:
    """What the first block of a stack reads of one token, as a sum: (width,) float64 each."""
    row = start.x[item, position]
    vectors, _, _ = _pushed(stream, row, [], item, each_head)
    total = sum(vectors.values(), torch.zeros_like(row, dtype=torch.float64))
    rest = row.detach().double() - total
    # Positions that are computed, or the only segment type, which is in no table.
    if not start.is_rounding(rest, total.abs().amax(-1, keepdim=True)):
        vectors[stream.unnamed()] = rest
    return vectors


def _pushed(
    stream: ResidualStream, row: Tensor, others: list[Tensor], item: int, each_head: bool
) -> tuple[dict[Source, Tensor], tuple[Tensor | None, ...], Tensor]:
    """What each source gives to a row; gradients of probe . row by other tensors; and the probe."""
    probe = torch.zeros_like(row).requires_grad_()
    if not row.requires_grad:
        return {}, (None,) * len(others), probe
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        row,
        [*others, *(part.leaf for part in stream.written)],
        probe,
        create_graph=True,
        allow_unused=True,
    )
    vectors: dict[Source, Tensor] = {}
    for part, gradient in zip(stream.written, gradients[len(others) :], strict=True):
        if gradient is None:
            continue
        amounts = part.amounts(gradient, item).sum(-1)
        if part.heads is not None and each_head:
            for source, amount in zip(part.source.of_heads(part.heads), amounts, strict=True):
                vectors[source] = _along(probe, amount)
        else:
            vectors[part.source] = vectors.get(part.source, 0) + _along(probe, amounts.sum())
    return vectors, gradients[: len(others)], probe


def _along(probe: Tensor, amount: Tensor) -> Tensor:
    """The gradient of a number by the probe, in which it is linear."""
    [vector] = torch.autograd.grad(amount, probe, retain_graph=True)
    return vector.double()
