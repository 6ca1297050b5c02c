"""Command R (Cohere 2024) and Command R7B and A (Cohere 2025)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, LAYER_NORM, family, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

SHAPE = {
    **LAYER_NORM,
    "norm_bias": False,
    "parallel": True,
    "shared_norm": True,
    "gated": True,
    "bias": False,
    "rotary_pairs": "neighbours",
}
KEYS = {
    **keys(positions=8192, tied=True, eps=1e-5, eps_key="layer_norm_eps"),
    **ATTENTION_BIAS,
    "logit_scale": Key("logit_scale", 0.0625),
}
IDS = {"pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 255_001}

COHERE = Description(
    model_type="cohere",
    architecture="CohereForCausalLM",
    fixed=SHAPE,
    keys={
        **KEYS,
        "head_norm": Key("use_qk_norm", False),
        "head_norm_kind": Key(
            "use_qk_norm",
            False,
            lambda has_norm: "own" if has_norm else "shared",
            lambda kind: kind == "own",
        ),
    },
    rope=Rope(part_key=None, theta=500_000.0),
    ids=IDS,
)


def _layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every fourth layer sees everything, and has no positions."""
    layers, pattern = config["num_hidden_layers"], config.get("sliding_window_pattern", 4)
    default = [SLIDING if (layer + 1) % pattern else FULL for layer in range(layers)]
    windows = layer_windows({"sliding_window": 4096, **config}, layers, default)
    if windows["window"] is None:
        return {**windows, "rotary_layers": ()}
    return {**windows, "rotary_layers": windows["window_layers"]}


def _layer_keys(config: Config) -> dict[str, Any]:
    return {"sliding_window": config.window, "layer_types": layer_types(config)}


COHERE_2 = Description(
    model_type="cohere2",
    architecture="Cohere2ForCausalLM",
    fixed=SHAPE,
    keys=KEYS,
    rope=Rope(part_key=None),
    ids=IDS,
    more=_layers,
    more_keys=_layer_keys,
)


FAMILIES = (family(COHERE), family(COHERE_2))
