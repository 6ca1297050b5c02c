"""BERT (Devlin et al. 2019), MiniLM, and RoBERTa (Liu et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    Family,
    activation,
    activation_name,
    expect,
    shape_of,
)

LAYER = "encoder.layer.{}."
NAMES = {
    "encoder.tokens": "embeddings.word_embeddings",
    "encoder.positions": "embeddings.position_embeddings",
    "encoder.types": "embeddings.token_type_embeddings",
    "encoder.embedding_norm": "embeddings.LayerNorm",
    "encoder.blocks.{}.attention.query": LAYER + "attention.self.query",
    "encoder.blocks.{}.attention.key": LAYER + "attention.self.key",
    "encoder.blocks.{}.attention.value": LAYER + "attention.self.value",
    "encoder.blocks.{}.attention.output": LAYER + "attention.output.dense",
    "encoder.blocks.{}.attention_norm": LAYER + "attention.output.LayerNorm",
    "encoder.blocks.{}.feed_forward.up": LAYER + "intermediate.dense",
    "encoder.blocks.{}.feed_forward.down": LAYER + "output.dense",
    "encoder.blocks.{}.feed_forward_norm": LAYER + "output.LayerNorm",
}


def read(config: Mapping[str, Any]) -> Config:
    expect(config, position_embedding_type="absolute", is_decoder=False)
    # RoBERTa counts positions from the one after that of padding.
    offset = config["pad_token_id"] + 1 if config["model_type"] in ROBERTA else 0
    return Config(
        kind="encoder",
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        norm_eps=config.get("layer_norm_eps", 1e-12),
        embedding_norm=True,
        activation=activation(config.get("hidden_act", "gelu")),
        position="learned",
        positions=config["max_position_embeddings"] - offset,
        position_offset=offset,
        types=config.get("type_vocab_size", 2),
        padding=config.get("pad_token_id"),
    )


def write(config: Config) -> dict[str, Any] | None:
    plain = shape_of(
        config,
        kind="encoder",
        norm="layer",
        norm_first=False,
        embedding_norm=True,
        head_norm=False,
        gated=False,
        qkv_bias=None,
        output_bias=None,
        bias=True,
        position="learned",
        kv_heads=None,
        head_dim=None,
        embedding_scale=1.0,
        attention_scale=None,
    )
    offset = config.position_offset
    if not plain or not config.types or config.positions is None:
        return None
    if offset and config.padding != offset - 1:
        return None
    name = "roberta" if offset else "bert"
    return {
        "model_type": name,
        "architectures": ["RobertaModel" if offset else "BertModel"],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config.activation),
        "max_position_embeddings": config.positions + offset,
        "type_vocab_size": config.types,
        "pad_token_id": config.padding,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }


ROBERTA = ("roberta", "xlm-roberta", "camembert")
FAMILY = Family(
    types=("bert", *ROBERTA),
    read=read,
    write=write,
    names=NAMES,
    ignored=r"pooler\.|cls\.|lm_head\.|classifier\.|embeddings\.position_ids|embeddings\.token_type_ids",
)
