"""MPNet (Song et al. 2020): BERT's blocks, with a bias of each distance besides the positions."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.bert import EMBEDDINGS, HEAD, OTHERS, fields, fits, written
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.family import Family, expect

BLOCK, LAYER = "encoder.blocks.{}.", "encoder.layer.{}."
NAMES = {
    **EMBEDDINGS,
    "encoder.relative.table": "encoder.relative_attention_bias",
    BLOCK + "attention.query": LAYER + "attention.attn.q",
    BLOCK + "attention.key": LAYER + "attention.attn.k",
    BLOCK + "attention.value": LAYER + "attention.attn.v",
    BLOCK + "attention.output": LAYER + "attention.attn.o",
    BLOCK + "attention_norm": LAYER + "attention.LayerNorm",
    BLOCK + "feed_forward.up": LAYER + "intermediate.dense",
    BLOCK + "feed_forward.down": LAYER + "output.dense",
    BLOCK + "feed_forward_norm": LAYER + "output.LayerNorm",
    **HEAD,
}
BUCKETS, DISTANCE = 32, 128
"""Of distances; transformers has no others."""
FIRST = 2
"""The row of the first position."""


def read(config: Mapping[str, Any]) -> Config:
    expect(config, relative_attention_num_buckets=BUCKETS)
    settings = {**config, "type_vocab_size": 0, "pad_token_id": config.get("pad_token_id", 1)}
    return Config(
        **fields(settings, FIRST),
        relative_bias=True,
        relative_buckets=BUCKETS,
        relative_distance=DISTANCE,
    )


def write(config: Config) -> dict[str, Any] | None:
    bias: dict[str, Any] = {"relative_buckets": BUCKETS, "relative_distance": DISTANCE}
    if not fits(config, relative_bias=True, **bias) or config.types:
        return None
    return written(config, "mpnet", "MPNetModel") if config.position_offset == FIRST else None


FAMILY = Family(
    types=("mpnet",),
    read=read,
    write=write,
    names=NAMES,
    prefix="mpnet.",
    ignored=OTHERS,
    classifier=labelled,
)
