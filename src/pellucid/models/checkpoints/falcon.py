"""Falcon (Almazrouei et al. 2023) of 7, 11, 40 and 180 billion parameters."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family, expect
from pellucid.models.checkpoints.llama_like import LAYER_NORM, QKV
from pellucid.models.checkpoints.rope import Rope

BLOCK, LAYER = "decoder.blocks.{}.", "h.{}."


def names(config: Config) -> dict[Any, str]:
    has_two = config.parallel and not config.shared_norm
    return {
        "decoder.tokens": "word_embeddings",
        QKV: LAYER + "self_attention.query_key_value",
        BLOCK + "attention.output": LAYER + "self_attention.dense",
        BLOCK + "attention_norm": LAYER + ("ln_attn" if has_two else "input_layernorm"),
        BLOCK + "feed_forward.up": LAYER + "mlp.dense_h_to_4h",
        BLOCK + "feed_forward.down": LAYER + "mlp.dense_4h_to_h",
        BLOCK + "feed_forward_norm": LAYER + ("ln_mlp" if has_two else "post_attention_layernorm"),
        "decoder.final_norm": "ln_f",
        "head": "lm_head",
    }


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    is_new, is_parallel = (
        config.get("new_decoder_architecture", False),
        config.get("parallel_attn", True),
    )
    if is_new:
        expect(config, parallel_attn=True)
        kv_heads, norms = config.get("num_kv_heads"), config.get("num_ln_in_parallel_attn")
        norms = 2 if norms is None else norms
    else:
        kv_heads, norms = 1 if config.get("multi_query", True) else None, 1
    return {
        "hidden": config.get("ffn_hidden_size") or 4 * config["hidden_size"],
        "kv_heads": kv_heads,
        "parallel": is_parallel,
        "shared_norm": is_parallel and norms == 1,
    }


def _architecture_keys(config: Config) -> dict[str, Any]:
    is_old = config.key_heads in (1, config.heads) and config.parallel == config.shared_norm
    keys = {"ffn_hidden_size": config.hidden, "parallel_attn": config.parallel}
    if is_old:
        return {**keys, "multi_query": config.key_heads == 1}
    return {
        **keys,
        "new_decoder_architecture": True,
        "num_kv_heads": config.key_heads,
        "num_ln_in_parallel_attn": 1 if config.shared_norm else 2,
    }


FALCON = Description(
    model_type="falcon",
    architecture="FalconForCausalLM",
    fixed=LAYER_NORM,
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_hidden_layers"),
        "heads": Key("num_attention_heads"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "activation": activated("activation", "gelu"),
        "positions": Key("max_position_embeddings", 2048),
        "bias": Key("bias", False),
        "tied": Key("tie_word_embeddings", True),
    },
    rope=Rope(part_key=None),
    ids={"bos_token_id": 11, "eos_token_id": 11},
    expected={"alibi": False},
    more=_architecture,
    more_keys=_architecture_keys,
    dropouts=(("attention_dropout", "weights_dropout"), ("hidden_dropout", "dropout")),
)
FAMILY = Family(
    types=("falcon",),
    read=FALCON.read,
    write=FALCON.write,
    names=names,
    prefix="transformer.",
    groups={"query_key_value": lambda config: config.key_heads},
    copies={"transformer.word_embeddings.weight": ("lm_head.weight",)},
    ignored=r"rotary_emb\.inv_freq$|^score\.",
)
