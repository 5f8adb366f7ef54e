"""What every format gives: records in order, with their place in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from promptpanda.errors import PandaError

Row = dict[str, Any]
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SPOKEN = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "pipe": "|"}


class Layout(BaseModel):
    """What the user says of a file that could be found out wrongly, or not at all.

    Attributes:
        delimiter: of .csv and .tsv: one character, or `comma`, `semicolon`, `tab`, `bar`. None finds it out.
        sheet: of a workbook: a sheet's name, or its number from 1. None takes the first that is not empty.
        class_names: of columns whose class names the file knows (`datasets` writes them), integers become these names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str | None = None
    sheet: str | None = None
    class_names: bool = False

    def __init__(self, **given: Any) -> None:
        """Raises PandaError if the delimiter is none."""
        value = given.get("delimiter")
        value = _SPOKEN.get(value, value) if value is not None else None
        if value is not None and (len(value) != 1 or value in '"\r\n\\ '):
            raise PandaError(
                f"The delimiter {value!r} is not valid; give one character, or comma, semicolon, tab or bar "
                "(--delimiter)."
            )
        super().__init__(**given | {"delimiter": value})


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        number: counted from 1.
        line: where it begins: the line of the file, the row of the sheet; of other formats the same as `number`.
        values: by column, in the order of the columns.
        problem: why it could not be read, in one sentence, or None; `values` then has what could be.
    """

    number: int
    line: int
    values: Row
    problem: str | None = None


def numbered(rows: Iterable[Row]) -> list[Record]:
    """Rows in memory as records, numbered from 1."""
    return [Record(number, number, row) for number, row in enumerate(rows, 1)]


@dataclass
class RowReader:
    """The rows of one file, read while one iterates, once.

    Attributes:
        path: of the file.
        columns: the keys of the rows, in the order of the file; of JSON those of the first row. A name that stands
            twice in the header has `.1` behind it the second time.
        headers: the columns as the file writes them.
        unit: what `Record.line` counts.
        notes: what was found out about the file and should be told, a sentence each; complete after the last row.
        schema: of Parquet and Arrow the types of the columns (`pyarrow.Schema`), else None.
        form: of which annotation format or data set the file is, where that was found out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Record]
    headers: tuple[str, ...] = ()
    unit: Literal["line", "row"] = "line"
    notes: list[str] = field(default_factory=list)
    schema: Any = None
    form: Literal["squad", "label_studio", "columns"] | None = None

    def __post_init__(self) -> None:
        self.headers = self.headers or self.columns

    def __iter__(self) -> Iterator[Record]:
        return self.rows


def keys_of(header: Sequence[str], path: Path, needed: Sequence[str] | None) -> tuple[str, ...]:
    """Keys for the columns of a header, each once.

    Args:
        needed: the columns that are used. None: all.

    Raises:
        PandaError: one that is needed stands twice.
    """
    twice = {name for name, count in Counter(header).items() if count > 1}
    if twice and (needed is None or twice & set(needed)):
        raise PandaError(f"The header of {path} names a column twice: {', '.join(header)[:200]}; rename one.")
    seen: Counter[str] = Counter()
    keys: list[str] = []
    for name in header:
        key = name
        while key in keys or (key != name and key in header):
            seen[name] += 1
            key = f"{name}.{seen[name]}"
        keys.append(key)
    return tuple(keys)
