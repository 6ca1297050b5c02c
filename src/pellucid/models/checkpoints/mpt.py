"""MPT (MosaicML 2023)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.family import Family, expect
from pellucid.models.checkpoints.llama_like import QKV

BLOCK, LAYER = "decoder.blocks.{}.", "blocks.{}."
NAMES = {
    "decoder.tokens": "wte",
    QKV: LAYER + "attn.Wqkv",
    BLOCK + "attention.output": LAYER + "attn.out_proj",
    BLOCK + "attention_norm": LAYER + "norm_1",
    BLOCK + "feed_forward.up": LAYER + "ffn.up_proj",
    BLOCK + "feed_forward.down": LAYER + "ffn.down_proj",
    BLOCK + "feed_forward_norm": LAYER + "norm_2",
    "decoder.final_norm": "norm_f",
    "head": "lm_head",
}


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    attention = config.get("attn_config") or {}
    expect(
        attention,
        attn_type="multihead_attention",
        alibi=True,
        alibi_bias_max=8,
        prefix_lm=False,
        qk_ln=False,
    )
    return {
        "hidden": 4 * config["d_model"],  # transformers does not use expansion_ratio
        "qkv_clip": attention.get("clip_qkv"),
        "attention_scale": attention.get("softmax_scale"),
    }


def _attention_keys(config: Config) -> dict[str, Any]:
    return {
        "attn_config": {
            "alibi": True,
            "clip_qkv": config.qkv_clip,
            "softmax_scale": config.attention_scale,
        },
    }


MPT = Description(
    model_type="mpt",
    architecture="MptForCausalLM",
    fixed={
        "norm": "layer",
        "norm_first": True,
        "norm_bias": False,
        "activation": "gelu",
        "bias": False,
        "position": "alibi",
    },
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("d_model"),
        "layers": Key("n_layers"),
        "heads": Key("n_heads"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "positions": Key("max_seq_len", 2048),
        "tied": Key("tie_word_embeddings", True),
    },
    expected={"logit_scale": None, "no_bias": True},
    more=_attention,
    more_keys=_attention_keys,
    dropouts=(("resid_pdrop", "dropout"), ("emb_pdrop", "dropout")),
)
FAMILY = Family(
    types=("mpt",),
    read=MPT.read,
    write=MPT.write,
    names=NAMES,
    prefix="transformer.",
    copies={"transformer.wte.weight": ("lm_head.weight",)},
    ignored=r"^score\.",
)
