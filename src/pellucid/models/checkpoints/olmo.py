"""OLMo (Groeneveld et al. 2024), OLMo 2 (OLMo Team 2024) and OLMo 3 (2025)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.llama import NAMES
from pellucid.models.checkpoints.llama_like import (
    ATTENTION_BIAS,
    LAYER_NORM,
    OUTPUT_NORMS,
    RMS,
    family,
    keys,
)
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

IDS = {"pad_token_id": 1, "eos_token_id": 50_279}
KEYS = {**keys(positions=2048, tied=False, eps=1e-5), **ATTENTION_BIAS}
SHAPE_2 = {
    **RMS,
    "bias": False,
    "branch_norms": "after",
    "head_norm": True,
    "head_norm_kind": "joint",
}

OLMO = Description(
    model_type="olmo",
    architecture="OlmoForCausalLM",
    fixed={**LAYER_NORM, "norm_weight": False, "norm_eps": 1e-5, "gated": True, "bias": False},
    keys={name: key for name, key in KEYS.items() if name != "norm_eps"}
    | {"qkv_clip": Key("clip_qkv", None)},
    rope=Rope(part_key=None),
    ids=IDS,
)
OLMO_2 = Description(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    fixed=SHAPE_2,
    keys=KEYS,
    rope=Rope(part_key=None),
    ids=IDS,
)


def _windows(config: Mapping[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    default = [SLIDING if (layer + 1) % 4 else FULL for layer in range(layers)]
    return layer_windows({"sliding_window": 4096, **config}, layers, default)


def _window_keys(config: Config) -> dict[str, Any]:
    full = dict(config.rope_scaling) or {"rope_type": "default"}
    local = config.rope_theta if config.window_theta is None else config.window_theta
    return {
        "sliding_window": config.window,
        "layer_types": layer_types(config),
        "rope_scaling": None,
        "rope_parameters": {
            FULL: {**full, "rope_theta": config.rope_theta},
            SLIDING: {"rope_type": "default", "rope_theta": local},
        },
    }


OLMO_3 = Description(
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    fixed=SHAPE_2,
    keys=KEYS,
    # Older configs say only rope_theta, of the layers that see everything.
    rope=Rope(part_key=None, theta=500_000.0, local_theta=500_000.0),
    ids=IDS,
    more=_windows,
    more_keys=_window_keys,
)
FAMILIES = (
    family(OLMO),
    *(family(later, {**NAMES, **OUTPUT_NORMS}) for later in (OLMO_2, OLMO_3)),
)
