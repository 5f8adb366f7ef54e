"""Rows in a file that other programs read: Parquet or CSV, and back without loss."""

from __future__ import annotations

import csv
import json
import os
import types
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import from_json

from promptpanda.errors import PandaError
from promptpanda.sweep.row import Answers, Row, first_error
from promptpanda.sweep.store import Store, to_json

_ANSWERS = "answers"  # a column: the answers of the row's test examples, once for every set of them
_KINDS = (".parquet", ".csv")


def _plain_type(annotation: Any) -> type | None:
    """str, int or float where a column holds nothing else (or nothing); None where it holds JSON."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    kinds = [part for part in parts if part is not type(None)]
    kinds = [get_args(part)[0] if get_origin(part) is Annotated else part for part in kinds]
    if len(kinds) != 1:
        return None
    if kinds[0] in (str, int, float):
        return kinds[0]  # type: ignore[no-any-return]
    if all(isinstance(value, str) for value in get_args(kinds[0])) and get_args(kinds[0]):
        return str
    return None


_COLUMNS: dict[str, type | None] = {name: _plain_type(field.annotation) for name, field in Row.model_fields.items()}


_LATER = ("selection",)  # columns that files of earlier versions lack


def check_kind(path: Path) -> None:
    """Raises PandaError if the file's ending is none that rows are written in."""
    if path.suffix.lower() not in _KINDS:
        raise PandaError(f"Rows are kept as {' or '.join(_KINDS)}, found {path.name!r}; choose one of these endings.")


def export_rows(rows: list[Row], answers: list[Answers], path: Path) -> None:
    """Write rows, and the answers that belong to them, to a Parquet or CSV file: whole or not at all.

    Columns are the fields of `Row`. Those with structure hold JSON; `answers` holds the right answers of the row's test
    examples, in the first row of every set of them.
    """
    check_kind(path)
    by_fingerprint = {one.test_fingerprint: one for one in answers}
    records = []
    for row in rows:
        content = row.model_dump(mode="python")
        record = {
            name: content[name] if kind or content[name] is None else json.dumps(content[name], ensure_ascii=False)
            for name, kind in _COLUMNS.items()
        }
        mine = by_fingerprint.pop(row.test_fingerprint or "", None)
        records.append(record | {_ANSWERS: None if mine is None else to_json(mine)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with _whole(path) as staging:
        if path.suffix.lower() == ".parquet":
            _write_parquet(records, staging)
        else:
            _write_csv(records, staging)


def import_rows(path: Path) -> tuple[list[Row], list[Answers]]:
    """Read what `export_rows` wrote. Raises PandaError if the file is none of ours."""
    check_kind(path)
    if not path.is_file():
        raise PandaError(f"No file {path} to import; check the path.")
    try:
        records = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
        rows, answers = [], []
        for record in records:
            mine = record.pop(_ANSWERS)
            if mine is not None:
                answers.append(Answers.model_validate_json(mine))
            rows.append(Row.model_validate({name: _value(name, record.get(name)) for name in _COLUMNS}))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        why = (
            first_error(error)
            if isinstance(error, ValidationError)
            else " ".join("".join(one if one.isprintable() else " " for one in str(error)).split())[:120]
        )
        raise PandaError(f"{path} holds no rows of a sweep ({why}); import what --export wrote.") from error
    return rows, answers


def read_rows(path: Path) -> tuple[list[Row], list[Answers], dict[str, str], dict[str, str]]:
    """Rows, answers, facts and plan of a store or a sweep's folder; an exported file lacks the last two."""
    if path.suffix.lower() in _KINDS:
        return *import_rows(path), {}, {}
    with Store.open(path) as store:
        return store.rows(), store.answers(), store.facts(), store.plan()


def _value(name: str, cell: Any) -> Any:
    return cell if cell is None or _COLUMNS[name] is not None else from_json(cell)


def _write_parquet(records: list[dict[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    types_of: dict[type | None, Any] = {int: pyarrow.int64(), float: pyarrow.float64()}
    columns = [(name, types_of.get(kind, pyarrow.string())) for name, kind in _COLUMNS.items()]
    schema = pyarrow.schema([*columns, (_ANSWERS, pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema), path)


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            found = file.schema_arrow.names
            _check_columns(found)
            table = file.read([name for name in (*_COLUMNS, _ANSWERS) if name in found])
        records: list[dict[str, Any]] = table.to_pylist()
    except (pyarrow.ArrowException, OverflowError) as error:
        raise ValueError(str(error)) from error
    return records


def _check_columns(found: Sequence[str]) -> None:
    needed = (name for name in (*_COLUMNS, _ANSWERS) if name not in _LATER)
    missing = next((name for name in needed if name not in found), None)
    if missing is not None:
        raise ValueError(f"no column '{missing}'")


def _write_csv(records: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, _ANSWERS])
        writer.writeheader()
        for record in records:
            writer.writerow({name: repr(cell) if isinstance(cell, float) else cell for name, cell in record.items()})


def _read_csv(path: Path) -> list[dict[str, Any]]:
    limit = csv.field_size_limit(2**31 - 1)  # predictions on a large test set make long cells
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(reader.fieldnames or [])
            return [{name: cell if cell != "" else None for name, cell in row.items()} for row in reader]
    finally:
        csv.field_size_limit(limit)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    staging = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
