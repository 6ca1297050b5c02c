"""Reports of calls to the listeners, and what is left out of them.

Nothing is reported of what happens inside a call that is reported as one, in our own work, in what
a backward pass recomputes, or under a transform of torch.func, where tensors have no numbers.
"""

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from pellucid.lens.interception import listeners
from pellucid.lens.interception.call_stack import is_own_code, module_of_call, running_modules
from pellucid.lens.interception.calls import Call, ModelWeights
from pellucid.lens.interception.listeners import Callers

_set_tracing_state: Any = vars(torch._C)["_set_tracing_state"]  # which has no annotation


class _State(threading.local):
    """The state of a thread."""

    def __init__(self) -> None:
        self.is_inside_call = False
        """Whether it runs a call that is reported as one, or our own work."""
        self.is_unobserved = False
        """Whether it runs our own work."""
        self.logsumexps: list[Tensor | None] = []
        self.weights: list[ModelWeights] = []
        """What was noted inside the call that is reported as one."""


_state = _State()


def callers(module: nn.Module | None = None, *, under_transform: bool = False) -> Callers:
    """The listeners of a call that is being made, and the name of the module that makes it.

    Args:
        module: the module, if it is known. Else it is the innermost one on the stack that belongs
            to a listener's model.
        under_transform: whether calls under a transform of torch.func count.
    """
    # This runs between any two layers of a model, where each call of a Python function costs some
    # microseconds: hence few of them.
    waiting = list(listeners.here())
    if torch._C._current_graph_task_id() != -1:
        waiting = listeners.in_backward()
    if not waiting or _state.is_inside_call or (not under_transform and is_transformed()):
        return []
    result: Callers = []
    if module is not None:
        for listener in waiting:
            name = listener.name_of(module)
            if name is not None:
                result.append((listener, name))
        return result
    innermost = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and module_of_call(frame) is None:
        if is_own_code(frame):  # somebody reads a record while the model runs
            return []
        frame = frame.f_back
    for call, inner in running_modules(frame):
        if isinstance(inner, nn.Softmax):  # several modules may share it; its caller attends
            continue
        innermost = inner if innermost is None else innermost
        for listener in list(waiting):
            name = listener.name_of(inner)
            # A helper may be outside the model that calls it. But a model that is called by the
            # `generate` of another one, as its draft, attends itself.
            if name is not None and (inner is innermost or call.f_code.co_name == "forward"):
                result.append((listener, name))
                waiting.remove(listener)
        if not waiting:
            break
    return result


def report_transformed() -> None:
    """Report attention under vmap, grad or another transform of torch.func as not recorded."""
    for listener, name in callers(under_transform=True):
        listener.on_missed(
            name, "runs inside a transform of torch.func, where tensors have no numbers"
        )


def is_transformed() -> bool:
    """Whether this happens under vmap, grad or another transform of torch.func."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def as_one_call(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function that is reported as one call; the calls inside it are not reported."""
    before = _state.is_inside_call
    if not before:
        _state.logsumexps, _state.weights = [], []
    _state.is_inside_call = True
    try:
        return function(*args, **options)
    except BaseException:
        _state.logsumexps, _state.weights = [], []
        raise
    finally:
        _state.is_inside_call = before


class untraced:  # noqa: N801 - used like a function
    """Dispatch modes and traces that the user has set up do not see what happens in here."""

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


class unobserved(untraced):  # noqa: N801 - used like a function
    """Our own work: nothing that happens in here on this thread is reported."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        super().__enter__()
        self._before = _state.is_inside_call, _state.is_unobserved
        _state.is_inside_call = _state.is_unobserved = True

    def __exit__(self, *_: object) -> None:
        _state.is_inside_call, _state.is_unobserved = self._before
        super().__exit__()


def is_traced() -> bool:
    """Whether a dispatch mode or a trace sees each operator, so that none may be replaced."""
    return bool(torch._C._len_torch_dispatch_stack()) or torch._C._get_tracing_state() is not None


def is_unobserved() -> bool:
    """Whether this thread runs our own work."""
    return _state.is_unobserved


def is_inside_call() -> bool:
    """Whether this thread runs a call that is reported as one."""
    return _state.is_inside_call


def note_logsumexp(logsumexp: Tensor | None) -> None:
    """Note that a kernel ran inside a call that is reported as one, and its logsumexp if known."""
    _state.logsumexps.append(logsumexp)


def note_weights(weights: ModelWeights) -> None:
    """Note that weights met values inside a call that is reported as one."""
    _state.weights.append(weights)


def report(
    callers: Callers,
    make: Callable[..., Call | ModelWeights | str],
    /,
    *args: Any,
    **options: Any,
) -> Call | None:
    """Report the call that `make` describes, or the reason why it cannot be recorded.

    Errors in here do not reach the model, except those of edits.

    Returns:
        The call as listeners have changed it, whose context is to be used; None if none has.
    """
    logsumexps, _state.logsumexps = _state.logsumexps, []
    weights, _state.weights = _state.weights, []
    with unobserved():
        try:
            call = make(*args, **options)
        except Exception as error:
            call = _failed(error)
        if isinstance(call, Call):
            if len(logsumexps) == 1 and not call.is_heads_first:
                call.logsumexp = logsumexps[0]
            shape = (*call.query.shape[:-1], call.key.shape[-2])
            if len(weights) == 1 and weights[0].weights.shape == shape:
                call.model_weights = weights[0]
                call.model_weights.is_known = call.is_known
        elif isinstance(call, str) and len(weights) == 1:
            call = weights[0]
        edited = None
        for listener, name in callers:
            if listener.edits and listener.wants(name):
                what = call if isinstance(call, Call | str) else "computes its own weights"
                changed = listener.on_edit(name, what)
                if changed is not None:
                    call = edited = changed
        if edited is not None and not all(listener.edits for listener, _ in callers):
            call = edited.as_used()
        for listener, name in callers:
            if listener.edits:
                continue
            if isinstance(call, str):
                listener.on_missed(name, call)
                continue
            try:
                listener.on_call(name, call)
            except Exception as error:
                listener.on_missed(name, _failed(error))
    return edited


def _failed(error: Exception) -> str:
    return f"could not be recorded: {type(error).__name__}: {error}"
