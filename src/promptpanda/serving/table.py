"""A CSV file in, the same with predictions out, for the page where a file is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.serving.limits import RefusedError, outward
from promptpanda.serving.registry import Entry
from promptpanda.serving.service import Service
from promptpanda.tasks.tables import Read, Survey, Table
from promptpanda.tasks.writing import Columns, writer_for
from promptpanda.transfers.cells import Cells

_TOGETHER = 100  # rows that are sent to the model at a time, so that others get their turn


async def predicted_table(
    service: Service, entry: Entry, body: bytes, *, gone: Callable[[], Awaitable[None]]
) -> tuple[bytes, int]:
    """What `panda predict --output` makes of a CSV file, and how many of its rows could not be read.

    Raises:
        RefusedError: it is no CSV file with the fields that the prompt needs, or predictions fail.
    """
    card = entry.card
    assert card is not None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "your-file.csv"
        survey, rows = await asyncio.to_thread(_read, path, body, card)
        readable = [number for number, row in enumerate(rows) if row.input is not None]
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(readable), _TOGETHER):
            numbers = readable[start : start + _TOGETHER]
            given = [rows[number].values for number in numbers]
            answers = await service.predict(entry, None, given, gone=gone, probabilities=True)
            found |= dict(zip(numbers, answers, strict=True))
        written = await asyncio.to_thread(_written, path.with_name("predicted.csv"), survey, rows, found, card)
        return written, len(rows) - len(readable)


def _read(path: Path, body: bytes, card: Card) -> tuple[Survey, list[Read]]:
    path.write_bytes(body)
    try:
        table = Table.of_file(path, card.task)
        return table.survey(), list(table.rows())
    except PandaError as error:
        raise RefusedError(422, outward(error)) from error


def _written(path: Path, survey: Survey, rows: list[Read], found: dict[int, dict[str, Any]], card: Card) -> bytes:
    cells = Cells()
    added = cells.columns(card)
    writer = writer_for(path)(path, Columns(survey.keys, survey.headers, survey.types, survey.schema, added))
    for number, row in enumerate(rows):
        answer = found.get(number)
        writer.write(row.values, [None] * len(added) if answer is None else cells.of(card, answer))
    writer.close()
    return path.read_bytes()
