"""T5 (Raffel et al. 2020), with its version 1.1, FLAN-T5, mT5 and UMT5 (Chung et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    TARGET_START,
    Family,
    activation,
    activation_name,
    marks,
    shape_of,
    write_marks,
)

RELATIVE = "layer.0.SelfAttention.relative_attention_bias"


def names(config: Config) -> dict[str, str]:
    stacks = _stack("encoder", 1, config.gated) | _stack("decoder", 2, config.gated)
    return {"encoder.tokens": "shared", **stacks, "head": "lm_head"}


def _stack(stack: str, last: int, is_gated: bool) -> dict[str, str]:
    """The names of a stack; `last` is the number of the feed-forward layer in its blocks."""
    up = "wi_1" if is_gated else "wi"
    block, layer = stack + ".blocks.{}.", stack + ".block.{}.layer."
    pairs = {
        stack + ".relative.table": f"{stack}.block.0.{RELATIVE}",
        block + "attention.relative.table": f"{stack}.block.{{}}.{RELATIVE}",
        block + "attention_norm": layer + "0.layer_norm",
        block + "feed_forward.gate": f"{layer}{last}.DenseReluDense.wi_0",
        block + "feed_forward.up": f"{layer}{last}.DenseReluDense.{up}",
        block + "feed_forward.down": f"{layer}{last}.DenseReluDense.wo",
        block + "feed_forward_norm": f"{layer}{last}.layer_norm",
        block + "cross_norm": layer + "1.layer_norm",
        stack + ".final_norm": stack + ".final_layer_norm",
    }
    for ours, theirs in (("attention", "0.SelfAttention"), ("cross", "1.EncDecAttention")):
        for part in ("query", "key", "value", "output"):
            pairs[f"{block}{ours}.{part}"] = f"{layer}{theirs}.{part[0]}"
    return pairs


def read(config: Mapping[str, Any]) -> Config:
    name = config["model_type"]
    projection = config.get("feed_forward_proj", "relu" if name == "t5" else "gated-gelu")
    acts = "gelu_new" if projection == "gated-gelu" else projection.split("-")[-1]
    is_tied = config.get("tie_word_embeddings", True)
    # Untied models (version 1.1) and mT5 never scale; since transformers 5 it is a setting.
    is_scaled = name != "mt5" and config.get("scale_decoder_outputs", is_tied)
    return Config(
        kind="encoder-decoder",
        vocabulary=config["vocab_size"],
        width=config["d_model"],
        layers=config["num_layers"],
        decoder_layers=config.get("num_decoder_layers"),
        heads=config["num_heads"],
        head_dim=config["d_kv"],
        hidden=config["d_ff"],
        norm="rms",
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        norm_first=True,
        # What transformers derives from the projection, unless config.json says it as well.
        activation=activation(config.get("dense_act_fn", acts)),
        gated=config.get("is_gated_act", projection.startswith("gated-")),
        bias=False,
        position="relative",
        positions=None,
        relative_buckets=config.get("relative_attention_num_buckets", 32),
        relative_distance=config.get("relative_attention_max_distance", 128),
        relative_each=name == "umt5",
        attention_scale=1.0,
        tied=is_tied,
        logit_scale=config["d_model"] ** -0.5 if is_scaled else 1.0,
        **marks(
            {TARGET_START: config.get("pad_token_id", 0), **config},
            TARGET_START,
            pad_token_id=0,
            eos_token_id=1,
        ),
    )


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says=(
            "decoder_layers head_dim gated positions relative_buckets relative_distance "
            "relative_each tied logit_scale"
        ),
        kind="encoder-decoder",
        norm="rms",
        norm_first=True,
        bias=False,
        position="relative",
        attention_scale=1.0,
    )
    if not fits or config.logit_scale not in (1.0, config.width**-0.5):
        return None
    if config.relative_each and config.tied != (config.logit_scale != 1.0):
        return None  # UMT5 has no setting of its own for the scale
    projection = activation_name(config.activation)
    if config.gated:  # their "gated-gelu" is the tanh approximation
        names = {"gelu_new": "gelu", "gelu": "gelu_python"}
        projection = "gated-" + names.get(projection, projection)
    return {
        "model_type": "umt5" if config.relative_each else "t5",
        "architectures": [f"{'UM' if config.relative_each else ''}T5ForConditionalGeneration"],
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "num_layers": config.layers,
        "num_decoder_layers": config.decoder_layers or config.layers,
        "num_heads": config.heads,
        "d_kv": config.dim,
        "d_ff": config.hidden,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": projection,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.logit_scale != 1.0,
        "is_encoder_decoder": True,
        **write_marks(config, TARGET_START),
        "dropout_rate": config.dropout,
    }


FAMILY = Family(
    encoder="T5EncoderModel",
    types=("t5", "mt5", "umt5"),
    read=read,
    write=write,
    names=names,
    copies={
        "shared.weight": (
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "lm_head.weight",
        )
    },
)
