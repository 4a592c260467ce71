"""Results as a file: JSON lines, CSV or Parquet, written whole, and read again as rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from planner.documents import whole_file
from planner.errors import InputError
from planner.sweep.axes import Scalar
from planner.sweep.rows import COLUMNS, NAMES, Row, is_row

MOST_LINE = 2**20
"""Bytes of a row's line."""
_BATCH = 5_000
"""Rows of a row group."""


def line_of(row: Row) -> bytes:
    """A row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def row_from(line: bytes) -> Row | None:
    """The row of a line, or ``None`` where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if is_row(value) else None


def _write_lines(handle: IO[bytes], rows: Iterable[Row]) -> None:
    for row in rows:
        handle.write(line_of(row))


def _read_lines(handle: IO[bytes]) -> Iterator[Row | None]:
    while line := handle.readline(MOST_LINE):
        yield row_from(line)


def _write_csv(handle: IO[bytes], rows: Iterable[Row]) -> None:
    text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
    text.detach()


def _cell(value: Scalar) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _read_csv(handle: IO[bytes]) -> Iterator[Row | None]:
    text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
    try:
        lines = csv.reader(text, strict=True)
        if tuple(next(lines, ())) != NAMES:
            yield None
        for cells in lines:
            yield _from_cells(cells)
    except (csv.Error, UnicodeDecodeError):
        yield None
    finally:
        text.detach()


_READERS: dict[str, Callable[[str], Scalar]] = {
    "text": str,
    "whole": int,
    "number": float,
    "truth": {"true": True, "false": False}.__getitem__,
}


def _from_cells(cells: list[str]) -> Row | None:
    if len(cells) != len(COLUMNS):
        return None
    try:
        row = {column.name: _READERS[column.type](cell) if cell else None for column, cell in zip(COLUMNS, cells, strict=True)}
    except (KeyError, ValueError):
        return None
    return row if is_row(row) else None


def _arrow(where: str) -> Any:
    """pyarrow, as far as a table needs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        what = "cannot be used: the package pyarrow is not installed"
        raise InputError(what, where=where, mend="pip install 'inference-planner[parquet]', or name a .csv or .jsonl") from None
    return pyarrow


def _write_parquet(handle: IO[bytes], rows: Iterable[Row]) -> None:
    arrow = _arrow("Parquet")
    types = {"text": arrow.string(), "whole": arrow.int64(), "number": arrow.float64(), "truth": arrow.bool_()}
    schema = arrow.schema([(column.name, types[column.type]) for column in COLUMNS])
    every = iter(rows)
    with arrow.parquet.ParquetWriter(handle, schema) as writer:
        while batch := list(islice(every, _BATCH)):
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))


def _read_parquet(handle: IO[bytes]) -> Iterator[Row | None]:
    arrow = _arrow("Parquet")
    try:
        file = arrow.parquet.ParquetFile(handle)
        if tuple(file.schema_arrow.names) != NAMES:
            yield None
            return
        for batch in file.iter_batches(_BATCH):
            yield from (row if is_row(row) else None for row in batch.to_pylist())
    except (arrow.ArrowException, OSError):
        yield None


_FORMATS: dict[str, tuple[Callable[[IO[bytes], Iterable[Row]], None], Callable[[IO[bytes]], Iterator[Row | None]]]] = {
    ".jsonl": (_write_lines, _read_lines),
    ".csv": (_write_csv, _read_csv),
    ".parquet": (_write_parquet, _read_parquet),
}


def check_format(path: Path) -> None:
    """``InputError`` if results cannot have the form that the name of the file asks for."""
    if path.suffix not in _FORMATS:
        raise InputError("ends in none of .jsonl, .csv and .parquet", where=str(path), mend="choose such a name")
    if path.suffix == ".parquet":
        _arrow(str(path))


def write_rows(path: Path, rows: Iterable[Row], *, force: bool = False) -> None:
    """All results, or none."""
    with whole_file(path, force=force) as handle:
        _FORMATS[path.suffix][0](handle, rows)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file that ``write_rows`` wrote with this version; ``InputError`` where it holds anything else."""
    with path.open("rb") as handle:
        for row in _FORMATS[path.suffix][1](handle):
            if row is None:
                raise InputError(
                    "holds no results of a sweep of this version", where=str(path), mend="name another file or add --force"
                )
            yield row
