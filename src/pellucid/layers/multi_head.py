"""Multi-head attention, with the parameters of `torch.nn.MultiheadAttention`.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2. Fewer key and value heads than
query heads: Shazeer 2019 (one) and Ainslie et al. 2023, "GQA" (any divisor).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.attention import attention, masks
from pellucid.attention.weights import AttentionWeights
from pellucid.errors import ArgumentError
from pellucid.layers import arguments


class MultiHeadAttention(nn.Module):
    """Self-, causal and cross-attention over any number of heads.

        query, key, value = split(query @ W_q.T + b_q), split(...), split(...)   into heads
        context = attention(query, key, value, mask)                              each head alone
        output  = concat(context) @ out_proj.weight.T + out_proj.bias

    Parameters have the names, layout and initial values of `torch.nn.MultiheadAttention`, so that
    state dicts fit both ways and the same seed draws the same numbers:

        in_proj_weight  (heads * head_dim + kv_heads * head_dim + kv_heads * value_dim, embed_dim),
                        the rows of query, key and value, stacked
        q_proj_weight, k_proj_weight, v_proj_weight
                        instead, where kdim or vdim differs from embed_dim
        in_proj_bias    one number per row of those
        out_proj.weight (embed_dim, heads * value_dim)
        out_proj.bias   (embed_dim,)

    Unlike torch: always batch first, with any leading batch shape; a mask says what *may* be seen;
    the weights are lazy, per head, before dropout.
    """

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the projections.

        Args:
            embed_dim: width of the query encodings and of the output.
            heads: query heads.
            kv_heads: key and value heads, a divisor of `heads`; as many as `heads` unless given.
                Query head h reads key and value head h // (heads // kv_heads).
            head_dim: size of a query and a key in one head; embed_dim // heads unless given.
            value_dim: size of a value in one head; `head_dim` unless given.
            kdim: width of the encodings that keys are made from; embed_dim unless given.
            vdim: width of the encodings that values are made from; embed_dim unless given.
            bias: every projection also adds a trained vector, initially zero.
            dropout: the chance that a weight is dropped from the context while training.
            causal: query i sees keys 0 to i only, on top of any mask given to the call.
            device: where the parameters live.
            dtype: their floating dtype.

        Raises:
            ArgumentError: a size below 1, heads that do not divide, a dropout outside [0, 1).
            TypeMismatchError: a size that is not an int.
        """
        super().__init__()
        self.embed_dim = arguments.positive_size("embed_dim", embed_dim)
        self.heads = arguments.positive_size("heads", heads)
        self.kv_heads = heads if kv_heads is None else arguments.positive_size("kv_heads", kv_heads)
        if heads % self.kv_heads:
            raise ArgumentError(f"heads {heads} is not a multiple of kv_heads {kv_heads}")
        if head_dim is None and embed_dim % heads:
            raise ArgumentError(
                f"embed_dim {embed_dim} does not divide into {heads} heads; give head_dim"
            )
        self.head_dim = arguments.positive_size(
            "head_dim", embed_dim // heads if head_dim is None else head_dim
        )
        self.value_dim = arguments.positive_size(
            "value_dim", self.head_dim if value_dim is None else value_dim
        )
        self.kdim = embed_dim if kdim is None else arguments.positive_size("kdim", kdim)
        self.vdim = embed_dim if vdim is None else arguments.positive_size("vdim", vdim)
        if not 0.0 <= dropout < 1.0:
            raise ArgumentError(f"dropout must be at least 0 and below 1, not {dropout}")
        self.dropout = dropout
        self.causal = causal

        # The rows of the query, key and value projections.
        key_rows, value_rows = (self.kv_heads * dim for dim in (self.head_dim, self.value_dim))
        self._rows = rows = heads * self.head_dim, key_rows, value_rows
        stacked = self.kdim == embed_dim and self.vdim == embed_dim

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        # Created and drawn in torch's order, so that the same seed gives the same parameters.
        self.in_proj_weight = parameter(sum(rows), embed_dim) if stacked else None
        self.q_proj_weight = None if stacked else parameter(rows[0], embed_dim)
        self.k_proj_weight = None if stacked else parameter(rows[1], self.kdim)
        self.v_proj_weight = None if stacked else parameter(rows[2], self.vdim)
        self.in_proj_bias = parameter(sum(rows)) if bias else None
        self.out_proj = nn.Linear(
            heads * self.value_dim, embed_dim, bias=bias, device=device, dtype=dtype
        )
        # Projections are Xavier uniform (Glorot and Bengio 2010, equation 16), biases zero.
        for name, values in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(values)
            elif name.endswith("proj_weight"):
                nn.init.xavier_uniform_(values)
        self.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            _refuse_bias_rows
        )

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> "MultiHeadAttention":
        """The same layer, with a copy of the parameters, in the same mode (train or eval).

        Its inputs are batch first, whatever `module.batch_first` says.

        Raises:
            ArgumentError: `module` was made with add_bias_kv or add_zero_attn, which add keys
                that stand for no token.
        """
        if module.bias_k is not None or module.add_zero_attn:
            raise ArgumentError(
                "module was made with add_bias_kv or add_zero_attn, which MultiHeadAttention does "
                "not support: they add keys that stand for no token"
            )
        weight = module.out_proj.weight
        layer = cls(
            module.embed_dim,
            module.num_heads,
            kdim=module.kdim,
            vdim=module.vdim,
            bias=module.in_proj_bias is not None,
            dropout=module.dropout,
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.load_state_dict(module.state_dict())
        return layer.train(module.training)

    def projection_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views of the query, key and value projections, each (heads * dim, width) of its own.

        Rows h * dim to (h + 1) * dim belong to head h.
        """
        if self.in_proj_weight is not None:
            query, key, value = self.in_proj_weight.split(self._rows)
            return query, key, value
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight  # type: ignore[return-value]

    def projection_biases(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Views of the query, key and value biases, each None without bias."""
        if self.in_proj_bias is None:
            return None, None, None
        query, key, value = self.in_proj_bias.split(self._rows)
        return query, key, value

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: masks.Mask | Tensor | None = None,
        *,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, AttentionWeights]:
        """Attend from each token of `query` to the tokens of `key` and `value`.

        Args:
            query: encodings, (..., queries, embed_dim).
            key: encodings, (..., keys, kdim); `query` unless given, which is self-attention.
            value: encodings, (..., keys, vdim); `key` unless given.
            mask: a mask, or a bool tensor that broadcasts to (..., heads, queries, keys).
                True = may be seen, the opposite of torch's attn_mask and key_padding_mask.
            bias: float, broadcasts likewise, added to the scaled scores.

        Returns:
            The output (..., queries, embed_dim) and the lazy weights (..., heads, queries, keys).

        Raises:
            ShapeError: too few dimensions, a width other than the layer's, or batch shapes, key
                and value lengths, a mask or a bias that do not fit.
            TypeMismatchError: not a tensor, or another dtype or device than the parameters.
            ArgumentError: `value` without `key`.
        """
        if key is None and value is not None:
            raise ArgumentError("value was given without key; give both, or key alone")
        key = query if key is None else key
        value = key if value is None else value
        weights, biases = self.projection_weights(), self.projection_biases()
        arguments.encodings("query", query, self.embed_dim, "embed_dim", weights[0])
        arguments.encodings("key", key, self.kdim, "kdim", weights[1])
        arguments.encodings("value", value, self.vdim, "vdim", weights[2])
        if self.causal:
            mask = masks.causal() if mask is None else masks.causal() & mask

        context, lazy_weights = attention(
            _split(F.linear(query, weights[0], biases[0]), self.heads, self.head_dim),
            _split(F.linear(key, weights[1], biases[1]), self.kv_heads, self.head_dim),
            _split(F.linear(value, weights[2], biases[2]), self.kv_heads, self.value_dim),
            mask,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
        )
        # (..., heads, queries, value_dim) to (..., queries, heads * value_dim)
        output: Tensor = self.out_proj(context.transpose(-3, -2).flatten(-2))
        return output, lazy_weights

    def extra_repr(self) -> str:
        sizes = f"embed_dim={self.embed_dim}, heads={self.heads}, kv_heads={self.kv_heads}"
        dims = f"head_dim={self.head_dim}, value_dim={self.value_dim}"
        return f"{sizes}, {dims}, dropout={self.dropout}, causal={self.causal}"


def _split(projected: Tensor, heads: int, dim: int) -> Tensor:
    """(..., tokens, heads * dim) to (..., heads, tokens, dim)."""
    return projected.view(*projected.shape[:-1], heads, dim).transpose(-3, -2)


def _refuse_bias_rows(
    module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: object
) -> None:
    """Explain why a state dict saved with add_bias_kv does not fit, before torch lists its keys."""
    if f"{prefix}bias_k" in state_dict or f"{prefix}bias_v" in state_dict:
        raise ArgumentError(
            f"state_dict has {prefix}bias_k and {prefix}bias_v (torch's add_bias_kv), which "
            "MultiHeadAttention does not support: they add a key that stands for no token"
        )
