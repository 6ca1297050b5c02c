"""Functions compiled by Numba, and its cache of them on disk, which may be damaged or not writable.

NaN and inf keep their meaning in all of them; sums may be reordered, so that loops vectorise.
"""

import hashlib
import os
import time
import warnings
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numba.extending import overload

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FAST = ("contract", "reassoc", "nsz", "arcp")
"""How sums may be changed, as flags of LLVM."""
PATIENCE = 60.0
"""Seconds to wait for another process that compiles the same function."""


def kernel(function: Any) -> Any:
    """Compile a function, and cache it on disk."""
    return kept(njit(fastmath=set(FAST), nogil=True)(function))


def parallel_kernel(function: Any) -> Any:
    """As `kernel`, for a function whose `prange` loops run on several cores."""
    return kept(njit(fastmath=set(FAST), nogil=True, parallel=True)(function))


def implementation(stub: Any) -> Any:
    """As Numba's `overload`, for a function whose implementations the cache is to notice."""

    def decorate(choose: Any) -> Any:
        stub._defn = choose  # noqa: SLF001 - where `_fingerprint` looks
        return overload(stub)(choose)

    return decorate


def kept(compiled: Any) -> Any:
    """Cache a compiled function on disk, as `cache=True` does, but never fail because of the cache.

    Raises:
        RuntimeError: there is no directory for the cache.
    """
    compiled._cache = _Cache(compiled.py_func)  # noqa: SLF001 - as `enable_caching` does it
    return compiled


class _Cache(FunctionCache):  # type: ignore[misc]
    _lock_file: Any = None
    """Open and locked while this process compiles the function, so that others wait for it."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return *super()._index_key(sig, codegen), _fingerprint(self._py_func)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            compiled = super().load_overload(sig, target_context)
            if compiled is None:
                self._lock()
                compiled = super().load_overload(sig, target_context)
                if compiled is not None:
                    self._unlock()
            return compiled
        except Exception as error:  # of pickle, LLVM, the system: anything the bytes may cause
            self._warn("is damaged, and is compiled again", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:  # the index is damaged: start a new one
                self.flush()
                super().save_overload(sig, data)
        except OSError as error:
            self._warn("cannot be saved, and is compiled each time", error)
        finally:
            self._unlock()

    def _lock(self) -> None:
        """Wait while another process compiles the function; not for ever, since it may hang."""
        if fcntl is None or self._lock_file is not None:
            return
        name = os.path.join(self.cache_path, f"{self._impl.filename_base}.lock")
        with suppress(OSError):
            self._impl.locator.ensure_cache_path()
            self._lock_file = open(name, "w")  # noqa: SIM115 - closed by `_unlock`
        until = time.monotonic() + PATIENCE
        while self._lock_file is not None:
            try:
                # Unlike those of `flock`, such a lock is not a forked child's too.
                fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.05)

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _warn(self, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        name = os.path.join(self.cache_path, self._impl.filename_base)
        warnings.warn(f"compiled code in '{name}' {what}: {reason}", RuntimeWarning, stacklevel=2)


def _fingerprint(function: Any) -> str:
    """A hash of a function, of all compiled functions and intrinsics that it calls, and of the
    constants that they read: Numba itself looks at the function's own file alone.
    """
    digest, seen = hashlib.sha256(), set()
    waiting = [(function.__code__, _names_of(function))]
    while waiting:
        code, names = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        inner = [value for value in code.co_consts if isinstance(value, CodeType)]
        waiting += [(value, names) for value in inner]
        constants = [value for value in code.co_consts if value not in inner]
        digest.update(code.co_code + repr(constants).encode())
        for name in (*code.co_names, *code.co_freevars):
            value = names.get(name)
            value = getattr(value, "py_func", getattr(value, "_defn", value))
            if isinstance(value, FunctionType):
                waiting.append((value.__code__, _names_of(value)))
            elif isinstance(value, bool | int | float | str | tuple | np.generic):
                digest.update(f"{name} = {value!r}".encode())
    return digest.hexdigest()


def _names_of(function: FunctionType) -> dict[str, Any]:
    """What a function can read of its module and of functions around it."""
    around = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return function.__globals__ | {name: cell.cell_contents for name, cell in around}
