"""Checkpoints of a run: written atomically, and verified by checksums.

DIR/training/checkpoints/step-0000250/   the files of torch.distributed.checkpoint, one per
process, and about.json with their checksums

No random state is among them: each step makes its own from the seed, its number and the process
(see `loop`).
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as read_tensors
from torch.distributed.checkpoint.state_dict_saver import save as write_tensors

from pellucid.common.files import flush, reason_of, write_whole
from pellucid.common.wording import short
from pellucid.errors import FileError
from pellucid.training.distributed import Processes

ABOUT = "about.json"
Parts = tuple[Any, Any, dict[str, Tensor]]
"""The model, its optimiser, and other tensors."""


def save(directory: Path, parts: Parts, about: dict[str, Any], processes: Processes) -> None:
    """Write a checkpoint of the step in `about`.

    Raises:
        FileError: it cannot be written; earlier checkpoints are unchanged.
    """
    final = directory / f"step-{about['step']:07d}"
    aside = final.with_suffix(".partial")

    def begin() -> None:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        with _quiet():
            write_tensors(_tensors(parts), checkpoint_id=aside, no_dist=processes.count == 1)

    def finish() -> None:
        sums = {file.name: _checksum(file) for file in sorted(aside.iterdir())}
        full = about | {"checksums": sums}
        write_whole(aside / ABOUT, json.dumps({"about": full, "checksum": _sum(full)}, indent=2))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
        flush(directory)

    for call in (begin, write, finish):
        reason = ""
        if processes.is_first or call is write:
            try:
                call()
            except (OSError, RuntimeError, checkpoint.api.CheckpointException) as error:
                reason = _reason(error)
        (failed,) = processes.total(float(bool(reason)))  # a barrier, too
        if failed:
            if processes.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            raise FileError(
                f"cannot write '{final}': {reason or 'another process failed'}; "
                "--resume continues from the previous checkpoint, if there is one"
            )


def load(directory: Path, parts: Parts, processes: Processes) -> dict[str, Any] | None:
    """Load the newest intact checkpoint.

    Returns:
        The `about` of `save`, and under "damaged" the names of newer, damaged checkpoints; None if
        there are no checkpoints.

    Raises:
        FileError: all checkpoints are damaged, or the newest intact one is of another model or
            cannot be read.
    """
    damaged: dict[str, str] = {}
    try:
        names = sorted(os.listdir(directory), reverse=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot read '{directory}': {reason_of(error)}") from error
    for path in (directory / name for name in names if fnmatch(name, "step-*[0-9]")):
        try:
            about = _verified(path)
        except PermissionError as error:  # it may be intact, so an earlier one is not used
            raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            damaged[path.name] = reason_of(error)
            continue
        tensors = _tensors(parts)
        try:
            with _quiet():
                read_tensors(tensors, checkpoint_id=path, no_dist=processes.count == 1)
        except (RuntimeError, ValueError, checkpoint.api.CheckpointException) as error:
            raise FileError(f"'{path}' is of another model: {_reason(error)}") from error
        model, optimiser, _ = parts
        set_state_dict(
            model,
            optimiser,
            model_state_dict=tensors["model"],
            optim_state_dict=tensors["optimiser"],
        )
        return about | {"damaged": list(damaged)}
    if damaged:
        name, reason = next(iter(damaged.items()))
        raise FileError(
            f"all checkpoints in '{directory}' are damaged; the newest, {name}: {reason}"
        )
    return None


def _tensors(parts: Parts) -> dict[str, Any]:
    """The tensors, by names that do not depend on the number of processes."""
    model, optimiser, others = parts
    weights, moments = get_state_dict(model, optimiser)
    return {"model": weights, "optimiser": moments, "others": others}


def clear(directory: Path, keep: int) -> None:
    """Remove all checkpoints but the newest."""
    for path in sorted(directory.glob("step-*[0-9]"))[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's warning about a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _verified(path: Path) -> dict[str, Any]:
    """The `about` of a checkpoint; raises ValueError if a checksum does not match."""
    content = json.loads((path / ABOUT).read_text())
    about: dict[str, Any] = content["about"]
    if content["checksum"] != _sum(about):
        raise ValueError(f"the checksum of {ABOUT} does not match")
    for name, value in about["checksums"].items():
        if _checksum(path / name) != value:
            raise ValueError(f"the checksum of {name} does not match")
    return about


def _reason(error: BaseException) -> str:
    """The first line of an error's message, without the report that torch wraps around it."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return short(next(iter(str(error).splitlines()), "") or type(error).__name__, 200)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
