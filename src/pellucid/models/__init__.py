"""Three transformers, built on `pellucid.attention` and small enough to read.

    Config                              what a model is made of
    Encoder, Decoder, EncoderDecoder    the three
    Cache                               keys and values of what was read
    load                                a model from a checkpoint

A model is called with ids and gives tensors; what it does for people stands in `pellucid.tasks`.
"""

from pellucid.layers.cache import Cache
from pellucid.layers.config import Config
from pellucid.models.loading import load
from pellucid.models.stacks import Decoder, Encoder, EncoderDecoder

__all__ = ["Cache", "Config", "Decoder", "Encoder", "EncoderDecoder", "load"]
