"""Where attention happens: functions that are wrapped while somebody listens.

A tap replaces a function by one that calls it, unchanged, and tells what it was given to those who
listen. Taps are put in when the first listener comes and taken out when the last one goes; a
wrapper that somebody else has wrapped meanwhile stays, and is silent.
"""

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial, wraps
from types import FrameType, ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from pellucid.attention.masks import Mask
from pellucid.common.interrupts import held_back
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.pieces import Part
from pellucid.lens.record import Proof


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
    returned_values: "weakref.ref[Tensor]"
    lossy: bool
    """Whether what it gives back is not quite what was put in."""


@dataclass(eq=False, kw_only=True, slots=True)
class Made:
    """Weights that a model has made by itself, and of which no query and key are known."""

    weights: Tensor
    """(batch, heads, queries, keys), as they were multiplied with the values."""
    value: Tensor | None = None
    """(batch, kv_heads, keys, value_dim)"""
    context: Tensor | None = None
    """(batch, heads, queries, value_dim)"""
    sink: Tensor | None = None
    """(batch, heads, queries), the weight of a column that was left out of the product: a sink, or
    a key whose value is added elsewhere."""
    is_plain: bool = False
    """Whether they are what a softmax gave, with nothing done to them since."""
    is_known: bool = True
    """Whether the function that was called is one that PyTorch, transformers or Pellucid ship."""


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
    read: InferredMask | None = None
    """The mask, where it was read off the scores themselves."""
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
    is_turned: bool = False
    """Whether the model has heads before items, and so what its kernel tells besides."""
    made: Made | None = None
    """The weights, where the model has made them."""
    proof: Proof | None = None
    """What is proven already, of every row."""
    is_known: bool = True
    """Whether the function that was called is one that PyTorch, transformers or Pellucid ship."""


class Listener(Protocol):
    """Who is told."""

    audits: bool
    """Whether it is told of every softmax that met no values, whatever it is for."""

    def name_of(self, module: nn.Module) -> str | None:
        """The name of a module of the watched model, None for others."""

    def files(self) -> Iterable[ModuleType]:
        """The Python modules that the classes of the watched model are defined in."""

    def module_of(self, name: str) -> nn.Module:
        """The module of a name."""

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in the memory of a parameter of the watched model."""

    def is_lasting(self, name: str, part: Part) -> bool:
        """Whether a tensor lies in memory that a module has, or one that it is a part of."""

    def wants(self, name: str) -> bool:
        """Whether the calls of a module are to be told."""

    def heard(self, name: str, call: Call | Made) -> None:
        """An attention call was made."""

    def softmaxed(self, name: str) -> None:
        """A module has computed a softmax, for whatever end."""

    def missed(self, name: str, reason: str) -> None:
        """A call was made that cannot be told."""

    def read(self, ids: Tensor, weight: Tensor) -> None:
        """Rows of an embedding were looked up."""

    def cropped(self, cache: int, length: Callable[[int], int]) -> None:
        """A cache has forgotten its latest keys, and now holds so many in each layer."""

    def rewound(self, cache: int, layer: int | None = None) -> None:
        """Keys of a cache, or of one layer of it, are about to be written over or let go."""

    def reordered(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        """The texts in a cache were put in another order, (batch,); and the keys of its layers."""

    def disturbed(self, cache: int, what: str, layer: int | None = None) -> None:
        """A cache, or one layer of it, was changed in another way."""


Place = tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]
"""A module or class, the name of a function in it, and what makes a wrapper of the function."""

ASKING = ("pellucid.attention.", "pellucid.lens.")
"""Where answers are worked out from what was recorded: no attention of the model's."""

SHIPPED = ("torch.", "transformers.", "pellucid.")
_set_tracing_state: Any = vars(torch._C)["_set_tracing_state"]  # which has no annotation
PASSES = ("forward", "_call_impl")
"""Methods by which modules are called; scripted ones have but the latter in Python."""


class _State(threading.local):
    """What happens on the thread that asks."""

    def __init__(self) -> None:
        self.busy = False
        """Whether it is part of a call that is told as a whole."""
        self.deaf = False
        """Whether it is our own work."""
        self.logsumexps: list[Tensor | None] = []
        self.made: list[Made] = []
        """What was noted of the call that is told as a whole."""


