"""The user's own rows where they are in memory: a pandas frame, a `datasets.Dataset`, a list of dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.files.records import Row, RowReader, numbered


@dataclass(frozen=True)
class OwnRows:
    """Rows of one split.

    Attributes:
        split: whose they are, for sentences.
        rows: as dictionaries.
        classes: by column the names of classes whose integers the rows have, where their source knows them.
    """

    split: str
    rows: list[Row]
    classes: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, split: str) -> OwnRows:
        """From whatever has rows. Raises PandaError that names the row that is none."""
        classes: dict[str, list[str]] = {}
        if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a pandas frame
            check_columns(given, f"The frame of {split}")
            given = given.to_dict("records")
        elif hasattr(given, "features") and hasattr(given, "to_list"):  # a data set of `datasets`
            found = {name: getattr(one, "feature", one) for name, one in given.features.items()}
            classes = {name: list(one.names) for name, one in found.items() if getattr(one, "names", None)}
            given = given.to_list()
        if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__iter__"):
            raise PandaError(
                f"The rows of {split} are of the type {type(given).__name__}; expected a path, a pandas frame, a "
                "datasets.Dataset, or a list of dictionaries."
            )
        rows = []
        for number, row in enumerate(given, 1):
            if not isinstance(row, Mapping):
                raise PandaError(
                    f"Row {number} of the rows of {split} is of the type {type(row).__name__}; expected a dictionary "
                    "with the columns as keys."
                )
            rows.append({str(name): _plain(value) for name, value in row.items()})
        return cls(split, rows, classes)

    def reader(self, *, class_names: bool = False) -> RowReader:
        """The rows as those of a file; with `class_names`, classes by their names where these are known."""
        rows = self.rows
        if class_names and self.classes:
            rows = [row | {name: _named(row.get(name), names) for name, names in self.classes.items()} for row in rows]
        columns = tuple(rows[0]) if rows else ()
        return RowReader(Path(f"the rows of {self.split}"), columns, iter(numbered(rows)), unit="row")


def check_columns(frame: Any, what: str) -> None:
    """Raises PandaError if a pandas frame, called `what`, names a column twice: of such, dictionaries keep the last."""
    twice = [str(name) for name, again in zip(frame.columns, frame.columns.duplicated(), strict=True) if again]
    if twice:
        raise PandaError(f"{what} names the column {twice[0]!r} twice; rename one.")


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python has them."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names)
    return names[value] if known else value
