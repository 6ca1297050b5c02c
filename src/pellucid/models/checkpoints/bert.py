"""BERT (Devlin et al. 2019), MiniLM, RoBERTa (Liu et al. 2019), and models of their architecture.

ERNIE, Splinter, BertGeneration and DPR are BERT under other names; XLM-RoBERTa, CamemBERT and
Data2Vec are RoBERTa.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.family import Family, activation, activation_name, expect, shape_of

LAYER = "encoder.layer.{}."
EMBEDDINGS = {
    "encoder.tokens": "embeddings.word_embeddings",
    "encoder.positions": "embeddings.position_embeddings",
    "encoder.types": "embeddings.token_type_embeddings",
    "encoder.embedding_norm": "embeddings.LayerNorm",
}
NAMES = {
    **EMBEDDINGS,
    "encoder.blocks.{}.attention.query": LAYER + "attention.self.query",
    "encoder.blocks.{}.attention.key": LAYER + "attention.self.key",
    "encoder.blocks.{}.attention.value": LAYER + "attention.self.value",
    "encoder.blocks.{}.attention.output": LAYER + "attention.output.dense",
    "encoder.blocks.{}.attention_norm": LAYER + "attention.output.LayerNorm",
    "encoder.blocks.{}.feed_forward.up": LAYER + "intermediate.dense",
    "encoder.blocks.{}.feed_forward.down": LAYER + "output.dense",
    "encoder.blocks.{}.feed_forward_norm": LAYER + "output.LayerNorm",
}
POOLER = {"classifier.hidden": "pooler.dense", "classifier.output": "classifier"}
"""The names of a classifier behind the pooler that BERT was trained with."""
HEAD = {"classifier.hidden": "classifier.dense", "classifier.output": "classifier.out_proj"}
"""The names of a classifier of its own, as in RoBERTa."""
OTHERS = (
    r"pooler\.|^cls\.|^lm_head\.|classifier\.|^qa_outputs\.|^splinter_qass\."
    r"|^(generator|discriminator)_|embeddings\.(position_ids|token_type_ids)$"
)
"""Heads, and buffers of older versions."""
ROBERTA = ("roberta", "xlm-roberta", "camembert", "data2vec-text")
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert-generation": {"max_position_embeddings": 512, "type_vocab_size": 0},
    "ernie": {"type_vocab_size": 2},
}
"""The defaults of keys that are missing from config.json, where they differ from BERT's."""


def fields(config: Mapping[str, Any], offset: int = 0) -> dict[str, Any]:
    """The fields of `Config` that models with BERT's keys in config.json share.

    Args:
        config: config.json, with the family's own defaults.
        offset: rows of the positions before that of the first token.
    """
    expect(config, position_embedding_type="absolute", is_decoder=False)
    return {
        "kind": "encoder",
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "hidden": config["intermediate_size"],
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "embedding_norm": True,
        "activation": activation(config.get("hidden_act", "gelu")),
        "position": "learned",
        "positions": config.get("max_position_embeddings", 512) - offset,
        "position_offset": offset,
        "types": config.get("type_vocab_size", 2),
        "padding": config.get("pad_token_id"),
    }


def read(config: Mapping[str, Any]) -> Config:
    expect(config, use_task_id=False, projection_dim=0)
    defaults = {"pad_token_id": 0, **DEFAULTS.get(config["model_type"], {})}
    settings = {**defaults, **config}
    if config["model_type"] == "bert-generation":  # it has no segments, whatever its config says
        settings["type_vocab_size"] = 0
    pooling = "first" if config["model_type"] == "dpr" else "mean"
    return Config(**fields(settings), pooling=pooling)


def read_roberta(config: Mapping[str, Any]) -> Config:
    config = {"pad_token_id": 1, **config}
    # RoBERTa's positions start after the id of padding.
    return Config(**fields(config, config["pad_token_id"] + 1))


def write(config: Config) -> dict[str, Any] | None:
    if config.position_offset or not fits(config):
        return None
    if config.types:
        return written(config, "bert", "BertModel")
    if config.norm_eps == 1e-12:  # DistilBERT
        return None
    return written(config, "bert-generation", "BertGenerationEncoder")


def write_roberta(config: Config) -> dict[str, Any] | None:
    is_roberta = config.position_offset and config.padding == config.position_offset - 1
    if not is_roberta or not fits(config) or not config.types:
        return None
    return written(config, "roberta", "RobertaModel")


def fits(config: Config, says: str = "", **wanted: Any) -> bool:
    """Whether this is BERT, but for the fields in `says` and those that differ as `wanted`."""
    return config.positions is not None and shape_of(
        config,
        says=f"positions position_offset types {says}",
        **{"kind": "encoder", "embedding_norm": True, "position": "learned", **wanted},
    )


def written(config: Config, name: str, kind: str) -> dict[str, Any]:
    """The config.json of a model with BERT's keys."""
    assert config.positions is not None
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


FAMILY = Family(
    types=("bert", "ernie", "splinter", "bert-generation", "dpr"),
    read=read,
    write=write,
    names=NAMES | POOLER,
    prefix="bert.",
    ignored=OTHERS,
    renamed=(
        (r"^(ernie|splinter)\.", "bert."),
        (r"^(question_encoder|ctx_encoder)\.bert_model\.", "bert."),
    ),
    classifier=labelled,
)
ROBERTA_FAMILY = replace(
    FAMILY,
    types=ROBERTA,
    read=read_roberta,
    write=write_roberta,
    names=NAMES | HEAD,
    prefix="roberta.",
    renamed=((r"^data2vec_text\.", "roberta."),),
)
