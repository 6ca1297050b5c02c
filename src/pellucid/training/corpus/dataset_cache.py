"""The cache of tokenized texts on disk, shared by documents and rows."""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pellucid.common.files import reason_of, write_whole
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, FileError
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_files import load_tokenizer
from pellucid.text.utf8_files import name_of
from pellucid.training.corpus.text_files import Tally

HELD_OUT = 0.05
"""The share of the texts that is held out."""
_BATCH_TEXTS, _BATCH_CHARACTERS = 512, 2**22
_ABOUT = "about.json"
_SOURCES = ("files", "held_out")
_VERSION = 2
"""Of the cache format; caches of another version are rebuilt."""

Progress = Callable[[str, int, int | None], None]
"""Called with a description, the number of characters read and the total, if known."""
_Read = TypeVar("_Read", bound=tuple[object, ...])
"""A piece or a row."""
_Made = TypeVar("_Made")


def silent(what: str, done: int, total: int | None) -> None:
    pass


def identity(
    files: Sequence[Path], held_out: Sequence[Path], tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """The key of a cache: its files and tokenizer.

    Raises:
        FileError: a path is not a regular file.
    """
    return {
        "version": _VERSION,
        "files": [_facts(path) for path in files],
        "held_out": [_facts(path) for path in held_out],
        "tokenizer": None if tokenizer is None else checksum(tokenizer, ()),
    }


def _facts(path: Path) -> list[str | int | None]:
    try:
        status = path.stat()
    except OSError:
        return [os.path.realpath(path), None, None]
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise FileError(
            f"cannot read '{name_of(path)}': it is {kind}; training reads files several times"
        )
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def checksum(tokenizer: Tokenizer, parts: Iterable[np.ndarray]) -> str:
    """The checksum of a vocabulary and of arrays."""
    spelled = "\n".join(tokenizer.token(number) for number in range(len(tokenizer)))
    digest = hashlib.sha256(spelled.encode())
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest()


def made_once(
    directory: Path,
    made_from: dict[str, Any],
    make: Callable[[], dict[str, Any]],
    opened: Callable[[dict[str, Any]], _Made],
    *,
    ignore_changes: bool,
) -> _Made:
    """Open a cache if it is complete and its key matches; otherwise build it.

    The result of `make` is stored for `opened`, and written last, so that it marks a complete
    cache.

    Args:
        directory: of the cache.
        made_from: the key.
        make: builds the cache.
        opened: opens it, given the result of `make`.
        ignore_changes: open it even if the files have changed or are gone.

    Raises:
        FileError: the cache must be built and a file is gone, or it cannot be written.
    """
    file = directory / _ABOUT
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        changes = _SOURCES if ignore_changes else ()
        if _without(about["made_from"], changes) == _without(made_from, changes):
            return opened(about["found"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is no cache, or it is incomplete or damaged
    for path, *_ in (facts for name in _SOURCES for facts in made_from[name]):
        try:
            Path(path).stat()
        except OSError as error:
            needed = f", and its copy in '{directory}' is incomplete" if ignore_changes else ""
            raise FileError(
                f"cannot read '{name_of(Path(path))}': {reason_of(error)}{needed}"
            ) from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
    result = make()
    write_whole(file, json.dumps({"made_from": made_from, "found": result}, indent=2))
    return opened(result)


def tallies_of(result: dict[str, Any]) -> tuple[Tally, Tally]:
    """The tallies of training and held-out data in a result of `make`."""
    training, held_out = result["left_out"]
    return Tally(**training), Tally(**held_out)


def forget(directory: Path) -> None:
    """Invalidate a cache."""
    (directory / _ABOUT).unlink(missing_ok=True)


def _without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def trained_tokenizer(directory: Path) -> Tokenizer:
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise FileError(f"the tokenizer in '{directory}' is missing")
    return tokenizer


def reported(
    texts: Iterable[_Read], what: str, total: int | None, progress: Progress
) -> Iterator[_Read]:
    """The same texts; `progress` is called every million characters."""
    done = reported_at = 0
    for text in texts:
        yield text
        done += size(text)
        if done - reported_at >= 2**20:
            progress(what, done, total)
            reported_at = done
    progress(what, done, total)


def size(read: tuple[object, ...]) -> int:
    """The number of characters of a piece or a row."""
    return sum(len(part) for part in read if isinstance(part, str))


def batches(texts: Iterable[_Read]) -> Iterator[list[_Read]]:
    """Batches that are large enough for all cores, and small enough for memory."""
    waiting: list[_Read] = []
    characters = 0
    for text in texts:
        waiting.append(text)
        characters += size(text)
        if len(waiting) == _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
            yield waiting
            waiting, characters = [], 0
    if waiting:
        yield waiting


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids without special tokens, even if a text spells one out."""
    inner = tokenizer.inner
    if inner is None:
        return tokenizer.encode(texts, special=False)
    previous = inner.encode_special_tokens
    inner.encode_special_tokens = True
    try:
        return tokenizer.encode(texts, special=False)
    finally:
        inner.encode_special_tokens = previous


def frame(tokenizer: Tokenizer, longest: int | None) -> tuple[list[int], list[int], int]:
    """The special tokens before and after a text, and the number of ids that fit between them."""
    (bare,), (whole,) = (tokenizer.encode(["a"], special=special) for special in (False, True))
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    marks = len(whole) - len(bare)
    if longest is not None and longest <= marks:
        raise ArgumentError(
            f"longest must be more than {count(marks, 'special token')}, not {longest}"
        )
    room = sys.maxsize if longest is None else longest - marks
    return whole[:start], whole[start + len(bare) :], room


def these(files: Sequence[Path]) -> str:
    return f"'{name_of(files[0])}'" if len(files) == 1 else f"the {count(len(files), 'file')}"


def has(files: Sequence[Path]) -> str:
    return "has" if len(files) == 1 else "have"
