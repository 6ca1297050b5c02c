"""Training: from text files to a trained model, and losses on attention weights.

    attention_losses    losses on attention weights, computed in tiles
    run_setup           `train`, which the command `pellucid train` calls
    loop                the training loop
    corpus              text files, tokenized into a cache on disk
    objectives          training objectives

Modules are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pellucid.errors import warn_deprecated

if TYPE_CHECKING:
    from pellucid.training import attention_losses as attention_losses
    from pellucid.training import corpus as corpus
    from pellucid.training import loop as loop
    from pellucid.training import objectives as objectives
    from pellucid.training import run_setup as run_setup

__all__ = ["attention_losses", "corpus", "loop", "objectives", "run_setup"]


RENAMED = {"runs": "run_setup"}
"""Deprecated names."""


def __getattr__(name: str) -> Any:
    if name in RENAMED:
        warn_deprecated(f"pellucid.training.{name}", f"pellucid.training.{RENAMED[name]}")
        name = RENAMED[name]
    if name not in __all__:
        raise AttributeError(f"module 'pellucid.training' has no attribute '{name}'")
    return import_module(f"pellucid.training.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
