"""Marian (Junczys-Dowmunt et al. 2018), the architecture of the OPUS-MT models."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart
from pellucid.models.checkpoints.family import expect, shape_of


def read(config: Mapping[str, Any]) -> Config:
    expect(config, share_encoder_decoder_embeddings=True, normalize_embedding=False)
    if config.get("decoder_vocab_size") is not None:  # one vocabulary for both
        expect(config, decoder_vocab_size=config["vocab_size"])
    last = 58_100
    shared = bart.both(config, pad_token_id=last, eos_token_id=0, decoder_start_token_id=last)
    return Config(position="sinusoidal", interleaved=False, **shared)


def write(config: Config) -> dict[str, Any] | None:
    fits = shape_of(
        config,
        says="decoder_layers positions embedding_scale tied logit_bias",
        kind="encoder-decoder",
        position="sinusoidal",
        interleaved=False,
    )
    # transformers builds a table of positions, so their number must be known.
    if not fits or config.positions is None:
        return None
    return bart.write_both(config, "marian", "MarianMTModel")


FAMILY = replace(  # its tensors have BART's names
    bart.FAMILY,
    types=("marian",),
    read=read,
    write=write,
    ignored=r"embed_positions\.weight$",  # sines and cosines
)
