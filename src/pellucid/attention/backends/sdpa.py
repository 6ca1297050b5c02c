"""Attention by PyTorch's fused kernels, with the logsumexp that the public function drops.

Calls that share rows are merged by their logsumexp (Dao 2023, "FlashAttention-2", section 3.1);
since the backward kernels take the merged context and logsumexp, their gradients simply add up.
"""

from typing import Any

import torch
from torch import Tensor

from pellucid.attention.backends import fused_kernels
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.backends.tiling import Rectangle, rectangles
from pellucid.attention.backends.varlen import DocumentBatch, document_batches
from pellucid.attention.block_pool import is_transformed
from pellucid.attention.scores import Scores
from pellucid.errors import BackendError

Plan = list[Rectangle] | list[DocumentBatch]

SMALL = 2**13
"""Queries times keys below which a kernel call costs more than its arithmetic."""
LARGE = 1e15
"""Keys whose numbers are below this cannot overflow in a product with a query."""


def refuse(scores: Scores, value: Tensor, dropout: float) -> str | None:
    if is_transformed():
        return "the fused kernels do not support the transforms of torch.func (grad, vmap)"
    if not scores.energy.is_dot_product:
        return f"no fused kernel computes the energy {type(scores.energy).__name__}"
    if scores.softcap is not None:
        return "no fused kernel in PyTorch has a softcap"
    if not scores.scale > 0:
        return f"the fused kernels hide keys by -inf, and a scale of {scores.scale} flips its sign"
    if dropout:
        return "the fused kernels do not tell which weights dropout dropped"
    if scores.bias is not None and scores.bias.requires_grad and torch.is_grad_enabled():
        return "the fused kernels give no gradient for bias"
    return fused_kernels.refuse(scores.query, value)


def forward(scores: Scores, value: Tensor, dropout: float) -> tuple[Tensor, Tensor, str]:
    query, key = scores.query, scores.key
    if value.shape[1] != key.shape[1]:  # `weights @ x` with an x for each query head
        key = key.repeat_interleave(scores.group, 1)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        return _Fused.apply(query, key, value, scores)  # type: ignore[no-any-return, no-untyped-call]
    if _are_small(scores) and _are_harmless(key, value):
        return _run_kernel(query, key, value, scores, False, _bias_of_items(scores))
    return _run(query, key, value, scores, plan(scores))


def plan(scores: Scores, backward: bool = False) -> Plan:
    """The kernel calls, of the forward or of the backward pass."""
    documents = document_batches(scores)
    return rectangles(scores, backward) if documents is None else documents


def _are_small(scores: Scores) -> bool:
    """Whether one call per item costs more than one call that computes hidden scores too."""
    batch, _, queries, keys = scores.shape
    masked = scores.mask is not None and scores.mask.batch is not None
    return masked and batch > 1 and queries * keys <= SMALL and scores.query.device.type == "cpu"


def _are_harmless(key: Tensor, value: Tensor) -> bool:
    """Whether values and scores are finite, so that a weight of zero hides whatever they hold."""
    low, high = key.aminmax()
    return bool((torch.maximum(-low, high) < LARGE) & value.sum().isfinite())


def _bias_of_items(scores: Scores) -> Tensor:
    """What the kernel adds to the scores, -inf where hidden: (batch, heads or 1, queries, keys)."""
    assert scores.mask is not None
    item, head, row, col = (torch.arange(size) for size in scores.shape)
    visible = scores.mask.sees(
        item[:, None, None, None], head[:, None, None], row.unsqueeze(-1), col
    )
    query = scores.query
    blank = query.new_zeros(()) if scores.bias is None else scores.bias.to(query.dtype)
    bias = torch.where(visible, blank, -torch.inf)
    return bias.expand(*bias.shape[:2], *scores.shape[2:]).contiguous()


def _only(calls: Plan, scores: Scores) -> Rectangle | None:
    """The only call, where it is of the whole matrix."""
    call = calls[0] if len(calls) == 1 else None
    return call if isinstance(call, Rectangle) and call.is_all_of(scores) else None


