"""Untrusted files: limits on what is read, and checks of values.

Every reader uses this module, so that the worst a file can do is to be refused, soon and in one
line. A limit applies to what is read, whatever the file declares.
"""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pellucid.common.files import reason_of
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError

MOST_JSON = 2**27
"""Bytes of a JSON file; the largest vocabularies have a quarter of that."""
MOST_LINE = 2**24
"""Characters of a line, row or cell of a table."""
MOST_JSON_LINE = 2**22
"""Characters of a line of .jsonl, whose objects may take fifty times as many bytes in memory."""
MOST_JSON_DOCUMENT = 2**24
"""Characters of a .json file whose rows are within an object, which is held whole."""
MOST_TEXT = 2**30
"""Characters of a file whose texts are all held in memory."""
PACKED_TIMES = 256
"""The highest compression ratio of a packed file larger than `PACKED_FREE`; text is below 30."""
PACKED_FREE = 2**26
"""Unpacked bytes that any packed file may have: 64 MiB."""
MOST_RECORDS = 2**14
"""Records of a recording."""
MOST_RULES = 128
"""Rules that make up a mask in a recording, and so its greatest depth."""
MOST_LAYERS = 2**14
"""The greatest number in a config that sets the length of a list, such as that of layers."""
MOST_LABELS = 2**20
"""Labels of a classifier."""
BUILT_TIMES = 8
"""How many parameters a model may have per stored one: a shared embedding is built for each part
that uses it."""
BUILT_FREE = 2**26
"""Parameters that any model may have in addition, such as tables of positions."""
BUILT_PARTS = 2**10
"""Tensors that any model may have in addition."""
MOST_NAMED = 20
"""Names that one error lists."""


SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""How the names of files and pipes begin that the shell has opened."""


def regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device might never end, or block.

    Raises:
        FileError: it is a pipe or a device.
        OSError: it cannot be opened, or is a directory.
    """
    if os.fspath(path).startswith(SHELL):
        return open(path, "rb")
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise FileError(f"cannot read '{short(str(path), 200)}': it is not a regular file")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileError: it is not a regular file, or too large.
        OSError, ValueError, RecursionError: it cannot be read, or is not JSON.
    """
    with regular(path) as file:
        content = file.read(MOST_JSON + 1)
    if len(content) > MOST_JSON:
        raise FileError(f"its {path.name} is larger than {MOST_JSON:,} bytes")
    # Some editors put a byte order mark before the text.
    return json.loads(content.decode("utf-8-sig"))


def json_in(directory: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a model directory.

    Raises:
        FileError: there is no such file, or it is not a JSON object.
    """
    content = _json(directory, name)
    if not isinstance(content, dict):
        raise FileError(f"its {name} is not a JSON object")
    return content


def text_in(directory: Path, name: str, most: int) -> str:
    """The UTF-8 text in a file of a model directory.

    Raises:
        FileError: there is no such file, it is no text, or it has more than `most` bytes.
    """
    path = inside(directory, name)
    with guarded(f"its {name} cannot be read"), regular(path) as file:
        content = file.read(most + 1)
        if len(content) > most:
            raise FileError(f"its {name} is larger than {most:,} bytes")
        return content.decode("utf-8-sig")


def json_list_in(directory: Path, name: str) -> list[Any]:
    """The JSON list in a file of a model directory; raises as `json_in`."""
    content = _json(directory, name)
    if not isinstance(content, list):
        raise FileError(f"its {name} is not a JSON list")
    return content


def _json(directory: Path, name: str) -> Any:
    path = inside(directory, name)
    with guarded(f"its {name} cannot be read"):
        try:
            return read_json(path)
        except FileNotFoundError:
            raise FileError(f"it has no {name}") from None


_LIST_LENGTH = re.compile(r"layers?\b|layers?_|depth|blocks|num_labels")


