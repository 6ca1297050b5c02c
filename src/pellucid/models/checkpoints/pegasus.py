"""Pegasus (Zhang et al. 2020): Marian with norms before each part."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart, marian
from pellucid.models.checkpoints.family import expect, shape_of


def read(config: Mapping[str, Any]) -> Config:
    expect(config, static_position_embeddings=True, normalize_embedding=False)
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    shared = bart.both(config, norm_first=True, **ids)
    return Config(position="sinusoidal", interleaved=False, **shared)


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions embedding_scale tied logit_bias",
        kind="encoder-decoder",
        norm_first=True,
        position="sinusoidal",
        interleaved=False,
    )
    if not fits or config.positions is None:
        return None
    return bart.write_both(config, "pegasus", "PegasusForConditionalGeneration")


FAMILY = replace(marian.FAMILY, types=("pegasus",), read=read, write=write)