listeners: tuple[Listener, ...] = ()
"""All who listen."""
_everywhere: tuple[Listener, ...] = ()
"""Those who hear every thread and task."""
_here: "ContextVar[tuple[weakref.ref[Listener], ...]]" = ContextVar("listeners", default=())
"""Those who began to listen in this context, or in one that it was copied from."""
_answer: "tuple[object, object, tuple[Listener, ...]]" = ((), (), ())
"""Who hears was found last: for which of `_here`, among which `listeners`."""
_lock = threading.RLock()
_patches: "dict[tuple[int, str], Patch]" = {}
"""What is replaced now, by the owner's id and the function's name."""
_stance: Any = None
"""What has compiled code run eagerly while anybody listens: no tap sees into its graphs."""
_state = _State()
_originals: "weakref.WeakKeyDictionary[nn.Module, nn.Module]" = weakref.WeakKeyDictionary()
"""Replicas, and the modules that they are replicas of."""


@dataclass(eq=False)
class Patch:
    """A function that is replaced for a while."""

    owner: Any
    name: str
    original: Callable[..., Any]
    wrapper: Callable[..., Any]

    is_own: bool
    """Whether the owner itself has it, and no class that it inherits from."""

    def remove(self) -> None:
        if vars(self.owner).get(self.name) is self.wrapper:
            if self.is_own:
                setattr(self.owner, self.name, self.original)
            else:
                delattr(self.owner, self.name)


def add(listener: Listener, *, everywhere: bool = False, eagerly: bool = True) -> None:
    """Begin to tell a listener.

    Args:
        listener: who is told.
        everywhere: it hears every thread and task, and not only this context and what is begun
            in it.
        eagerly: compiled code runs eagerly meanwhile.
    """
    global listeners, _everywhere
    try:
        with held_back(), _lock:
            if everywhere:
                _everywhere = (*_everywhere, listener)
            else:
                _here.set((*map(weakref.ref, _listening_here()), weakref.ref(listener)))
            listeners = (*listeners, listener)
            _install()
            if eagerly and "torch._dynamo" in sys.modules:
                _run_eagerly()
    except BaseException:
        remove(listener)
        raise


def remove(listener: Listener) -> None:
    """Tell it no more."""
    from pellucid.lens.interception import caches, dispatcher, softmax

    global listeners, _everywhere, _stance, _answer
    with held_back(), _lock:
        _everywhere = tuple(other for other in _everywhere if other is not listener)
        listeners = tuple(other for other in listeners if other is not listener)
        _answer = ((), (), ())
        _here.set(tuple(map(weakref.ref, _listening_here())))
        if not listeners:
            if _stance is not None:
                _stance.__exit__(None, None, None)
                _stance = None
            while _patches:
                _patches.popitem()[1].remove()
            dispatcher.leave()
            caches.forget()
        softmax.forget(everywhere=not listeners)


def _run_eagerly() -> None:
    global _stance
    with _lock:
        if _stance is None and listeners:
            _stance = torch.compiler.set_stance("force_eager")
            _stance.__enter__()


