"""Models that read text, opened to be watched.

A model that Pellucid wrote is one of `pellucid.models`; transformers reads all others.
"""

from pellucid.readers.checkpoint import Checkpoint
from pellucid.readers.opening import open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
