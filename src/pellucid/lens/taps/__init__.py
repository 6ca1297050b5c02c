"""Where attention happens: functions that are wrapped while somebody listens.

A tap replaces a function by one that calls it, unchanged, and tells what it was given to those who
listen. Taps are put in when the first listener comes and taken out when the last one goes; a
wrapper that somebody else has wrapped meanwhile stays, and is silent.
"""

import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from types import FrameType, ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pellucid.attention.masks import Mask
from pellucid.lens.record import Part


@dataclass(eq=False, slots=True)
class CacheUpdate:
    """New keys that a module put into a cache, which gave back those that attention reads."""

    cache: int
    """Which cache, a number that no other has."""
    layer: int
    keys: Tensor
    values: Tensor
    """What was put in, (batch, kv_heads, length, dim)."""
    length: int
    before: int | Callable[[], int]
    """Keys that came before these; or how to find out, where that may wait for a device."""
    returned: "weakref.ref[Tensor]"
    """The keys that the cache gave back."""
    lossy: bool
    """Whether what it gives back is not quite what was put in."""


@dataclass(eq=False, kw_only=True, slots=True)
class Call:
    """One attention call, as it was made, in the terms of `pellucid.attention`."""

    query: Part
    """(..., heads, queries, key_dim)"""
    key: Part
    """(..., kv_heads, keys, key_dim)"""
    value: Part
    """(..., kv_heads, keys, value_dim)"""
    given: tuple[Tensor, ...] = ()
    """Masks that were passed, each broadcasts to (..., heads, queries, keys): bool (True = may be
    seen), or float and additive."""
    hides_with_a_number: bool = False
    """Whether a bool mask hides by adding a large negative number rather than -inf, so that a row
    without any key is uniform over all of them."""
    rule: Mask | None = None
    """What is hidden besides, as a rule."""
    bias: Tensor | None = None
    """Broadcasts to (..., heads, queries, keys)."""
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    """(heads,)"""
    dropout: float = 0.0
    projection: tuple[Tensor, Tensor | None] | None = None
    """Weight and bias of the projection that is part of the call."""
    context: Tensor | None = None
    """What the call returned: (..., heads, queries, value_dim), or (..., queries, model_dim) after
    the projection; None where it returned something else."""
    update: CacheUpdate | None = None
    """What the module has put into a cache for this call, if it has."""
    logsumexp: Tensor | None = None
    """(..., heads, queries) of the scores, where the kernel that was called has told."""

    @property
    def form(self) -> Hashable:
        """What calls have in common that differ in their numbers only."""
        parts = (self.rule, self.bias, self.sinks, self.projection, self.context)
        is_one_row = self.query.shape[-2] == 1
        given = (part is None for part in parts)
        return (self.scale, self.softcap, len(self.given), is_one_row, *given)


class Listener(Protocol):
    """Who is told."""

    def name_of(self, module: nn.Module) -> str | None:
        """The name of a module of the watched model, None for others."""

    def files(self) -> Iterable[ModuleType]:
        """The Python modules that the classes of the watched model are defined in."""

    def heard(self, name: str, call: Call) -> None:
        """An attention call was made."""

    def missed(self, name: str, reason: str) -> None:
        """A call was made that cannot be told."""

    def read(self, ids: Tensor, weight: Tensor) -> None:
        """Rows of an embedding were looked up."""

    def cropped(self, cache: int, length: Callable[[int], int]) -> None:
        """A cache has forgotten its latest keys, and now holds so many in each layer."""

    def disturbed(self, cache: int, what: str, layer: int | None = None) -> None:
        """A cache, or one layer of it, was changed in another way."""


Place = tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]
"""A module or class, the name of a function in it, and what makes a wrapper of the function."""

listeners: tuple[Listener, ...] = ()
_lock = threading.RLock()
_patches: "list[Patch]" = []
_eager: list[Listener] = []
"""Those for whom compiled code runs eagerly."""
_stance: Any = None
_state = threading.local()


@dataclass(eq=False)
class Patch:
    """A function that is replaced for a while."""

    owner: Any
    name: str
    original: Callable[..., Any]
    wrapper: Callable[..., Any]

    def remove(self) -> None:
        if vars(self.owner).get(self.name) is self.wrapper:
            setattr(self.owner, self.name, self.original)


def add(listener: Listener, eagerly: bool = False) -> None:
    """Begin to tell a listener; eagerly = its model is compiled, and no tap sees into its graph."""
    global listeners, _stance, _tell_uncompiled
    with _lock:
        listeners = (*listeners, listener)
        if _tell_uncompiled is _tell and "torch._dynamo" in sys.modules:
            _tell_uncompiled = torch.compiler.disable(_tell)
        try:
            _install()
            if eagerly:
                _eager.append(listener)
                if _stance is None:
                    _stance = torch.compiler.set_stance("force_eager")
                    _stance.__enter__()
        except BaseException:
            remove(listener)
            raise


