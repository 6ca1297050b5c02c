"""GPT-Neo (Black et al. 2021), and TinyStories (Eldan and Li 2023)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family

BLOCK, LAYER = "decoder.blocks.{}.", "h.{}."
NAMES = {
    "decoder.tokens": "wte",
    "decoder.positions": "wpe",
    BLOCK + "attention.query": LAYER + "attn.attention.q_proj",
    BLOCK + "attention.key": LAYER + "attn.attention.k_proj",
    BLOCK + "attention.value": LAYER + "attn.attention.v_proj",
    BLOCK + "attention.output": LAYER + "attn.attention.out_proj",
    BLOCK + "attention_norm": LAYER + "ln_1",
    BLOCK + "feed_forward.up": LAYER + "mlp.c_fc",
    BLOCK + "feed_forward.down": LAYER + "mlp.c_proj",
    BLOCK + "feed_forward_norm": LAYER + "ln_2",
    "decoder.final_norm": "ln_f",
    "head": "lm_head",
}


def _layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Hidden width, and the layers that see a window: [[["global", "local"], 12]] is 24 layers."""
    layers = [
        kind
        for kinds, times in config.get("attention_types", [[["global", "local"], 12]])
        for kind in kinds * times
    ]
    local = tuple(layer for layer, kind in enumerate(layers) if kind == "local")
    is_every = len(local) == config["num_layers"]
    return {
        "hidden": config.get("intermediate_size") or 4 * config["hidden_size"],
        "window": config.get("window_size", 256) if local else None,
        "window_layers": None if is_every or not local else local,
    }


def _layer_keys(config: Config) -> dict[str, Any]:
    windows = [config.window_of(layer) for layer in range(config.layers)]
    kinds = ["global" if window is None else "local" for window in windows]
    keys = {"intermediate_size": config.hidden, "attention_types": [[kinds, 1]]}
    return keys if config.window is None else {**keys, "window_size": config.window}


NEO = Description(
    model_type="gpt_neo",
    architecture="GPTNeoForCausalLM",
    fixed={
        "norm": "layer",
        "norm_first": True,
        "position": "learned",
        "qkv_bias": False,
        "attention_scale": 1.0,
    },
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_layers"),
        "heads": Key("num_heads"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "activation": activated("activation_function", "gelu_new"),
        "positions": Key("max_position_embeddings", 2048),
        "tied": Key("tie_word_embeddings", True),
    },
    ids={"bos_token_id": 50_256, "eos_token_id": 50_256},
    more=_layers,
    more_keys=_layer_keys,
    dropouts=(
        ("attention_dropout", "weights_dropout"),
        ("resid_dropout", "dropout"),
        ("embed_dropout", "dropout"),
    ),
)
FAMILY = Family(
    types=("gpt_neo",),
    read=NEO.read,
    write=NEO.write,
    names=NAMES,
    prefix="transformer.",
    copies={"transformer.wte.weight": ("lm_head.weight",)},
    ignored=r"\.attention\.(bias|masked_bias)$|^score\.",
)
