"""Rows from standard input: JSON lines, a JSON list of objects, CSV, or one text per line."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.files.json_records import read_json_lines
from promptpanda.tasks.files.records import DELIMITERS, Layout, Record, Row, RowReader
from promptpanda.tasks.files.source import Source
from promptpanda.tasks.files.table import read_table
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.tables import Table, text_lines

_NAME = "standard input"

Format = Literal["csv", "jsonl", "text"]


@dataclass(frozen=True)
class _Given(Source):
    """What standard input held, as a file."""

    text: str

    @classmethod
    def holding(cls, text: str) -> _Given:
        return cls(Path(_NAME), f"{_NAME}.csv", text)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        yield io.BufferedReader(io.BytesIO(self.text.encode()))


def table_of_stdin(spec: TaskSpec, form: Format | None = None, layout: Layout | None = None) -> Table:
    """The rows that standard input holds.

    Args:
        form: what it is; None finds it out.
        layout: what the user says of CSV.

    Raises:
        PandaError: it is closed, is no text, or the layout is of another format.
    """
    layout = layout or Layout()
    if layout.sheet is not None:
        raise PandaError("--sheet is for workbooks (.xlsx), and standard input is not one; leave it out.")
    if layout.delimiter is not None and form != "csv":
        raise PandaError("--delimiter is for CSV; say --format csv beside it, or leave it out.")
    if sys.stdin is None:
        raise PandaError("Standard input is closed; name a FILE, or pipe texts into the command.")
    # Bytes: under some locales the text layer lets strange bytes pass as surrogates.
    text = decoded(sys.stdin.buffer.read())
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Table(spec, _NAME, lambda: rows_of_text(text, spec, form, layout), lambda: digest, may_be_empty=True)


def decoded(data: bytes) -> str:
    """Text from UTF-8, with or without byte order marks before it, or from UTF-16 with one.

    Raises:
        PandaError: it is neither.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8").lstrip("\ufeff")  # a shell may put its own mark before that of a file
    except UnicodeDecodeError as error:
        raise PandaError(f"{_NAME.capitalize()} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise PandaError(
            f"Line {line} of {_NAME} holds NUL characters, as UTF-16 without a byte order mark does; save it as UTF-8."
        )
    return text


def rows_of_text(text: str, spec: TaskSpec, form: Format | None = None, layout: Layout | None = None) -> RowReader:
    """Rows of a text that was decoded; those that cannot be read have a `problem`.

    Args:
        form: what the text is; None finds it out.

    Raises:
        PandaError: it cannot hold rows of this task.
    """
    source, start = _Given.holding(text), text.lstrip()
    if form is None and start.startswith("[") and (rows := _listed(start)) is not None:
        keys = tuple(rows[0]) if rows else ()
        return RowReader(source.path, keys, (Record(number, number, row) for number, row in enumerate(rows, 1)))
    if form == "jsonl" or (form is None and start.startswith("{")):
        return read_json_lines(source, every_line=True, lenient=True)
    noticed = form is None and has_header(text, spec)
    if form == "csv" or noticed:
        reader = read_table(source, layout or Layout(), spec.fields, lenient=True)
        if noticed:
            reader.notes.insert(
                0, f"{_NAME.capitalize()} begins with a header, so it is read as CSV; --format text takes it as texts."
            )
        return reader
    return text_lines(source, spec)


def has_header(text: str, spec: TaskSpec) -> bool:
    """Whether the first line names the columns that a task needs, as that of a CSV file does."""
    first, _, rest = text.partition("\n")
    if not rest.strip():
        return False
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([first.rstrip("\r")], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if set(spec.fields) <= set(cells):
            return True
    return False


def _listed(text: str) -> list[Row] | None:
    """The objects of a JSON list; None where the text only begins like one, as `[sic] ...` does."""
    try:
        value = read_json(text, _NAME.capitalize(), nan=True)
    except PandaError:
        if text.lstrip("[ \t\r\n").startswith("{"):
            raise
        return None
    found = next((type(one).__name__ for one in value if not isinstance(one, dict)), None)
    if found is not None:
        raise PandaError(
            f"{_NAME.capitalize()} is a JSON list that holds a {found}; expected objects with the task's fields, or "
            "one text per line."
        )
    return list(value)
