"""A CSV file in, the same with predictions out, for the page where a file is dropped."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.serving.limits import RefusedError, outward
from promptpanda.serving.registry import Entry
from promptpanda.serving.service import Service
from promptpanda.tasks.reading import Row, read_rows
from promptpanda.tasks.spec import SEPARATOR
from promptpanda.tasks.unlabeled import read_inputs

_TOGETHER = 100  # rows that are sent to the model at a time, so that others get their turn


async def predicted_table(
    service: Service, entry: Entry, body: bytes, *, gone: Callable[[], Awaitable[None]]
) -> tuple[str, int]:
    """The file's columns, then `prediction` and `confidence`; and how many rows could not be read.

    A row that cannot be read has no prediction.

    Raises:
        RefusedError: it is no CSV file with the fields that the prompt needs, or predictions fail.
    """
    assert entry.card is not None
    spec = entry.card.task
    rows = await asyncio.to_thread(_read, body)
    missing = [name for name in spec.fields if name not in rows[0]]
    if missing:
        raise RefusedError(
            422,
            outward(
                f"The file has no column '{missing[0]}', which {entry.id} needs; it has "
                f"{', '.join(map(repr, rows[0]))[:200]}."
            ),
        )
    readable = [number for number, row in enumerate(rows) if _can_read(spec, row)]
    found: dict[int, dict[str, Any]] = {}
    for start in range(0, len(readable), _TOGETHER):
        numbers = readable[start : start + _TOGETHER]
        answers = await service.predict(entry, None, [rows[number] for number in numbers], gone=gone)
        found |= dict(zip(numbers, answers, strict=True))
    return _written(rows, found), len(rows) - len(readable)


def _read(body: bytes) -> list[Row]:
    """The rows of a CSV file, by the reader that all commands use."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "your-file.csv"
        path.write_bytes(body)
        try:
            return read_rows(path)
        except PandaError as error:
            raise RefusedError(422, outward(error)) from error


def _can_read(spec: Any, row: Row) -> bool:
    try:
        read_inputs(spec, [row], "the file")
    except PandaError:
        return False
    return True


def _written(rows: list[Row], found: dict[int, dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*rows[0], "prediction", "confidence"])
    for number, row in enumerate(rows):
        writer.writerow([*row.values(), *_cells(found.get(number))])
    return text.getvalue()


def _cells(prediction: dict[str, Any] | None) -> tuple[object, object]:
    """Prediction and confidence of a row; spans as JSON, several labels with bars between."""
    if prediction is None:
        return "", ""
    for name in ("label", "answer", "value"):
        if name in prediction:
            return prediction[name], prediction.get("confidence", "")
    if "labels" in prediction:
        return SEPARATOR.join(prediction["labels"]), prediction["confidence"]
    return json.dumps(prediction["spans"], ensure_ascii=False), ""
