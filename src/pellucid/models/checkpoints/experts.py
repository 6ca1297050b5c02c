"""Mixtral (Jiang et al. 2024), Qwen 2 and 3 MoE, and OLMoE (Muennighoff et al. 2024).

A checkpoint has a tensor for each expert; transformers 5 may also write one for all of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import olmo
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, RMS, family, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

PART = BLOCK + "feed_forward."
PLAIN = {**RMS, "bias": False}


def _names(part: str, gate: str, up: str, down: str) -> dict[Any, str]:
    """The names of experts in a part of a layer, and those of Llama."""
    return {
        **NAMES,
        PART + "router": f"{LAYER}{part}.gate",
        PART + "gates": f"{LAYER}{part}.experts.*.{gate}",
        PART + "ups": f"{LAYER}{part}.experts.*.{up}",
        PART + "downs": f"{LAYER}{part}.experts.*.{down}",
        PART + "shared.gate": LAYER + "mlp.shared_expert.gate_proj",
        PART + "shared.up": LAYER + "mlp.shared_expert.up_proj",
        PART + "shared.down": LAYER + "mlp.shared_expert.down_proj",
        PART + "shared_gate": LAYER + "mlp.shared_expert_gate",
    }


EACH = _names("mlp", "gate_proj", "up_proj", "down_proj")
MIXTRAL_EACH = _names("block_sparse_moe", "w1", "w3", "w2")
TOGETHER = {
    **{ours: theirs for ours, theirs in EACH.items() if ".experts." not in theirs},
    (PART + "gates.weight", PART + "ups.weight"): LAYER + "mlp.experts.gate_up_proj",
    PART + "downs.weight": LAYER + "mlp.experts.down_proj",
}
"""The names of models of transformers 5, in which experts are one tensor."""


def _family(description: Description, names: dict[Any, str] = EACH) -> Family:
    stacked = ("experts.gate_up_proj",)
    return replace(family(description, names), older=(TOGETHER,), stacked=stacked)


MIXTRAL = Description(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    fixed={**RMS, "bias": False},
    keys={
        **keys(positions=131_072, tied=False, eps=1e-5, kv_heads=8),
        "head_dim": Key("head_dim", None),
        "experts": Key("num_local_experts", 8),
        "experts_used": Key("num_experts_per_tok", 2),
        "window": Key("sliding_window", None),
    },
    rope=Rope(part_key=None, theta=1_000_000.0),
    ids={"bos_token_id": 1, "eos_token_id": 2},
)


def _dense(config: Mapping[str, Any]) -> dict[str, Any]:
    """The layers without experts, as all are between every `decoder_sparse_step`-th."""
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    layers = range(config["num_hidden_layers"])
    return {
        "dense_layers": tuple(layer for layer in layers if layer in dense or (layer + 1) % step),
    }


def _dense_keys(config: Config) -> dict[str, Any]:
    return {"mlp_only_layers": list(config.dense_layers)}


def _qwen2(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every other layer of the first ones may have a window."""
    layers, most = config["num_hidden_layers"], config.get("max_window_layers", 28)
    default = [FULL if layer % 2 or layer >= most else SLIDING for layer in range(layers)]
    config = {"sliding_window": 4096, **config}
    windows = {"window": None, "window_layers": None}
    if config.get("use_sliding_window", False):
        windows = layer_windows(config, layers, default)
    return {**_dense(config), **windows}


def _qwen2_keys(config: Config) -> dict[str, Any]:
    return {
        **_dense_keys(config),
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
        "layer_types": layer_types(config),
    }


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    has_window = config.get("use_sliding_window", False)
    window = config.get("sliding_window", 4096) if has_window else None
    experts = config.get("num_local_experts", 128)  # as transformers 5 writes it
    return {**_dense(config), "window": window, "experts": config.get("num_experts", experts)}


def _qwen3_keys(config: Config) -> dict[str, Any]:
    return {
        **_dense_keys(config),
        "num_experts": config.experts,
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
    }


QWEN_2 = Description(
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    fixed={**PLAIN, "output_bias": False},
    keys={
        **keys(positions=32_768, tied=False, kv_heads=16),
        "qkv_bias": Key("qkv_bias", True),
        "experts": Key("num_experts", 60),
        "experts_used": Key("num_experts_per_tok", 4),
        "experts_normalised": Key("norm_topk_prob", False),
        "expert_hidden": Key("moe_intermediate_size", 1408),
        "shared_hidden": Key("shared_expert_intermediate_size", 5632),
    },
    rope=Rope(part_key=None),
    more=_qwen2,
    more_keys=_qwen2_keys,
)
QWEN_3 = Description(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    fixed={**PLAIN, "head_norm": True},
    keys={
        **keys(positions=32_768, tied=False, kv_heads=4),
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", None),
        "experts_used": Key("num_experts_per_tok", 8),
        "experts_normalised": Key("norm_topk_prob", False),
        "expert_hidden": Key("moe_intermediate_size", 768),
    },
    rope=Rope(part_key=None),
    more=_qwen3,
    more_keys=_qwen3_keys,
)
OLMOE = Description(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    fixed={**PLAIN, "head_norm": True, "head_norm_kind": "joint"},
    keys={
        **keys(positions=4096, tied=False, eps=1e-5),
        **ATTENTION_BIAS,
        "qkv_clip": Key("clip_qkv", None),
        "experts": Key("num_experts", 64),
        "experts_used": Key("num_experts_per_tok", 8),
        "experts_normalised": Key("norm_topk_prob", False),
    },
    rope=Rope(part_key=None),
    ids=olmo.IDS,
)
FAMILIES = (_family(MIXTRAL, MIXTRAL_EACH), _family(QWEN_2), _family(QWEN_3), _family(OLMOE))
