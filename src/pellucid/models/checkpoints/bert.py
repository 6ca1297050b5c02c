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
    config = {"pad_token_id": 1 if config["model_type"] in ROBERTA else 0, **config}
    # RoBERTa's positions start after the id of padding.
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
        positions=config.get("max_position_embeddings", 512) - offset,
        position_offset=offset,
        types=config.get("type_vocab_size", 2),
        padding=config.get("pad_token_id"),
    )


def write(config: Config) -> dict[str, Any] | None:
    return None if config.position_offset else _written(config, "bert", "BertModel")


def write_roberta(config: Config) -> dict[str, Any] | None:
    is_roberta = config.position_offset and config.padding == config.position_offset - 1
    return _written(config, "roberta", "RobertaModel") if is_roberta else None


def _written(config: Config, name: str, kind: str) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="positions position_offset types",
        kind="encoder",
        embedding_norm=True,
        position="learned",
    )
    if not fits or not config.types or config.positions is None:
        return None
    return {
        "model_type": name,
        "architectures": [kind],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config.activation),
        "max_position_embeddings": config.positions + config.position_offset,
        "type_vocab_size": config.types,
        "pad_token_id": config.padding,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.weights_dropout,
    }


ROBERTA = ("roberta", "xlm-roberta", "camembert")
OTHERS = (
    r"pooler\.|^cls\.|^lm_head\.|classifier\.|^qa_outputs\."
    r"|embeddings\.(position_ids|token_type_ids)$"
)
FAMILY = Family(
    types=("bert",), read=read, write=write, names=NAMES, prefix="bert.", ignored=OTHERS
)
ROBERTA_FAMILY = Family(
    types=ROBERTA,
    read=read,
    write=write_roberta,
    names=NAMES,
    prefix="roberta.",
    ignored=OTHERS,
)