def check_layers(config: Any) -> None:
    """Refuse a config that would make a library build endless lists; raises ValueError."""
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        if isinstance(value, Mapping | list):
            check_layers(value)
        elif not isinstance(value, int | float) or not _LIST_LENGTH.search(str(name)):
            continue
        elif abs(value) > MOST_LAYERS:
            raise ValueError(f"{name} is {_short_repr(value)}, more than {MOST_LAYERS}")


def inside(directory: Path, name: str, source: str = "modules.json") -> Path:
    """The path of a file within a model directory.

    Args:
        directory: of the model.
        name: of the file, relative to the directory.
        source: the file that gives the name.

    Raises:
        FileError: the name, or a symbolic link behind it, leads out of the directory.
    """
    path = Path(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise FileError(f"its {source} names a file outside the directory: {short(name, 200)}")
    _check_target(directory, directory / path)
    return directory / path


def check_links(directory: Path) -> None:
    """Refuse a model directory with a symbolic link that leads out of it.

    Reading such a model would read a file that is not part of it. This checks the files of the
    directory and of its subdirectories; `inside` checks whatever lies deeper.

    Raises:
        FileError: there is such a link; the message names it.
    """
    for pattern in ("*", "*/*"):
        for path in directory.glob(pattern):
            if path.is_symlink():
                _check_target(directory, path)


def _check_target(directory: Path, path: Path) -> None:
    """Refuse a path whose target is outside the directory, and not in the cache it belongs to.

    The Hugging Face hub's cache keeps a model in models--NAME/snapshots/HASH, where each file is a
    link into models--NAME/blobs.
    """
    real = Path(os.path.realpath(directory))
    blobs = [above.parent / "blobs" for above in real.parents if above.name == "snapshots"]
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(root) for root in (real, *blobs)):
        link = short(str(path.relative_to(directory)), 200)
        raise FileError(
            f"its {link} is a link to {short(str(target), 200)}, outside the model's directory; "
            "copy the file there if you trust it"
        )


@contextmanager
def guarded(message: str) -> Iterator[None]:
    """Turn any failure of the block into a FileError that begins with the message.

    That includes the PanicException of libraries written in Rust, which is not an Exception.
    """
    try:
        yield
    except (FileError, MissingExtraError):
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise FileError(f"{message}: {short_reason(error)}") from error


def is_failure(error: BaseException) -> bool:
    """Whether it reports a failure, rather than a request to stop."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def short_reason(error: BaseException) -> str:
    """The message of an error in a short line."""
    return short(reason_of(error), 200)


def whole(value: Any, name: str, least: int = 0, most: int = 2**62) -> int:
    """Check an int from a file.

    Raises:
        TypeError: it is not an int; true, which Python takes for 1, is none either.
        ValueError: it is out of range.
    """
    if type(value) is not int:
        raise TypeError(f"{name} is {_short_repr(value)}, not a whole number")
    if not least <= value <= most:
        raise ValueError(f"{name} is {_short_repr(value)}, not from {least} to {most}")
    return value


def finite(value: Any, name: str) -> float:
    """Check a finite number from a file; raises as `whole`."""
    if type(value) not in (int, float):
        raise TypeError(f"{name} is {_short_repr(value)}, not a number")
    if not math.isfinite(value):  # OverflowError for an int beyond all floats
        raise ValueError(f"{name} is {value}, not finite")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """Check a bool from a file; raises TypeError."""
    if type(value) is not bool:
        raise TypeError(f"{name} is {_short_repr(value)}, neither true nor false")
    return value


def text(value: Any, name: str) -> str:
    """Check a string from a file; raises TypeError."""
    if type(value) is not str:
        raise TypeError(f"{name} is {_short_repr(value)}, not a string")
    return value


def texts(value: Any, name: str) -> dict[str, str]:
    """Check strings by name from a file; raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {_short_repr(value)}, not strings by name")
    return {text(key, name): text(item, name) for key, item in value.items()}


def _short_repr(value: Any) -> str:
    try:
        return short(repr(value), 60)
    except (ValueError, RecursionError):  # an int of too many digits, or deep lists
        return f"a {type(value).__name__}"
