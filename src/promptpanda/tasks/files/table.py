"""Rows from text with delimiters: .csv and .tsv."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count

from promptpanda.errors import PandaError
from promptpanda.tasks.files.lines import MAX_LINE, lines_of
from promptpanda.tasks.files.records import DELIMITERS, Layout, Record, RowReader, keys_of
from promptpanda.tasks.files.source import Source

_SAMPLE = 2**18  # characters from which the delimiter is found out
_EXCEL = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # a first line with which Excel tells its delimiter


def read_table(
    source: Source, layout: Layout, needed: Sequence[str] | None = None, *, lenient: bool = False
) -> RowReader:
    """The rows below a header.

    Args:
        needed: columns that are used: of several delimiters the one is taken whose header has them.
        lenient: records that are broken have a `problem` instead of raising.

    Raises:
        PandaError: at once for a header that does not serve; while reading for records of another width, or broken.
    """
    usual = "\t" if source.name.endswith(".tsv") else ","
    lines = lines_of(source, universal=True)
    head = _first(lines, _SAMPLE)
    told = _EXCEL.fullmatch(head[0]) if head else None
    skipped = 1 if told is not None else 0
    head = head[skipped:]
    delimiter = layout.delimiter or (told[1] if told is not None else None) or find_delimiter(head, usual, needed)
    plain = delimiter == "\t" and _unquoted(head)
    notes = []
    if delimiter != usual and layout.delimiter is None:
        notes.append(f"{source.path}: its columns are separated by {_name(delimiter)}.")
    if plain:
        notes.append(f"{source.path}: quotation marks are read as a part of the text.")
    reader = _reader(chain(head, lines), delimiter, plain)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise _broken(source, 1, error) from error
    cut = len(header) == 1 and re.search(r"[^\w\s.-]", header[0]) is not None
    if cut and needed is not None and not set(needed) <= set(header):
        raise PandaError(
            f"The header of {source.path} is one column, {header[0][:60]!r}, without a comma, semicolon, tab or "
            "bar; if another sign separates its columns, say it with --delimiter."
        )
    keys = keys_of(header, source.path, needed)
    rows = _records(reader, source, keys, delimiter, skipped, lenient=lenient)
    return RowReader(source.path, keys, rows, tuple(header), notes=notes)


def _first(lines: Iterator[str], size: int) -> list[str]:
    taken: list[str] = []
    for line in lines:
        taken.append(line)
        size -= len(line)
        if size < 0:
            break
    return taken


def find_delimiter(sample: list[str], usual: str, needed: Sequence[str] | None = None) -> str:
    """The delimiter whose header has the columns that are needed, and with which most records are as wide as it.

    Args:
        sample: the first lines of a file; the last record may be cut.
        usual: the one to take if several do, or none.
    """
    best, best_score = usual, (False, 0.0, 1)
    for delimiter in (usual, *(one for one in DELIMITERS if one != usual)):
        widths, header = _widths(sample, delimiter, _unquoted(sample) if delimiter == "\t" else False)
        if len(header) < 2:
            continue
        same = sum(width == len(header) for width in widths) / max(len(widths), 1)
        score = (needed is not None and set(needed) <= set(header), same, len(header))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _name(delimiter: str) -> str:
    return DELIMITERS.get(delimiter, repr(delimiter))


def _reader(lines: Iterable[str], delimiter: str, plain: bool) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_LINE)
    quoting: dict[str, int] = {"quoting": csv.QUOTE_NONE} if plain else {}
    return csv.reader(lines, delimiter=delimiter, strict=not plain, **quoting)  # type: ignore[arg-type]


def _widths(sample: list[str], delimiter: str, plain: bool = False) -> tuple[list[int], list[str]]:
    """How many cells the records of a sample have, and its header; a record that is broken or cut is left out."""
    reader = _reader(sample, delimiter, plain)
    widths: list[int] = []
    header: list[str] = []
    try:
        header = next(reader, [])
        widths.extend(len(cells) for cells in reader if cells)
    except csv.Error:
        pass
    return widths, header


def _unquoted(sample: list[str]) -> bool:
    """Whether quotation marks in a file of tabs are a part of its texts, as many programs write them."""
    if not any('"' in line for line in sample):
        return False
    try:
        widths = [len(cells) for cells in _reader(sample, "\t", False) if cells]
    except csv.Error:
        widths = []
    return len(set(widths[:-1])) != 1 and len(set(_widths(sample[:-1] or sample, "\t", True)[0])) == 1


def _records(
    reader: Iterator[list[str]], source: Source, keys: tuple[str, ...], delimiter: str, skipped: int, *, lenient: bool
) -> Iterator[Record]:
    number = 0
    for record in count(2):
        line = reader.line_num + skipped + 1  # type: ignore[attr-defined]
        problem = None
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if not cells:
                continue
        except csv.Error as error:
            cells, problem = [], _broken(source, record, error)
        number += 1
        if cells and len(cells) != len(keys):
            advice = "write the missing ones, empty where there is nothing"
            if len(cells) > len(keys):
                advice = f"put cells that hold {_name(delimiter)} or line breaks between quotation marks"
            problem = PandaError(
                f"Record {record} of {source.path} has {len(cells)} cells, its header has {len(keys)}; {advice}."
            )
        if problem is not None and not lenient:
            raise problem
        if len(cells) > len(keys):  # nothing of a row is lost where rows are written again
            cells = [*cells[: len(keys) - 1], delimiter.join(cells[len(keys) - 1 :])]
        values = dict(zip(keys, cells, strict=False))
        yield Record(number, line, values, None if problem is None else str(problem))


def _broken(source: Source, record: int, error: csv.Error) -> PandaError:
    return PandaError(
        f"Record {record} of {source.path} is not valid CSV ({error}); close its quotation marks, or double those "
        "inside a cell."
    )
