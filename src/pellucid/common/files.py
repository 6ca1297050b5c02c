"""What leaves the program: files whole or not at all, and text without control characters."""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from pellucid.errors import FileError

# C0, DEL and C1: a terminal may take these for commands. A line break or tab is harmless.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\ufffd")
_CONTROLS |= {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): " "}


def printable(text: str) -> str:
    """The text with each control character replaced, as long as before."""
    return text.translate(_CONTROLS)


def is_blank(text: str) -> bool:
    """Whether there is nothing to see: only spaces, control and zero-width characters."""
    return all(unicodedata.category(letter) in ("Zs", "Zl", "Zp", "Cc", "Cf") for letter in text)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write, which takes its place at `path` when the block is left without an error.

    A reader sees the old file or the new, never half of one. Through a symbolic link the file that
    it names is written, and a file keeps its rights.

    Raises:
        FileError: the file cannot be written there, or what is there is not a file.
    """
    path = Path(path)
    try:
        rights = _rights(path)
        target = Path(os.path.realpath(path))
        with NamedTemporaryFile(dir=target.parent, prefix=".pellucid-", delete=False) as file:
            aside = Path(file.name)
        try:
            yield aside
            os.chmod(aside, rights)
            os.replace(aside, target)
        except BaseException:
            aside.unlink()
            raise
    except FileError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"cannot write '{_short(path)}': {reason}") from error


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8 to `path`, as `written_whole` does."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


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
