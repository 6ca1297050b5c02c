"""Text files, packed or not, read in blocks and lines: UTF-8 unless a mark or the user says else.

A file may be packed as .gz, .bz2, .xz or .zst. `pellucid.common.untrusted` limits how long a line
may be, and how much larger than itself a packed file. Blocks are read as they are asked for, so
that `pellucid.training.corpus` can read files that are larger than the memory.
"""

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from pellucid.common import untrusted
from pellucid.common.files import printable, reason_of
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError
from pellucid.text.encodings import HEAD, Decoder, encoding_of

STDIN = Path("-")
BLOCK = 2**17
"""Bytes per read."""


def name_of(path: Path) -> str:
    """The name of a file in a message."""
    return "standard input" if path == STDIN else short(printable(str(path)), 200)


def nothing_in(path: Path) -> FileError:
    """The error for a file without text."""
    return FileError(f"'{name_of(path)}' is empty: there is nothing to read")


def kind(path: Path) -> str:
    """The ending of a file's name without that of its compression: ".csv" for "a.csv.gz"."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending in _PACKED else ending


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or standard input, and unpack it."""
    source = name_of(path)
    if path == STDIN and sys.stdin is None:
        raise FileError("cannot read standard input: it is closed")
    try:
        if path == STDIN:
            yield sys.stdin.buffer
        else:
            with untrusted.regular(path) as file:
                unpack = _PACKED.get(path.suffix.lower())
                if unpack is None:
                    yield file
                else:
                    with unpack(file) as unpacked:
                        size = os.fstat(file.fileno()).st_size
                        yield cast(BinaryIO, _Bounded(unpacked, path, size))
    except FileError:
        raise
    except EOFError as error:
        raise FileError(f"'{source}' is cut short: its compressed data end too early") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise FileError(f"cannot read '{source}': {reason_of(error)}") from error


class _Bounded(io.RawIOBase):
    """Unpacked data, up to the limit of `untrusted`."""

    def __init__(self, unpacked: BinaryIO, path: Path, packed: int) -> None:
        self._unpacked, self._path = unpacked, path
        self._left = max(untrusted.PACKED_FREE, untrusted.PACKED_TIMES * packed)

    def read(self, size: int = BLOCK) -> bytes:
        block = self._unpacked.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise too_packed(self._path)
        return block


def too_packed(path: Path) -> FileError:
    return FileError(
        f"'{name_of(path)}' unpacks to more than {untrusted.PACKED_TIMES} times its size, which is "
        "unusual for text; unpack it first if that is intended"
    )


def _zstandard(file: BinaryIO) -> BinaryIO:
    # pyarrow detects a file that is cut short; the zstandard package does not.
    stream: BinaryIO = pyarrow_for(".zst").CompressedInputStream(file, "zstd")
    return stream


def pyarrow_for(files: str) -> Any:
    """The module pyarrow, with pyarrow.parquet; `files` is what needs it, for the error."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError.of(f"{files} files need pyarrow", "tables") from error
    return pyarrow


_PACKED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}


def text_blocks(path: Path, encoding: str | None = None, *, escapes: bool = False) -> Iterator[str]:
    """The text of a file in blocks of about `BLOCK` bytes, with its line ends.

    Args:
        path: of the file.
        encoding: of a file without a byte order mark; UTF-8 by default.
        escapes: whether invalid bytes become characters, as for `Decoder`.

    Raises:
        FileError: it cannot be read, is no text, or has another encoding; the message has the first
            invalid byte, from 0, and its line, from 1.
    """
    with opened(path) as file:
        head = file.read(HEAD)
        source = name_of(path)
        decoder = Decoder(encoding_of(head, encoding, source), source, escapes=escapes)
        for block in chain([head] if head else [], iter(lambda: file.read(BLOCK), b""), [b""]):
            if text := decoder.decode(block):
                yield text


def lines_of(blocks: Iterable[str], path: Path) -> Iterator[str]:
    r"""The lines of text in blocks, with their ends.

    Raises:
        FileError: a line is too long.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=False)  # \r\n may span two blocks
    parts: list[str] = []
    length = number = 0
    for block in chain(blocks, [""]):
        for line in io.StringIO(newlines.decode(block, final=not block), newline=""):
            parts.append(line)
            length += len(line)
            if length > untrusted.MOST_LINE:
                raise too_long(f"line {number + 1}", path, untrusted.MOST_LINE)
            if line.endswith(("\n", "\r")):
                yield "".join(parts)
                parts.clear()
                length, number = 0, number + 1
    if parts:
        yield "".join(parts)


def too_long(what: str, path: Path, most: int) -> FileError:
    return FileError(f"{what} of '{name_of(path)}' has more than {most:,} characters")


def text_lines(
    path: Path, encoding: str | None = None, *, escapes: bool = False
) -> Iterator[tuple[int, str]]:
    """Lines and their numbers, from 1; arguments and errors are those of `text_blocks`."""
    for number, line in enumerate(lines_of(text_blocks(path, encoding, escapes=escapes), path), 1):
        yield number, line.rstrip("\r\n")
