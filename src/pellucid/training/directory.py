"""The directory of a run: whose it is at a time, and what is taken away from it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.common.files import UNFINISHED
from pellucid.errors import FileError

FILES = (
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
    *("head.safetensors", "results.json"),
)
"""What a run leaves besides `training`."""

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None


@contextmanager
def alone(directory: Path, is_there: bool) -> Iterator[None]:
    """No other run is at work in a directory, which is made unless it must be there.

    Raises:
        FileError: one is; or it cannot be made.
    """
    if not is_there:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write '{directory}': {error.strerror}") from error
    if fcntl is None or not directory.is_dir():
        yield
        return
    held = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(f"another run is at work in '{directory}'") from error
        except OSError:  # some file systems have no locks
            pass
        yield
    finally:
        os.close(held)


def claim(directory: Path, overwrite: bool) -> None:
    """Begin a run in a directory.

    Raises:
        FileError: there is something in it, and it may not be removed; or it cannot be written.
    """
    if any(directory.iterdir()):
        if not overwrite:
            raise FileError(
                f"'{directory}' has something in it; --resume goes on with it, --overwrite removes "
                "what a run left there"
            )
        remove(directory)
    try:
        (directory / "training").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {error.strerror}") from error


def remove(directory: Path) -> None:
    """What a run left, and nothing else that somebody may have put there."""
    shutil.rmtree(directory / "training", ignore_errors=True)
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
    sweep(directory)


def sweep(directory: Path) -> None:
    """Remove what was killed while it was written."""
    for path in (*directory.glob(UNFINISHED), *(directory / "training").rglob(UNFINISHED)):
        path.unlink(missing_ok=True)
