"""DistilBERT (Sanh et al. 2019): BERT with half the layers, and without segments."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.bert import EMBEDDINGS, OTHERS, fits
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.family import Family, activation, activation_name

BLOCK, LAYER = "encoder.blocks.{}.", "transformer.layer.{}."
NAMES = {
    **EMBEDDINGS,
    BLOCK + "attention.query": LAYER + "attention.q_lin",
    BLOCK + "attention.key": LAYER + "attention.k_lin",
    BLOCK + "attention.value": LAYER + "attention.v_lin",
    BLOCK + "attention.output": LAYER + "attention.out_lin",
    BLOCK + "attention_norm": LAYER + "sa_layer_norm",
    BLOCK + "feed_forward.up": LAYER + "ffn.lin1",
    BLOCK + "feed_forward.down": LAYER + "ffn.lin2",
    BLOCK + "feed_forward_norm": LAYER + "output_layer_norm",
    "classifier.hidden": "pre_classifier",
    "classifier.output": "classifier",
}


def read(config: Mapping[str, Any]) -> Config:
    return Config(
        kind="encoder",
        vocabulary=config["vocab_size"],
        width=config["dim"],
        layers=config["n_layers"],
        heads=config["n_heads"],
        hidden=config["hidden_dim"],
        norm_eps=1e-12,
        embedding_norm=True,
        activation=activation(config.get("activation", "gelu")),
        position="learned",
        positions=config.get("max_position_embeddings", 512),
        padding=config.get("pad_token_id", 0),
    )


def write(config: Config) -> dict[str, Any] | None:
    if not fits(config) or config.types or config.position_offset or config.norm_eps != 1e-12:
        return None
    return {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "vocab_size": config.vocabulary,
        "dim": config.width,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "hidden_dim": config.hidden,
        "activation": activation_name(config.activation),
        "max_position_embeddings": config.positions,
        "pad_token_id": config.padding,
        "dropout": config.dropout,
        "attention_dropout": config.weights_dropout,
    }


FAMILY = Family(
    types=("distilbert",),
    read=read,
    write=write,
    names=NAMES,
    prefix="distilbert.",
    outside=("pre_classifier", "classifier"),
    ignored=rf"{OTHERS}|^vocab_|^pre_classifier\.|^classifier\.",
    classifier=partial(labelled, activation="relu"),
)
