"""Embeddings of files of any size, written part by part, so that a run that was stopped goes on.

Parts are kept beside the output, in .pellucid-NAME.parts, until all are there; then they become the
output. The same command on the same files continues after the last part.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.common.files import UNFINISHED, reason_of, write_whole, written_whole
from pellucid.errors import ArgumentError, FileError
from pellucid.layers.bfloat16 import Precision, resolved
from pellucid.models import Encoder
from pellucid.tasks.checked_texts import Doubts
from pellucid.tasks.embedding import PROBE, Progress, digits_lost, embed, is_same
from pellucid.tasks.saved_vectors import EMBEDDING, metadata
from pellucid.text.text_inputs import Source, Text
from pellucid.text.utf8_files import kind, pyarrow_for

PART = 4096
"""Texts of a part: some seconds of work, and few enough to be held."""
_ABOUT = "about.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was embedded."""

    texts: int
    width: int
    continued: int
    """Texts that an earlier run had embedded."""
    notes: list[str]
    """What was noticed in the files, and what the model could not read in full."""


def embed_file(
    model: Encoder,
    source: Callable[[], Source],
    output: Path,
    *,
    name: str | None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, of: None,
    begun: Callable[[int, int], None] = lambda done, of: None,
    precision: Precision = "float32",
    **options: Any,
) -> Written:
    """Embed the texts of files into a .npy or .parquet file, without holding them all.

    The files are read through once before anything is embedded, so that what is wrong with their
    last line is said at once.

    Args:
        model: an encoder with its tokenizer.
        source: opens the texts, each time anew.
        output: the file to write.
        name: of the model, as the user gave it.
        strict: refuse texts that are blank or too long.
        overwrite: whether an existing file of the same kind may be replaced.
        progress: called now and then with the number of texts done and the total.
        begun: called once, if an earlier run is continued, with the number of texts that it had
            embedded and the total.
        precision: as of `embed`; a note says what digits bfloat16 lost.
        options: `prompt` and `truncate_dim` of `embed`.

    Raises:
        ArgumentError, FileError, MissingExtraError: as `embed`, `text_inputs.from_file` and
            `table_writing.write`.
    """
    precision = resolved(precision, model.device)
    first = source()
    counts = Counter(text.file for text in first)
    total = sum(number for file, number in counts.items() if file not in first.bad)
    if first.blank and strict:
        raise ArgumentError(f"'{first.name}' has {first.blanks}")
    probe = embed(model, [PROBE], **options | {"prompt": ""})[0]
    made_from = {"version": _VERSION, "source": first.identity, **options}
    made_from |= {} if precision == "float32" else {"precision": precision}
    parts = _Parts(output, made_from, probe)
    done, doubts = parts.open(total)
    if done:
        begun(done, total)
    texts, lost = islice(_good(source(), first), done, None), list[str]()
    while batch := list(islice(texts, PART)):
        vectors = embed(
            model,
            [text.text for text in batch],
            strict=strict,
            names=[f"line {text.line} of '{text.file}'" for text in batch],
            precision=precision,
            doubts=doubts,
            progress=lambda now, _, done=done: progress(done + now, total),  # type: ignore[misc]
            **options,
        )
        if precision != "float32" and not lost:
            lost = [str(digits_lost(model, [text.text for text in batch], vectors, **options))]
        parts.add(vectors, doubts)
        done += len(batch)
    if done != total:
        raise FileError(f"'{first.name}' changed while it was read")
    if kind(output) == ".npy":
        with written_whole(output, "npy", overwrite=overwrite) as aside:
            _write_array(aside, parts, (total, len(probe)))
    else:
        good = _good(source(), first)
        _write_table(output, parts, good, name, probe, overwrite, with_file=first.is_folder)
    parts.remove()
    return Written(
        texts=total,
        width=len(probe),
        continued=parts.resumed * PART,
        notes=[*first.notes, *doubts.messages(), *lost],
    )


def _good(source: Source, before: Source) -> Iterator[Text]:
    """The texts of the files that could be read before, to their end."""
    return (text for text in source if text.file not in before.bad)


