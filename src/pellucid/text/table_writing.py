"""Columns written to a file of the kind that its name says, whole or not at all."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.common.files import printable, write_whole, written_whole
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, FileError, MissingExtraError

Column = Sequence[Any] | np.ndarray[Any, Any]
"""Strings, numbers, or a (rows, width) array with a vector a row."""


def check_kind(path: Path, kinds: Sequence[str]) -> None:
    """Refuse a file of another kind, before any work is done for it.

    Raises:
        ArgumentError: its name ends in none of the kinds.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() not in kinds:
        known = listing(list(kinds)).replace(" and ", " or ")
        raise ArgumentError(f"--output must end in {known}, not '{printable(path.name)}'")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write(path: Path, columns: Mapping[str, Column], *, overwrite: bool = False) -> None:
    """Write columns of one length as .csv, .parquet or .npy.

    A .npy file is the one array among them, and nothing else.

    Raises:
        ExistsError: there is a file of another kind, or one and not `overwrite`.
        FileError: it cannot be written there.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        write_whole(path, _csv(columns), "csv", overwrite=overwrite)
    elif kind == ".npy":
        (array,) = (column for column in columns.values() if isinstance(column, np.ndarray))
        array = np.ascontiguousarray(array)
        about = np.lib.format.header_data_from_array_1_0(array)
        with (
            written_whole(path, "npy", overwrite=overwrite) as aside,
            aside.open("wb") as file,
        ):
            # np.save would not say why a disk does not take it.
            np.lib.format.write_array_header_1_0(file, about)
            file.write(array.data)
    else:
        _parquet(path, columns, overwrite)


def _csv(columns: Mapping[str, Column]) -> str:
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(columns)
    rows = zip(*columns.values(), strict=True)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return written.getvalue()


def _inert(cell: Any) -> Any:
    """A text that a spreadsheet would run as a formula, with an apostrophe, which it does not."""
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula else cell


def _parquet(path: Path, columns: Mapping[str, Column], overwrite: bool) -> None:
    pyarrow = _pyarrow()
    from pyarrow import parquet

    arrays = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            flat = pyarrow.array(np.ascontiguousarray(column).reshape(-1))
            arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
        else:
            arrays[name] = pyarrow.array(column)
    with written_whole(path, "parquet", overwrite=overwrite) as aside:
        try:
            parquet.write_table(pyarrow.table(arrays), aside)
        except pyarrow.ArrowException as error:
            raise FileError(f"cannot write '{path}': {error}") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow: pip install 'pellucid[tables]'"
        ) from error
    return pyarrow


def rows_of(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """The same row by row."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
