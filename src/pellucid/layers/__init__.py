"""Attention as `torch.nn.Module`s: projections that train, around `pellucid.attention`.

    BareSelfAttention   one head, three bare matrices: the arithmetic alone
    SelfAttention       one head, three `torch.nn.Linear`
    MultiHeadAttention  any number of heads; self-, causal and cross-attention; the parameters
                        and the state dict of `torch.nn.MultiheadAttention`

Each returns `(context, weights)`, and the weights are lazy: see `pellucid.AttentionWeights`.
"""

from pellucid.layers.multi_head import MultiHeadAttention
from pellucid.layers.self_attention import BareSelfAttention, SelfAttention

__all__ = ["BareSelfAttention", "MultiHeadAttention", "SelfAttention"]
