"""`nn.MultiheadAttention` and `nn.TransformerEncoderLayer`, on their slow and their fast paths.

The slow path projects query and key in Python, and the results are kept. The fast path is one
native call: its input is kept, and projected again when the record is read, which is refused if the
parameters have changed by then.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attention import masks
from pellucid.errors import ArgumentError
from pellucid.lens.interception import listeners, reporting
from pellucid.lens.interception.calls import Call
from pellucid.lens.interception.patches import PatchPoint
from pellucid.lens.pieces import Lazy

_projected = threading.local()
"""The projected query, key and value of the call in progress on this thread."""


def patch_points() -> Iterator[PatchPoint]:
    yield nn.functional, "multi_head_attention_forward", slow_path
    yield nn.functional, "_in_projection_packed", projection
    yield nn.functional, "_in_projection", projection
    yield torch, "_native_multi_head_attention", fast_path
    yield torch, "_transformer_encoder_layer_fwd", fast_layer
    yield torch.backends.mha, "get_fastpath_enabled", is_fast_path_enabled


def operators() -> Iterator[tuple[Any, Callable[..., Any]]]:
    """The fast paths of scripted and traced code."""
    aten = torch.ops.aten
    yield aten._native_multi_head_attention.default, fast_path
    yield aten._transformer_encoder_layer_fwd.default, fast_layer


def projection(original: Callable[..., Any]) -> Callable[..., Any]:
    def project(*args: Any, **options: Any) -> Any:
        _projected.latest = original(*args, **options)
        return _projected.latest

    return project


def slow_path(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = _signature(original)

    def multi_head_attention_forward(*args: Any, **options: Any) -> Any:
        callers = reporting.callers()
        try:
            if not callers:
                return original(*args, **options)
            result = reporting.as_one_call(original, *args, **options)
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            edited = reporting.report(
                callers, _slow_call, _projected.latest, result[0], bound.arguments
            )
        finally:
            _projected.latest = None
        return result if edited is None else _as_edited(result, edited, bound.arguments)

    return multi_head_attention_forward


@cache  # as reading it takes longer than putting in all other patches
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _slow_call(projected: list[Tensor], output: Tensor, options: dict[str, Any]) -> Call | str:
    if options["static_k"] is not None or options["static_v"] is not None:
        return "was called with static keys, which are not recorded"
    heads, dropout = options["num_heads"], options["dropout_p"]
    bias_k, bias_v = options["bias_k"], options["bias_v"]
    attn_mask, key_padding_mask = options["attn_mask"], options["key_padding_mask"]
    query, key, value = projected  # each (length, batch, heads * dim)
    keys = len(key)
    if bias_k is not None and bias_v is not None:
        key = torch.cat([key, bias_k.expand(1, *key.shape[1:])])
        value = torch.cat([value, bias_v.expand(1, *value.shape[1:])])
    if options["add_zero_attn"]:
        key, value = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (key, value))
    rule = None
    if options["is_causal"] and key_padding_mask is None and not options["need_weights"]:
        rule, attn_mask = masks.causal(), None  # torch trusts the hint and drops the mask
    hidden = []
    if attn_mask is not None:  # (queries, keys) or (batch * heads, queries, keys)
        each_head = attn_mask.ndim == 3
        hidden.append(attn_mask.unflatten(0, (-1, heads)) if each_head else attn_mask)
    if key_padding_mask is not None:
        hidden.append(key_padding_mask.reshape(-1, 1, 1, keys))
    query, key, value = (_heads(x.transpose(0, 1), heads) for x in (query, key, value))
    return Call(
        query=query,
        key=key,
        value=value,
        masks=tuple(_visible_mask(mask, key.shape[-2]) for mask in hidden),
        rule=rule,
        dropout=dropout if options["training"] else 0.0,
        projection=(options["out_proj_weight"], options["out_proj_bias"]),
        context=output.unsqueeze(0) if output.ndim == 2 else output.transpose(0, 1),
    )


def _as_edited(
    result: tuple[Tensor, Tensor | None], edited: Call, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """What the slow path returns, with an edited output and edited weights."""
    (output, weights), context = result, edited.context
    assert context is not None
    context = context.squeeze(0) if output.ndim == 2 else context.transpose(0, 1)
    if weights is not None and edited.edited_weights is not None:
        changed = edited.edited_weights().to(weights.dtype)
        changed = changed.mean(1) if options["average_attn_weights"] else changed
        weights = changed.reshape(weights.shape)
    return context, weights


def is_fast_path_enabled(original: Callable[[], bool]) -> Callable[[], bool]:
    """`torch.backends.mha.get_fastpath_enabled`: the fast paths are native, and cannot be edited.

    Another thread's model takes its slow path meanwhile, which differs by rounding.
    """

    def get_fastpath_enabled() -> bool:
        return original() and not any(listener.edits for listener in listeners.active)

    return get_fastpath_enabled


def fast_path(original: Callable[..., Any]) -> Callable[..., Any]:
    def native(*args: Any, **options: Any) -> Any:
        callers = reporting.callers()
        result = reporting.as_one_call(original, *args, **options)
        if callers:
            reporting.report(callers, _native_call, result[0], *args, **options)
        return result

    return native


def _native_call(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> Call:
    return _fast_call(
        Projection(weight, bias, heads),
        (query, key, value),
        mask,
        mask_type,
        (out_weight, out_bias),
        None if query.is_nested else output,
    )


def fast_layer(original: Callable[..., Any]) -> Callable[..., Any]:
    def layer(*args: Any) -> Any:
        callers = reporting.callers()
        result = reporting.as_one_call(original, *args)
        if callers:
            inside = [(listener, f"{name}.self_attn".lstrip(".")) for listener, name in callers]
            reporting.report(inside, _layer_call, *args)
        return result

    return layer


def _layer_call(
    source: Tensor,
    embed_dim: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *rest: Any,
) -> Call:
    norm = (norm_weight, norm_bias, eps) if norm_first else None
    mask, mask_type = rest[-2:]
    return _fast_call(
        Projection(weight, bias, heads, norm),
        (source,) * 3,
        mask,
        mask_type,
        (out_weight, out_bias),
        None,
    )


class Projection:
    """The packed input projection of a fast path, to be repeated on its input."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        heads: int,
        norm: tuple[Tensor, Tensor, float] | None = None,
    ) -> None:
        # Detached tensors keep the memory, even if the model is moved.
        self._weight, self._bias = weight.detach(), bias.detach()
        self._norm = norm
        self.heads = heads
        self._versions = self._read_versions()

    def _read_versions(self) -> list[int]:
        tensors = [self._weight, self._bias, *(self._norm[:2] if self._norm else ())]
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]

    def __call__(self, which: int, source: Tensor) -> Tensor:
        """(batch, heads, length, dim): query, key or value, for which = 0, 1, 2."""
        if self._read_versions() != self._versions:
            raise ArgumentError(
                "the model's parameters have changed since this was recorded on PyTorch's fast "
                "path, which keeps inputs only; read it before they change, or record in train mode"
            )
        with torch.no_grad():
            if source.is_nested:
                source = source.to_padded_tensor(0.0)
            if self._norm is not None:
                weight, bias, eps = self._norm
                source = nn.functional.layer_norm(source, weight.shape, weight, bias, eps)
            rows = slice(which * source.shape[-1], (which + 1) * source.shape[-1])
            projected = nn.functional.linear(source, self._weight[rows], self._bias[rows])
            return _heads(projected, self.heads)


