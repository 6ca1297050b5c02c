"""Tables written to .csv, .parquet or .npy, atomically."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.common.files import printable, write_whole, written_whole
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, FileError
from pellucid.text.utf8_files import pyarrow_for

Column = Sequence[Any] | np.ndarray[Any, Any]
"""Strings, numbers, or a (rows, width) array."""


def check_kind(path: Path, kinds: Sequence[str]) -> None:
    """Refuse a file of another kind, before any work is done.

    Raises:
        ArgumentError: its name has none of the endings `kinds`.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() not in kinds:
        known = listing(list(kinds)).replace(" and ", " or ")
        raise ArgumentError(f"--output must end in {known}, not '{printable(path.name)}'")
    if path.suffix.lower() == ".parquet":
        pyarrow_for("Parquet")


def write(path: Path, columns: Mapping[str, Column], *, overwrite: bool = False) -> None:
    """Write columns of equal length; a .npy file holds only the one array among them.

    Raises:
        ExistsError: a file of another kind exists or, without `overwrite`, any file.
        FileError: it cannot be written.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        write_whole(path, _csv(columns), "csv", overwrite=overwrite)
    elif kind == ".npy":
        (array,) = (column for column in columns.values() if isinstance(column, np.ndarray))
        array = np.ascontiguousarray(array)
        header = np.lib.format.header_data_from_array_1_0(array)
        with (
            written_whole(path, "npy", overwrite=overwrite) as aside,
            aside.open("wb") as file,
        ):
            # np.save would hide the reason if the disk is full.
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.data)
    else:
        _parquet(path, columns, overwrite)


def _csv(columns: Mapping[str, Column]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    rows = zip(*columns.values(), strict=True)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """The cell, with an apostrophe if a spreadsheet would run it as a formula."""
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula else cell


def arrow_table(columns: Mapping[str, Column], types: Mapping[str, str] | None = None) -> Any:
    """The columns as a `pyarrow.Table`; a 2-d array is a column of vectors.

    Args:
        columns: of the same length.
        types: Arrow's names of the types of columns that may be empty or hold None alone.
    """
    pyarrow = pyarrow_for("Parquet")
    arrays = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.ndim == 2:
            flat = pyarrow.array(np.ascontiguousarray(column).reshape(-1))
            arrays[name] = pyarrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
        else:
            arrays[name] = pyarrow.array(column, (types or {}).get(name))
    return pyarrow.table(arrays)


def _parquet(path: Path, columns: Mapping[str, Column], overwrite: bool) -> None:
    pyarrow = pyarrow_for("Parquet")
    with written_whole(path, "parquet", overwrite=overwrite) as aside:
        try:
            pyarrow.parquet.write_table(arrow_table(columns), aside)
        except pyarrow.ArrowException as error:
            raise FileError(f"cannot write '{path}': {error}") from error


def rows_of(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """The rows of columns, as dictionaries."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
