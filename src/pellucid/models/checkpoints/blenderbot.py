"""Blenderbot (Roller et al. 2020): BART with norms before each part and none of the embedding."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart
from pellucid.models.checkpoints.family import expect, shape_of


def read(config: Mapping[str, Any]) -> Config:
    expect(config, static_position_embeddings=False, normalize_embedding=False)
    expect(config, layernorm_variant="prelayernorm")
    config = {"max_position_embeddings": 128, **config}
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
    return Config(position="learned", **bart.both(config, norm_first=True, **ids))


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions embedding_scale tied logit_bias",
        kind="encoder-decoder",
        norm_first=True,
        position="learned",
    )
    name = "BlenderbotForConditionalGeneration"
    return bart.write_both(config, "blenderbot", name) if fits else None


FAMILY = replace(bart.FAMILY, types=("blenderbot",), read=read, write=write)
