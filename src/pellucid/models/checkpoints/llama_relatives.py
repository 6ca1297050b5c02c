"""Decoders that differ from Llama in a setting or two.

Arcee, Seed-OSS, ERNIE 4.5, Helium and EXAONE 4 (all of 2025).
"""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, layer_types, layer_windows
from pellucid.models.checkpoints.llama import NAMES
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, OUTPUT_NORMS, RMS, family, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

ARCEE = Description(
    model_type="arcee",
    architecture="ArceeForCausalLM",
    fixed={**RMS, "gated": False},
    keys={
        **keys(positions=4096, tied=False, eps=1e-5, act="relu2"),
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", None),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None),
    ids={"bos_token_id": 128_000, "eos_token_id": 128_001},
)
SEED_OSS = Description(
    model_type="seed_oss",
    architecture="SeedOssForCausalLM",
    fixed=RMS,
    keys={
        **keys(positions=524_288, tied=False, kv_heads=8),
        "head_dim": Key("head_dim", 128),
        "qkv_bias": Key("attention_bias", True),
        "output_bias": Key("attention_out_bias", False),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None),
    ids={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    dropouts=(("attention_dropout", "weights_dropout"), ("residual_dropout", "dropout")),
)
ERNIE_4_5 = Description(
    model_type="ernie4_5",
    architecture="Ernie4_5ForCausalLM",
    fixed={**RMS, "rotary_pairs": "neighbours"},
    keys={
        **keys(positions=131_072, tied=True, eps=1e-5, kv_heads=2),
        "head_dim": Key("head_dim", 128),
        "bias": Key("use_bias", False),
    },
    rope=Rope(part_key=None, theta=500_000.0),
    ids={"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    dropouts=(),
)
HELIUM = Description(
    model_type="helium",
    architecture="HeliumForCausalLM",
    fixed={**RMS, "rotary_pairs": "neighbours", "output_bias": False},
    keys={
        **keys(positions=4096, tied=False, eps=1e-8, kv_heads=20),
        "head_dim": Key("head_dim", 128),
        "qkv_bias": Key("attention_bias", False),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None, theta=100_000.0),
    ids={"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2},
)


def _exaone_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """With windows, the layers that see everything have no positions."""
    layers = config["num_hidden_layers"]
    pattern = config.get("sliding_window_pattern", 4) or layers + 1
    default = [SLIDING if (layer + 1) % pattern else FULL for layer in range(layers)]
    values = layer_windows({"sliding_window": 4096, **config}, layers, default)
    if config.get("sliding_window", 4096) is None:
        return {**values, "rotary_layers": None}
    return {**values, "rotary_layers": () if values["window"] is None else values["window_layers"]}


def _exaone_layer_keys(config: Config) -> dict[str, Any]:
    return {"sliding_window": config.window, "layer_types": layer_types(config)}


EXAONE_4 = Description(
    model_type="exaone4",
    architecture="Exaone4ForCausalLM",
    fixed={**RMS, "bias": False, "branch_norms": "after", "head_norm": True},
    keys={
        **keys(positions=2048, tied=False, eps=1e-5, kv_heads=32),
        "head_dim": Key("head_dim", None),
    },
    rope=Rope(part_key=None),
    ids={"bos_token_id": 0, "eos_token_id": 2},
    more=_exaone_layers,
    more_keys=_exaone_layer_keys,
)
FAMILIES = (
    family(ARCEE),
    family(SEED_OSS),
    family(ERNIE_4_5),
    family(HELIUM),
    family(EXAONE_4, {**NAMES, **OUTPUT_NORMS}),
)
