"""Any data file as rows: which format it has, by its name, and that its content is of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from promptpanda.errors import PandaError
from promptpanda.tasks.columns import ColumnData, column_rows
from promptpanda.tasks.files.arrow import is_saved, read_arrow, read_parquet, read_saved
from promptpanda.tasks.files.json_records import read_json_file, read_json_lines
from promptpanda.tasks.files.records import Layout, Record, RowReader
from promptpanda.tasks.files.source import Source
from promptpanda.tasks.files.table import read_table
from promptpanda.tasks.files.workbook import read_workbook
from promptpanda.tasks.text import check_file

COLUMN_SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt")
SUFFIXES = (".jsonl", ".csv", ".parquet", ".json", ".tsv", ".xlsx", ".arrow", ".feather", *COLUMN_SUFFIXES)
# As files of a data root are looked for, the commonest first.
ENDINGS = tuple(suffix + packed for suffix in SUFFIXES for packed in ("", ".gz"))
_MAGIC = {b"PK\x03\x04": "a zip archive or a workbook (.zip, .xlsx)", b"\x1f\x8b": "gzip (.gz)", b"PAR1": "Parquet"}
_TEXT = (".jsonl", ".csv", ".json", ".tsv", *COLUMN_SUFFIXES)


def open_rows(
    path: Path,
    layout: Layout | None = None,
    *,
    columns: ColumnData | None = None,
    needed: Sequence[str] | None = None,
    only_needed: bool = False,
    every_line: bool = False,
    lenient: bool = False,
) -> RowReader:
    """The rows of a data file, read while one iterates, in order and with their places.

    CSV, TSV, JSON lines, Parquet and Arrow need memory for some rows alone; .json, workbooks and packed Parquet are
    read as a whole.

    Args:
        path: a file in one of the formats of `SUFFIXES`, also packed (.gz, or the only file in a .zip), or a folder
            that `datasets` saved to disk.
        layout: what the user says of the file.
        columns: how a column file (.conll, .txt) is laid out; of the others none is needed.
        needed: the columns that are used. They help to find the delimiter, and other columns may have equal names.
        only_needed: of Parquet and Arrow, read no others.
        every_line: of JSON lines, refuse blank ones instead of skipping them.
        lenient: records that cannot be read have a `problem` instead of raising, and column files may lack tags.

    Raises:
        PandaError: no such file, an unknown format, or content that is not of it; while reading, broken records.
    """
    layout = layout or Layout()
    only = needed if only_needed else None
    if is_saved(path):
        return read_saved(path, layout, only)
    source = Source.of(path)
    _check_options(source, layout)
    if source.name.endswith(_TEXT):
        _check_content(source)
    if source.name.endswith(".jsonl"):
        return read_json_lines(source, every_line=every_line, lenient=lenient)
    if source.name.endswith(".json"):
        return read_json_file(source, every_line=every_line, lenient=lenient)
    if source.name.endswith((".csv", ".tsv")):
        return read_table(source, layout, needed, lenient=lenient)
    if source.name.endswith(".parquet"):
        return read_parquet(source, layout, only)
    if source.name.endswith((".arrow", ".feather")):
        return read_arrow(source, layout, only)
    if source.name.endswith(".xlsx"):
        return read_workbook(source, layout, needed)
    if source.name.endswith(COLUMN_SUFFIXES) and columns is not None:
        return _column_rows(source, columns, lenient)
    raise _unknown(source)


def check_data(path: Path) -> None:
    """Raises PandaError unless the path is one of a file, or of a folder that `datasets` saved to disk."""
    if not is_saved(path):
        check_file(path)


def is_column_file(path: Path) -> bool:
    """Whether a file's name says that it has a word on each line, and tags in columns."""
    return not is_saved(path) and Source.of(path).name.endswith(COLUMN_SUFFIXES)


def _column_rows(source: Source, columns: ColumnData, lenient: bool) -> RowReader:
    found = column_rows(source, columns, untagged=lenient)
    names: tuple[str, ...] = ("tokens", "tags", "predicate") if columns.predicate is not None else ("tokens", "tags")
    if lenient:  # there may be no tags
        first = next(found)
        names, found = tuple(first[1]), chain([first], found)
    rows = (Record(number, line, row) for number, (line, row) in enumerate(found, 1))
    return RowReader(source.path, names, rows, form="columns")


def _check_options(source: Source, layout: Layout) -> None:
    """An option that has no effect was meant for another file, or the file is not what the user thinks."""
    if layout.sheet is not None and not source.name.endswith(".xlsx"):
        raise PandaError(f"--sheet is for workbooks (.xlsx), and {source.path} is not one; leave it out.")
    if layout.delimiter is not None and not source.name.endswith((".csv", ".tsv")):
        raise PandaError(f"--delimiter is for .csv and .tsv, and {source.path} is neither; leave it out.")


def _check_content(source: Source) -> None:
    with source.open() as file:
        start = file.read(4)
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        raise PandaError(f"{source.path} holds {kind}, not what its name says; rename it.")


def _unknown(source: Source) -> PandaError:
    if source.name.endswith(tuple(suffix for suffix in COLUMN_SUFFIXES if suffix != ".txt")):
        return PandaError(
            f"{source.path} is a column file, and the task's spec has no `columns` (`panda tasks show ontonotes` has); "
            "say --kind token_classification for words and tags in columns."
        )
    if source.name.endswith(".xls"):
        return PandaError(f"{source.path} is a workbook in the old format (.xls); save it as .xlsx.")
    return PandaError(
        f"{source.path} has an unknown format; expected a name that ends in {', '.join(SUFFIXES)}, also with .gz, or "
        ".zip with one such file."
    )
