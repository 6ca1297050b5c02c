"""SmolLM 3 (Bakouch et al. 2025): some layers have no positions (Yang et al. 2025, "RNoPE")."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, RMS, family, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope


def _layers(config: Mapping[str, Any]) -> dict[str, Any]:
    layers, interval = config["num_hidden_layers"], config.get("no_rope_layer_interval", 4)
    flags = config.get("no_rope_layers")  # 1 where there are positions, whatever its name says
    if flags is None:
        flags = [int((layer + 1) % interval != 0) for layer in range(layers)]
    rotated = tuple(layer for layer in range(layers) if flags[layer])
    values: dict[str, Any] = {"window": None, "window_layers": None}
    if config.get("use_sliding_window", False):
        default = [FULL if flag else SLIDING for flag in flags]
        values = layer_windows(config, layers, default)
    return {**values, "rotary_layers": None if len(rotated) == layers else rotated}


def _layer_keys(config: Config) -> dict[str, Any]:
    rotated = range(config.layers) if config.rotary_layers is None else config.rotary_layers
    return {
        "no_rope_layers": [int(layer in rotated) for layer in range(config.layers)],
        "layer_types": layer_types(config),
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }


SMOLLM_3 = Description(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    fixed=RMS,
    keys={
        **keys(positions=32_768, tied=True, kv_heads=4),
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", None),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None, theta=2_000_000.0),
    ids={"pad_token_id": 128_004, "bos_token_id": 128_000, "eos_token_id": 128_001},
    more=_layers,
    more_keys=_layer_keys,
)
FAMILY = family(SMOLLM_3)
