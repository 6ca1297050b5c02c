"""What leaves the program: files whole or not at all, and text without control characters."""

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

# What turns the direction of text around (Boucher and Anderson 2021): it shows what is not there.
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
# C0, DEL and C1: a terminal may take these for commands. A line break or tab is harmless.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *_BIDI), "\ufffd")
_CONTROLS |= {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): " "}
# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): what has no shape of its
# own. Not every format character is among them: the number signs of Arabic are to be seen.
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
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_BIDI)}

KINDS = {
    "html": (".html", ".htm"),
    "svg": (".svg",),
    "json": (".json",),
    "notebook": (".ipynb",),
    "slides": (".html", ".htm"),
    "csv": (".csv",),
    "txt": (".txt",),
    "parquet": (".parquet",),
    "npy": (".npy",),
    "recording": (".safetensors",),
    "head": (".safetensors",),
}
"""What people can have written, and how the names of such files end."""
_OTHERS = (
    *(
        ".tsv",
        ".jsonl",
        ".md",
        ".py",
        ".toml",
        ".xml",
        ".pdf",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".zip",
    ),
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".model"),
)
"""Endings that say something else, whatever is written."""
_BEGIN = {
    "html": (b"<!doctype html", b"<html"),
    "svg": (b"<svg", b"<?xml"),
    "json": (b"{", b"["),
    "notebook": (b"{",),
    "slides": (b"<!doctype html", b"<html"),
    "parquet": (b"PAR1",),
    "npy": (b"\x93NUMPY",),
}
_SAFETENSORS = {"recording": b"pellucid recording", "head": b"pellucid head"}
"""What the headers of ours have in them."""

_ASIDE = ".pellucid-"
UNFINISHED = f"{_ASIDE}*"
"""The names of files that `written_whole` writes, until they take their place."""


def printable(text: str) -> str:
    """The text with each control character replaced, as long as before."""
    return text.translate(_CONTROLS)


def is_blank(text: str) -> bool:
    """Whether there is nothing to see: only spaces, control and zero-width characters."""
    return all(
        letter in _INVISIBLE or unicodedata.category(letter) in ("Zs", "Zl", "Zp", "Cc")
        for letter in text
    )


def to_json(said: Any, *, indent: int = 1) -> str:
    """JSON for scripts, which a terminal can show: its control characters are escaped."""
    text = json.dumps(plain(said), ensure_ascii=False, allow_nan=False, indent=indent)
    return text.translate(_ESCAPED)


def reason_of(error: BaseException) -> str:
    """What an error says, in one line: never nothing, and never "None"."""
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(told).split())


@contextmanager
def written_whole(
    path: str | os.PathLike[str], kind: str | None = None, *, overwrite: bool = False
) -> Iterator[Path]:
    """A file to write, which takes its place at `path` when the block is left without an error.

    A reader sees the old file or the new, never half of one, and so does who comes after a power
    cut. Through a symbolic link the file that it names is written, and a file keeps its rights.

    Args:
        path: where to.
        kind: one of `KINDS`, of what somebody asked for; None is for files of a run or a model,
            whose directory is looked after as a whole, and which replace what is there.
        overwrite: whether a file of the same kind may be replaced.

    Raises:
        ExistsError: there is a file, and it may not be replaced.
        FileError: the file cannot be written there, or what is there is not a file.
    """
    path = Path(path)
    with _reported(path):
        rights = _rights(path)
        _check_free(path, kind, overwrite)
        target = Path(os.path.realpath(path))
        with NamedTemporaryFile(dir=target.parent, prefix=_ASIDE, delete=False) as file:
            aside = Path(file.name)
        try:
            yield aside
            os.chmod(aside, rights)
            flush(aside)
            _check_free(path, kind, overwrite)  # somebody may have written it meanwhile
            if kind is None or overwrite:
                os.replace(aside, target)
            else:
                _put(aside, target)
            flush(target.parent)
        except BaseException:
            aside.unlink(missing_ok=True)  # some who cannot write it take it away themselves
            raise


def check_writable(
    path: str | os.PathLike[str], kind: str | None = None, *, overwrite: bool = False
) -> None:
    """Refuse a file that `written_whole` cannot write, before any work is done for it.

    Raises:
        ArgumentError: the name ends as those of another kind.
        ExistsError, FileError: as `written_whole`.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if kind is not None and ending not in KINDS[kind]:
        known = set().union(*KINDS.values(), _OTHERS)
        if ending in known:
            raise ArgumentError(
                f"cannot write '{_short(path)}': the name ends in {ending}, and what is written is "
                f"{_called(kind)}; name a file that ends in {KINDS[kind][0]}"
            )
    with _reported(path):
        _rights(path)
        _check_free(path, kind, overwrite)
        with TemporaryFile(dir=Path(os.path.realpath(path)).parent, prefix=_ASIDE):
            pass


def write_whole(path: Path, text: str, kind: str | None = None, *, overwrite: bool = False) -> None:
    """Write `text` in UTF-8 to `path`, as `written_whole` does."""
    with written_whole(path, kind, overwrite=overwrite) as aside:
        aside.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file or directory is on the disk, where the system can say so."""
    with suppress(OSError):  # Windows opens no directory, and some file systems flush none
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _put(aside: Path, target: Path) -> None:
    """Move a file to where none is, in one step."""
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
    """Refuse to replace what is of another kind, or may not be replaced."""
    if kind is None or not path.exists():
        return
    if not _is_of(path, kind):
        raise ExistsError(
            f"'{_short(path)}' is there already, and is not {_called(kind)}; name another file"
        )
    if not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _is_of(path: Path, kind: str) -> bool:
    """Whether a file begins as those of a kind do; an empty one may become any."""
    with path.open("rb") as file:
        begin = file.read(4096)
        if kind in _SAFETENSORS:
            size = int.from_bytes(begin[:8], "little")
            begin += file.read(min(size, 2**20))
            return not begin or (begin[8:9] == b"{" and _SAFETENSORS[kind] in begin)
    if kind in _BEGIN:
        text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
        known = tuple(one.lower() for one in _BEGIN[kind])
        return not begin or text[:16].lower().startswith(known)
    return b"\0" not in begin  # text and CSV have no mark: the name has told what they are


def _called(kind: str) -> str:
    if kind in _SAFETENSORS:
        return f"a {kind} that Pellucid wrote"
    return "text" if kind == "txt" else {"npy": "NumPy"}.get(kind, kind.upper())


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """What the system says against writing a file, as an error of ours."""
    try:
        yield
    except PellucidError:
        raise
    except FileExistsError as error:
        raise ExistsError(
            f"'{_short(path)}' is there already; --overwrite replaces it (overwrite=True in Python)"
        ) from error
    except OSError as error:
        raise FileError(f"cannot write '{_short(path)}': {reason_of(error)}") from error


def _rights(path: Path) -> int:
    """Those of the file that is there, or of any new file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise FileError(f"cannot write '{_short(path)}': it is {what}")
    return stat.S_IMODE(mode)


def _short(path: Path) -> str:
    name = str(path)
    return name if len(name) <= 200 else f"{name[:99]}…{name[-100:]}"
