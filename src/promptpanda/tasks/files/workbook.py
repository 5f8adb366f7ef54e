"""Rows from a sheet of a workbook (.xlsx)."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.tasks.files.records import Layout, Record, RowReader, keys_of
from promptpanda.tasks.files.source import Source, decompression_error, too_much

_OLD = b"\xd0\xcf\x11\xe0"  # of .xls, and of what Excel puts around a workbook with a password
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


def read_workbook(source: Source, layout: Layout, needed: Sequence[str] | None = None) -> RowReader:
    """The rows below the first row of a sheet; `Record.line` is the number that the spreadsheet shows beside a row.

    Raises:
        PandaError: no such sheet, a password, a damaged file, or a header with gaps or repeated names.
    """
    book = _open(source)
    sheet, notes = _sheet(book, source.path, layout.sheet, needed or ())
    cells = _read(sheet, source.path)
    first = next(((line, row) for line, row in cells if any(cell is not None for cell in row)), None)
    if first is None:
        raise PandaError(f"The sheet '{sheet.title}' of {source.path} is empty: expected at least one row.")
    header = _header(first, sheet.title, source.path)
    keys = keys_of(header, source.path, needed)
    rows = _rows(cells, keys, sheet.title, source.path)
    return RowReader(source.path, keys, rows, tuple(header), unit="row", notes=notes)


def _open(source: Source) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise PandaError(
            f"{source.path} is a workbook, and openpyxl, which reads it, is not installed; run `pip install "
            "'promptpanda[xlsx]'`, or save the sheet as .csv."
        ) from error
    data = source.whole()
    if data.startswith(_OLD):
        if _ENCRYPTED in data:
            raise PandaError(f"{source.path} is protected by a password; save it without one.")
        raise PandaError(f"{source.path} is a workbook in the old format (.xls); save it as .xlsx.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if too_much(sum(one.file_size for one in archive.infolist()), len(data)):
                raise decompression_error(source.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of styles and validations that do not matter here
            return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except PandaError:
        raise
    except Exception as error:  # a damaged part ends in whatever its parser raises
        raise _broken(source.path, error) from error


def _sheet(book: Any, path: Path, wanted: str | None, needed: Sequence[str]) -> tuple[Any, list[str]]:
    """The sheet that is named; else the first with the columns that are needed; else the first with anything in it."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if not sheets:
        raise PandaError(f"{path} has no sheet with cells; expected one with a row of names and rows below it.")
    names = ", ".join(map(repr, sheets))[:200]
    if wanted is not None:
        if wanted not in sheets and wanted.isdecimal() and 0 < int(wanted[:9]) <= len(sheets):
            return list(sheets.values())[int(wanted) - 1], []
        if wanted not in sheets:
            raise PandaError(f"{path} has no sheet '{wanted}'; it has {names}.{suggest(wanted, sheets)}")
        return sheets[wanted], []
    if len(sheets) == 1:
        return next(iter(sheets.values())), []
    headers = {
        title: next((set(map(_name, row)) for _, row in _read(one, path)), None) for title, one in sheets.items()
    }
    filled = [title for title, header in headers.items() if header is not None] or list(sheets)
    sheet = sheets[next((title for title in filled if set(needed) <= (headers[title] or set())), filled[0])]
    return sheet, [f"{path}: of its sheets {names}, '{sheet.title}' is read; --sheet selects another."]


def _read(sheet: Any, path: Path) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows that hold anything, with their numbers."""
    try:
        for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
            if any(cell is not None and cell != "" for cell in row):
                yield line, row
    except Exception as error:  # a damaged part ends in whatever its parser raises
        raise _broken(path, error) from error


def _header(first: tuple[int, tuple[Any, ...]], title: str, path: Path) -> list[str]:
    line, row = first
    header = list(map(_name, row))
    while header and not header[-1]:
        header.pop()
    if "" in header or len(header) < sum(cell is not None for cell in row):
        raise _unnamed(header.index(""), line, title, path)
    return header


def _name(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _rows(
    cells: Iterator[tuple[int, tuple[Any, ...]]], keys: tuple[str, ...], title: str, path: Path
) -> Iterator[Record]:
    for number, (line, row) in enumerate(cells, 1):
        beyond = [at for at, cell in enumerate(row) if at >= len(keys) and cell is not None and cell != ""]
        if beyond:
            raise _unnamed(beyond[0], line, title, path)
        padded = row[: len(keys)] + (None,) * (len(keys) - len(row))
        yield Record(number, line, dict(zip(keys, padded, strict=True)))


def _unnamed(column: int, line: int, title: str, path: Path) -> PandaError:
    from openpyxl.utils import get_column_letter

    return PandaError(
        f"The column {get_column_letter(column + 1)} of the sheet '{title}' of {path} has no name in the first row "
        f"(seen in row {line}), as with merged cells or a title above the table; give every column a name of its own, "
        "in the first row."
    )


def _broken(path: Path, error: Exception) -> PandaError:
    reason = " ".join(str(error).split())[:100].rstrip(".") or type(error).__name__
    return PandaError(f"{path} is not a readable workbook ({reason}); save it again as .xlsx.")
