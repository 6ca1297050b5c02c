"""Columns of Parquet files, with pyarrow: only this format and .zst need it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.errors import FileError
from pellucid.text.json_reading import value_of
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


def header(path: Path, wanted: Sequence[str | None] = ()) -> list[str]:
    """The names of the columns; those of a field within a struct are joined by dots.

    An item of a list is its number: the first is there if it is a struct, others if `wanted`.

    Raises:
        FileError, MissingExtraError: as `opened`.
    """
    types = pyarrow_for("Parquet").types

    def names(name: str, kind: Any) -> Iterator[str]:
        if types.is_struct(kind):
            for inner in kind:
                yield from names(f"{name}.{inner.name}", inner.type)
            return
        yield name
        if _is_list(kind) and types.is_struct(kind.value_type):
            yield from names(f"{name}.0", kind.value_type)

    with opened(path) as file:
        schema = file.schema_arrow
        columns = [name for field in schema for name in names(field.name, field.type)]
        others = (name for name in wanted if name is not None and name not in columns)
        return columns + [name for name in others if _place(name, schema) is not None]


def _place(name: str, schema: Any) -> tuple[tuple[str, ...], str] | None:
    """The fields that lead to a value or to a list, and what leads on in the list."""
    if name in schema.names:
        return (name,), ""
    types = pyarrow_for("Parquet").types
    head, *parts = name.split(".")
    if head not in schema.names:
        return None
    kind, fields, inner = schema.field(head).type, [head], list[str]()
    for part in parts:
        if types.is_struct(kind) and (index := kind.get_field_index(part)) >= 0:
            kind = kind.field(index).type
        elif _is_list(kind) and part.isdecimal():
            kind, inner = kind.value_type, inner or [""]
        else:
            return None
        (inner if inner else fields).append(part)
    return tuple(fields), ".".join(inner[1:])


def _is_list(kind: Any) -> bool:
    types = pyarrow_for("Parquet").types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def cells(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of these columns, row by row; None where a cell is null.

    Raises:
        FileError, MissingExtraError: as `opened`; or the columns unpack to too much.
    """
    with opened(path) as file:
        flat = set(file.schema_arrow.names)
        locations = {name: _place(name, file.schema_arrow) or ((name,), "") for name in names}
        read = sorted({".".join(fields) for fields, _ in locations.values()})
        _check_packing(file.metadata, set(read), path)
        whole = {file.metadata.schema.column(n).path for n in range(file.metadata.num_columns)}
    # A text that occurs in many rows is held once; a list has no column of its own name.
    repeated = [name for name in read if name in flat & whole]
    with opened(path, read_dictionary=repeated, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=read):
            columns = {
                name: _values(_column(batch, *location)) for name, location in locations.items()
            }
            yield from zip(*(columns[name] for name in names), strict=True)


def _column(batch: Any, fields: tuple[str, ...], inner: str) -> Any:
    column = batch.column(fields[0])
    if len(fields) > 1:
        from pyarrow import compute

        column = compute.struct_field(column, list(fields[1:]))
    return [value_of(cell, inner) for cell in column.to_pylist()] if inner else column


def _values(column: Any) -> list[Any]:
    if isinstance(column, list):
        return column
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