def _compile(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`, where nothing of the compiler was there when the first listener came."""

    def compile(*args: Any, **options: Any) -> Any:
        compiled = original(*args, **options)
        _run_eagerly()
        return compiled

    return compile


def _script(original: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.jit.script`, which knows functions by what they are: it is shown the original ones."""

    def script(*args: Any, **options: Any) -> Any:
        with _lock:
            shown = [
                one for one in _patches.values() if vars(one.owner).get(one.name) is one.wrapper
            ]
            for one in shown:
                one.remove()
            try:
                return original(*args, **options)
            finally:
                for one in shown:
                    setattr(one.owner, one.name, one.wrapper)

    return script


def here() -> tuple[Listener, ...]:
    """Who hears what happens in this context."""
    if torch.compiler.is_compiling():  # nothing runs yet, and nothing here can be traced
        return ()
    heard = _here.get()
    if not heard:
        return _everywhere
    # Every product of a model comes by here, and the answer is nearly always that of the last.
    of, among, found = _answer
    return found if of is heard and among is listeners else _heard_by(heard)


def _heard_by(heard: "tuple[weakref.ref[Listener], ...]") -> tuple[Listener, ...]:
    global _answer
    # `listeners` changes after all else that is read here: what is found meanwhile holds no longer.
    among = listeners
    found = tuple(one for one in _listening_here() if one not in _everywhere) + _everywhere
    _answer = heard, among, found
    if listeners is not among:  # and nobody who is gone is kept alive
        _answer = ((), (), ())
    return found


def _listening_here() -> tuple[Listener, ...]:
    found = (reference() for reference in _here.get())
    return tuple(one for one in found if one is not None and one in listeners)


def _install() -> None:
    from pellucid.lens.interception import (
        by_hand,
        caches,
        dispatcher,
        hugging_face,
        multi_head,
        sdpa,
    )

    for tap in (sdpa, multi_head, hugging_face, caches, by_hand):
        for owner, name, make in tap.places():
            patch(owner, name, make)
    patch(threading.Thread, "start", _thread)
    patch(ThreadPoolExecutor, "submit", _submit)
    if _everywhere:
        patch(nn.Module, "__call__", _module)
    patch(nn.Module, "_replicate_for_data_parallel", _replica)
    patch(torch, "compile", _compile)
    patch(torch.jit, "script", _script)
    taps = (sdpa, multi_head, by_hand)
    dispatcher.begin(pair for tap in taps for pair in tap.operators())


def _thread(original: Callable[..., None]) -> Callable[..., None]:
    """`Thread.start`: who listens here hears what is begun here."""

    def start(self: threading.Thread) -> None:
        heard = _here.get()
        if heard:
            self.run = partial(_begun, heard, self.run)  # type: ignore[method-assign]
        original(self)

    return start


def _begun(heard: "tuple[weakref.ref[Listener], ...]", run: Callable[[], None]) -> None:
    """A thread's own work, heard by those who hear the one that began it."""
    _here.set(heard)
    _run(run)


def _submit(original: Callable[..., Any]) -> Callable[..., Any]:
    """`ThreadPoolExecutor.submit`, to threads that may be older than the watch."""

    def submit(self: Any, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        if here():
            return original(self, _run, function, *args, **options)
        return original(self, function, *args, **options)

    return submit


def _module(original: Callable[..., Any]) -> Callable[..., Any]:
    """`nn.Module.__call__`, where every thread is heard."""

    def call(self: nn.Module, *args: Any, **options: Any) -> Any:
        return _run(original, self, *args, **options)

    return call


def _replica(original: Callable[..., Any]) -> Callable[..., Any]:
    """What `DataParallel` makes of a module for each device."""

    def replicate(self: nn.Module) -> nn.Module:
        replica: nn.Module = original(self)
        _originals[replica] = original_of(self)
        return replica

    return replicate


def original_of(module: nn.Module) -> nn.Module:
    """The module that one is a replica of, itself if it is none."""
    return _originals.get(module, module)


def _run(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    from pellucid.lens.interception import dispatcher

    dispatcher.join()
    return function(*args, **options)


def patch(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap a function of a module or class, unless it is wrapped already."""
    if (id(owner), name) in _patches:
        return
    is_own = name in vars(owner)
    original = vars(owner)[name] if is_own else getattr(owner, name)
    wrapper = _wrapper(original, make)
    _patches[id(owner), name] = Patch(owner, name, original, wrapper, is_own)
    setattr(owner, name, wrapper)


@cache
def _wrapper(original: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    return wraps(original)(make(original))


def say_transformed() -> None:
    """What attends inside vmap, grad or another transform of torch.func is not recorded."""
    for listener, name in callers(is_transform_heard=True):
        listener.missed(
            name, "runs inside a transform of torch.func, where tensors have no numbers"
        )


def callers(
    module: nn.Module | None = None, *, is_transform_heard: bool = False
) -> "list[tuple[Listener, str]]":
    """Who should hear of a call that is being made, and the name of the module that makes it.

    The module is found on the stack where it is not given: the innermost one that is part of a
    listener's model. Nobody hears of what happens inside a call that is told as a whole, of what a
    backward pass computes again, or of what a transform of torch.func sees in place of tensors.
    """
    # All of this runs between any two layers of a model, where each Python function that is called
    # costs some microseconds: hence few of them.
    waiting = list(here())
    if (
        not waiting
        or _state.busy
        or torch._C._current_graph_task_id() != -1
        or (not is_transform_heard and is_transformed())
    ):
        return []
    found = []
    if module is not None:
        for listener in waiting:
            name = listener.name_of(module)
            if name is not None:
                found.append((listener, name))
        return found
    innermost = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and module_of_call(frame) is None:
        if is_question(frame):  # of somebody who asks while the model runs
            return []
        frame = frame.f_back
    for call, inner in running_modules(frame):
        if isinstance(inner, nn.Softmax):  # which several modules may share; its caller attends
            continue
        innermost = inner if innermost is None else innermost
        for listener in list(waiting):
            name = listener.name_of(inner)
            # A helper may be no part of the model that calls it. But what calls another model from
            # its `generate` is not the one that attends: that one drafts for it.
            if name is not None and (inner is innermost or call.f_code.co_name == "forward"):
                found.append((listener, name))
                waiting.remove(listener)
        if not waiting:
            break
    return found


def is_shipped(function: Callable[..., Any]) -> bool:
    """Whether a function is one of PyTorch, transformers or Pellucid, whatever name it has."""
    home = getattr(function, "__globals__", {}).get("__name__", "")
    return str(home).startswith(SHIPPED)


def is_in_a_pass() -> bool:
    """Whether a module is being called, and not only a method of it that calls none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in PASSES and module_of_call(frame) is not None:
            return True
        frame = frame.f_back
    return False


def is_question(frame: FrameType) -> bool:
    """Whether this is our own code at work, other than that of a tap."""
    name = str(frame.f_globals.get("__name__"))
    return name.startswith(ASKING) and not name.startswith(__name__)


def module_of_call(frame: FrameType) -> nn.Module | None:
    """The module whose method a frame runs, if it runs one."""
    code = frame.f_code
    # To look at the variables of a function keeps them alive until it returns: not for all.
    if code.co_argcount and (code.co_varnames[0] == "self" or code.co_name == "forward"):
        first = frame.f_locals.get(code.co_varnames[0])
        return first if isinstance(first, nn.Module) else None
    return None


def running_modules(frame: FrameType | None) -> Iterator[tuple[FrameType, nn.Module]]:
    """The calls of methods of modules that are running, innermost first."""
    while frame is not None:
        module = module_of_call(frame)
        if module is not None:
            yield frame, module
        frame = frame.f_back


def is_transformed() -> bool:
    """Whether this happens inside vmap, grad or another transform of torch.func."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def as_a_whole(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function that is told as a whole: of the calls that it makes in turn nobody hears."""
    before = _state.busy
    if not before:
        _state.logsumexps, _state.made = [], []
    _state.busy = True
    try:
        return function(*args, **options)
    except BaseException:
        _state.logsumexps, _state.made = [], []
        raise
    finally:
        _state.busy = before


class untraced:  # noqa: N801 - said as a function is
    """What happens in here is told to nobody who traces or counts what the model does."""

    __slots__ = ("_modes", "_tracing")

    def __enter__(self) -> None:
        self._modes = _disable_current_modes() if torch._C._len_torch_dispatch_stack() else None
        self._tracing = torch._C._get_tracing_state()
        if self._modes is not None:
            self._modes.__enter__()
        if self._tracing is not None:
            _set_tracing_state(None)

    def __exit__(self, *_: object) -> None:
        if self._tracing is not None:
            _set_tracing_state(self._tracing)
        if self._modes is not None:
            self._modes.__exit__(None, None, None)


class deaf(untraced):  # noqa: N801 - said as a function is
    """Nobody hears of what happens in here on this thread: it is our own work."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        super().__enter__()
        self._before = _state.busy, _state.deaf
        _state.busy = _state.deaf = True

    def __exit__(self, *_: object) -> None:
        _state.busy, _state.deaf = self._before
        super().__exit__()


def is_watched_by_others() -> bool:
    """Whether somebody traces or counts what runs, to whom each operator is to be as ever."""
    return bool(torch._C._len_torch_dispatch_stack()) or torch._C._get_tracing_state() is not None


def is_deaf() -> bool:
    """Whether what happens now is our own work."""
    return _state.deaf


def is_told_as_a_whole() -> bool:
    """Whether what happens now is part of a call that is."""
    return _state.busy


def note(logsumexp: Tensor | None) -> None:
    """A kernel was called for a call that is told as a whole; what it found, if it tells."""
    _state.logsumexps.append(logsumexp)


def note_made(made: Made) -> None:
    """Weights were multiplied with values in a call that is told as a whole."""
    _state.made.append(made)


def tell(
    found: "list[tuple[Listener, str]]",
    make: Callable[..., Call | Made | str],
    /,
    *args: Any,
    **options: Any,
) -> None:
    """Tell of the call that `make` describes, or why it cannot be told.

    What goes wrong here must not reach the model.
    """
    logsumexps, _state.logsumexps = _state.logsumexps, []
    made, _state.made = _state.made, []
    with deaf():
        try:
            call = make(*args, **options)
        except Exception as error:
            call = _failed(error)
        if isinstance(call, Call):
            if len(logsumexps) == 1 and not call.is_turned:
                call.logsumexp = logsumexps[0]
            if len(made) == 1 and made[0].weights.shape == (
                *call.query.shape[:-1],
                call.key.shape[-2],
            ):
                call.made = made[0]
                call.made.is_known = call.is_known
        elif isinstance(call, str) and len(made) == 1:
            call = made[0]
        for listener, name in found:
            if isinstance(call, str):
                listener.missed(name, call)
                continue
            try:
                listener.heard(name, call)
            except Exception as error:
                listener.missed(name, _failed(error))


def _failed(error: Exception) -> str:
    return f"could not be recorded: {type(error).__name__}: {error}"
