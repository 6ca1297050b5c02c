"""Llama (Touvron et al. 2023) and models of its architecture: Mistral, Qwen 2 and 3, SmolLM."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import layer_types, layer_windows
from pellucid.models.checkpoints.family import (
    START,
    Family,
    activation,
    activation_name,
    marks,
    shape_of,
    write_marks,
)
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

BLOCK, LAYER = "decoder.blocks.{}.", "layers.{}."
NAMES = {
    "decoder.tokens": "embed_tokens",
    BLOCK + "attention.query": LAYER + "self_attn.q_proj",
    BLOCK + "attention.key": LAYER + "self_attn.k_proj",
    BLOCK + "attention.value": LAYER + "self_attn.v_proj",
    BLOCK + "attention.output": LAYER + "self_attn.o_proj",
    BLOCK + "attention.query_norm": LAYER + "self_attn.q_norm",
    BLOCK + "attention.key_norm": LAYER + "self_attn.k_norm",
    BLOCK + "attention_norm": LAYER + "input_layernorm",
    BLOCK + "feed_forward.gate": LAYER + "mlp.gate_proj",
    BLOCK + "feed_forward.up": LAYER + "mlp.up_proj",
    BLOCK + "feed_forward.down": LAYER + "mlp.down_proj",
    BLOCK + "feed_forward_norm": LAYER + "post_attention_layernorm",
    "decoder.final_norm": "norm",
    "head": "lm_head",
}

ROPE = Rope(part_key=None)

_QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32_768, "sliding_window": 4096}
DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
}
"""The defaults of keys that are missing from config.json; null is not missing."""


def read(config: Mapping[str, Any]) -> Config:
    name = config["model_type"]
    config = {**DEFAULTS[name], **config}
    ids = {} if name.startswith("qwen") else {"bos_token_id": 1, "eos_token_id": 2}
    positions = config.get("max_position_embeddings")
    attention_bias = name == "qwen2" or bool(config.get("attention_bias", False))
    return Config(
        kind="decoder",
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads"),
        head_dim=config.get("head_dim"),
        hidden=config["intermediate_size"],
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        norm_first=True,
        head_norm=name == "qwen3",
        activation=activation(config.get("hidden_act", "silu")),
        gated=True,
        bias=config.get("mlp_bias", False),
        qkv_bias=attention_bias,
        output_bias=attention_bias and name != "qwen2",
        position="rotary",
        **{"positions": positions, **ROPE.read(config, 0, positions)},
        **_windows(config),
        tied=config.get("tie_word_embeddings", False),
        **marks(config, START, **ids),
    )


def _windows(config: Mapping[str, Any]) -> dict[str, Any]:
    """The window of Mistral's layers, and of the last layers of Qwen."""
    name, layers = config["model_type"], config["num_hidden_layers"]
    if name == "llama" or (name != "mistral" and not config.get("use_sliding_window", False)):
        return {"window": None}
    full = 0 if name == "mistral" else min(config.get("max_window_layers", 28), layers)
    return layer_windows(config, layers, [FULL] * full + [SLIDING] * (layers - full))


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says=(
            "kv_heads head_dim head_norm bias qkv_bias output_bias positions rope_theta "
            "rope_scaling window window_layers tied"
        ),
        kind="decoder",
        norm="rms",
        norm_first=True,
        gated=True,
        position="rotary",
    )
    name = _name(config) if fits else None
    if name is None:
        return None
    described = {
        "model_type": name,
        "architectures": [CLASSES[name]],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.dim,
        "intermediate_size": config.hidden,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config.activation),
        **ROPE.write(config),
        "tie_word_embeddings": config.tied,
        **write_marks(config),
        "attention_dropout": config.weights_dropout,
    }
    if config.positions is not None:
        described = {"max_position_embeddings": config.positions, **described}
    if name in ("llama", "qwen3"):
        described["attention_bias"] = _qkv_bias(config)
    if name == "llama":
        described["mlp_bias"] = config.bias
    else:
        described["sliding_window"] = config.window
    if name.startswith("qwen"):
        described |= {"use_sliding_window": config.window is not None, "max_window_layers": 0}
        if config.window_layers is not None:
            described["layer_types"] = layer_types(config)
    # Dynamic scaling says how long a text may be by its factor.
    return described if read(described).positions == config.positions else None


CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def _name(config: Config) -> str | None:
    """The model_type of this architecture."""
    qkv = _qkv_bias(config)
    output = config.bias if config.output_bias is None else config.output_bias
    if config.head_norm:
        return "qwen3" if qkv == output and not config.bias else None
    if qkv and not output and not config.bias:
        return "qwen2"
    if config.window is None and qkv == output and config.width % config.heads == 0:
        return "llama"
    has_more = config.bias or qkv or output or len(set(layer_types(config))) > 1
    return None if has_more else "mistral"


def _qkv_bias(config: Config) -> bool:
    return config.bias if config.qkv_bias is None else config.qkv_bias


FAMILY = Family(
    types=tuple(CLASSES),
    read=read,
    write=write,
    names=NAMES,
    prefix="model.",
    copies={"model.embed_tokens.weight": ("lm_head.weight",)},
    ignored=r"rotary_emb\.inv_freq$|^score\.",
)
