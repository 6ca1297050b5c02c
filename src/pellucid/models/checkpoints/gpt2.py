"""GPT-2 (Radford et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    Family,
    activation,
    activation_name,
    expect,
    marks,
    shape_of,
    write_marks,
)

BLOCK = "decoder.blocks.{}."
NAMES = {
    "decoder.tokens": "wte",
    "decoder.positions": "wpe",
    (
        BLOCK + "attention.query",
        BLOCK + "attention.key",
        BLOCK + "attention.value",
    ): "h.{}.attn.c_attn",
    BLOCK + "attention.output": "h.{}.attn.c_proj",
    BLOCK + "attention_norm": "h.{}.ln_1",
    BLOCK + "feed_forward.up": "h.{}.mlp.c_fc",
    BLOCK + "feed_forward.down": "h.{}.mlp.c_proj",
    BLOCK + "feed_forward_norm": "h.{}.ln_2",
    "decoder.final_norm": "ln_f",
    "head": "lm_head",
}


def read(config: Mapping[str, Any]) -> Config:
    expect(config, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return Config(
        kind="decoder",
        vocabulary=config["vocab_size"],
        width=config["n_embd"],
        layers=config["n_layer"],
        heads=config["n_head"],
        hidden=config.get("n_inner") or 4 * config["n_embd"],
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        norm_first=True,
        activation=activation(config.get("activation_function", "gelu_new")),
        position="learned",
        positions=config.get("n_positions", 1024),
        attention_scale=None if config.get("scale_attn_weights", True) else 1.0,
        tied=config.get("tie_word_embeddings", True),
        **marks(config, bos_token_id=50_256, eos_token_id=50_256),
    )


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="positions attention_scale tied",
        kind="decoder",
        norm_first=True,
        position="learned",
    )
    if not fits or config.attention_scale not in (None, 1.0):
        return None
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.hidden,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": activation_name(config.activation),
        "n_positions": config.positions,
        "scale_attn_weights": config.attention_scale is None,
        "tie_word_embeddings": config.tied,
        **write_marks(config),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.weights_dropout,
    }


FAMILY = Family(
    types=("gpt2",),
    read=read,
    write=write,
    names=NAMES,
    prefix="transformer.",
    transposed=("c_attn", "c_proj", "c_fc"),
    copies={"transformer.wte.weight": ("lm_head.weight",)},
    ignored=r"\.attn\.(bias|masked_bias)$",  # causal masks
)
