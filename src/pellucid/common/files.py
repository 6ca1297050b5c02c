"""Output: files that are written atomically, and text without control characters."""

import errno
import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

from pellucid.common.wording import plain
from pellucid.errors import ArgumentError, ExistsError, FileError, PellucidError

# Bidirectional controls, which make text look like other text (Boucher and Anderson 2021).
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
# Marks that move only what is next to them: a space without width takes their place.
_MARKS = (0x061C, 0x200E, 0x200F)
# C0, DEL and C1, which a terminal may take for commands. Line breaks and tabs are harmless.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *_BIDI), "\ufffd")
_CONTROLS |= dict.fromkeys(_MARKS, "\u200b") | {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): " "}
# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): characters without glyphs.
# Some format characters are visible, such as the Arabic number signs.
_INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
        (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
        (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8),
        (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    )
    for code in range(first, last + 1)
)  # fmt: skip

# JSON escapes C0 itself.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_BIDI, *_MARKS)}

KINDS = {
    "html": (".html", ".htm"),
    "svg": (".svg",),
    "png": (".png",),
    "json": (".json",),
    "notebook": (".ipynb",),
    "slides": (".html", ".htm"),
    "csv": (".csv",),
    "txt": (".txt",),
    "parquet": (".parquet",),
    "npy": (".npy",),
    "recording": (".safetensors",),
    "head": (".safetensors",),
    "mp4": (".mp4",),
    "gif": (".gif",),
    "vtt": (".vtt",),
    "srt": (".srt",),
}
"""Kinds of output files, and the endings of their names."""
_OTHERS = (
    ".tsv", ".jsonl", ".md", ".py", ".toml", ".xml", ".pdf", ".gz", ".bz2", ".xz", ".zst", ".zip",
    ".jpg", ".jpeg", ".webp", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".model",
    ".ppt", ".pptx", ".odp", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods",
)  # fmt: skip
"""Endings of other kinds of files, which no output may have."""
_BEGIN = {
    "html": (b"<!doctype html", b"<html"),
    "svg": (b"<svg", b"<?xml"),
    "png": (b"\x89PNG",),
    "json": (b"{", b"["),
    "notebook": (b"{",),
    "slides": (b"<!doctype html", b"<html"),
    "parquet": (b"PAR1",),
    "npy": (b"\x93NUMPY",),
    "mp4": (b"ftyp",),
    "gif": (b"GIF8",),
    "vtt": (b"WEBVTT",),
}
_SAFETENSORS = {"recording": b"pellucid recording", "head": b"pellucid head"}
"""A mark in the headers of Pellucid's own files."""

_ASIDE = ".pellucid-"
UNFINISHED = f"{_ASIDE}*"
"""The names of the temporary files of `written_whole`."""


def printable(text: str) -> str:
    """The text with each control character replaced; its length stays the same."""
    return text.translate(_CONTROLS)


def is_blank(text: str) -> bool:
    """Whether the text has only spaces, control characters and invisible characters."""
    return all(
        letter in _INVISIBLE or unicodedata.category(letter) in ("Zs", "Zl", "Zp", "Cc")
        for letter in text
    )


def without_invisible(text: str) -> str:
    """The text without characters that have no glyph, such as soft hyphens and byte order marks."""
    return text if text.isascii() else "".join(x for x in text if x not in _INVISIBLE)


def to_json(data: Any, *, indent: int = 1) -> str:
    """JSON that a terminal can show: its control characters are escaped."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, indent=indent)
    return text.translate(_ESCAPED)


def reason_of(error: BaseException) -> str:
    """The message of an error in one line: never empty, and never "None"."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


@contextmanager
def written_whole(
    path: str | os.PathLike[str], kind: str | None = None, *, overwrite: bool = False
) -> Iterator[Path]:
    """A temporary file that replaces `path` if the block ends without an error.

    A reader sees the old file or the new one, never half of one, even after a power cut. A symbolic
    link is followed, and an existing file keeps its permissions.

    Args:
        path: of the final file.
        kind: one of `KINDS`, for a file that the user asked for; None for a file of a run or model,
            which is always replaced, since their directories are protected as a whole.
        overwrite: whether an existing file of the same kind may be replaced.

    Raises:
        ExistsError: the file exists and may not be replaced.
        FileError: the file cannot be written, or `path` is not a regular file.
    """
    path = Path(path)
    with _reported(path):
        permissions = _permissions(path)
        _check_free(path, kind, overwrite)
        target = Path(os.path.realpath(path))
        with NamedTemporaryFile(dir=target.parent, prefix=_ASIDE, delete=False) as file:
            aside = Path(file.name)
        try:
            yield aside
            os.chmod(aside, permissions)
            flush(aside)
            _check_free(path, kind, overwrite)  # it may have been written meanwhile
            if kind is None or overwrite:
                os.replace(aside, target)
            else:
                _move(aside, target)
            flush(target.parent)
        except BaseException:
            aside.unlink(missing_ok=True)  # some libraries remove a file that they cannot write
            raise


