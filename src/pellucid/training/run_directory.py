"""The directory of a run: its lock, and the removal or replacement of an earlier run."""

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
"""The files of a run outside `training`."""
RUN = "run.json"
TRAINING = (
    *("data/about.json", "data/tokenizer.json", "data/training*", "data/held-out*"),
    *("data/links-*.npy", "texts.sha256", "checkpoints/step-*", "log.jsonl", "loss.svg"),
    *("attention/step-*.svg", "tensorboard/events.*", "bad-batch.json", RUN),
)
"""The files of a run in `training`. The last to be removed is the one that identifies a run, so
that an interrupted removal is recognised."""
FOLDERS = ("data", "checkpoints", "attention", "tensorboard")
ASIDE = ".pellucid-run"
"""Holds a run that is being prepared, while the one that it will replace is in `training`."""
OLD = ".pellucid-old"
"""Holds the `training` of a run that is being replaced."""

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


@contextmanager
def alone(directory: Path, is_there: bool) -> Iterator[None]:
    """Lock a directory against other runs; it is created unless `is_there`.

    Raises:
        FileError: another run uses it, or it cannot be created.
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
            raise FileError(f"another run is using '{directory}'") from error
        except OSError:  # some file systems have no locks
            pass
        yield
    finally:
        os.close(held)


def claim(directory: Path, overwrite: bool) -> Path:
    """Make an empty directory in which to prepare a run (see `place`).

    Raises:
        FileError: the directory is not empty and may not be overwritten, or cannot be written.
    """
    if any(directory.iterdir()) and not overwrite:
        raise FileError(
            f"'{directory}' is not empty; --resume continues the run there, --overwrite replaces it"
        )
    _settle(directory)
    if not any((directory / name / RUN).is_file() for name in ("training", ASIDE)):
        for path in _left(directory):
            raise FileError(
                f"'{path}' does not belong to a run, since there is no "
                f"'{directory / 'training' / RUN}'; --overwrite replaces only runs"
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
    """The directory in which a run is prepared: aside, if it will replace another."""
    aside = directory / ASIDE
    return aside if aside.is_dir() else directory / "training"


def replace(directory: Path) -> None:
    """Replace the old run by the one that was prepared aside.

    If it is interrupted, the old or the new run is intact, and `sweep` completes the replacement.
    """
    if (directory / ASIDE).is_dir():
        os.rename(directory / "training", directory / OLD)
        _settle(directory)


def _settle(directory: Path) -> None:
    """Complete an interrupted `replace`: move the new run in, then remove the old one."""
    inner, old, aside = directory / "training", directory / OLD, directory / ASIDE
    if not old.is_dir():
        return
    if not inner.exists():
        os.rename(aside if (aside / RUN).is_file() else old, inner)
    flush(directory)
    if old.is_dir():
        for path in (*_model(directory), *_inside(old)):
            _remove(path)
        _remove_folders(directory / "1_Pooling", *(old / name for name in FOLDERS))
        for path in sorted(old.rglob("*")):  # files that are not the run's
            target = inner / path.relative_to(old)
            if not path.is_dir() or path.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        shutil.rmtree(old, ignore_errors=True)


def run_in(directory: Path) -> Path:
    """The file with a run's configuration, even if a `replace` was interrupted."""
    aside = directory / ASIDE / RUN
    is_interrupted = (directory / OLD).is_dir() and not (directory / "training").exists()
    return aside if is_interrupted and aside.is_file() else directory / "training" / RUN


def give_up(directory: Path) -> None:
    """Remove a run that was being prepared."""
    is_over = place(directory).name == ASIDE
    sweep(directory)
    if not is_over:
        remove(directory)
    with suppress(OSError):  # it may contain other files
        directory.rmdir()


def remove(directory: Path) -> None:
    """Remove the files of a run, and nothing else."""
    for path in _left(directory):
        _remove(path)
    inner = directory / "training"
    _remove_folders(directory / "1_Pooling", *(inner / name for name in FOLDERS), inner)


def _remove_folders(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # it does not exist, or contains other files
            folder.rmdir()


def check_unread(directory: Path, files: Iterable[Path]) -> None:
    """Refuse to replace a run whose files are inputs of the new one.

    Raises:
        ArgumentError: a file is.
    """
    left = [path for path in _left(directory) if path.is_file()]
    for file in files:
        if file.exists() and any(os.path.samefile(file, path) for path in left):
            raise ArgumentError(
                f"'{file}' is an input, and part of the run that --overwrite would remove; choose "
                "another output directory"
            )


def _left(directory: Path) -> list[Path]:
    """All files of a run."""
    return _model(directory) + _inside(directory / "training")


def _model(directory: Path) -> list[Path]:
    paths = [directory / name for name in MODEL]
    return [path for path in paths if path.exists() or path.is_symlink()]


def _inside(training: Path) -> list[Path]:
    return [path for name in TRAINING for path in training.glob(name)]


def sweep(directory: Path) -> None:
    """Complete an interrupted `replace`, and remove partly written files."""
    _settle(directory)
    for path in (*directory.glob(UNFINISHED), *(directory / "training").rglob(UNFINISHED)):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
