"""A file to which figures go as they come, so that a run that was stopped goes on.

A line of JSON says what is measured, and one follows for each figure. A line that was torn when
the machine stopped is dropped.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.common.files import reason_of
from pellucid.common.wording import short
from pellucid.errors import ArgumentError, ExistsError, FileError

FORMAT = "ablation 1"
FINGERPRINT = "fingerprint"
"""The name of numbers that tell texts and models apart."""
MOST = 2**28
"""Bytes of a file that is read."""


class Journal:
    """Figures by their keys, in a file or, without one, in memory only."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        """Begin a file, or go on with one.

        Args:
            path: of the file.
            about: all that the figures depend on, as JSON can hold it.

        Raises:
            ExistsError: it is another file.
            ArgumentError: it is of another run.
            FileError: it cannot be read or written.
        """
        self._path = path
        self._entries: dict[str, Any] = {}
        self.resumed = 0
        """How many figures an earlier run had."""
        if path is None:
            return
        first = {"pellucid": FORMAT, **json.loads(json.dumps(about))}
        lines = _lines(path)
        if not lines:
            self._write("wb", first)
            return
        _check_same(path, _parsed(path, lines[0]), first)
        for line in lines[1:]:
            entry = _parsed(path, line)
            if not (isinstance(entry, dict) and isinstance(entry.get("key"), str)):
                raise FileError(f"'{path}' is damaged: a line has no key")
            self._entries[entry["key"]] = entry.get("value")
        self.resumed = len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def numbers(self, key: str) -> dict[str, float]:
        """Figures by name.

        Raises:
            FileError: the file has something else there.
        """
        value = self._entries[key]
        if not isinstance(value, dict) or not all(map(_is_number, value.values())):
            raise FileError(f"'{self._path}' is damaged: {short(key, 80)} has no numbers")
        return value

    def add(self, key: str, value: Mapping[str, float]) -> None:
        """Keep figures.

        Raises:
            FileError: the file cannot be written.
        """
        self._entries[key] = dict(value)
        if self._path is not None:
            self._write("ab", {"key": key, "value": value})

    def _write(self, mode: str, entry: Mapping[str, Any]) -> None:
        assert self._path is not None
        try:
            with open(self._path, mode) as file:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"cannot write '{self._path}': {reason_of(error)}") from error


def check_journal(path: Path) -> None:
    """Refuse a file that a `Journal` could not go on with, before any work is done.

    Raises:
        ExistsError: it is another file.
        FileError: it cannot be read or written.
    """
    if not path.parent.is_dir():
        raise FileError(f"cannot write '{path}': there is no directory '{path.parent}'")
    if lines := _lines(path):
        _check_same(path, _parsed(path, lines[0]), {})


def _lines(path: Path) -> list[bytes]:
    """The whole lines of a file, after a torn one is cut off; none if there is no file."""
    try:
        if not path.exists():
            return []
        if path.stat().st_size > MOST:
            raise FileError(f"'{path}' is too large to be figures of heads")
        content = path.read_bytes()
        whole, end, torn = content.rpartition(b"\n")
        if torn and end and content.startswith(b'{"pellucid": "ablation'):
            with open(path, "r+b") as file:
                file.truncate(len(whole) + 1)
    except OSError as error:
        raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
    if content and not end:
        raise ExistsError(f"'{path}' exists and holds no figures of heads; give another name")
    return whole.split(b"\n") if whole else []


def _parsed(path: Path, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ExistsError(
            f"'{path}' exists and holds no figures of heads; give another name"
        ) from error


def _check_same(path: Path, header: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(header, dict) or header.get("pellucid") != FORMAT:
        raise ExistsError(f"'{path}' exists and holds no figures of heads; give another name")
    for name, value in wanted.items():
        if _is_same(header.get(name), value):
            continue
        if name == FINGERPRINT:
            raise ArgumentError(f"'{path}' is of another text or model; give another file")
        raise ArgumentError(
            f"'{path}' is of a run with {name} {short(json.dumps(header.get(name)), 60)}, not "
            f"{short(json.dumps(value), 60)}; give another file"
        )


def _is_same(stored: Any, value: Any) -> bool:
    """Whether it is equal, up to the rounding of numbers."""
    if isinstance(value, list) and isinstance(stored, list) and len(stored) == len(value):
        return all(map(_is_same, stored, value))
    if isinstance(value, float) and _is_number(stored):
        return math.isclose(stored, value, rel_tol=1e-4, abs_tol=1e-6)
    return bool(stored == value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