def _run(
    query: Tensor, key: Tensor, value: Tensor, scores: Scores, calls: Plan
) -> tuple[Tensor, Tensor, str]:
    batch, heads, queries, _ = scores.shape
    if (only := _only(calls, scores)) is not None:
        return _run_kernel(query, key, value, scores, only.causal, only.bias(scores))
    # The layout of the kernels, in which joining the heads copies nothing.
    context = value.new_zeros(batch, queries, heads, value.shape[-1]).transpose(1, 2)
    logsumexp = value.new_full((batch, heads, queries), -torch.inf, dtype=scores.dtype)
    written = torch.zeros(batch, queries, dtype=torch.bool)
    kernels: dict[str, None] = {}  # a set in the order in which they ran
    for call in calls:
        parts = call.queries_of(query), call.keys_of(key), call.keys_of(value)
        part, part_lse, kernel = _run_kernel(*parts, scores, call.causal, call.bias(scores))
        # No other call has the queries of documents, whose places are on the device.
        nothing = slice(0, 0)
        place = (call.items, call.rows) if isinstance(call, Rectangle) else (nothing, nothing)
        if written[place].any():
            before, before_lse = call.queries_of(context), call.queries_of(logsumexp)
            total = torch.logaddexp(before_lse, part_lse)
            shares = (torch.exp(lse - finite(total))[..., None] for lse in (before_lse, part_lse))
            part = (before * next(shares) + part * next(shares)).to(value.dtype)
            part_lse = total
        call.put(context, part)
        call.put(logsumexp, part_lse)
        written[place] = True
        kernels[kernel] = None
    return context, logsumexp, " and ".join(kernels)


def _run_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scores: Scores,
    causal: bool,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, str]:
    context, logsumexp, kernel = fused_kernels.forward(
        query, key, value, causal, bias, scores.scale
    )
    if bias is not None:  # the kernels differ on rows that see nothing
        hidden = bias.amax(-1) == -torch.inf
        if _any_hidden(hidden):
            context = context.masked_fill(hidden.unsqueeze(-1), 0)
            logsumexp = logsumexp.masked_fill(hidden, -torch.inf)
    return context, logsumexp, kernel


def _any_hidden(hidden: Tensor) -> bool:
    """Whether a row is hidden; True on an accelerator, which is not waited for."""
    return hidden.device.type != "cpu" or bool(hidden.any())


class _Fused(torch.autograd.Function):
    """Context and logsumexp, both differentiable."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor, str]:
        ctx.set_materialize_grads(False)
        ctx.scores = scores
        context, logsumexp, kernel = _run(query, key, value, scores, plan(scores))
        ctx.save_for_backward(query, key, value, context, logsumexp)
        return context, logsumexp, kernel

    @staticmethod
    def backward(
        ctx: Any, of_context: Tensor | None, of_lse: Tensor | None, of_kernel: None
    ) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # create_graph=True, which would silently drop terms
            raise BackendError("fused kernels have no second derivative; backend='blockwise' has")
        query, key, value, context, logsumexp = ctx.saved_tensors
        scores: Scores = ctx.scores
        calls = plan(scores, backward=True)
        inputs = query, key, value
        if of_context is None:
            of_context = torch.zeros_like(context)
        if of_lse is not None:
            # The kernel's gradient of a score is weight * (grad . value - grad . out). One more
            # column, 1 in value, 0 in out, adds weight * of_lse: the gradient of the logsumexp.
            value = _with_column(value, value.new_ones(1))
            context = _with_column(context, context.new_zeros(1))
            of_context = _with_column(of_context, of_lse.unsqueeze(-1))
        shift = finite(logsumexp)

        def run(call: Rectangle | DocumentBatch) -> tuple[Tensor, ...]:
            bias = call.bias(scores)
            rows, rows_lse = call.queries_of(query), call.queries_of(shift)
            hidden = rows_lse == torch.inf
            if bias is not None and _any_hidden(
                hidden
            ):  # a row that sees nothing may hold anything
                rows = rows.masked_fill(hidden.unsqueeze(-1), 0)
            grads = fused_kernels.backward(
                _dense(call.queries_of(of_context)),
                rows,
                call.keys_of(key),
                call.keys_of(value),
                call.queries_of(context),
                rows_lse.contiguous(),
                call.causal,
                bias,
                scores.scale,
            )
            return *grads[:2], grads[2][..., : inputs[2].shape[-1]]

        if (only := _only(calls, scores)) is not None:
            grads = run(only)
        else:
            grads = tuple(torch.zeros_like(x, dtype=scores.dtype) for x in inputs)
            for call in calls:
                of_query, of_key, of_value = run(call)
                call.add_to_queries(grads[0], of_query)
                call.add_to_keys(grads[1], of_key)
                call.add_to_keys(grads[2], of_value)
        return *(grad.to(x) for grad, x in zip(grads, inputs, strict=True)), None


def _dense(grad: Tensor) -> Tensor:
    """As the kernels read it: rows contiguous, nothing expanded."""
    return grad if grad.stride(-1) == 1 and 0 not in grad.stride() else grad.contiguous()


def _with_column(tensor: Tensor, column: Tensor) -> Tensor:
    return torch.cat([tensor, column.to(tensor.dtype).expand(*tensor.shape[:-1], 1)], -1)
