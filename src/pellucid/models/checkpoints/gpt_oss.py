"""gpt-oss (OpenAI 2025)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import RMS, family, keys
from pellucid.models.checkpoints.rope import FULL, ORIGINAL, SLIDING, Rope

PART, EXPERTS = BLOCK + "feed_forward.", LAYER + "mlp.experts."
OSS_NAMES: dict[Any, str] = {
    **NAMES,
    BLOCK + "attention.sinks": LAYER + "self_attn.sinks",
    PART + "router": LAYER + "mlp.router",
    (PART + "gates.weight", PART + "ups.weight"): EXPERTS + "gate_up_proj",
    (PART + "gates.bias", PART + "ups.bias"): EXPERTS + "gate_up_proj_bias",
    PART + "downs.weight": EXPERTS + "down_proj",
    PART + "downs.bias": EXPERTS + "down_proj_bias",
}
LLAMA_KEYS = keys(positions=131_072, tied=False, eps=1e-5, kv_heads=8)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    ORIGINAL: 4096,
}


def _windows(config: Mapping[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    default = [FULL if layer % 2 else SLIDING for layer in range(layers)]
    return layer_windows({"sliding_window": 128, **config}, layers, default)


def _window_keys(config: Config) -> dict[str, Any]:
    return {"sliding_window": config.window, "layer_types": layer_types(config)}


OSS = Description(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    fixed={**RMS, "activation": "quick_gelu", "bias": True, "sinks": True, "up_offset": 1.0},
    keys={
        **{name: key for name, key in LLAMA_KEYS.items() if name != "activation"},
        "head_dim": Key("head_dim", 64),
        "qkv_bias": Key("attention_bias", True),
        "output_bias": Key("attention_bias", True),
        "experts": Key("num_local_experts", 128),
        "experts_used": Key("num_experts_per_tok", 4),
        "feed_clamp": Key("swiglu_limit", 7.0),
    },
    rope=Rope(part_key=None, theta=150_000.0, default=YARN),
    expected={"swiglu_alpha": 1.702},
    more=_windows,
    more_keys=_window_keys,
)
FAMILY = replace(
    family(OSS, OSS_NAMES),
    transposed=("experts.gate_up_proj", "experts.down_proj"),
    stacked=("experts.gate_up_proj", "experts.gate_up_proj_bias"),
    groups={
        "experts.gate_up_proj": lambda config: config.hidden,
        "experts.gate_up_proj_bias": lambda config: config.hidden,
    },
)