class _Parts:
    """Embeddings that are written already, `PART` texts in each file but the last."""

    def __init__(self, output: Path, made_from: dict[str, Any], probe: Tensor) -> None:
        self.output, self.made_from, self.probe = output, made_from, probe
        target = Path(os.path.realpath(output))
        self.folder = target.parent / f"{UNFINISHED.rstrip('*')}{target.name}.parts"
        self.number = self.resumed = 0

    def open(self, total: int) -> tuple[int, Doubts]:
        """The number of texts that are embedded already, and the doubts about them."""
        about = self._earlier_run()
        if about is None:
            self.remove()
            with self._reported():
                self.folder.mkdir()
                self._note(Doubts())
            return 0, Doubts()
        while self._path(self.number).is_file() and (self.number + 1) * PART <= total:
            self.number += 1
        self.resumed = self.number
        doubts = about["doubts"]
        return self.number * PART, Doubts(**doubts | {"longest": tuple(doubts["longest"])})

    def add(self, vectors: Tensor, doubts: Doubts) -> None:
        with self._reported():
            with written_whole(self._path(self.number)) as aside:
                _write_array(aside, [vectors.numpy()], tuple(vectors.shape))
            self._note(doubts)
        self.number += 1

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """A part that cannot be written is an error of the output; without any, none is kept."""
        try:
            yield
        except OSError as error:
            if not self.number:
                self.remove()
            cause = error.__cause__ if isinstance(error, FileError) else error
            raise FileError(f"cannot write '{self.output}': {reason_of(cause or error)}") from error

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        for number in range(self.number):
            yield np.load(self._path(number))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.npy"

    def _note(self, doubts: Doubts) -> None:
        about = {
            "made_from": self.made_from,
            "probe": self.probe.tolist(),
            "doubts": asdict(doubts),
        }
        write_whole(self.folder / _ABOUT, json.dumps(about))

    def _earlier_run(self) -> dict[str, Any] | None:
        """What an earlier run noted, if it was of the same texts and the same encoder."""
        try:
            about: dict[str, Any] = json.loads((self.folder / _ABOUT).read_text(encoding="utf-8"))
            is_same_run = about["made_from"] == json.loads(json.dumps(self.made_from))
            if is_same_run and is_same(torch.tensor(about["probe"]), self.probe):
                return about
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it was stopped before it was noted
        return None


def _write_array(path: Path, parts: Iterable[np.ndarray[Any, Any]], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:  # np.save would hide the reason if the disk is full
        np.lib.format.write_array_header_1_0(file, header)
        for vectors in parts:
            file.write(np.ascontiguousarray(vectors, "<f4").data)


def _write_table(
    output: Path,
    parts: _Parts,
    texts: Iterator[Text],
    name: str | None,
    probe: Tensor,
    overwrite: bool,
    *,
    with_file: bool,
) -> None:
    pyarrow = pyarrow_for("Parquet")
    schema = table_schema(len(probe), name, probe, with_file=with_file)
    with written_whole(output, "parquet", overwrite=overwrite) as aside:
        try:
            with pyarrow.parquet.ParquetWriter(aside, schema, **PARQUET) as writer:
                for vectors in parts:
                    batch = list(islice(texts, len(vectors)))
                    writer.write_table(_table(batch, vectors, schema))
        except (OSError, pyarrow.ArrowException) as error:
            raise FileError(f"cannot write '{output}': {reason_of(error)}") from error


PARQUET: dict[str, Any] = {
    # Embeddings are as good as random: they neither repeat nor pack.
    "compression": {"text": "snappy", f"{EMBEDDING}.list.element": "none"},
    "use_dictionary": ["file", "text"],
    "write_statistics": ["line"],
}
"""How Parquet files of embeddings are written."""


def table_schema(width: int, name: str | None, probe: Tensor, *, with_file: bool) -> Any:
    """The columns of a Parquet file of embeddings, and what its metadata say."""
    pyarrow = pyarrow_for("Parquet")
    columns = [
        *([("file", pyarrow.string())] if with_file else []),
        ("line", pyarrow.int64()),
        ("text", pyarrow.string()),
        (EMBEDDING, pyarrow.list_(pyarrow.float32(), width)),
    ]
    return pyarrow.schema(columns, metadata=metadata(name, probe))


def _table(batch: Sequence[Text], vectors: np.ndarray[Any, Any], schema: Any) -> Any:
    pyarrow = pyarrow_for("Parquet")
    flat = pyarrow.array(np.ascontiguousarray(vectors).reshape(-1))
    columns = {
        "file": [text.file for text in batch],
        "line": [text.line for text in batch],
        "text": [text.text for text in batch],
        EMBEDDING: pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    return pyarrow.table({name: columns[name] for name in schema.names}, schema=schema)
