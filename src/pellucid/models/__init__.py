"""Three transformers, built on `pellucid.attention` and small enough to read.

    Config                              the architecture of a model
    Encoder, Decoder, EncoderDecoder    the models
    Cache                               the KV cache of the tokens read so far
    load                                load a model from a checkpoint
    precision                           products of matrices in bfloat16, for a block of code

A model maps ids to tensors; `pellucid.tasks` maps texts to answers.
"""

from pellucid.layers.bfloat16 import precision
from pellucid.layers.cache import Cache
from pellucid.layers.config import Config
from pellucid.models.architectures import Decoder, Encoder, EncoderDecoder
from pellucid.models.loading import load

__all__ = ["Cache", "Config", "Decoder", "Encoder", "EncoderDecoder", "load", "precision"]
