"""Rows to predict from: read as often as it takes, and each with what a model reads of it, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from promptpanda.errors import PandaError
from promptpanda.files import sha256_file
from promptpanda.tasks.files.lines import lines_of
from promptpanda.tasks.files.reader import open_rows
from promptpanda.tasks.files.records import Layout, Record, Row, RowReader
from promptpanda.tasks.files.source import Source
from promptpanda.tasks.inputs import Input
from promptpanda.tasks.missing import is_missing, lacks_text
from promptpanda.tasks.reading import column
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.unlabeled import check_one_field, read_input, row_of_line

_LARGEST = 2**63 - 1  # of an integer in a column of 64 bits


class Read(NamedTuple):
    """A row, and what a model reads of it; or, with None for that, why it cannot, in one sentence."""

    values: Row
    input: Input | None
    problem: str | None


@dataclass(frozen=True)
class Survey:
    """What one pass over all rows tells.

    Attributes:
        rows: how many there are.
        unreadable: how many of them a model cannot read.
        keys: the columns, in order; of JSON the keys of all rows, as they come up.
        headers: the columns as the file writes them: a name may stand twice.
        types: the types of each column's values, None left out; `dict` for what no column of one type holds.
        schema: of Parquet and Arrow the types of the columns (`pyarrow.Schema`), else None.
    """

    rows: int
    unreadable: int
    keys: tuple[str, ...]
    headers: tuple[str, ...]
    types: dict[str, frozenset[type]]
    schema: Any


@dataclass(frozen=True)
class Table:
    """Rows of a file or of standard input.

    Attributes:
        spec: of the task whose prompt reads them.
        origin: where they come from, for sentences.
        open: opens them once more.
        digest: hash of all that they are read from.
        may_be_empty: whether no rows at all are no mistake, as long as nothing is written.
        notes: what was found out about them and should be told, a sentence each; complete after a survey.
    """

    spec: TaskSpec
    origin: str
    open: Callable[[], RowReader]
    digest: Callable[[], str]
    may_be_empty: bool = False
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_file(cls, path: Path, spec: TaskSpec, layout: Layout | None = None) -> Table:
        """The rows of a data file; of .txt, where no columns of words are meant, one text per line.

        Raises:
            PandaError: no such file, or of an unknown format.
        """

        def opened() -> RowReader:
            if spec.columns is None and path.is_file() and Source.of(path).name.endswith(".txt"):
                return text_lines(Source.of(path), spec)
            return open_rows(path, layout, columns=spec.columns, needed=spec.fields, every_line=True, lenient=True)

        told = "" if layout is None else layout.model_dump_json()
        return cls(spec, str(path), opened, lambda: _digest(path) + told)

    def rows(self) -> Iterator[Read]:
        """All rows in order."""
        for record in self.open():
            yield self._read(record)

    def survey(self, strict: bool = False) -> Survey:
        """Count the rows and learn their columns.

        Args:
            strict: raise for the first row that cannot be read.

        Raises:
            PandaError: there are no rows, or none of the first thousand has a field that the task needs.
        """
        self.check_fields()
        reader = self.open()
        count = unreadable = 0
        types: dict[str, set[type]] = {key: set() for key in reader.columns}
        for record in reader:
            count += 1
            problem = self._read(record).problem
            if problem is not None and strict:
                raise PandaError(problem)
            unreadable += problem is not None
            for key, value in record.values.items():
                types.setdefault(key, set()).add(_type(value))
        if not count:
            raise self._empty()
        self.notes[:] = reader.notes
        headers = (*reader.headers, *list(types)[len(reader.columns) :])
        kinds = {key: frozenset(found - {type(None)}) for key, found in types.items()}
        return Survey(count, unreadable, tuple(types), headers, kinds, reader.schema)

    def check_fields(self) -> None:
        """Raises PandaError if there are no rows, or none of the first thousand has a field that the task needs."""
        reader, keys, number = self.open(), dict[str, None](), 0
        for number, record in enumerate(reader, 1):
            keys |= dict.fromkeys(record.values)
            if number == 1000 or set(self.spec.fields) <= set(keys):
                break
        self.notes[:] = reader.notes
        if not number and not self.may_be_empty:
            raise self._empty()
        for name in self.spec.fields if keys else ():
            column([dict.fromkeys(keys)], name, self.origin)

    def _empty(self) -> PandaError:
        return PandaError(f"There is no row in {self.origin}: expected at least one.")

    def _read(self, record: Record) -> Read:
        if record.problem is not None:
            return Read(record.values, None, record.problem)
        try:
            found = read_input(self.spec, record.values, f"Row {record.number} of {self.origin}")
        except PandaError as error:
            return Read(record.values, None, str(error))
        if lacks_text(self.spec, record.values):
            gap = next(str(value) for value in map(record.values.get, self.spec.fields) if is_missing(value))
            problem = f"Row {record.number} of {self.origin} has {gap!r} for a text, which is written for a gap."
            return Read(record.values, None, problem)
        return Read(record.values, found, None)


def text_lines(source: Source, spec: TaskSpec) -> RowReader:
    """One text a line, words with white space between them; blank lines at the end are no rows.

    Raises:
        PandaError: the task needs more than one field.
    """
    check_one_field(spec, source.path)
    return RowReader(source.path, tuple(spec.fields), _text_records(source, spec))


def _text_records(source: Source, spec: TaskSpec) -> Iterator[Record]:
    (name,) = spec.fields
    blank = 0
    for number, line in enumerate(lines_of(source), 1):
        if not line.strip():
            blank += 1
            continue
        for gap in range(number - blank, number):
            yield Record(gap, gap, {name: ""}, f"Line {gap} of {source.path} is empty; there is nothing to read.")
        blank = 0
        yield Record(number, number, row_of_line(line, spec))


def _type(value: object) -> type:
    if isinstance(value, float) and math.isnan(value):
        return type(None)
    return dict if isinstance(value, int) and abs(value) > _LARGEST else type(value)


def _digest(path: Path) -> str:
    if path.is_dir():
        return " ".join(sha256_file(part) for part in sorted(path.iterdir()) if part.is_file())
    return sha256_file(path)
