"""Every error Pellucid raises on purpose, as one tree.

    PellucidError
    ├── ShapeError        (ValueError)   a rank or a size does not fit
    ├── ArgumentError     (ValueError)   a value outside what is allowed
    ├── TypeMismatchError (TypeError)    a dtype, a device kind or a Python type that does not fit
    ├── BackendError      (ValueError)   an unknown backend, or one that cannot do what is asked
    ├── TooLargeError     (ValueError)   an answer that would need more memory than the limit
    ├── OutOfRangeError   (IndexError)   an index past the end
    ├── UnknownNameError  (KeyError)     a name that stands for nothing here
    ├── MissingExtraError (ImportError)  an optional dependency that is not installed
    ├── FileError         (OSError)      a file or directory that is not what it should be
    └── ExistsError       (FileExistsError) a file that is there already, which nobody gave up

A message names the argument, what was wanted and what came. This module imports nothing heavy, so
the command line can catch these errors without loading torch.

What was renamed keeps its old name for one version, with `warn_deprecated`.
"""

import warnings


class PellucidError(Exception):
    """The root: `except PellucidError` catches whatever Pellucid raises on purpose."""


class ShapeError(PellucidError, ValueError):
    """A rank or a size does not fit."""


class ArgumentError(PellucidError, ValueError):
    """A value outside what is allowed."""


class TypeMismatchError(PellucidError, TypeError):
    """A dtype, a device or a Python type that does not fit."""


class BackendError(PellucidError, ValueError):
    """An unknown backend, or one that cannot do what is asked."""


class TooLargeError(PellucidError, ValueError):
    """An answer that would need more memory than the limit allows."""


class OutOfRangeError(PellucidError, IndexError):
    """An index past the end."""


class UnknownNameError(PellucidError, KeyError):
    """A name that stands for nothing here; the message lists those that do."""

    def __str__(self) -> str:  # KeyError shows the repr of its argument, quotes and all
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PellucidError, ImportError):
    """An optional dependency that is not installed; the message gives the install line."""


class FileError(PellucidError, OSError):
    """A file or directory that is not what it should be."""


class ExistsError(PellucidError, FileExistsError):
    """A file that is there already, and may not be replaced; the message says what to do."""


def warn_deprecated(old: str, instead: str, stacklevel: int = 2) -> None:
    """Say that an old name goes in the next version, and what to use instead.

    Args:
        old: what was used.
        instead: what does the same.
        stacklevel: as of `warnings.warn`; 2 blames the caller of whoever calls this.
    """
    message = f"{old} is deprecated and goes in the next version: use {instead}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)
