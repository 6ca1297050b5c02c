"""Functions that are wrapped while anybody listens.

A wrapper calls the original function, unchanged, and tells the listeners of its arguments and its
result. If somebody else has wrapped a wrapper meanwhile, it stays, and tells nobody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

from pellucid.lens.interception import listeners

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes a wrapper of a function."""
PatchPoint = tuple[Any, str, Wrap]
"""A module or class, the name of a function in it, and what wraps it."""


@dataclass(eq=False)
class Patch:
    """A function that is replaced by a wrapper."""

    owner: Any
    name: str
    original: Callable[..., Any]
    wrapper: Callable[..., Any]
    is_own: bool
    """Whether the owner defines the function, and does not inherit it."""

    @property
    def is_in_place(self) -> bool:
        return vars(self.owner).get(self.name) is self.wrapper

    def remove(self) -> None:
        if self.is_in_place:
            if self.is_own:
                setattr(self.owner, self.name, self.original)
            else:
                delattr(self.owner, self.name)


_patches: dict[tuple[int, str], Patch] = {}
"""By the id of the owner and the name of the function."""


def patch(owner: Any, name: str, wrap: Wrap) -> None:
    """Wrap a function of a module or class, unless it is wrapped already."""
    if (id(owner), name) in _patches:
        return
    is_own = name in vars(owner)
    original = vars(owner)[name] if is_own else getattr(owner, name)
    wrapper = _wrapper(original, wrap)
    _patches[id(owner), name] = Patch(owner, name, original, wrapper, is_own)
    setattr(owner, name, wrapper)


@cache
def _wrapper(original: Callable[..., Any], wrap: Wrap) -> Callable[..., Any]:
    return wraps(original)(wrap(original))


def remove_all() -> None:
    """Put all original functions back."""
    while _patches:
        _patches.popitem()[1].remove()


def script(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.jit.script`, which recognises functions by identity: it sees the original ones."""

    def script(*args: Any, **options: Any) -> Any:
        with listeners.lock:
            removed = [x for x in _patches.values() if x.is_in_place]
            for x in removed:
                x.remove()
            try:
                return original(*args, **options)
            finally:
                for x in removed:
                    setattr(x.owner, x.name, x.wrapper)

    return script
