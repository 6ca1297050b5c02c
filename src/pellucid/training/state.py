"""Where a run stands, on disk: whole or not at all, and told from damaged ones by checksums.

DIR/training/checkpoints/step-000250/   what torch.distributed.checkpoint writes, one file a
process, and about.json with the checksum of each
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
"""The model, its optimiser, and tensors besides."""


def save(directory: Path, parts: Parts, about: dict[str, Any], processes: Processes) -> None:
    """Write a checkpoint of the step that `about` names.

    Raises:
        FileError: it cannot be written; nothing of it is left, and those before are as they were.
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
        told = about | {"checksums": sums}
        write_whole(aside / ABOUT, json.dumps({"about": told, "checksum": _sum(told)}, indent=2))
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
        (failed,) = processes.total(float(bool(reason)))  # all wait for all
        if failed:
            if processes.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            raise FileError(
                f"cannot write '{final}': {reason or 'another process could not'}; "
                "--resume goes on from the checkpoint before, if there is one"
            )


def load(directory: Path, parts: Parts, processes: Processes) -> dict[str, Any] | None:
    """Go back to the newest checkpoint that is whole; None where there is none at all.

    Returns:
        What `save` was told about it, and under "damaged" the names of newer ones that are not
        whole.

    Raises:
        FileError: there are checkpoints, but none is whole, it is of another model, or it may not
            be read.
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
        except PermissionError as error:  # it may be whole: nobody has to begin before it
            raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            damaged[path.name] = reason_of(error)
            continue
        found = _tensors(parts)
        try:
            with _quiet():
                read_tensors(found, checkpoint_id=path, no_dist=processes.count == 1)
        except (RuntimeError, ValueError, checkpoint.api.CheckpointException) as error:
            raise FileError(f"'{path}' is of another model: {_reason(error)}") from error
        model, optimiser, _ = parts
        set_state_dict(
            model,
            optimiser,
            model_state_dict=found["model"],
            optim_state_dict=found["optimiser"],
        )
        return about | {"damaged": list(damaged)}
    if damaged:
        name, reason = next(iter(damaged.items()))
        raise FileError(
            f"none of the checkpoints in '{directory}' is whole; of the newest, {name}: {reason}"
        )
    return None


def _tensors(parts: Parts) -> dict[str, Any]:
    """By names that do not depend on how many processes hold them."""
    model, optimiser, others = parts
    weights, moments = get_state_dict(model, optimiser)
    return {"model": weights, "optimiser": moments, "others": others}


def clear(directory: Path, keep: int) -> None:
    """Remove all but the newest."""
    for path in sorted(directory.glob("step-*[0-9]"))[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch warns of a process that is alone, though it was told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _verified(path: Path) -> dict[str, Any]:
    """What is said about a checkpoint, if every file is what it was; else an error says why not."""
    said = json.loads((path / ABOUT).read_text())
    about: dict[str, Any] = said["about"]
    if said["checksum"] != _sum(about):
        raise ValueError(f"{ABOUT} is not what it was")
    for name, value in about["checksums"].items():
        if _checksum(path / name) != value:
            raise ValueError(f"{name} is not what it was")
    return about


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, without what torch says around it."""
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
