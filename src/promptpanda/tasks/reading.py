"""Rows from files: JSON lines (plain or gzip), CSV, Parquet, and the tab files of Orange corpora."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.json_input import read_json
from promptpanda.tasks.columns import ColumnData, read_columns
from promptpanda.tasks.text import check_file, read_bytes, read_text

Row = dict[str, Any]
NumberedRows = list[tuple[int, Row]]  # rows with their number in the file, from 1
COLUMN_SUFFIXES = (".conll", ".conll.gz", ".txt", ".txt.gz")
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet", *COLUMN_SUFFIXES)


def read_rows(
    path: Path,
    columns: ColumnData | None = None,
    fields: Sequence[str] | None = None,
    *,
    every_line: bool = False,
) -> list[Row]:
    """All rows of a file, in order. Raises PandaError with the line where one is broken.

    Args:
        columns: the layout of column files (.conll, .txt); of the others none is needed.
        fields: those that are needed: others of a Parquet file are not read. None reads all.
        every_line: of JSON lines, refuse blank ones instead of skipping them: rows then keep the numbers of lines.
    """
    check_file(path)
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        rows = json_lines(read_text(path), path, every_line=every_line)
    elif name.endswith(".csv"):
        rows = _csv(read_text(path), path)
    elif name.endswith(".parquet"):
        rows = _parquet(path, fields)
    elif name.endswith(COLUMN_SUFFIXES) and columns is not None:
        rows = read_columns(path, columns)
    else:
        if name.endswith((".conll", ".conll.gz")):
            raise PandaError(
                f"{path} is a column file, and the task's spec has no `columns` (`panda tasks show ontonotes` has); "
                "say --kind token_classification for words and tags in the columns of CoNLL-2003."
            )
        raise PandaError(f"{path} is of no known format; expected a name that ends in {', '.join(SUFFIXES)}.")
    if not rows:
        raise PandaError(f"{path} is empty: expected at least one row.")
    return rows


def count_rows(path: Path, columns: ColumnData | None = None) -> int:
    """The number of rows of a file, for tables: its lines, where the format has a row a line. Raises PandaError."""
    check_file(path)
    name = path.name.lower()
    if name.endswith(".parquet"):
        return int(_parquet_file(path).metadata.num_rows)
    if columns is not None and name.endswith(COLUMN_SUFFIXES):
        return len(read_columns(path, columns))
    data = read_bytes(path)
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return lines - {".csv": 1, ".tab": 3}.get(path.suffix.lower(), 0)


def read_orange_tab(path: Path) -> list[Row]:
    """Rows of a corpus of Orange: tab-separated, with column types and roles in two more header lines."""
    csv.field_size_limit(2**31 - 1)
    rows = _named(csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t"), path, ragged=True)[2:]
    return [row for row in rows if any(row.values())]


def column(rows: list[Row], name: str, origin: str) -> list[Any]:
    """One field of every row. Raises PandaError with the nearest existing name if a row lacks it."""
    for number, row in enumerate(rows, 1):
        if name not in row:
            raise PandaError(
                f"Row {number} of {origin} has no field '{name}'; it has {', '.join(map(repr, row))[:200] or 'none'}."
                f"{suggest(name, map(str, row))}"
            )
    return [row[name] for row in rows]


def check_every_line(text: str, origin: Path | str) -> None:
    """Raises PandaError if a line is blank that is not at the end: rows would not have the numbers of their lines."""
    lines = text.rstrip("\r\n \t").split("\n")
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if blank and text.strip():
        more = f" (and {len(blank) - 1} more)" if len(blank) > 1 else ""
        raise PandaError(
            f"Line {blank[0]}{more} of {origin} is empty, and every line gets an answer of its own; remove empty lines."
        )


def json_lines(text: str, path: Path | str, *, every_line: bool = False) -> list[Row]:
    """One object a line; blank lines are skipped, but with `every_line` only those at the end.

    Raises:
        PandaError: with the line, where one is broken, or blank and not to be skipped.
    """
    rows = []
    if every_line:
        check_every_line(text, path)
    # Only "\n" ends a line: some texts hold other separators, on which splitlines() would cut.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = read_json(line, f"Line {number} of {path}", nan=True)
        if not isinstance(row, dict):
            raise PandaError(f"Line {number} of {path} is not a JSON object with fields, found {type(row).__name__}.")
        rows.append(row)
    return rows


def _csv(text: str, path: Path) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    return _named(csv.reader(io.StringIO(text, newline=""), strict=True), path)


def _named(lines: Iterable[list[str]], path: Path, *, ragged: bool = False) -> list[Row]:
    iterator = iter(lines)
    rows: list[Row] = []
    try:
        header = next(iterator, None)
        if header is None:
            return []
        if len(set(header)) < len(header):
            raise PandaError(f"The header of {path} names a column twice: {', '.join(header)[:200]}; rename one.")
        for number, cells in enumerate(iterator, 2):
            if not cells:
                continue
            if len(cells) != len(header) and not ragged:
                raise PandaError(
                    f"Record {number} of {path} has {len(cells)} cells, its header has {len(header)}; "
                    "put cells that hold commas or line breaks between quotation marks."
                )
            rows.append(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise PandaError(
            f"Record {len(rows) + 2} of {path} is not valid CSV ({error}); close its quotation marks, or double those "
            "inside a cell."
        ) from error
    return rows


def _parquet_file(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error


def _parquet(path: Path, fields: Sequence[str] | None) -> list[Row]:
    import pyarrow

    file = _parquet_file(path)
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise PandaError(f"{path} names a column twice: {', '.join(names)[:200]}; rename one.")
    needed = list(dict.fromkeys(fields)) if fields is not None and set(fields) <= set(names) else names
    try:
        table = file.read(columns=needed)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error
    cells = [_cells(table.column(name), f"The column '{name}' of {path}") for name in needed]
    return [dict(zip(needed, row, strict=True)) for row in zip(*cells, strict=True)]


def _cells(values: Any, what: str) -> list[Any]:
    """A column of Arrow as Python values, bytes as the text that they are."""
    import pyarrow

    try:
        cells: list[Any] = values.to_pylist()
        return [_decoded(cell) for cell in cells] if "binary" in str(values.type) else cells
    except UnicodeDecodeError as error:
        raise PandaError(f"{what} holds bytes that are not UTF-8 text; write it as text, or leave it out.") from error
    except (OverflowError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:100].rstrip(".")
        raise PandaError(
            f"{what} has the type {values.type} and a value that Python cannot hold ({reason}); write it as text, or "
            "leave it out."
        ) from error


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_decoded(item) for item in value)
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    return value


def _broken_parquet(path: Path, error: Exception) -> PandaError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return PandaError(f"{path} is not a readable Parquet file ({reason}); write it again.")
