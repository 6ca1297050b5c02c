"""M2M-100 (Fan et al. 2020) and NLLB (Costa-jussà et al. 2022)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart, marian
from pellucid.models.checkpoints.family import expect, shape_of


def read(config: Mapping[str, Any]) -> Config:
    expect(config, static_position_embeddings=True, normalize_embedding=False)
    config = {"activation_function": "relu", "pad_token_id": 1, **config}
    ids: dict[str, Any] = {"eos_token_id": 2, "decoder_start_token_id": 2}
    shared = bart.both(config, norm_first=True, scaled=True, **ids)
    return Config(
        position="sinusoidal",
        position_offset=config["pad_token_id"] + 1,  # as positions count in fairseq
        interleaved=False,
        inclusive=True,
        **shared | {"logit_bias": False},
    )


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions position_offset embedding_scale tied",
        kind="encoder-decoder",
        norm_first=True,
        position="sinusoidal",
        interleaved=False,
        inclusive=True,
    )
    # transformers derives the first position from the id of padding.
    if not fits or config.positions is None or config.padding != config.position_offset - 1:
        return None
    return bart.write_both(config, "m2m_100", "M2M100ForConditionalGeneration")


FAMILY = replace(marian.FAMILY, types=("m2m_100",), read=read, write=write)
