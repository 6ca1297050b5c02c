"""The arithmetic of attention, step by step, for people who learn.

A lesson computes a `Walk` (walk.py); `picture`, `page` and `to_json` each show any walk.
Modules load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.lessons import scaling as scaling
    from pellucid.lessons import walk as walk

__all__ = ["scaling", "walk"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pellucid.lessons' has no attribute '{name}'")
    return import_module(f"pellucid.lessons.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
