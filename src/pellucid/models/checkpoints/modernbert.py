"""ModernBERT (Warner et al. 2024) and EuroBERT (Boizard et al. 2025): encoders with the parts of
later decoders.
"""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.layers.head_configs import ClassifierConfig
from pellucid.models.checkpoints.classifying import in_encoder, labelled
from pellucid.models.checkpoints.description import (
    Description,
    Key,
    activated,
    layer_types,
    layer_windows,
)
from pellucid.models.checkpoints.family import Family, activation
from pellucid.models.checkpoints.llama import NAMES as LLAMA
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, RMS, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

BLOCK, LAYER = "encoder.blocks.{}.", "layers.{}."
NAMES = {
    "encoder.tokens": "embeddings.tok_embeddings",
    "encoder.embedding_norm": "embeddings.norm",
    (
        BLOCK + "attention.query",
        BLOCK + "attention.key",
        BLOCK + "attention.value",
    ): LAYER + "attn.Wqkv",
    BLOCK + "attention.output": LAYER + "attn.Wo",
    BLOCK + "attention_norm": LAYER + "attn_norm",
    (BLOCK + "feed_forward.gate", BLOCK + "feed_forward.up"): LAYER + "mlp.Wi",
    BLOCK + "feed_forward.down": LAYER + "mlp.Wo",
    BLOCK + "feed_forward_norm": LAYER + "mlp_norm",
    "encoder.final_norm": "final_norm",
    "classifier.hidden": "head.dense",
    "classifier.norm": "head.norm",
    "classifier.output": "classifier",
}
_WINDOW, _EVERY = "local_attention", "global_attn_every_n_layers"


def _more(config: Mapping[str, Any]) -> dict[str, Any]:
    """Windows in all layers but every third; theirs counts both sides without the token."""
    layers, every = config["num_hidden_layers"], config.get(_EVERY, 3)
    default = [SLIDING if layer % every else FULL for layer in range(layers)]
    window = config.get(_WINDOW, 128) // 2 + 1
    windows = layer_windows({**config, "sliding_window": window}, layers, default)
    bias = config.get("attention_bias", False)
    return {**windows, "qkv_bias": bias, "output_bias": bias}


def _more_keys(config: Config) -> dict[str, Any]:
    window = {} if config.window is None else {_WINDOW: 2 * (config.window - 1)}
    qkv = config.bias if config.qkv_bias is None else config.qkv_bias
    return {**window, "layer_types": layer_types(config), "attention_bias": qkv}


def _classifier(config: Mapping[str, Any]) -> ClassifierConfig:
    return labelled(
        config,
        pooling="mean" if config.get("classifier_pooling", "cls") == "mean" else "first",
        hidden_bias=config.get("classifier_bias", False),
        activation=activation(config.get("classifier_activation", "gelu")),
        norm=True,
    )


MODERN = Description(
    model_type="modernbert",
    architecture="ModernBertModel",
    fixed={
        "kind": "encoder",
        "embedding_norm": True,
        "norm_first": True,
        "first_norm": False,
        "gated": True,
        "position": "rotary",
    },
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_hidden_layers"),
        "heads": Key("num_attention_heads"),
        "hidden": Key("intermediate_size"),
        "norm_eps": Key("norm_eps", 1e-5),
        "norm_bias": Key("norm_bias", False),
        "bias": Key("mlp_bias", False),
        "activation": activated("hidden_activation", "gelu"),
        "positions": Key("max_position_embeddings", 8192),
    },
    rope=Rope(
        part_key=None,
        theta=160_000.0,
        theta_key="global_rope_theta",
        local_theta=10_000.0,
        local_key="local_rope_theta",
    ),
    ids={"pad_token_id": 50_283, "eos_token_id": 50_282, "bos_token_id": 50_281},
    more=_more,
    more_keys=_more_keys,
    dropouts=(("mlp_dropout", "dropout"), ("attention_dropout", "weights_dropout")),
)
EURO = Description(
    model_type="eurobert",
    architecture="EuroBertModel",
    fixed={**RMS, "kind": "encoder"},
    keys={
        **{
            name: key
            for name, key in keys(positions=8192, tied=False, eps=1e-5).items()
            if name != "tied"
        },
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", None),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None),
    ids={"pad_token_id": 128_001, "eos_token_id": 128_001, "bos_token_id": 128_000},
)


def _euro_classifier(config: Mapping[str, Any]) -> ClassifierConfig:
    pooling = config.get("classifier_pooling", "late")
    how = "first" if pooling == "bos" else "mean"
    return labelled(config, pooling=how, late=pooling == "late", activation="gelu")


FAMILIES = (
    Family(
        types=("modernbert",),
        read=MODERN.read,
        write=MODERN.write,
        names=NAMES,
        prefix="model.",
        outside=("head.", "classifier", "decoder."),
        ignored=r"^head\.|^decoder\.|^classifier\.",
        classifier=_classifier,
    ),
    Family(
        types=("eurobert",),
        read=EURO.read,
        write=EURO.write,
        names={
            **{in_encoder(ours): theirs for ours, theirs in LLAMA.items() if ours != "head"},
            "classifier.hidden": "dense",
            "classifier.output": "classifier",
        },
        prefix="model.",
        outside=("dense", "classifier", "lm_head"),
        ignored=r"^lm_head\.|^dense\.|^classifier\.|inv_freq$",
        classifier=_euro_classifier,
    ),
)
