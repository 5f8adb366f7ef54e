"""Rows from files: JSON lines (plain or gzip), CSV, Parquet, and the tab files of Orange corpora."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in order. Raises PandaError with the line where one is broken."""
    if not path.is_file():
        raise PandaError(f"No file {path}; check the path.")
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        rows = _json_lines(_text(path), path)
    elif name.endswith(".csv"):
        rows = _csv(_text(path), path)
    elif name.endswith(".parquet"):
        rows = _parquet(path)
    else:
        raise PandaError(f"{path} is of no known format; expected a name that ends in {', '.join(SUFFIXES)}.")
    if not rows:
        raise PandaError(f"{path} is empty: expected at least one row.")
    return rows


def read_orange_tab(path: Path) -> list[Row]:
    """Rows of a corpus of Orange: tab-separated, with column types and roles in two more header lines."""
    csv.field_size_limit(2**31 - 1)
    rows = _named(csv.reader(io.StringIO(_text(path), newline=""), delimiter="\t"), path, ragged=True)[2:]
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


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PandaError(
            f"{path} is not UTF-8: line {line} has byte 0x{error.object[error.start]:02x}; save it as UTF-8."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PandaError(f"{path} is not a whole gzip file ({error}); compress it again.") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> PandaError:
    return PandaError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}); check its permissions.")


def _json_lines(text: str, path: Path) -> list[Row]:
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
