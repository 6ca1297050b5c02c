"""Functions compiled by Numba, and its cache of them on disk, which may be damaged or not writable.

NaN and inf keep their meaning in all of them; sums may be reordered, so that loops vectorise.
"""

import os
import warnings
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

FAST = ("contract", "reassoc", "nsz", "arcp")
"""How sums may be changed, as flags of LLVM."""


def kernel(function: Any) -> Any:
    """Compile a function, and cache it on disk."""
    return kept(njit(fastmath=set(FAST), nogil=True)(function))


def parallel_kernel(function: Any) -> Any:
    """As `kernel`, for a function whose `prange` loops run on several cores."""
    return kept(njit(fastmath=set(FAST), nogil=True, parallel=True)(function))


def kept(compiled: Any) -> Any:
    """Cache a compiled function on disk, as `cache=True` does, but never fail because of the cache.

    Raises:
        RuntimeError: there is no directory for the cache.
    """
    compiled._cache = _Cache(compiled.py_func)  # noqa: SLF001 - as `enable_caching` does it
    return compiled


class _Cache(FunctionCache):  # type: ignore[misc]
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
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

    def _warn(self, what: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        name = os.path.join(self.cache_path, self._impl.filename_base)
        warnings.warn(f"compiled code in '{name}' {what}: {reason}", RuntimeWarning, stacklevel=2)
