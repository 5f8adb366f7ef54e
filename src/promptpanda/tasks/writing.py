"""Tables to files, row after row: CSV, TSV, JSON lines, Parquet and workbooks."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import json
import math
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.files.records import Row, keys_of

_TOGETHER = 8192  # rows of a row group
_MOST_ROWS = 1_048_575  # of a sheet, below its header
_MOST_CHARACTERS = 32_767  # of a sheet's cell
_EXACT = 10**15  # spreadsheets keep fifteen digits of a number


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        keys: of the rows, each once.
        headers: how they are written: a name may stand twice.
        types: types of the values of a column, which Parquet needs.
        schema: the same as a `pyarrow.Schema`, where the table came with one.
        added: further columns and the type of their values: str, float, or list for what is written as JSON.
    """

    keys: tuple[str, ...]
    headers: tuple[str, ...]
    types: Mapping[str, frozenset[type]]
    schema: Any
    added: Mapping[str, type]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, each name once, for formats in which none may stand twice."""
        return keys_of((*self.keys, *self.added), Path(), ())


class Writer(ABC):
    """Writes the rows of one table to one file.

    Args:
        path: of the file, which is made.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns

    @abstractmethod
    def write(self, row: Row, added: Sequence[Any]) -> None:
        """Write one row, its own cells by key, then those of the added columns."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""

    def cells(self, row: Row, added: Sequence[Any]) -> list[Any]:
        """The cells of a row in the order of the columns."""
        return [*(row.get(key) for key in self.columns.keys), *added]


class _Delimited(Writer):
    delimiter = ","

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns)
        self._file = path.open("w", encoding="utf-8", newline="")
        form: dict[str, Any] = {"delimiter": self.delimiter, "lineterminator": "\n"}
        self._writer = csv.writer(self._file, **form)
        self._quoting = csv.writer(self._file, **form, quoting=csv.QUOTE_ALL)
        self._writer.writerow((*columns.headers, *columns.added))

    def write(self, row: Row, added: Sequence[Any]) -> None:
        cells = [_text(cell) for cell in self.cells(row, added)]
        # Where lines end in a line feed, csv leaves a carriage return without quotes.
        writer = self._quoting if any("\r" in cell for cell in cells) else self._writer
        writer.writerow(cells)

    def close(self) -> None:
        self._file.close()


class _Tabbed(_Delimited):
    delimiter = "\t"


class _JsonLines(Writer):
    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns)
        self._added = columns.names[len(columns.keys) :]
        self._file = path.open("w", encoding="utf-8", newline="")

    def write(self, row: Row, added: Sequence[Any]) -> None:
        line = row | dict(zip(self._added, added, strict=True))
        self._file.write(_json(line) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet(Writer):
    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow
        import pyarrow.parquet

        super().__init__(path, columns)
        types = [self._type(key) for key in columns.keys]
        types += [pyarrow.float64() if kind is float else pyarrow.string() for kind in columns.added.values()]
        metadata = None if columns.schema is None else columns.schema.metadata
        fields = list(map(pyarrow.field, columns.names, types))
        self._schema = pyarrow.schema(fields, metadata=metadata)
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[list[Any]] = []

    def _type(self, key: str) -> Any:
        import pyarrow

        schema = self.columns.schema
        if schema is not None and key in schema.names:
            return schema.field(key).type
        kinds = self.columns.types.get(key, frozenset())
        plain = {bool: pyarrow.bool_(), int: pyarrow.int64(), datetime.datetime: pyarrow.timestamp("us")}
        plain |= {datetime.date: pyarrow.date32(), datetime.time: pyarrow.time64("us")}
        if kinds and kinds <= {int, float}:
            return pyarrow.float64() if float in kinds else pyarrow.int64()
        return plain.get(next(iter(kinds)), pyarrow.string()) if len(kinds) == 1 else pyarrow.string()

    def write(self, row: Row, added: Sequence[Any]) -> None:
        self._rows.append(self.cells(row, added))
        if len(self._rows) == _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        arrays = []
        for place, field in enumerate(self._schema):
            cells = [row[place] for row in self._rows]
            if field.type == pyarrow.string():
                cells = [None if cell is None or cell != cell else _text(cell) for cell in cells]
            try:
                arrays.append(pyarrow.array(cells, type=field.type))
            except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise PandaError(
                    f"The column '{field.name}' cannot be written as {field.type} to Parquet ({_first_line(error)}); "
                    "choose an --output that ends in .jsonl or .csv."
                ) from error
        self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


class _Workbook(Writer):
    def __init__(self, path: Path, columns: Columns) -> None:
        import openpyxl

        super().__init__(path, columns)
        self._book = openpyxl.Workbook(write_only=True)
        self._sheet = self._book.create_sheet("predictions")
        self._count = 0
        self._sheet.append([self._cell(name) for name in (*columns.headers, *columns.added)])

    def write(self, row: Row, added: Sequence[Any]) -> None:
        self._count += 1
        if self._count > _MOST_ROWS:
            raise PandaError(
                f"A sheet of a workbook has room for {_MOST_ROWS:,} rows, and there are more; choose an --output that "
                "ends in .csv or .parquet."
            )
        self._sheet.append([self._cell(cell) for cell in self.cells(row, added)])

    def _cell(self, value: Any) -> Any:
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

        if value is None or value != value or isinstance(value, (bool, float)):
            return None if value != value else value
        if isinstance(value, int) and abs(value) < _EXACT:
            return value
        if isinstance(value, (datetime.date, datetime.time)) and getattr(value, "tzinfo", None) is None:
            return value
        text = ILLEGAL_CHARACTERS_RE.sub("\ufffd", _text(value))[:_MOST_CHARACTERS]
        cell = WriteOnlyCell(self._sheet, text)
        cell.data_type = "s"  # a text that begins with "=" is no formula
        return cell

    def close(self) -> None:
        # What fills the disk would leave an archive that complains once more when it is thrown away.
        with tempfile.TemporaryFile() as whole, self.path.open("wb") as file:
            self._book.save(whole)
            whole.seek(0)
            shutil.copyfileobj(whole, file)


_WRITERS: dict[str, type[Writer]] = {
    ".csv": _Delimited,
    ".tsv": _Tabbed,
    ".jsonl": _JsonLines,
    ".parquet": _Parquet,
    ".xlsx": _Workbook,
}


def writer_for(path: Path) -> type[Writer]:
    """The writer of the format that a name ends in. Raises PandaError if it ends in none, or a library is missing."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise PandaError(
            f"The output {path} has an unknown format; expected a name that ends in {', '.join(_WRITERS)}."
        )
    if suffix == ".xlsx" and importlib.util.find_spec("openpyxl") is None:
        raise PandaError(
            "Workbooks need openpyxl, which is not installed; run `pip install 'promptpanda[xlsx]'`, or choose an "
            "--output that ends in .csv."
        )
    return _WRITERS[suffix]


def check_output(output: Path, table: Path | None, *, force: bool) -> None:
    """Raises PandaError unless a file may be written there; better found out before the work than behind it."""
    writer_for(output)
    if output.is_dir():
        raise PandaError(f"The output {output} is a folder; name a file in it.")
    if not output.parent.is_dir():
        raise PandaError(f"No folder {output.parent}; make it, or choose another place (--output).")
    if not output.exists():
        return
    if table is not None and table.exists() and output.samefile(table):
        raise PandaError(f"The output {output} is the input itself; choose another name.")
    if not output.is_file():
        raise PandaError(f"The output {output} is not an ordinary file; choose another name.")
    if not force:
        raise PandaError(f"The output {output} exists; say --force to replace it, or choose another name.")


def _text(value: Any) -> str:
    """A value as the text of a cell; nothing for None and NaN."""
    if value is None or value != value:
        return ""
    if isinstance(value, (list, tuple, dict)):
        return _json(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=_text)


def _finite(value: Any) -> Any:
    """NaN and infinities, which JSON does not know, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:100].rstrip(".")
