"""Fused kernels as two functions, forward and backward, that expose the logsumexp.

`torch.nn.functional.scaled_dot_product_attention` calls PyTorch's operators and drops the
logsumexp. On the CPU, a kernel of our own goes forward where it is faster. Shapes: query (batch,
heads, queries, d), key and value (batch, kv_heads, keys, d), bias broadcasts to (batch, heads,
queries, keys) and holds -inf where hidden, logsumexp (batch, heads, queries).
"""

from threading import Lock
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.attention import fused_attention

Kernel = Literal["compiled", "cpu flash", "flash", "cudnn", "efficient"]

CUDNN_WIDTH = 128
"""Most dimensions per head for cuDNN, whose backward pass has no more everywhere."""
CUDNN_SCORES = 2**22
"""Scores below which cuDNN is not asked: launching takes longer than computing."""
CUDNN_SHAPES = 32
"""Shapes that cuDNN plans in one process; planning takes some 30 ms each, so flash has the rest."""

_planned: dict[object, bool] = {}
"""Whether cuDNN has the shape, of shapes that it could have."""
_planning = Lock()
_aten = torch.ops.aten
_CPU_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refuse(query: Tensor, value: Tensor) -> str | None:
    """Why no fused kernel can take these, or None."""
    dtypes = {"cpu": _CPU_DTYPES, "cuda": _CUDA_DTYPES}.get(query.device.type, ())
    if query.dtype not in dtypes:
        return f"there is no fused kernel for {query.dtype} on {query.device.type}"
    if query.device.type == "cuda" and max(query.shape[-1], value.shape[-1]) > 256:
        return "the fused kernels on cuda take at most 256 dimensions per head"
    return None


