"""What the decoders that follow Llama's naming share: keys of config.json and names of tensors."""

from collections.abc import Callable
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family, Names
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES

RMS = {"norm": "rms", "norm_first": True, "gated": True, "position": "rotary"}
"""Fields of the decoders with RMS norms and a gated feed-forward part."""
LAYER_NORM = {"norm": "layer", "norm_first": True, "position": "rotary"}
ATTENTION_BIAS = {
    "qkv_bias": Key("attention_bias", False),
    "output_bias": Key("attention_bias", False),
}
OUTPUT_NORMS = {
    BLOCK + "attention_output_norm": LAYER + "post_attention_layernorm",
    BLOCK + "feed_forward_output_norm": LAYER + "post_feedforward_layernorm",
}
SANDWICH = {**OUTPUT_NORMS, BLOCK + "feed_forward_norm": LAYER + "pre_feedforward_layernorm"}
"""The norms of blocks that normalise the input and the output of each part."""
QKV = (BLOCK + "attention.query", BLOCK + "attention.key", BLOCK + "attention.value")
GATE_AND_UP = (BLOCK + "feed_forward.gate", BLOCK + "feed_forward.up")
FUSED_NAMES: dict[Any, str] = {
    **{ours: theirs for ours, theirs in NAMES.items() if ours not in (*QKV, *GATE_AND_UP)},
    QKV: LAYER + "self_attn.qkv_proj",
    GATE_AND_UP: LAYER + "mlp.gate_up_proj",
}
"""Llama's names, where query, key and value are one tensor, and gate and up are another."""


def keys(
    *,
    positions: int,
    tied: bool,
    eps: float = 1e-6,
    eps_key: str = "rms_norm_eps",
    kv_heads: int | None = None,
    act: str = "silu",
    act_key: str = "hidden_act",
) -> dict[str, Key]:
    """The keys that Llama has too, with the defaults of a family."""
    return {
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_hidden_layers"),
        "heads": Key("num_attention_heads"),
        "hidden": Key("intermediate_size"),
        "kv_heads": Key("num_key_value_heads", kv_heads),
        "norm_eps": Key(eps_key, eps),
        "activation": activated(act_key, act),
        "positions": Key("max_position_embeddings", positions),
        "tied": Key("tie_word_embeddings", tied),
    }


def family(description: Description, names: Names | Callable[[Config], Names] = NAMES) -> Family:
    """The family of a description whose modules are placed as in Llama."""
    return Family(
        types=(description.model_type,),
        read=description.read,
        write=description.write,
        names=names,
        prefix="model.",
        copies={"model.embed_tokens.weight": ("lm_head.weight",)},
        ignored=r"rotary_emb\.inv_freq$|^score\.",
    )
