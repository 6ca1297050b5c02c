"""Pellucid: attention you can see through.

The public face, and nothing else. Names load on first use, so that `import pellucid` and
`pellucid --help` cost next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid import layers as layers
    from pellucid import lens as lens
    from pellucid import lessons as lessons
    from pellucid import models as models
    from pellucid import tasks as tasks
    from pellucid import training as training
    from pellucid.ablation import ablate as ablate
    from pellucid.attention import attention as attention
    from pellucid.attention import energies as energies
    from pellucid.attention import masks as masks
    from pellucid.attention.weights import AttentionWeights as AttentionWeights
    from pellucid.errors import PellucidError as PellucidError
    from pellucid.lens import Recording as Recording
    from pellucid.lens import intervene as intervene
    from pellucid.lens import watch as watch
    from pellucid.models import load as load

__version__ = "0.1.0"

# Where each public name lives: "module" for a module, "module:name" for something in it.
_HOME = {
    "AttentionWeights": "pellucid.attention:AttentionWeights",
    "PellucidError": "pellucid.errors:PellucidError",
    "Recording": "pellucid.lens:Recording",
    "ablate": "pellucid.ablation:ablate",
    "attention": "pellucid.attention",  # a package that is also a function; see its last lines
    "energies": "pellucid.attention.energies",
    "intervene": "pellucid.lens:intervene",
    "layers": "pellucid.layers",
    "lens": "pellucid.lens",
    "lessons": "pellucid.lessons",
    "load": "pellucid.models:load",
    "masks": "pellucid.attention.masks",
    "models": "pellucid.models",
    "tasks": "pellucid.tasks",
    "training": "pellucid.training",
    "watch": "pellucid.lens:watch",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pellucid' has no attribute '{name}'")
    module, _, attribute = _HOME[name].partition(":")
    imported = import_module(module)
    value = globals()[name] = getattr(imported, attribute) if attribute else imported
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
