"""Files that strangers made: how much of one is read, and as what.

Whoever reads one goes through here, so that the worst a file can do is to be refused, soon and in
one line. A limit is of what is read, whatever the file says of itself.
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
"""Bytes of a file of JSON: the largest vocabularies have a quarter of that."""
MOST_LINE = 2**24
"""Characters of a line, row or cell of a table."""
MOST_JSON_LINE = 2**22
"""Characters of a line of .jsonl, which may make fifty times as many bytes of small objects."""
MOST_TEXT = 2**30
"""Characters of a file whose texts are all held at once."""
PACKED_TIMES = 256
"""How many times larger than itself a packed file may be, beyond `PACKED_FREE`; text is below 30.
"""
PACKED_FREE = 2**26
"""Bytes that any packed file may hold: 64 MiB."""
MOST_RECORDS = 2**14
"""Records of a recording."""
MOST_RULES = 128
"""Rules that a mask is combined of in a recording, and so how deep they may be."""
MOST_LAYERS = 2**14
"""What a config may say where lists are made of so many parts, before any weights are looked at."""
BUILT_TIMES = 8
"""How many times the numbers of its weights a model may have when it is built: an embedding that
several parts share is built for each of them."""
BUILT_FREE = 2**26
"""Numbers that any model may have besides, such as tables of positions."""
BUILT_PARTS = 2**10
"""Tensors that any model may have besides."""
MOST_NAMED = 20
"""Names in one error."""


SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Where names begin that a shell gives to what it has opened itself, pipes too."""


def regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file opened for reading, if it is one: a pipe or a device may never end, or never begin.

    Raises:
        FileError: it is a pipe or a device.
        OSError: it cannot be opened, as a directory cannot.
    """
    if os.fspath(path).startswith(SHELL):
        return open(path, "rb")
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise FileError(f"cannot read '{short(str(path), 200)}': it is no regular file")


def read_json(path: Path) -> Any:
    """What a file of JSON says.

    Raises:
        FileError: it is no regular file, or too large.
        OSError, ValueError, RecursionError: it cannot be read, or is no JSON.
    """
    with regular(path) as file:
        content = file.read(MOST_JSON + 1)
    if len(content) > MOST_JSON:
        raise FileError(f"its {path.name} is larger than {MOST_JSON:,} bytes")
    # Some editors put a mark before the text, which is no part of it.
    return json.loads(content.decode("utf-8-sig"))


def json_in(directory: Path, name: str) -> dict[str, Any]:
    """The object in a file of the checkpoint.

    Raises:
        FileError: there is no such file, or something else is in it.
    """
    found = _json(directory, name)
    if not isinstance(found, dict):
        raise FileError(f"its {name} is no JSON object")
    return found


def json_list_in(directory: Path, name: str) -> list[Any]:
    """The list in a file of the checkpoint; raises as `json_in`."""
    found = _json(directory, name)
    if not isinstance(found, list):
        raise FileError(f"its {name} is no JSON list")
    return found


def _json(directory: Path, name: str) -> Any:
    path = inside(directory, name)
    with guarded(f"its {name} cannot be read"):
        try:
            return read_json(path)
        except FileNotFoundError:
            raise FileError(f"it has no {name}") from None


_LISTED = re.compile(r"layers?\b|layers?_|depth|blocks|num_labels")


def check_layers(said: Any) -> None:
    """Refuse a config that would have a library make lists without end; raises ValueError."""
    parts = said.items() if isinstance(said, Mapping) else enumerate(said)
    for name, one in parts:
        if isinstance(one, Mapping | list):
            check_layers(one)
        elif isinstance(one, int | float) and abs(one) > MOST_LAYERS and _LISTED.search(str(name)):
            raise ValueError(f"{name} is {_shown(one)}, and may be {MOST_LAYERS}")


def inside(directory: Path, name: str, said_in: str = "modules.json") -> Path:
    """The file of a name within a directory.

    Links are followed, as all files are links in the cache of the Hugging Face hub; what the name
    itself says stays inside.

    Raises:
        FileError: the name leads out of the directory, or is none.
    """
    path = Path(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise FileError(f"its {said_in} names a file elsewhere: {short(name, 200)}")
    return directory / path


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Whatever goes wrong with a stranger's file is an error of ours that begins with `what`.

    A library written in Rust that meets what it has not foreseen raises a PanicException, which is
    no Exception.
    """
    try:
        yield
    except (FileError, MissingExtraError):
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise FileError(f"{what}: {told(error)}") from error


def is_failure(error: BaseException) -> bool:
    """Whether it says that something failed, and not that somebody wants to stop."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def told(error: BaseException) -> str:
    """An error in a short line."""
    return short(reason_of(error), 200)


def whole(value: Any, name: str, least: int = 0, most: int = 2**62) -> int:
    """An int of a file.

    Raises:
        TypeError: it is another thing, such as true, which Python takes for 1.
        ValueError: it is out of range.
    """
    if type(value) is not int:
        raise TypeError(f"{name} is {_shown(value)}, no whole number")
    if not least <= value <= most:
        raise ValueError(f"{name} is {_shown(value)}, not from {least} to {most}")
    return value


def finite(value: Any, name: str) -> float:
    """A finite number of a file; raises as `whole`."""
    if type(value) not in (int, float):
        raise TypeError(f"{name} is {_shown(value)}, no number")
    if not math.isfinite(value):  # OverflowError for an int beyond all floats
        raise ValueError(f"{name} is {value}, not finite")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """True or false of a file; raises TypeError."""
    if type(value) is not bool:
        raise TypeError(f"{name} is {_shown(value)}, neither true nor false")
    return value


def text(value: Any, name: str) -> str:
    """A text of a file; raises TypeError."""
    if type(value) is not str:
        raise TypeError(f"{name} is {_shown(value)}, no text")
    return value


def texts(value: Any, name: str) -> dict[str, str]:
    """Texts by name of a file; raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {_shown(value)}, no texts by name")
    return {text(key, name): text(one, name) for key, one in value.items()}


def _shown(value: Any) -> str:
    try:
        return short(repr(value), 60)
    except (ValueError, RecursionError):  # an int of too many digits, or deep lists
        return f"a {type(value).__name__}"
