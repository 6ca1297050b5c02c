"""OPT (Zhang et al. 2022)."""

from collections.abc import Mapping
from typing import Any

from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family

BLOCK, LAYER = "decoder.blocks.{}.", "decoder.layers.{}."
NAMES = {
    "decoder.tokens": "decoder.embed_tokens",
    "decoder.positions": "decoder.embed_positions",
    BLOCK + "attention.query": LAYER + "self_attn.q_proj",
    BLOCK + "attention.key": LAYER + "self_attn.k_proj",
    BLOCK + "attention.value": LAYER + "self_attn.v_proj",
    BLOCK + "attention.output": LAYER + "self_attn.out_proj",
    BLOCK + "attention_norm": LAYER + "self_attn_layer_norm",
    BLOCK + "feed_forward.up": LAYER + "fc1",
    BLOCK + "feed_forward.down": LAYER + "fc2",
    BLOCK + "feed_forward_norm": LAYER + "final_layer_norm",
    "decoder.final_norm": "decoder.final_layer_norm",
    "head": "lm_head",
}


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    width, embedding = config["hidden_size"], config.get("word_embed_proj_dim")
    if embedding not in (None, width):
        raise FileError(
            f"its embeddings are {embedding} wide and its blocks {width}, which is not supported"
        )
    return {}


def _width(config: Config) -> dict[str, Any]:
    return {"word_embed_proj_dim": config.width}


OPT = Description(
    model_type="opt",
    architecture="OPTForCausalLM",
    fixed={"norm": "layer", "norm_eps": 1e-5, "position": "learned", "position_offset": 2},
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_hidden_layers"),
        "heads": Key("num_attention_heads"),
        "hidden": Key("ffn_dim"),
        "norm_first": Key("do_layer_norm_before", True),
        "norm_weight": Key("layer_norm_elementwise_affine", True),
        "bias": Key("enable_bias", True),
        "activation": activated("activation_function", "relu"),
        "positions": Key("max_position_embeddings", 2048),
        "tied": Key("tie_word_embeddings", True),
    },
    ids={"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2},
    expected={"_remove_final_layer_norm": False},
    more=_checked,
    more_keys=_width,
    dropouts=(("attention_dropout", "weights_dropout"), ("dropout", "dropout")),
)
FAMILY = Family(
    types=("opt",),
    read=OPT.read,
    write=OPT.write,
    names=NAMES,
    prefix="model.",
    copies={"model.decoder.embed_tokens.weight": ("lm_head.weight",)},
    ignored=r"^score\.",
)
