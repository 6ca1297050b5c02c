"""The errors that Pellucid raises, as one tree.

    PellucidError
    ├── ShapeError        (ValueError)      a rank or a size that does not fit
    ├── ArgumentError     (ValueError)      a value that is not allowed
    ├── TypeMismatchError (TypeError)       a dtype, a device or a Python type that does not fit
    ├── BackendError      (ValueError)      an unknown or unsuitable backend
    ├── TooLargeError     (ValueError)      a result that would exceed the memory limit
    ├── OutOfRangeError   (IndexError)      an index out of range
    ├── UnknownNameError  (KeyError)        an unknown name
    ├── MissingExtraError (ImportError)     an optional dependency that is not installed
    ├── FileError         (OSError)         a file that cannot be read or written
    └── ExistsError       (FileExistsError) an existing file that may not be replaced

A message names the argument, what was expected and what was given. This module imports nothing
heavy, so that the command line can catch these errors without loading torch.

Renamed objects keep their old names for one version, with `warn_deprecated`.
"""

import warnings


class PellucidError(Exception):
    """The root: `except PellucidError` catches all of Pellucid's errors."""


class ShapeError(PellucidError, ValueError):
    """A rank or a size that does not fit."""


class ArgumentError(PellucidError, ValueError):
    """A value that is not allowed."""


class TypeMismatchError(PellucidError, TypeError):
    """A dtype, a device or a Python type that does not fit."""


class BackendError(PellucidError, ValueError):
    """An unknown backend, or one that does not support the call."""


class TooLargeError(PellucidError, ValueError):
    """A result that would need more memory than the limit allows."""


class OutOfRangeError(PellucidError, IndexError):
    """An index out of range."""


class UnknownNameError(PellucidError, KeyError):
    """An unknown name; the message lists the known ones."""

    def __str__(self) -> str:  # KeyError shows the repr of its argument, quotes and all
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PellucidError, ImportError):
    """An optional dependency that is not installed; the message gives the install line."""

    @classmethod
    def of(cls, need: str, extra: str) -> "MissingExtraError":
        """The error for a missing extra.

        Args:
            need: what needs which package.
            extra: the extra of Pellucid that installs it.
        """
        checkout = f"in a checkout: pip install -e '.[{extra}]'"
        return cls(f"{need}: pip install 'pellucid[{extra}]' ({checkout})")


class FileError(PellucidError, OSError):
    """A file or directory that cannot be read or written, or has unexpected content."""


class ExistsError(PellucidError, FileExistsError):
    """An existing file that may not be replaced; the message says what to do."""


def warn_deprecated(old: str, instead: str, stacklevel: int = 2) -> None:
    """Warn that an old name will be removed in the next version.

    Args:
        old: the old name.
        instead: what to use.
        stacklevel: as of `warnings.warn`; 2 blames the caller of whoever calls this.
    """
    message = f"{old} is deprecated and will be removed in the next version: use {instead}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)
