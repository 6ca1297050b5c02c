"""What leaves the program: files whole or not at all, and text without control characters."""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile

from pellucid.errors import FileError

# C0, DEL and C1: a terminal may take these for commands. A line break or tab is harmless.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\ufffd")
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


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write, which takes its place at `path` when the block is left without an error.

    A reader sees the old file or the new, never half of one. Through a symbolic link the file that
    it names is written, and a file keeps its rights.

    Raises:
        FileError: the file cannot be written there, or what is there is not a file.
    """
    path = Path(path)
    with _reported(path):
        rights = _rights(path)
        target = Path(os.path.realpath(path))
        with NamedTemporaryFile(dir=target.parent, prefix=_ASIDE, delete=False) as file:
            aside = Path(file.name)
        try:
            yield aside
            os.chmod(aside, rights)
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)  # some who cannot write it take it away themselves
            raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a file that `written_whole` cannot write, before any work is done for it.

    Raises:
        FileError: as `written_whole`.
    """
    path = Path(path)
    with _reported(path):
        _rights(path)
        with TemporaryFile(dir=Path(os.path.realpath(path)).parent, prefix=_ASIDE):
            pass


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8 to `path`, as `written_whole` does."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """What the system says against writing a file, as an error of ours."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"cannot write '{_short(path)}': {reason}") from error


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
