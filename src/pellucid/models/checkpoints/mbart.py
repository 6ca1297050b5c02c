"""mBART (Liu et al. 2020) and mBART-50 (Tang et al. 2020): BART with norms before each part."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart
from pellucid.models.checkpoints.family import expect, shape_of


def read(config: Mapping[str, Any]) -> Config:
    expect(config, static_position_embeddings=False, normalize_embedding=True)
    # Without decoder_start_token_id, a target begins with its language.
    shared = bart.both(config, norm_first=True, pad_token_id=1, eos_token_id=2)
    return Config(embedding_norm=True, position="learned", position_offset=2, **shared)


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions embedding_scale tied logit_bias",
        kind="encoder-decoder",
        norm_first=True,
        embedding_norm=True,
        position="learned",
        position_offset=2,
    )
    return bart.write_both(config, "mbart", "MBartForConditionalGeneration") if fits else None


FAMILY = replace(bart.FAMILY, types=("mbart",), read=read, write=write)