def forward(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Kernel]:
    """Context, logsumexp and which kernel ran; causal means query i sees key j iff j <= i."""
    value_dim = value.shape[-1]
    query, key, value = _one_head_dim(query, key, value)
    kernel = choose(query, key, value, causal, bias, scale)
    if kernel == "cpu flash" and bias is None and fused_attention.is_best(query, key, causal):
        kernel = "compiled"
        out, logsumexp = fused_attention.attend(query, key, value, causal, scale)
    elif kernel == "cpu flash":
        out, logsumexp = _aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scale
        )
    elif kernel == "cudnn":
        out, logsumexp = _aten._scaled_dot_product_cudnn_attention(
            query, key, value, _aligned(bias, query, key), True, 0.0, causal, False, scale=scale
        )[:2]
        logsumexp = logsumexp.squeeze(-1)
    elif kernel == "flash":
        out, logsumexp = _aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )[:2]
    else:
        key, value = (_repeat_heads(x, query.shape[1]) for x in (key, value))
        out, logsumexp = _aten._scaled_dot_product_efficient_attention(
            query, key, value, _aligned(bias, query, key), True, 0.0, causal, scale=scale
        )[:2]
        logsumexp = logsumexp[..., : query.shape[2]]  # this kernel rounds the rows up to 32
    return (out if out.shape[-1] == value_dim else out[..., :value_dim]), logsumexp, kernel


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    causal: bool,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; out and logsumexp may be those of a larger matrix.

    A logsumexp of +inf marks a row that sees nothing.
    """
    key_dim, value_dim = query.shape[-1], value.shape[-1]
    if query.device.type == "cpu":  # where the 16-bit kernel is up to 8 times slower
        wide = logsumexp.dtype
        grad, query, key, value, out = (x.to(wide) for x in (grad, query, key, value, out))
        bias = None if bias is None else bias.to(wide)
    query, key, value = _one_head_dim(query, key, value)
    grad, out = (pad(x, (0, value.shape[-1] - value_dim)) for x in (grad, out))
    kernel = choose(query, key, value, causal, bias, scale)
    if kernel == "cpu flash":
        grads = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, logsumexp, 0.0, causal, attn_mask=bias, scale=scale
        )
    elif kernel == "cudnn":
        unused = torch.zeros((), dtype=torch.int64, device=query.device)  # the state of dropout
        stats, aligned = logsumexp.unsqueeze(-1), _aligned(bias, query, key)
        rows = (None, None, query.shape[2], key.shape[2])
        grads = _aten._scaled_dot_product_cudnn_attention_backward(
            *(grad, query, key, value, out, stats, unused, unused, aligned),
            *rows,
            0.0,
            causal,
            scale=scale,
        )
    elif kernel == "flash":
        unused = torch.zeros(2, dtype=torch.int64, device=query.device)
        rows = (None, None, query.shape[2], key.shape[2])
        grads = _aten._scaled_dot_product_flash_attention_backward(
            grad, query, key, value, out, logsumexp, *rows, 0.0, causal, unused, unused, scale=scale
        )
    else:
        kv_heads = key.shape[1]
        key, value = (_repeat_heads(x, query.shape[1]) for x in (key, value))
        unused = torch.zeros((), dtype=torch.int64, device=query.device)
        padded = pad(logsumexp, (0, -logsumexp.shape[-1] % 32), value=torch.inf)
        tensors = (grad, query, key, value, _aligned(bias, query, key), out, padded)
        wanted = [True, True, True, False]  # of query, key and value, not of the bias
        grads = _aten._scaled_dot_product_efficient_attention_backward(
            *tensors, unused, unused, 0.0, wanted, causal, scale=scale
        )
        of_query, of_key, of_value = grads[:3]
        grads = (of_query, *(g.unflatten(1, (kv_heads, -1)).sum(2) for g in (of_key, of_value)))
    of_query, of_key, of_value = grads[:3]
    return of_query[..., :key_dim], of_key[..., :key_dim], of_value[..., :value_dim]


def choose(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, bias: Tensor | None, scale: float
) -> Kernel:
    """The kernel for tensors of one head dimension: on CUDA the one that PyTorch would take.

    But cuDNN has few shapes and large ones alone; which, is settled when a shape is first seen, so
    that the same call has the same digits every time.
    """
    if query.device.type == "cpu":
        return "cpu flash"
    half = query.dtype in (torch.bfloat16, torch.float16)
    if half and _could_plan(query, key, value, causal, bias, scale):
        return "cudnn"
    square = query.shape[2] == key.shape[2]  # elsewhere it aligns causal to the bottom right
    recent = torch.cuda.get_device_capability(query.device) >= (8, 0)
    return "flash" if half and recent and bias is None and (square or not causal) else "efficient"


def _could_plan(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, bias: Tensor | None, scale: float
) -> bool:
    """Whether PyTorch would take cuDNN, and this is one of the shapes that it may have."""
    batch, heads, queries, width = query.shape
    scores = batch * heads * queries * key.shape[2]
    if width > CUDNN_WIDTH or scores < CUDNN_SCORES:
        return False
    choice = torch._fused_sdp_choice(
        query,
        key,
        value,
        _aligned(bias, query, key),
        0.0,
        causal,
        scale=scale,
        enable_gqa=key.shape[1] != heads,
    )
    if choice != torch._C._SDPBackend.CUDNN_ATTENTION.value:
        return False
    shape = (query.device, query.dtype, query.shape, key.shape, causal, bias is None)
    with _planning:
        return _planned.setdefault(shape, sum(_planned.values()) < CUDNN_SHAPES)


def _one_head_dim(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All with the same last dimension and contiguous in it, as the kernels require."""
    width = max(query.shape[-1], value.shape[-1])
    if query.device.type == "cuda":
        width += -width % 8
    return _widened(query, width), _widened(key, width), _widened(value, width)


def _widened(tensor: Tensor, width: int) -> Tensor:
    if tensor.shape[-1] != width:
        return pad(tensor, (0, width - tensor.shape[-1]))
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _repeat_heads(tensor: Tensor, heads: int) -> Tensor:
    group = heads // tensor.shape[1]
    return tensor if group == 1 else tensor.repeat_interleave(group, 1)


def _aligned(bias: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """Every row of the bias on a 16-byte boundary, as the memory-efficient kernel requires."""
    if bias is None:
        return None
    keys = key.shape[2]
    bias = pad(bias, (0, -keys % 8))[..., :keys]
    return bias.expand(*query.shape[:3], keys)
