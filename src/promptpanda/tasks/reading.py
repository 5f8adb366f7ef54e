"""Rows from files: JSON lines (plain or gzip), CSV, Parquet, and the tab files of Orange corpora."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.tasks.columns import ColumnData, read_columns
from promptpanda.tasks.text import read_text

Row = dict[str, Any]
NumberedRows = list[tuple[int, Row]]  # rows with their number in the file, from 1
COLUMN_SUFFIXES = (".conll", ".conll.gz", ".txt", ".txt.gz")
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet", *COLUMN_SUFFIXES)


def read_rows(path: Path, columns: ColumnData | None = None) -> list[Row]:
    """All rows of a file, in order. Raises PandaError with the line where one is broken.

    Args:
        columns: the layout of column files (.conll, .txt); of the others none is needed.
    """
    if not path.is_file():
        raise PandaError(f"No file {path}; check the path.")
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        rows = json_lines(read_text(path), path)
    elif name.endswith(".csv"):
        rows = _csv(read_text(path), path)
    elif name.endswith(".parquet"):
        rows = _parquet(path)
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
    """The number of rows of a file, for tables: its lines, where the format has a row a line."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    if columns is not None and name.endswith(COLUMN_SUFFIXES):
        return len(read_columns(path, columns))
    data = path.read_bytes()
    data = gzip.decompress(data) if name.endswith(".gz") else data
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
                f"Row {number} of {origin} has no field '{name}'; it has {', '.join(map(repr, row)) or 'none'}."
                f"{suggest(name, map(str, row))}"
            )
    return [row[name] for row in rows]


def json_lines(text: str, path: Path | str) -> list[Row]:
    """One object a line; blank lines are skipped. Raises PandaError with the line where one is broken."""
    rows = []
    # Only "\n" ends a line: some texts hold other separators, on which splitlines() would cut.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise PandaError(
                f"Line {number} of {path} is not valid JSON ({error.msg} at column {error.colno}); mend or remove it."
            ) from error
        except RecursionError as error:
            raise PandaError(
                f"Line {number} of {path} is nested too deeply; expected an object of plain fields."
            ) from error
        if "\\ud" in line.lower() and not _encodable(row):
            raise PandaError(
                f"Line {number} of {path} holds half a surrogate pair (a cut emoji), which is no text; mend the "
                "line or leave it out."
            )
        if not isinstance(row, dict):
            raise PandaError(f"Line {number} of {path} is not a JSON object with fields, found {type(row).__name__}.")
        rows.append(row)
    return rows


def _csv(text: str, path: Path) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    return _named(csv.reader(io.StringIO(text, newline=""), strict=True), path)


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(lines: Iterable[list[str]], path: Path, *, ragged: bool = False) -> list[Row]:
    iterator = iter(lines)
    rows: list[Row] = []
    try:
        header = next(iterator, None)
        if header is None:
            return []
        if len(set(header)) < len(header):
            raise PandaError(f"The header of {path} names a column twice: {', '.join(header)}; rename one.")
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


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PandaError(
            f"{path} is not a readable Parquet file ({str(error).splitlines()[0]}); write it again."
        ) from error
    return rows
