"""Models that read text, for those who watch them.

A model that Pellucid wrote is one of `pellucid.models`; all others are read by transformers.
"""

from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.opening import open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
