"""The arithmetic of attention step by step, for people who learn.

A `Lesson` (lesson.py) is what can be changed; a `Walk` (walk.py) is every number that follows from
it, ready for `picture`, `page` and `to_json`. Modules load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.lessons import lesson as lesson
    from pellucid.lessons import scaling as scaling
    from pellucid.lessons import walk as walk
    from pellucid.lessons.steps import explain as explain

__all__ = ["explain", "lesson", "scaling", "walk"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pellucid.lessons' has no attribute '{name}'")
    if name == "explain":
        return import_module("pellucid.lessons.steps").explain
    return import_module(f"pellucid.lessons.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