def remove(listener: Listener) -> None:
    """Tell it no more."""
    from pellucid.lens.taps import caches

    global listeners, _stance
    with _lock:
        listeners = tuple(other for other in listeners if other is not listener)
        _eager[:] = [other for other in _eager if other is not listener]
        if not _eager and _stance is not None:
            _stance.__exit__(None, None, None)
            _stance = None
        if not listeners:
            while _patches:
                _patches.pop().remove()
            caches.forget()


def _install() -> None:
    from pellucid.lens.taps import caches, functional, hugging_face, multi_head

    for tap in (functional, multi_head, hugging_face, caches):
        for owner, name, make in tap.places():
            patch(owner, name, make)


def patch(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap a function of a module or class, unless it is wrapped already."""
    if any(done.owner is owner and done.name == name for done in _patches):
        return
    original = vars(owner)[name]
    wrapper = _wrapper(original, make)
    _patches.append(Patch(owner, name, original, wrapper))
    setattr(owner, name, wrapper)


@cache
def _wrapper(original: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    return wraps(original)(make(original))


def callers(module: nn.Module | None = None) -> "list[tuple[Listener, str]]":
    """Who should hear of a call that is being made, and the name of the module that makes it.

    The module is found on the stack where it is not given: the innermost one that is part of a
    listener's model. Nobody hears of what happens inside a call that is told as a whole, of what a
    backward pass computes again, or of what a transform of torch.func sees in place of tensors.
    """
    # All of this runs between any two layers of a model, where each Python function that is called
    # costs some microseconds: hence few of them.
    if (
        not listeners
        or getattr(_state, "busy", False)
        or torch._C._current_graph_task_id() != -1
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):
        return []
    found = []
    if module is not None:
        for listener in listeners:
            name = listener.name_of(module)
            if name is not None:
                found.append((listener, name))
        return found
    waiting = list(listeners)
    innermost = None
    for inner, method in running_modules(sys._getframe(2)):
        innermost = inner if innermost is None else innermost
        for listener in list(waiting):
            name = listener.name_of(inner)
            # A helper may be no part of the model that calls it. But what calls another model from
            # its `generate` is not the one that attends: that one drafts for it.
            if name is not None and (inner is innermost or method == "forward"):
                found.append((listener, name))
                waiting.remove(listener)
        if not waiting:
            break
    return found


def running_modules(frame: FrameType | None) -> Iterator[tuple[nn.Module, str]]:
    """The modules whose methods are running, innermost first, and which method."""
    while frame is not None:
        code = frame.f_code
        if code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, nn.Module):
                yield first, code.co_name
        frame = frame.f_back


def is_transformed() -> bool:
    """Whether this happens inside vmap, grad or another transform of torch.func."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def as_a_whole(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function that is told as a whole: of the calls that it makes in turn nobody hears."""
    before = is_told_as_a_whole()
    if not before:
        _state.logsumexps = []
    _state.busy = True
    try:
        return function(*args, **options)
    except BaseException:
        _state.logsumexps = []
        raise
    finally:
        _state.busy = before


def is_told_as_a_whole() -> bool:
    """Whether what happens now is part of a call that is."""
    return getattr(_state, "busy", False)


def note(logsumexp: Tensor | None) -> None:
    """A kernel was called for a call that is told as a whole; what it found, if it tells."""
    _state.logsumexps.append(logsumexp)


def tell(
    found: "list[tuple[Listener, str]]",
    make: Callable[..., Call | str],
    /,
    *args: Any,
    **options: Any,
) -> None:
    """Tell of the call that `make` describes, or why it cannot be told.

    What goes wrong here must not reach the model, and is nothing to compile.
    """
    teller = _tell_uncompiled if torch.compiler.is_compiling() else _tell
    teller(found, make, *args, **options)


def _tell(
    found: "list[tuple[Listener, str]]",
    make: Callable[..., Call | str],
    /,
    *args: Any,
    **options: Any,
) -> None:
    logsumexps, _state.logsumexps = getattr(_state, "logsumexps", []), []
    try:
        call = make(*args, **options)
        if isinstance(call, Call) and len(logsumexps) == 1:
            call.logsumexp = logsumexps[0]
    except Exception as error:
        call = _failed(error)
    _state.busy = True
    try:
        for listener, name in found:
            if isinstance(call, str):
                listener.missed(name, call)
                continue
            try:
                listener.heard(name, call)
            except Exception as error:
                listener.missed(name, _failed(error))
    finally:
        _state.busy = False


_tell_uncompiled: Callable[..., None] = _tell


def _failed(error: Exception) -> str:
    return f"could not be recorded: {type(error).__name__}: {error}"
