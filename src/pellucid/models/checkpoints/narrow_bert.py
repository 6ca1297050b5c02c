"""BERT with narrower embeddings: Electra (Clark et al. 2020), ALBERT (Lan et al. 2020), RemBERT
(Chung et al. 2021).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pellucid.common import untrusted
from pellucid.layers.config import Config
from pellucid.models.checkpoints import bert
from pellucid.models.checkpoints.bert import HEAD, NAMES, OTHERS, POOLER, fields, written
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.family import Family, expect

ALBERT_LAYER = "encoder.albert_layer_groups.0.albert_layers.0."
FIRST = "encoder.blocks.0."
ALBERT_NAMES = {
    **bert.EMBEDDINGS,
    "encoder.projection": "encoder.embedding_hidden_mapping_in",
    FIRST + "attention.query": ALBERT_LAYER + "attention.query",
    FIRST + "attention.key": ALBERT_LAYER + "attention.key",
    FIRST + "attention.value": ALBERT_LAYER + "attention.value",
    FIRST + "attention.output": ALBERT_LAYER + "attention.dense",
    FIRST + "attention_norm": ALBERT_LAYER + "attention.LayerNorm",
    FIRST + "feed_forward.up": ALBERT_LAYER + "ffn",
    FIRST + "feed_forward.down": ALBERT_LAYER + "ffn_output",
    FIRST + "feed_forward_norm": ALBERT_LAYER + "full_layer_layer_norm",
    "classifier.hidden": "pooler",
    "classifier.output": "classifier",
}
MOST_SHARED = 256
"""Layers that share their weights, which a file of any size can ask for."""


def _fits(config: Config, **wanted: Any) -> bool:
    return bert.fits(config, "embedding_width", **wanted) and not (
        config.position_offset or config.types == 0
    )


def read_electra(config: Mapping[str, Any]) -> Config:
    config = {"pad_token_id": 0, **config}
    narrow = config.get("embedding_size", 128)
    width = None if narrow == config["hidden_size"] else narrow
    return Config(**fields(config), embedding_width=width)


def write_electra(config: Config) -> dict[str, Any] | None:
    # As wide as the blocks it is BERT, but for the activation of its classifier.
    is_own = config.classifier is not None and config.classifier.activation == "gelu"
    if not _fits(config) or (config.embedding_width is None and not is_own):
        return None
    narrow = {"embedding_size": config.embedding_width or config.width}
    return written(config, "electra", "ElectraModel") | narrow


def read_albert(config: Mapping[str, Any]) -> Config:
    expect(config, num_hidden_groups=1, inner_group_num=1)
    untrusted.whole(config["num_hidden_layers"], "num_hidden_layers", 1, MOST_SHARED)
    config = {"pad_token_id": 0, "hidden_act": "gelu_new", **config}
    width = config.get("embedding_size", 128)
    return Config(**fields(config), embedding_width=width, shared_blocks=True)


def write_albert(config: Config) -> dict[str, Any] | None:
    if not _fits(config, shared_blocks=True) or config.embedding_width is None:
        return None
    narrow = {"embedding_size": config.embedding_width}
    return written(config, "albert", "AlbertModel") | narrow


def read_rembert(config: Mapping[str, Any]) -> Config:
    config = {"pad_token_id": 0, **config}
    return Config(**fields(config), embedding_width=config.get("input_embedding_size", 256))


def write_rembert(config: Config) -> dict[str, Any] | None:
    # Without a classifier it is Electra.
    is_own = config.classifier is not None and config.classifier.activation == "tanh"
    if not _fits(config) or config.embedding_width is None or not is_own:
        return None
    narrow = {"input_embedding_size": config.embedding_width}
    return written(config, "rembert", "RemBertModel") | narrow


FAMILIES = (
    Family(
        types=("electra",),
        read=read_electra,
        write=write_electra,
        names=NAMES | HEAD | {"encoder.projection": "embeddings_project"},
        prefix="electra.",
        ignored=OTHERS,
        classifier=partial(labelled, activation="gelu"),
    ),
    Family(
        types=("albert",),
        read=read_albert,
        write=write_albert,
        names=ALBERT_NAMES,
        prefix="albert.",
        ignored=rf"{OTHERS}|^predictions\.|^sop_classifier\.",
        classifier=labelled,
    ),
    Family(
        types=("rembert",),
        read=read_rembert,
        write=write_rembert,
        names=NAMES | POOLER | {"encoder.projection": "encoder.embedding_hidden_mapping_in"},
        prefix="rembert.",
        ignored=OTHERS,
        classifier=labelled,
    ),
)
