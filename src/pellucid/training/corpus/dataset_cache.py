"""Texts as ids on disk, made once: what documents and rows have in common."""

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
"""Share of the texts to be judged by."""
_BATCH_TEXTS, _BATCH_CHARACTERS = 512, 2**22
_ABOUT = "about.json"
_SOURCES = ("files", "held_out")
_VERSION = 1
"""Of what is kept in a directory; another is made anew."""

Progress = Callable[[str, int, int | None], None]
"""What is being done, how many characters of text were read for it, and of how many, if known."""
_Read = TypeVar("_Read", bound=tuple[object, ...])
"""A piece or a row."""
_Made = TypeVar("_Made")


def silent(what: str, done: int, total: int | None) -> None:
    pass


def identity(
    files: Sequence[Path], held_out: Sequence[Path], tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """What tells data from others.

    Raises:
        FileError: a file is none, but a pipe, say, or a directory.
    """
    return {
        "version": _VERSION,
        "files": [_facts(path) for path in files],
        "held_out": [_facts(path) for path in held_out],
        "tokenizer": None if tokenizer is None else checksum(tokenizer, ()),
    }


def _facts(path: Path) -> list[str | int | None]:
    try:
        found = path.stat()
    except OSError:
        return [os.path.realpath(path), None, None]
    if not stat.S_ISREG(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise FileError(
            f"cannot read '{name_of(path)}': it is {what}; texts are read from files, several times"
        )
    return [os.path.realpath(path), found.st_size, found.st_mtime_ns]


def checksum(tokenizer: Tokenizer, parts: Iterable[np.ndarray]) -> str:
    """Of the tokens that there are, and of numbers."""
    spelled = "\n".join(tokenizer.token(number) for number in range(len(tokenizer)))
    found = hashlib.sha256(spelled.encode())
    for part in parts:
        found.update(part.data)
    return found.hexdigest()


def made_once(
    directory: Path,
    made_from: dict[str, Any],
    make: Callable[[], dict[str, Any]],
    opened: Callable[[dict[str, Any]], _Made],
    *,
    whatever: bool,
) -> _Made:
    """Open what was made before, if it was of the same and is whole; or make it.

    What `make` has found is kept for `opened`, and written last: so nothing unfinished has it.

    Args:
        directory: where it is.
        made_from: what it was made from, or shall be.
        make: makes it.
        opened: opens it.
        whatever: open it though the files have changed since, or are gone.

    Raises:
        FileError: it must be made, and a file is gone; or it cannot be written.
    """
    file = directory / _ABOUT
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        changes = _SOURCES if whatever else ()
        if _without(about["made_from"], changes) == _without(made_from, changes):
            return opened(about["found"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is there, or something else, or not all of it
    for path, *_ in (one for name in _SOURCES for one in made_from[name]):
        try:
            Path(path).stat()
        except OSError as error:
            needed = f", and '{directory}' does not have all that was in it" if whatever else ""
            raise FileError(
                f"cannot read '{name_of(Path(path))}': {reason_of(error)}{needed}"
            ) from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
    found = make()
    write_whole(file, json.dumps({"made_from": made_from, "found": found}, indent=2))
    return opened(found)


def told(found: dict[str, Any]) -> tuple[Tally, Tally]:
    """What was left out, as `make` has found it."""
    training, held_out = found["left_out"]
    return Tally(**training), Tally(**held_out)


def forget(directory: Path) -> None:
    """Have it made anew."""
    (directory / _ABOUT).unlink(missing_ok=True)


def _without(said: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in names}


def learnt(directory: Path) -> Tokenizer:
    found = load_tokenizer(directory)
    if found is None:
        raise FileError(f"'{directory}' has no tokenizer any more")
    return found


def reported(
    texts: Iterable[_Read], what: str, total: int | None, progress: Progress
) -> Iterator[_Read]:
    """The same, and every million characters a word about it."""
    done = told = 0
    for text in texts:
        yield text
        done += size(text)
        if done - told >= 2**20:
            progress(what, done, total)
            told = done
    progress(what, done, total)


def size(read: tuple[object, ...]) -> int:
    """Characters of a piece or a row."""
    return sum(len(part) for part in read if isinstance(part, str))


def batches(texts: Iterable[_Read]) -> Iterator[list[_Read]]:
    """So many that all cores have work, and so few that memory does not notice."""
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
    """Ids without marks; a text that spells a mark does not get one."""
    inner = getattr(tokenizer, "inner", None)
    if inner is None:
        return tokenizer.encode(texts, special=False)
    was = inner.encode_special_tokens
    inner.encode_special_tokens = True
    try:
        return tokenizer.encode(texts, special=False)
    finally:
        inner.encode_special_tokens = was


def frame(tokenizer: Tokenizer, longest: int | None) -> tuple[list[int], list[int], int]:
    """What a tokenizer puts before a text and after it, and how many ids fit between."""
    (bare,), (whole,) = (tokenizer.encode(["a"], special=special) for special in (False, True))
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    marks = len(whole) - len(bare)
    if longest is not None and longest <= marks:
        raise ArgumentError(f"longest must be more than {count(marks, 'mark')}, not {longest}")
    room = sys.maxsize if longest is None else longest - marks
    return whole[:start], whole[start + len(bare) :], room


def these(files: Sequence[Path]) -> str:
    return f"'{name_of(files[0])}'" if len(files) == 1 else f"the {count(len(files), 'file')}"


def has(files: Sequence[Path]) -> str:
    return "has" if len(files) == 1 else "have"
