"""Embeddings in files: recognised, opened as memory that the disk lends, and looked up.

    .npy       one row a text, and nothing else
    .parquet   a row a text: its place, the text, the embedding; and in the file's metadata the
               encoder with its embedding of `PROBE`, by which another encoder is refused

Parquet keeps an embedding as a list, whose numbers take longer to unpack than to compare. The first
query copies them to a file of the user's cache, which later ones map into memory.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.files import reason_of, written_whole
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, FileError
from pellucid.tasks.embedding import is_same, name_of
from pellucid.text import parquet_reading
from pellucid.text.text_inputs import Items
from pellucid.text.utf8_files import kind
from pellucid.text.utf8_files import name_of as source_name

MARK = b"pellucid.embeddings"
"""The key of the metadata of a Parquet file."""
EMBEDDING = "embedding"
MOST_CACHED = 16
"""Files whose copies are kept; the one that was used longest ago goes first."""
_WIDEST = 2**20
_HELD = 2**22
"""Numbers of embeddings that are held while they are copied."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Embeddings in a file."""

    path: Path
    model: str | None
    """The encoder, as the user named it; None for the default encoder, or where it is unknown."""
    probe: Tensor | None
    """The encoder's embedding of `PROBE`, (width,), if it is known."""

    @cached_property
    def vectors(self) -> np.ndarray[Any, Any]:
        """The embeddings, (texts, width), float32, mapped into memory.

        Raises:
            FileError: they cannot be read.
        """
        return _mapped(self.path if kind(self.path) == ".npy" else _copy(self.path))

    def kept(self, ending: str) -> Path:
        """Where in the user's cache something made from this file is kept; it may not exist yet.

        Raises:
            FileError: the cache cannot be written.
        """
        return _kept(self.path, ending)

    def check(self, probe: Tensor, model: str | None) -> None:
        """Check that the embeddings are those of this encoder.

        Args:
            probe: its embedding of `PROBE`, (width,).
            model: its name.

        Raises:
            ArgumentError: they have another width, or are those of another encoder.
        """
        width = self.vectors.shape[1]
        if probe.shape != (width,):
            raise ArgumentError(
                f"'{source_name(self.path)}' has embeddings of {width} numbers, but those of "
                f"{name_of(model)} have {len(probe)}; name their encoder with --model"
            )
        if self.probe is not None and not is_same(self.probe, probe):
            raise ArgumentError(
                f"'{source_name(self.path)}' has embeddings of {name_of(self.model)}, which differ "
                f"from those of {name_of(model)}"
            )

    def items(self, numbers: Sequence[int]) -> Items:
        """The texts of some rows, from 0; .npy has none, and its lines are the rows, from 1.

        Raises:
            FileError: the file cannot be read.
        """
        source = source_name(self.path)
        if kind(self.path) == ".npy":
            lines = [number + 1 for number in numbers]
            note = f"'{source}' has no texts; .parquet files have"
            texts = [""] * len(lines)
            return Items(source=source, texts=texts, lines=lines, labels=[], blank=[], notes=[note])
        with parquet_reading.opened(self.path) as file:
            names = [name for name in ("file", "line", "text") if name in file.schema_arrow.names]
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            groups = np.searchsorted(starts, numbers, side="right") - 1
            parts = {group: file.read_row_group(group, columns=names) for group in set(groups)}
            rows = np.asarray(numbers) - starts[groups]
            columns = {
                name: [
                    parts[group][name][int(row)].as_py()
                    for group, row in zip(groups, rows, strict=True)
                ]
                for name in names
            }
        return Items(
            source=source,
            texts=[str(text) for text in columns["text"]],
            lines=[int(line) for line in columns["line"]],
            files=[str(file) for file in columns.get("file", ())],
            labels=[],
            blank=[],
        )


def is_saved(path: Path) -> bool:
    """Whether a file has embeddings that `pellucid embed -o` wrote."""
    if kind(path) == ".npy":
        return True
    return kind(path) == ".parquet" and path.is_file() and _metadata(path) is not None


