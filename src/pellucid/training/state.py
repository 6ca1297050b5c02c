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
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as read_tensors
from torch.distributed.checkpoint.state_dict_saver import save as write_tensors

from pellucid.common.files import write_whole
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
    if processes.is_first:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True, exist_ok=True)
    processes.wait()
    reason = ""
    try:
        with _quiet():
            write_tensors(_tensors(parts), checkpoint_id=aside, no_dist=processes.count == 1)
    except (OSError, RuntimeError, checkpoint.api.CheckpointException) as error:
        reason = str(error) or type(error).__name__
    (failed,) = processes.total(float(bool(reason)))
    if failed:
        if processes.is_first:
            shutil.rmtree(aside, ignore_errors=True)
        raise FileError(f"cannot write '{final}': {reason or 'another process could not'}")
    if processes.is_first:
        sums = {file.name: _checksum(file) for file in sorted(aside.iterdir())}
        write_whole(aside / ABOUT, json.dumps(about | {"checksums": sums}, indent=2))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
    processes.wait()


def load(directory: Path, parts: Parts, processes: Processes) -> dict[str, Any] | None:
    """Go back to the newest checkpoint that is whole; None where there is none at all.

    Returns:
        What `save` was told about it, and under "damaged" the names of newer ones that are not
        whole.

    Raises:
        FileError: there are checkpoints, but none is whole, or it is of another model.
    """
    damaged = []
    for path in sorted(directory.glob("step-*[0-9]"), reverse=True):
        about = _verified(path)
        if about is None:
            damaged.append(path.name)
            continue
        found = _tensors(parts)
        try:
            with _quiet():
                read_tensors(found, checkpoint_id=path, no_dist=processes.count == 1)
        except (RuntimeError, ValueError, checkpoint.api.CheckpointException) as error:
            raise FileError(f"'{path}' is of another model: {error}") from error
        model, optimiser, _ = parts
        set_state_dict(
            model,
            optimiser,
            model_state_dict=found["model"],
            optim_state_dict=found["optimiser"],
        )
        return about | {"damaged": damaged}
    if damaged:
        raise FileError(f"none of the checkpoints in '{directory}' is whole")
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


def _verified(path: Path) -> dict[str, Any] | None:
    """What is said about a checkpoint, if every file is what it was."""
    try:
        about: dict[str, Any] = json.loads((path / ABOUT).read_text())
        sums = about["checksums"]
        whole = all(_checksum(path / name) == value for name, value in sums.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return about if whole else None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
