"""Rows from Arrow's formats: Parquet, Arrow and Feather files, and folders that `datasets` saved to disk."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.files.records import Layout, Record, RowReader, keys_of
from promptpanda.tasks.files.source import Source

_TOGETHER = 1024  # rows that are made Python values at a time
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_saved(path: Path) -> bool:
    """Whether a path is a folder that `datasets` saved to disk."""
    return path.is_dir() and ((path / _STATE).is_file() or (path / _SPLITS).is_file())


def read_parquet(source: Source, layout: Layout, only: Sequence[str] | None = None) -> RowReader:
    """The rows of a Parquet file, some at a time.

    Args:
        only: columns that are read, if the file has all of them; of the others not even a damaged one matters.
    """
    file = open_parquet(source.path if not source.packed else io.BytesIO(source.whole()), source.path)
    names = chosen(file.schema_arrow, only, source.path)
    batches = file.iter_batches(batch_size=_TOGETHER, columns=list(names))
    return _reader(source.path, file.schema_arrow, names, batches, layout, "Parquet")


def read_arrow(source: Source, layout: Layout, only: Sequence[str] | None = None) -> RowReader:
    """The rows of a file of Arrow's (.arrow, .feather)."""
    file = io.BytesIO(source.whole()) if source.packed else source.path
    schema, batches = _ipc(file, source.path)
    return _reader(source.path, schema, chosen(schema, only, source.path), batches, layout, "Arrow")


def read_saved(folder: Path, layout: Layout, only: Sequence[str] | None = None) -> RowReader:
    """The rows of a folder that `Dataset.save_to_disk` wrote. Raises PandaError for one of several splits."""
    if (folder / _SPLITS).is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / _STATE).is_file())
        if len(splits) != 1:
            raise PandaError(
                f"{folder} holds {len(splits)} data sets ({', '.join(splits)[:80] or 'none'}); name one of its "
                f"folders, such as {folder / (splits[0] if splits else 'train')}."
            )
        folder = folder / splits[0]
    paths = _data_files(folder)
    parts = [_ipc(path, folder) for path in paths]
    schema = parts[0][0]
    batches = (batch for _, part in parts for batch in part)
    return _reader(folder, schema, chosen(schema, only, folder), batches, layout, "Arrow")


def _data_files(folder: Path) -> list[Path]:
    """The files that the state names, which are beside it and nowhere else."""
    try:
        state = json.loads((folder / _STATE).read_bytes()[: 2**20])
        names = [one["filename"] for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PandaError(f"{folder / _STATE} does not name the files of the data set; save it again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise PandaError(
                f"{folder / _STATE} names {str(name)[:60]!r}, which is not a file beside it; save it again."
            )
    if not names:
        raise PandaError(f"{folder} is empty: expected at least one row.")
    return [folder / name for name in names]


def open_parquet(file: Any, path: Path) -> Any:
    """A file as pyarrow has it. Raises PandaError if it is no Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(path, error, "Parquet") from error


def _ipc(file: Any, path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema and the batches of an Arrow file of either kind."""
    import pyarrow
    import pyarrow.ipc

    try:
        source = pyarrow.memory_map(str(file)) if isinstance(file, Path) else pyarrow.PythonFile(file)
        if source.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(source)
            return reader.schema, (reader.get_batch(at) for at in range(reader.num_record_batches))
        source.seek(0)
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema, iter(stream)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken(path, error, "Arrow") from error


def chosen(schema: Any, only: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    """The columns to read. Raises PandaError if a name stands twice."""
    names = schema.names
    if len(set(names)) < len(names):
        raise PandaError(f"{path} names a column twice: {', '.join(names)[:200]}; rename one.")
    return tuple(dict.fromkeys(only)) if only is not None and set(only) <= set(names) else tuple(names)


def _reader(
    path: Path, schema: Any, names: tuple[str, ...], batches: Iterator[Any], layout: Layout, kind: str
) -> RowReader:
    classes = class_names(schema) if layout.class_names else {}
    rows = _rows(path, names, batches, classes, kind)
    notes = [
        f"{path}: the names of the classes of '{name}' are those of the file." for name in classes if name in names
    ]
    return RowReader(path, keys_of(names, path, None), rows, unit="row", notes=notes, schema=schema)


def _rows(
    path: Path, names: tuple[str, ...], batches: Iterator[Any], classes: dict[str, list[str]], kind: str
) -> Iterator[Record]:
    import pyarrow

    number = 0
    while True:
        try:
            batch = next(batches, None)
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(path, error, kind) from error
        if batch is None:
            return
        cells = [_cells(batch.column(name), f"The column '{name}' of {path}") for name in names]
        cells = [[_named(cell, classes.get(name)) for cell in one] for name, one in zip(names, cells, strict=True)]
        for row in zip(*cells, strict=True):
            number += 1
            yield Record(number, number, dict(zip(names, row, strict=True)))


def class_names(schema: Any) -> dict[str, list[str]]:
    """By column the names of its classes, or of the tags in its lists, as `datasets` writes them into the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        items = features.items()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    found = {}
    for column, feature in items:
        for one in (feature, feature.get("feature") if isinstance(feature, dict) else None, *_first(feature)):
            names = one.get("names") if isinstance(one, dict) else None
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                found[column] = names
    return found


def _first(feature: Any) -> list[Any]:
    return feature[:1] if isinstance(feature, list) else []  # how older versions write a list


def _named(cell: Any, names: list[str] | None) -> Any:
    if names is None or isinstance(cell, bool):
        return cell
    if isinstance(cell, list):
        return [_named(one, names) for one in cell]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else cell


def _cells(values: Any, what: str) -> list[Any]:
    """A column of Arrow as Python values, bytes as the text that they are."""
    import pyarrow

    try:
        cells: list[Any] = values.to_pylist()
        return [_decoded(cell) for cell in cells] if "binary" in str(values.type) else cells
    except UnicodeDecodeError as error:
        raise PandaError(f"{what} holds bytes that are not UTF-8 text; write it as text, or leave it out.") from error
    except (OverflowError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:100].rstrip(".")
        raise PandaError(
            f"{what} has the type {values.type} and a value that Python cannot hold ({reason}); write it as text, or "
            "leave it out."
        ) from error


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_decoded(item) for item in value)
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    return value


def _broken(path: Path, error: Exception, kind: str) -> PandaError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return PandaError(f"{path} is not a readable {kind} file ({reason}); write it again.")
