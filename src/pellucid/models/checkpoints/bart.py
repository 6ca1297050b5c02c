"""BART (Lewis et al. 2020), PLBART and MVP, and what Marian and other families share with them."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    TARGET_START,
    Family,
    activation,
    activation_name,
    expect,
    marks,
    shape_of,
    write_marks,
)


def _stack(stack: str) -> dict[str, str]:
    block, layer = stack + ".blocks.{}.", stack + ".layers.{}."
    names = {
        stack + ".positions": stack + ".embed_positions",
        stack + ".embedding_norm": stack + ".layernorm_embedding",
        block + "attention_norm": layer + "self_attn_layer_norm",
        block + "cross_norm": layer + "encoder_attn_layer_norm",
        block + "feed_forward.up": layer + "fc1",
        block + "feed_forward.down": layer + "fc2",
        block + "feed_forward_norm": layer + "final_layer_norm",
        stack + ".final_norm": stack + ".layer_norm",
    }
    for ours, theirs in (("attention", "self_attn"), ("cross", "encoder_attn")):
        for part in ("query", "key", "value"):
            names[f"{block}{ours}.{part}"] = f"{layer}{theirs}.{part[0]}_proj"
        names[f"{block}{ours}.output"] = f"{layer}{theirs}.out_proj"
    return names


NAMES = {
    "encoder.tokens": "shared",
    **_stack("encoder"),
    **_stack("decoder"),
    "head": "lm_head",
    "bias": "final_logits_bias",
}
SHARED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")


def both(
    config: Mapping[str, Any], *, norm_first: bool = False, scaled: bool = False, **ids: int
) -> dict[str, Any]:
    """The fields of `Config` that BART, Marian and their descendants share.

    Args:
        config: config.json.
        norm_first: whether the family has its norms before each part, and one at the end.
        scaled: the family's default of scale_embedding.
        ids: the family's defaults of special token ids.
    """
    expect(config, normalize_before=norm_first, add_final_layer_norm=norm_first)
    for size in ("attention_heads", "ffn_dim"):  # `Config` has one for both stacks
        expect(config, **{f"decoder_{size}": config[f"encoder_{size}"]})
    return {
        "kind": "encoder-decoder",
        "vocabulary": config["vocab_size"],
        "width": config["d_model"],
        "layers": config["encoder_layers"],
        "decoder_layers": config["decoder_layers"],
        "heads": config["encoder_attention_heads"],
        "hidden": config["encoder_ffn_dim"],
        "norm_first": norm_first,
        "activation": activation(config.get("activation_function", "gelu")),
        "positions": config.get("max_position_embeddings", 1024),
        "embedding_scale": config["d_model"] ** 0.5
        if config.get("scale_embedding", scaled)
        else 1.0,
        "tied": config.get("tie_word_embeddings", True),
        "logit_bias": True,
        **marks(config, TARGET_START, **ids),
    }


def write_both(config: Config, name: str, kind: str) -> dict[str, Any] | None:
    """The config.json of such a family; None if it does not support this architecture."""
    if config.embedding_scale not in (1.0, config.width**0.5) or config.norm_eps != 1e-5:
        return None
    return {
        "model_type": name,
        "architectures": [kind],
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "encoder_layers": config.layers,
        "decoder_layers": config.decoder_layers or config.layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.hidden,
        "decoder_ffn_dim": config.hidden,
        "activation_function": activation_name(config.activation),
        "max_position_embeddings": config.positions,
        "scale_embedding": config.embedding_scale != 1.0,
        "tie_word_embeddings": config.tied,
        "is_encoder_decoder": True,
        **write_marks(config, TARGET_START),
        "dropout": config.dropout,
    }


def read(config: Mapping[str, Any]) -> Config:
    expect(config, use_prompt=False)
    ids: dict[str, Any] = {"pad_token_id": 1, "eos_token_id": 2}
    is_plbart = config["model_type"] == "plbart"
    if not is_plbart:  # whose targets begin with their language
        ids["decoder_start_token_id"] = 2
    shared = both(config, scaled=is_plbart, **ids)
    return Config(embedding_norm=True, position="learned", position_offset=2, **shared)


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions embedding_scale tied logit_bias",
        kind="encoder-decoder",
        embedding_norm=True,
        position="learned",
        position_offset=2,
    )
    return write_both(config, "bart", "BartForConditionalGeneration") if fits else None


FAMILY = Family(
    types=("bart", "plbart", "mvp"),
    read=read,
    write=write,
    names=NAMES,
    prefix="model.",
    copies={"model.shared.weight": (*SHARED, "lm_head.weight")},
    untied=SHARED,
    rows=("final_logits_bias",),
    ignored=r"^classification_head\.",
)
