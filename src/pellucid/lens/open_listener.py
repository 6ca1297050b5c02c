"""What listens to one model while a `with` is open: a watch, or an intervention.

It knows the modules of the model by name, and is closed whatever happens, even if Ctrl-C comes
between two steps of opening or closing it.
"""

import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Self

from torch import Tensor, nn

from pellucid.common.interrupts import held_back
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import interception, module_names
from pellucid.lens.interception import call_stack
from pellucid.lens.pieces import Part


class _Exit:
    """`__exit__`, which closes the listener even if Ctrl-C comes just before it is called.

    A `with` looks it up before it calls `__enter__`, holds it, and drops it at the end: then a
    finalizer closes the listener.
    """

    def __get__(
        self, listener: "OpenListener | None", owner: "type[OpenListener]"
    ) -> Callable[..., None]:
        if listener is None:
            return owner.leave
        leave = partial(listener.leave)
        if not listener.is_open:
            listener.held_by_with = weakref.ref(leave)
        return leave


class OpenListener:
    """Listens to one model between `__enter__` and `__exit__`."""

    edits = False
    audits = False
    runs_eagerly = True
    """Whether compiled code runs eagerly meanwhile; False only if nothing compiled is meant."""

    def _listen_to(self, model: nn.Module, everyone: bool) -> None:
        """Get ready to listen to a model, in this context or on every thread.

        Raises:
            TypeMismatchError: model is not a module.
        """
        if not isinstance(model, nn.Module):
            raise TypeMismatchError(
                f"model must be a torch.nn.Module, not {type(model).__module__}."
                f"{type(model).__qualname__}"
            )
        self._model: nn.Module | None = model
        self._modules = module_names.modules_of(model)
        self._by_name = dict(self._modules)
        self._everyone = everyone
        self._clear()

    @property
    def is_open(self) -> bool:
        """Whether it has been entered and not left."""
        return bool(self._names)

    def _clear(self) -> None:
        """Set what is needed only while it is open to its initial state."""
        self.held_by_with: weakref.ref[Callable[..., None]] | None = None
        """The `__exit__` that a `with` holds."""
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._names: dict[int, str] = {}
        self._memory: frozenset[int] | None = None

    def _begin(self) -> None:
        """What else opening it takes, before it listens."""

    def _listening(self) -> None:
        """What else opening it takes, once it listens."""

    def _end(self) -> None:
        """Undo what `_listening` has done."""

    def _finish(self, error: BaseException | None) -> None:
        """What is left to do once it is closed; error is what ended the `with`."""

    def __enter__(self) -> Self:
        state = "over" if self._model is None else "open already" if self.is_open else ""
        if state:
            kind = type(self).__name__.lower()
            raise ArgumentError(f"this {kind} is {state}; call pellucid.{self._maker} for another")
        self._names = {id(module): name for name, module in self._modules}
        self._begin()
        held = None if self.held_by_with is None else self.held_by_with()
        if held is not None:
            self._finalizer = weakref.finalize(held, self._close)
            self._finalizer.atexit = False
        try:
            interception.add(self, everywhere=self._everyone, eagerly=self.runs_eagerly)
            self._listening()
            return self
        except BaseException:  # such as an interruption after all is in place
            self._close()
            raise

    __exit__ = _Exit()

    _maker = ""
    """The call that makes another one."""

    def leave(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Close it, as the end of a `with` does."""
        try:
            self._close()
        except BaseException:  # an interruption, which may have come before it began
            self._close()
            raise
        try:
            self._finish(error)
        finally:
            # What is left outlives the model, and does not keep it alive.
            self._model, self._modules, self._by_name = None, [], {}
            self._clear()

    def _close(self) -> None:
        """Undo what `__enter__` has done."""
        with held_back():
            if self._finalizer is not None:
                self._finalizer.detach()
            self._end()
            interception.remove(self)

    # Questions of the interception.

    def name_of(self, module: nn.Module) -> str | None:
        name = self._names.get(id(module))
        if name is None and "_is_replica" in vars(module):
            name = self._names.get(id(call_stack.original_of(module)))
        return name

    def module_of(self, name: str) -> nn.Module:
        return self._by_name[name]

    def files(self) -> Iterable[ModuleType]:
        names = {type(part).__module__ for _, part in self._modules}
        return [sys.modules[name] for name in names if name in sys.modules]

    def wants(self, name: str) -> bool:
        raise NotImplementedError

    def is_parameter(self, tensor: Tensor) -> bool:
        try:
            if self._memory is None:
                assert self._model is not None
                memory = (x.untyped_storage()._cdata for x in self._model.parameters())
                self._memory = frozenset(memory)
            return tensor.untyped_storage()._cdata in self._memory
        except NotImplementedError:  # under a transform of torch.func, which has none
            return False

    def is_lasting(self, name: str, part: Part) -> bool:
        if not isinstance(part, Tensor):
            return False
        if self.is_parameter(part):
            return True
        memory = part.untyped_storage()._cdata
        for outer in module_names.ancestors(name):
            of = vars(self._by_name[outer]) if outer in self._by_name else {}
            for held in (*of.values(), *of.get("_buffers", {}).values()):
                if isinstance(held, Tensor) and held.untyped_storage()._cdata == memory:
                    return True
        return False

    # Events of the interception.

    def on_call(self, name: str, call: Any) -> None:
        """Nothing."""

    def on_edit(self, name: str, call: Any) -> Any:
        """Nothing."""

    def on_softmax_edit(self, name: str, scores: Any, weights: Any, key: Any, update: Any) -> Any:
        """Nothing."""

    def on_partly_edited(self, name: str, reason: str) -> None:
        """Nothing."""

    def on_softmax(self, name: str) -> None:
        """Nothing."""

    def on_missed(self, name: str, reason: str) -> None:
        """Nothing."""

    def on_lookup(self, ids: Tensor, weight: Tensor) -> None:
        """Nothing."""

    def on_update(self, name: str, update: Any) -> None:
        """Nothing."""

    def on_crop(self, cache: int, length: Callable[[int], int]) -> None:
        """Nothing."""

    def on_rewind(self, cache: int, layer: int | None = None) -> None:
        """Nothing."""

    def on_reorder(self, cache: int, items: Tensor, keys: Callable[[int], Tensor]) -> None:
        """Nothing."""

    def on_change(self, cache: int, operation: str, layer: int | None = None) -> None:
        """Nothing."""
