"""Gemma (Gemma Team 2024), Gemma 2 (2024) and the language model of Gemma 3 (2025)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.errors import FileError
from pellucid.layers.config import Activation, Config
from pellucid.models.checkpoints.classifying import decoder_of, encoder_of
from pellucid.models.checkpoints.description import (
    Description,
    Key,
    activated,
    layer_types,
    layer_windows,
)
from pellucid.models.checkpoints.family import activation
from pellucid.models.checkpoints.llama import NAMES
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, RMS, SANDWICH, family, keys
from pellucid.models.checkpoints.rope import FULL, SLIDING, Rope

SHAPE = {**RMS, "norm_offset": True, "bias": False}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def _scaled(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("use_bidirectional_attention"):
        raise FileError("its tokens see later ones (use_bidirectional_attention), unlike a decoder")
    return {"embedding_scale": config["hidden_size"] ** 0.5}


def _by_tanh(name: str) -> Activation:
    """Old configs say "gelu" and mean the approximation by tanh."""
    return activation("gelu_pytorch_tanh" if name == "gelu" else name)


GEMMA_1 = Description(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    fixed=SHAPE,
    keys={
        **keys(positions=8192, tied=True, kv_heads=16),
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", 256),
        "activation": replace(activated("hidden_act", "gelu_pytorch_tanh"), read=_by_tanh),
    },
    rope=Rope(part_key=None),
    ids=IDS,
    more=_scaled,
)
_LATER = {
    **keys(
        positions=8192, tied=True, kv_heads=4, act="gelu_pytorch_tanh", act_key="hidden_activation"
    ),
    **ATTENTION_BIAS,
    "head_dim": Key("head_dim", 256),
    "attention_scale": Key(
        "query_pre_attn_scalar",
        256,
        lambda scalar: scalar**-0.5,
        lambda scale: round(scale**-2),
    ),
    "score_softcap": Key("attn_logit_softcapping", 50.0),
    "logit_softcap": Key("final_logit_softcapping", 30.0),
}


def _windows(config: Mapping[str, Any], pattern: int) -> dict[str, Any]:
    """Every `pattern`-th layer sees everything, unless the config says otherwise."""
    layers = config["num_hidden_layers"]
    default = [FULL if (layer + 1) % pattern == 0 else SLIDING for layer in range(layers)]
    return layer_windows({"sliding_window": 4096, **config}, layers, default)


def _window_keys(config: Config) -> dict[str, Any]:
    return {"sliding_window": config.window, "layer_types": layer_types(config)}


GEMMA_2 = Description(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    fixed={**SHAPE, "branch_norms": "both"},
    keys=_LATER,
    rope=Rope(part_key=None),
    ids=IDS,
    more=lambda config: {**_scaled(config), **_windows(config, 2)},
    more_keys=_window_keys,
)
GEMMA_3 = Description(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fixed={**SHAPE, "branch_norms": "both", "head_norm": True},
    keys={
        **_LATER,
        "positions": Key("max_position_embeddings", 131_072),
        "score_softcap": Key("attn_logit_softcapping", None),
        "logit_softcap": Key("final_logit_softcapping", None),
    },
    rope=Rope(part_key=None, theta=1_000_000.0, local_theta=10_000.0),
    ids=IDS,
    more=lambda config: {
        **_scaled(config),
        **_windows(config, config.get("sliding_window_pattern", 6)),
    },
    more_keys=_window_keys,
)

_BOTH_WAYS = "use_bidirectional_attention"


def read_3(config: Mapping[str, Any]) -> Config:
    """EmbeddingGemma's tokens see those on both sides, half of the window on each."""
    if not config.get(_BOTH_WAYS):
        return GEMMA_3.read(config)
    half = config.get("sliding_window", 4096) // 2 + 1
    decoder = GEMMA_3.read({**config, _BOTH_WAYS: False, "sliding_window": half})
    return replace(encoder_of(decoder), causal=False)


def write_3(config: Config) -> dict[str, Any] | None:
    if config.kind != "encoder":
        return GEMMA_3.write(config)
    if config.causal or config.embedding_width is not None:
        return None
    settings = GEMMA_3.write(decoder_of(config))
    if settings is None:
        return None
    both = {_BOTH_WAYS: True, "architectures": ["Gemma3TextModel"]}
    window = {} if config.window is None else {"sliding_window": 2 * (config.window - 1)}
    return settings | both | window


FAMILIES = (
    family(GEMMA_1),
    family(GEMMA_2, {**NAMES, **SANDWICH}),
    replace(family(GEMMA_3, {**NAMES, **SANDWICH}), read=read_3, write=write_3),
)
