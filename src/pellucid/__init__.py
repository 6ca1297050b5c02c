"""Pellucid: attention you can see through.

The public face, and nothing else. Names load on first use, so that `import pellucid` and
`pellucid --help` cost next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "attention": "pellucid.attention.functional",
    "AttentionWeights": "pellucid.attention.weights",
    "energies": "pellucid.attention.energies",
    "layers": "pellucid.layers",
    "lens": "pellucid.lens",
    "masks": "pellucid.attention.masks",
    "watch": "pellucid.lens",
    "PellucidError": "pellucid.errors",
}
__all__ = [*sorted(_HOME), "__version__"]