def _fast_call(
    project: Projection,
    inputs: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    mask_type: int | None,
    out_projection: tuple[Tensor, Tensor | None],
    output: Tensor | None,
) -> Call:
    rule = None
    if inputs[0].is_nested:
        lengths = inputs[0]._nested_tensor_size()[:, 0]
        rule = masks.padding(lengths)
        shapes = [[len(lengths), int(lengths.max()), inputs[0].size(-1)]] * 3
    else:
        shapes = [list(x.shape) for x in inputs]
    query, key, value = (
        Lazy(
            (batch, project.heads, length, width // project.heads),
            source.device,
            partial(project, which, source),
        )
        for which, (source, (batch, length, width)) in enumerate(zip(inputs, shapes, strict=True))
    )
    visible: tuple[Tensor, ...] = ()
    if mask is not None:  # it hides what is not zero
        shown = ~mask.bool()
        visible = (shown[:, None, None] if mask_type == 1 else shown,)
    return Call(
        query=query,
        key=key,
        value=value,
        masks=visible,
        rule=rule,
        projection=out_projection,
        context=output,
    )


def _visible_mask(hidden: Tensor, keys: int) -> Tensor:
    """torch's masks are True where a key is hidden; keys that were appended are visible."""
    if hidden.dtype != torch.bool:
        return nn.functional.pad(hidden, (0, keys - hidden.shape[-1]))
    return nn.functional.pad(~hidden, (0, keys - hidden.shape[-1]), value=True)


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * dim) to (batch, heads, length, dim)."""
    split: Tensor = tensor.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)