def check_writable(
    path: str | os.PathLike[str], kind: str | None = None, *, overwrite: bool = False
) -> None:
    """Refuse a file that `written_whole` could not write, before any work is done.

    Raises:
        ArgumentError: the name has the ending of another kind.
        ExistsError, FileError: as `written_whole`.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if kind is not None and ending not in KINDS[kind]:
        known = set().union(*KINDS.values(), _OTHERS)
        if ending in known:
            raise ArgumentError(
                f"cannot write '{_short(path)}': the name ends in {ending}, but the output is "
                f"{_kind_name(kind)}; give a name that ends in {KINDS[kind][0]}"
            )
    with _reported(path):
        _permissions(path)
        _check_free(path, kind, overwrite)
        with TemporaryFile(dir=Path(os.path.realpath(path)).parent, prefix=_ASIDE):
            pass


def write_whole(
    path: Path, content: str | bytes, kind: str | None = None, *, overwrite: bool = False
) -> None:
    """Write bytes, or a text in UTF-8, to `path`, as `written_whole` does."""
    with written_whole(path, kind, overwrite=overwrite) as aside:
        if isinstance(content, str):
            aside.write_text(content, encoding="utf-8")
        else:
            aside.write_bytes(content)


def flush(path: Path) -> None:
    """Wait until a file or directory is on the disk, if the system supports it."""
    # Windows cannot open a directory, and some file systems cannot flush one.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move(aside: Path, target: Path) -> None:
    """Move a file to a free name, atomically."""
    try:
        os.link(aside, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        os.replace(aside, target)
    else:
        aside.unlink()


def _check_free(path: Path, kind: str | None, overwrite: bool) -> None:
    """Refuse to replace a file of another kind or, without `overwrite`, any file."""
    if kind is None or not path.exists():
        return
    if not _is_of(path, kind):
        raise ExistsError(
            f"'{_short(path)}' already exists and is not {_kind_name(kind)}; give another name"
        )
    if not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _is_of(path: Path, kind: str) -> bool:
    """Whether a file begins as files of this kind do; an empty file is of every kind."""
    with path.open("rb") as file:
        start = file.read(4096)
        if kind in _SAFETENSORS:
            size = int.from_bytes(start[:8], "little")
            start += file.read(min(size, 2**20))
            return not start or (start[8:9] == b"{" and _SAFETENSORS[kind] in start)
    if kind in _BEGIN:
        # An MP4 begins with the size of its first box, four bytes.
        text = start[4:] if kind == "mp4" else start.removeprefix(b"\xef\xbb\xbf").lstrip()
        known = tuple(mark.lower() for mark in _BEGIN[kind])
        return not start or text[:16].lower().startswith(known)
    return b"\0" not in start  # text and CSV have no mark; their names tell them apart


def _kind_name(kind: str) -> str:
    if kind in _SAFETENSORS:
        return f"a {kind} that Pellucid wrote"
    names = {"txt": "text", "npy": "NumPy", "vtt": "WebVTT", "srt": "SubRip"}
    names |= {"notebook": "a notebook", "slides": "slides in HTML"}
    return names.get(kind, kind.upper())


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the system's errors of writing a file into Pellucid's."""
    try:
        yield
    except PellucidError:
        raise
    except FileExistsError as error:
        raise ExistsError(f"'{_short(path)}' already exists; overwrite=True replaces it") from error
    except OSError as error:
        raise FileError(f"cannot write '{_short(path)}': {reason_of(error)}") from error


def _permissions(path: Path) -> int:
    """The permissions of the existing file, or of a new file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise FileError(f"cannot write '{_short(path)}': it is {kind}")
    return stat.S_IMODE(mode)


def _short(path: Path) -> str:
    name = str(path)
    return name if len(name) <= 200 else f"{name[:99]}…{name[-100:]}"
