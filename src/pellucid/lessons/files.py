"""Write a file whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from pellucid.errors import FileError


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8 to `path`; a reader sees the old file or the new, never half of one.

    Raises:
        FileError: the file cannot be written there.
    """
    if path.is_dir():
        raise FileError(f"cannot write '{path}': it is a directory")
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as aside:
            try:
                aside.write(text)
                aside.close()
                # A temporary file is private to its owner; a result is as public as any new file.
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(aside.name, 0o666 & ~mask)
                os.replace(aside.name, path)
            except BaseException:
                os.unlink(aside.name)
                raise
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}") from error
