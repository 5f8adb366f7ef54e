"""Rows of whole files, and their columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.tasks.columns import ColumnData
from promptpanda.tasks.files.arrow import open_parquet
from promptpanda.tasks.files.reader import ENDINGS, SUFFIXES, open_rows
from promptpanda.tasks.files.records import Row
from promptpanda.tasks.text import check_file, read_bytes, read_text

__all__ = ["ENDINGS", "SUFFIXES", "NumberedRows", "Row", "column", "count_rows", "read_rows"]

NumberedRows = list[tuple[int, Row]]  # rows with their number in the file, from 1


def read_rows(
    path: Path,
    columns: ColumnData | None = None,
    fields: Sequence[str] | None = None,
) -> list[Row]:
    """All rows of a file, in order. Raises PandaError with the line where one is broken.

    Args:
        columns: the layout of column files (.conll, .txt); of the others none is needed.
        fields: those that are needed: others of a Parquet file are not read. None reads all.
    """
    reader = open_rows(path, columns=columns, needed=fields, only_needed=True)
    rows = [record.values for record in reader]
    if not rows:
        raise PandaError(f"{path} is empty: expected at least one row.")
    return rows


def count_rows(path: Path, columns: ColumnData | None = None) -> int:
    """The number of rows of a file, for tables: its lines, where the format has a row a line. Raises PandaError."""
    if path.name.lower().endswith((".jsonl", ".jsonl.gz", ".csv", ".tab")):
        check_file(path)
        data = read_bytes(path)
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        return lines - {".csv": 1, ".tab": 3}.get(path.suffix.lower(), 0)
    if path.name.lower().endswith(".parquet"):
        check_file(path)
        return int(open_parquet(path, path).metadata.num_rows)
    return sum(1 for _ in open_rows(path, columns=columns))


def read_orange_tab(path: Path) -> list[Row]:
    """Rows of a corpus of Orange: tab-separated, with column types and roles in two more header lines."""
    csv.field_size_limit(2**31 - 1)
    header, *lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t")
    rows = [dict(zip(header, cells, strict=False)) for cells in lines[2:] if cells]
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