def opened(path: Path) -> Saved:
    """Embeddings that `pellucid embed -o` wrote.

    Raises:
        FileError: the file cannot be read or has none.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    about = {} if kind(path) == ".npy" else _metadata(path)
    if about is None:
        raise FileError(f"'{source_name(path)}' has no embeddings that Pellucid wrote")
    try:
        model = about.get("model")
        probe = about.get("probe")
        numbers = None if probe is None else [untrusted.finite(x, "probe") for x in probe]
        return Saved(
            path=path,
            model=None if model is None else untrusted.text(model, "model"),
            probe=None if numbers is None else torch.tensor(numbers),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(f"the metadata of '{source_name(path)}' are damaged: {error}") from error


def metadata(model: str | None, probe: Tensor) -> dict[bytes, str]:
    """What a Parquet file says of its embeddings."""
    return {MARK: json.dumps({"model": model, "probe": probe.tolist()})}


def _metadata(path: Path) -> dict[str, Any] | None:
    with parquet_reading.opened(path) as file:
        metadata = (file.schema_arrow.metadata or {}).get(MARK)
        if metadata is None or not {"line", "text", EMBEDDING} <= set(file.schema_arrow.names):
            return None
    try:
        about = json.loads(metadata)
    except (ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) else None


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    try:
        with untrusted.regular(path) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("an unknown version of .npy")
            shape, by_columns, numbers = np.lib.format.read_array_header_1_0(file)
            if len(shape) != 2 or by_columns or numbers != np.float32 or not 0 < shape[1] < _WIDEST:
                raise ValueError(f"it has {numbers} of shape {shape}, not float32 (texts, width)")
            start = file.tell()
            more = os.fstat(file.fileno()).st_size - start - 4 * shape[0] * shape[1]
            if more < 0:
                raise ValueError("it is cut short")
            if more > 0:
                raise ValueError(f"it has {count(more, 'byte')} more than its embeddings need")
            if not shape[0]:
                raise ValueError("it has no embeddings")
            return np.memmap(file, np.float32, "r", start, shape)
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{source_name(path)}': {reason_of(error)}") from error


def cache() -> Path:
    """The directory of the copies: within $XDG_CACHE_HOME, or what the system has for it."""
    home = Path.home()
    systems = {"darwin": home / "Library/Caches", "win32": home / "AppData/Local"}
    above = os.environ.get("XDG_CACHE_HOME") or systems.get(sys.platform, home / ".cache")
    return Path(above) / "pellucid" / "embeddings"


def _copy(path: Path) -> Path:
    """A .npy file in the cache with the embeddings of a Parquet file, made if it is not there."""
    target = _kept(path, ".npy")
    if target.is_file():
        os.utime(target)
        return target
    with parquet_reading.opened(path) as file, written_whole(target) as aside:
        kind_of_column = file.schema_arrow.field(EMBEDDING).type
        width = getattr(kind_of_column, "list_size", 0)
        if str(kind_of_column.value_type) != "float" or not 0 < width < _WIDEST:
            raise FileError(f"'{source_name(path)}' has embeddings that are not lists of float32")
        if shutil.disk_usage(target.parent).free < 4 * width * file.metadata.num_rows:
            raise FileError(f"'{target.parent}' has no room for the embeddings")
        with aside.open("wb") as flat:
            header = {
                "descr": "<f4",
                "fortran_order": False,
                "shape": (file.metadata.num_rows, width),
            }
            np.lib.format.write_array_header_1_0(flat, header)
            rows = max(1, _HELD // width)
            for batch in file.iter_batches(batch_size=rows, columns=[EMBEDDING]):
                column = batch.column(0)
                if column.null_count or column.flatten().null_count:
                    raise FileError(f"'{source_name(path)}' has embeddings that are null")
                flat.write(np.ascontiguousarray(column.flatten()).data)
    return target


def _kept(path: Path, ending: str) -> Path:
    """The place in the cache of what is made from a file as it is now; others may make way for it.

    Raises:
        FileError: the cache cannot be written.
    """
    try:
        status = path.stat()
        facts = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
        folder = cache()
        target = folder / f"{hashlib.sha256(os.fsencode(facts)).hexdigest()[:32]}{ending}"
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            others = [file for file in folder.iterdir() if file.suffix in (".npy", ".faiss")]
            others.sort(key=lambda file: file.stat().st_mtime, reverse=True)
            for file in others[MOST_CACHED - 1 :]:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{cache()}': {reason_of(error)}") from error
    return target
