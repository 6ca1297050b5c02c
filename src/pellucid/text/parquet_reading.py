"""Columns of Parquet files, with pyarrow: only this format and .zst need it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.errors import FileError
from pellucid.text.utf8_files import name_of, pyarrow_for, too_packed

ROWS = 1024
"""Rows that are held at a time."""


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        FileError: it cannot be read or is not Parquet; also for what pyarrow raises in the block.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = pyarrow_for("Parquet")
    try:
        with (
            untrusted.regular(path) as raw,
            pyarrow.parquet.ParquetFile(raw, **options) as file,
        ):
            yield file
    except UnicodeDecodeError as error:
        raise FileError(f"'{name_of(path)}' has invalid UTF-8 text") from error
    except FileError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FileError(f"cannot read '{name_of(path)}': {reason}") from error


def header(path: Path) -> list[str]:
    """The names of the columns; those of a field within a struct are joined by dots.

    Raises:
        FileError, MissingExtraError: as `opened`.
    """
    is_struct = pyarrow_for("Parquet").types.is_struct

    def names(field: Any) -> Iterator[str]:
        if is_struct(field.type):
            yield from (f"{field.name}.{name}" for inner in field.type for name in names(inner))
        else:
            yield field.name

    with opened(path) as file:
        return [name for field in file.schema_arrow for name in names(field)]


def cells(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of these columns, row by row; None where a cell is null.

    Raises:
        FileError, MissingExtraError: as `opened`; or the columns unpack to too much.
    """
    with opened(path) as file:
        flat = set(file.schema_arrow.names)
        paths = {name: (name,) if name in flat else tuple(name.split(".")) for name in names}
        _check_packing(file.metadata, set(names), path)
        whole = {file.metadata.schema.column(n).path for n in range(file.metadata.num_columns)}
    # A text that occurs in many rows is held once; a list has no column of its own name.
    repeated = [name for name in paths if name in flat & whole]
    with opened(path, read_dictionary=repeated, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=list(paths)):
            columns = {name: _values(_column(batch, parts)) for name, parts in paths.items()}
            yield from zip(*(columns[name] for name in names), strict=True)


def _column(batch: Any, parts: tuple[str, ...]) -> Any:
    column = batch.column(parts[0])
    if len(parts) > 1:
        from pyarrow import compute

        column = compute.struct_field(column, list(parts[1:]))
    return column


def _values(column: Any) -> list[Any]:
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]


def _check_packing(metadata: Any, names: set[str], path: Path) -> None:
    """Refuse columns whose declared size exceeds the limit of `untrusted`."""
    parts = [
        metadata.row_group(group).column(place)
        for group in range(metadata.num_row_groups)
        for place in range(metadata.num_columns)
    ]
    inside = tuple(f"{name}." for name in names)
    read = [x for x in parts if x.path_in_schema in names or x.path_in_schema.startswith(inside)]
    size = sum(part.total_uncompressed_size for part in read)
    packed = sum(part.total_compressed_size for part in read)
    if size > max(untrusted.PACKED_FREE, untrusted.PACKED_TIMES * packed):
        raise too_packed(path)
