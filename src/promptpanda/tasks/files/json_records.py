"""Rows from JSON: one object a line, or one value with a list of them in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.files import exports
from promptpanda.tasks.files.lines import lines_of, text_of
from promptpanda.tasks.files.records import Record, Row, RowReader
from promptpanda.tasks.files.source import Source


def read_json_lines(source: Source, *, every_line: bool = False, lenient: bool = False) -> RowReader:
    """One object a line. Blank lines are skipped, or with `every_line` refused where they are not at the end."""
    rows = records_of_lines(lines_of(source), source.path, every_line=every_line, lenient=lenient)
    first = next(rows, None)
    if first is None:
        return RowReader(source.path, (), iter(()))
    return RowReader(source.path, tuple(first.values), chain([first], rows))


def records_of_lines(
    lines: Iterable[str], origin: Path | str, *, every_line: bool = False, lenient: bool = False
) -> Iterator[Record]:
    """One object a line.

    Args:
        origin: for sentences.
        every_line: refuse blank lines that are not at the end: rows then have the numbers of lines.
        lenient: lines that are broken, or blank before others, have a `problem` instead of raising.
    """
    number, blank = 0, list[int]()
    for place, line in enumerate(lines, 1):
        if not line.strip():
            blank.append(place)
            continue
        if every_line and blank:
            more = f" (and {len(blank) - 1} more)" if len(blank) > 1 else ""
            problem = PandaError(
                f"Line {blank[0]}{more} of {origin} is empty, and every line gets an answer of its own; remove empty "
                "lines."
            )
            if not lenient:
                raise problem
            for gap in blank:
                number += 1
                yield Record(number, gap, {}, str(problem))
            blank = []
        number += 1
        try:
            yield Record(number, place, _object(line, f"Line {place} of {origin}"))
        except PandaError as error:
            if not lenient:
                raise
            yield Record(number, place, {}, str(error))


def _object(line: str, what: str) -> Row:
    row = read_json(line, what, nan=True)
    if not isinstance(row, dict):
        raise PandaError(f"{what} is not a JSON object with fields, found {type(row).__name__}.")
    return row


def read_json_file(source: Source, *, every_line: bool = False, lenient: bool = False) -> RowReader:
    """A list of records, an object with that list under a key, columns as pandas writes them, or an annotation export.

    Files that hold one object a line are read as such, whatever their name.
    """
    if _is_lines(source):
        reader = read_json_lines(source, every_line=every_line, lenient=lenient)
        reader.notes.append(f"{source.path}: it has one JSON object per line, and is read as .jsonl.")
        return reader
    value = read_json(text_of(source), str(source.path), nan=True)
    listed, notes, form = _listed(value, source.path)
    rows = _numbered(listed, source.path, lenient=lenient)
    first = listed[0] if listed and isinstance(listed[0], dict) else {}
    return RowReader(source.path, tuple(first), rows, unit="row", notes=notes, form=form)


def _is_lines(source: Source) -> bool:
    """Whether the first line is an object of its own and another line follows it."""
    lines = (line for line in lines_of(source) if line.strip())
    try:
        first, second = next(lines, ""), next(lines, "")
        return second.lstrip().startswith("{") and isinstance(read_json(first, "The line", nan=True), dict)
    except PandaError:
        return False  # what is wrong is told when the file is read


def _listed(value: Any, path: Path) -> tuple[list[Any], list[str], Any]:
    """The records of a JSON value, what should be told, and which export it is."""
    if isinstance(value, dict) and exports.is_squad(value):
        return *exports.squad_rows(value, path), "squad"
    notes: list[str] = []
    if isinstance(value, dict):
        value, notes = _under_a_key(value, path)
    if not isinstance(value, list):
        raise PandaError(
            f"{path} holds {'a ' + type(value).__name__ if value is not None else 'null'}, where a list of objects is "
            "expected, or an object with such a list under a key."
        )
    if exports.is_label_studio(value):
        rows, told = exports.label_studio_rows(value, path)
        return rows, notes + told, "label_studio"
    return value, notes, None


def _under_a_key(value: Row, path: Path) -> tuple[Any, list[str]]:
    lists = {name: one for name, one in value.items() if isinstance(one, list) and one and isinstance(one[0], dict)}
    if len(lists) == 1:
        ((name, rows),) = lists.items()
        return rows, [f"{path}: its rows are those under '{name}'."]
    if lists:
        names = ", ".join(map(repr, lists))[:120]
        raise PandaError(f"{path} has lists of objects under {names}; write each to a file of its own.")
    if set(value) >= {"columns", "data"} and isinstance(value["data"], list):  # pandas, orient="split"
        return [dict(zip(value["columns"], cells, strict=False)) for cells in value["data"]], []
    inner = [one for one in value.values() if isinstance(one, dict) and one]
    if len(inner) == len(value) and all(map(str.isdecimal, value)) and not all(map(str.isdecimal, inner[0])):
        return inner, []  # pandas, orient="index"
    columns = {name: list(one.values()) if isinstance(one, dict) else one for name, one in value.items()}
    sizes = {len(one) if isinstance(one, list) else -1 for one in columns.values()}
    if len(sizes) == 1 and min(sizes) > 0:  # pandas, orient="columns"; or lists by column
        cells = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in cells], [f"{path}: it holds columns, not rows."]
    raise PandaError(
        f"{path} is an object without a list of objects under one of its keys "
        f"({', '.join(map(repr, value))[:120] or 'it has none'}); expected a list of rows."
    )


def _numbered(listed: list[Any], path: Path, *, lenient: bool) -> Iterator[Record]:
    for number, row in enumerate(listed, 1):
        if isinstance(row, dict):
            yield Record(number, number, row)
            continue
        problem = PandaError(f"Row {number} of {path} is not a JSON object with fields, found {type(row).__name__}.")
        if not lenient:
            raise problem
        yield Record(number, number, {}, str(problem))
