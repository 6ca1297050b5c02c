"""The directory of a run: whose it is at a time, and what is taken away from it."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pellucid.common.files import UNFINISHED, flush, reason_of
from pellucid.errors import ArgumentError, FileError

MODEL = (
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
    *("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"),
    *("spiece.model", "source.spm", "target.spm", "vocab.json"),
    *("head.safetensors", "results.json"),
)
"""What a run leaves besides `training`."""
RUN = "run.json"
TRAINING = (
    *("data/about.json", "data/tokenizer.json", "data/training*", "data/held-out*"),
    *("data/links-*.npy", "texts.sha256", "checkpoints/step-*", "log.jsonl", "loss.svg"),
    *("attention/step-*.svg", "tensorboard/events.*", "bad-batch.json", RUN),
)
"""What it leaves in `training`. Last comes what says that a run was there at all, so that one who
is killed among these can be told from somebody else's files."""
FOLDERS = ("data", "checkpoints", "attention", "tensorboard")
ASIDE = ".pellucid-run"
"""Where a run is made ready, while what it replaces is still in `training`."""
OLD = ".pellucid-old"
"""Where `training` of a run goes that is being replaced, until the new one is in its place."""

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
            raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
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


def claim(directory: Path, overwrite: bool) -> Path:
    """Where to make a run ready: `place` of the directory, empty.

    Raises:
        FileError: there is something in it, and it may not be removed; or it cannot be written.
    """
    if any(directory.iterdir()) and not overwrite:
        raise FileError(
            f"'{directory}' has something in it; --resume goes on with it, --overwrite removes "
            "what a run left there"
        )
    _settle(directory)
    if not any((directory / one / RUN).is_file() for one in ("training", ASIDE)):
        for path in _left(directory):
            raise FileError(
                f"'{path}' is of no run, since there is no '{directory / 'training' / RUN}'; "
                "--overwrite removes what a run left, and nothing else"
            )
    is_over = (directory / "training" / RUN).is_file()
    if not is_over:
        remove(directory)
    sweep(directory)
    made = directory / (ASIDE if is_over else "training")
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
    return made


def place(directory: Path) -> Path:
    """Where a run is being made ready: aside, if there is another that it will replace."""
    aside = directory / ASIDE
    return aside if aside.is_dir() else directory / "training"


def replace(directory: Path) -> None:
    """Put what was made ready aside in place of the run that was there.

    Whoever is killed meanwhile leaves the old run or the new one, and `sweep` ends what was begun.
    """
    if (directory / ASIDE).is_dir():
        os.rename(directory / "training", directory / OLD)
        _settle(directory)


def _settle(directory: Path) -> None:
    """End what a `replace` has begun: the new run in its place first, then the old one away."""
    inner, old, aside = directory / "training", directory / OLD, directory / ASIDE
    if not old.is_dir():
        return
    if not inner.exists():
        os.rename(aside if (aside / RUN).is_file() else old, inner)
    flush(directory)
    if old.is_dir():
        for path in (*_model(directory), *_inside(old)):
            _remove(path)
        _remove_folders(directory / "1_Pooling", *(old / one for one in FOLDERS))
        for path in sorted(old.rglob("*")):  # what somebody else has put there
            target = inner / path.relative_to(old)
            if not path.is_dir() or path.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        shutil.rmtree(old, ignore_errors=True)


def run_in(directory: Path) -> Path:
    """Where it stands what a run was asked, also of one that was killed while it took its place."""
    aside = directory / ASIDE / RUN
    is_between = (directory / OLD).is_dir() and not (directory / "training").exists()
    return aside if is_between and aside.is_file() else directory / "training" / RUN


def give_up(directory: Path) -> None:
    """Leave a directory as it was before a run was made ready in it."""
    is_over = place(directory).name == ASIDE
    sweep(directory)
    if not is_over:
        remove(directory)
    with suppress(OSError):  # somebody else's files may be there
        directory.rmdir()


def remove(directory: Path) -> None:
    """What a run left, and nothing else that somebody may have put there."""
    for path in _left(directory):
        _remove(path)
    inner = directory / "training"
    _remove_folders(directory / "1_Pooling", *(inner / one for one in FOLDERS), inner)


def _remove_folders(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not there, or has something else in it
            folder.rmdir()


def check_unread(directory: Path, files: Iterable[Path]) -> None:
    """Refuse to replace a run of which a file is read.

    Raises:
        ArgumentError: one is.
    """
    left = [path for path in _left(directory) if path.is_file()]
    for file in files:
        if file.exists() and any(os.path.samefile(file, path) for path in left):
            raise ArgumentError(
                f"'{file}' is read, and is of the run that --overwrite removes; the new one goes "
                "elsewhere"
            )


def _left(directory: Path) -> list[Path]:
    """What a run left, if it was one."""
    return _model(directory) + _inside(directory / "training")


def _model(directory: Path) -> list[Path]:
    paths = [directory / name for name in MODEL]
    return [path for path in paths if path.exists() or path.is_symlink()]


def _inside(training: Path) -> list[Path]:
    return [path for name in TRAINING for path in training.glob(name)]


def sweep(directory: Path) -> None:
    """Remove what was killed while it was written, or made ready; a `replace` is ended first."""
    _settle(directory)
    for path in (*directory.glob(UNFINISHED), *(directory / "training").rglob(UNFINISHED)):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
