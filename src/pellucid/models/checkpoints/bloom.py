"""BLOOM (BigScience 2022)."""

from collections.abc import Mapping
from typing import Any

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.llama_like import QKV

BLOCK, LAYER = "decoder.blocks.{}.", "h.{}."
NAMES = {
    "decoder.tokens": "word_embeddings",
    "decoder.embedding_norm": "word_embeddings_layernorm",
    QKV: LAYER + "self_attention.query_key_value",
    BLOCK + "attention.output": LAYER + "self_attention.dense",
    BLOCK + "attention_norm": LAYER + "input_layernorm",
    BLOCK + "feed_forward.up": LAYER + "mlp.dense_h_to_4h",
    BLOCK + "feed_forward.down": LAYER + "mlp.dense_4h_to_h",
    BLOCK + "feed_forward_norm": LAYER + "post_attention_layernorm",
    "decoder.final_norm": "ln_f",
    "head": "lm_head",
}


def _width(config: Mapping[str, Any]) -> dict[str, Any]:
    width = config.get("n_embed") or config["hidden_size"]  # the older name goes before
    return {"width": width, "hidden": 4 * width}


BLOOM = Description(
    model_type="bloom",
    architecture="BloomForCausalLM",
    fixed={
        "norm": "layer",
        "norm_first": True,
        "embedding_norm": True,
        "activation": "gelu_tanh",
        "position": "alibi",
        "positions": None,
    },
    keys={
        "vocabulary": Key("vocab_size"),
        "layers": Key("n_layer"),
        "heads": Key("n_head"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "tied": Key("tie_word_embeddings", True),
    },
    ids={"bos_token_id": 1, "eos_token_id": 2},
    expected={"apply_residual_connection_post_layernorm": False},
    more=_width,
    more_keys=lambda config: {"hidden_size": config.width},
    dropouts=(("attention_dropout", "weights_dropout"), ("hidden_dropout", "dropout")),
)
FAMILY = Family(
    types=("bloom",),
    read=BLOOM.read,
    write=BLOOM.write,
    names=NAMES,
    prefix="transformer.",
    groups={"query_key_value": lambda config: config.heads},
    copies={"transformer.word_embeddings.weight": ("lm_head.weight",)},
    ignored=r"^score\.",
)
