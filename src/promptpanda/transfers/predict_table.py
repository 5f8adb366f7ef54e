"""Predictions of whole tables: some rows at a time, in constant memory, to a file that appears whole at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.files import digest, sync
from promptpanda.progress import Progress
from promptpanda.tasks.inputs import Words
from promptpanda.tasks.tables import Read, Survey, Table
from promptpanda.tasks.words import Word, words_in
from promptpanda.tasks.writing import Columns, check_output, writer_for
from promptpanda.transfers.cells import Cells
from promptpanda.transfers.partial import Partial, write_errors
from promptpanda.version import __version__

Prediction = dict[str, Any] | str  # a prediction, or why there is none


@dataclass(frozen=True)
class TableSummary:
    """What became of the rows of a table.

    Attributes:
        rows: how many there are.
        unreadable: how many of them could not be read; `problem` says why of the first.
        below: how many predictions were left empty for their low confidence.
    """

    rows: int
    unreadable: int
    below: int
    problem: str | None


class Predictor(Protocol):
    """What predicts rows: a model on this machine, or a server."""

    @property
    def card(self) -> Card:
        """The prompt's."""

    @property
    def settings(self) -> list[Any]:
        """All that its predictions depend on beside the rows, as JSON takes it."""

    def parts(self, rows: Iterator[Read]) -> Iterator[list[Prediction]]:
        """A prediction for every row, or why there is none, in order, as many at a time as are computed together."""


def in_characters(prediction: dict[str, Any], row: Read) -> dict[str, Any]:
    """Spans with their places in the text, where a row has a text that was cut into words for the model."""
    if not isinstance(row.input, Words):
        return prediction
    for text in row.values.values():
        words = words_in(text) if isinstance(text, str) else []
        if [word.text for word in words] == list(row.input.words):
            return {**prediction, "spans": [_placed(span, text, words) for span in prediction["spans"]]}
    return prediction


def _placed(span: dict[str, Any], text: str, words: list[Word]) -> dict[str, Any]:
    start, end = words[span["start"]].start, words[span["end"] - 1].end
    return {**span, "start": start, "end": end, "text": text[start:end]}


def predict_table(
    predictor: Predictor,
    table: Table,
    survey: Survey,
    output: Path,
    cells: Cells,
    progress: Progress,
    *,
    force: bool = False,
) -> TableSummary:
    """Write a table with its predictions beside its own columns.

    What is computed is kept in a file beside the output. If the same call is stopped and made again, it goes on from
    there; the output appears whole at the end.

    Args:
        force: replace an output that exists.

    Raises:
        PandaError: the output cannot be written, or rows cannot be predicted; what was computed is kept.
    """
    card = predictor.card
    key = digest([__version__, table.digest(), *predictor.settings, cells.settings()])
    with Partial(output, key, progress) as partial:
        if partial.rows:
            progress.note(f"{partial.rows:,} of {survey.rows:,} rows were predicted before; continuing after them.")
        progress.begin("Predicting", survey.rows - partial.rows)
        for part in _kept(predictor.parts(islice(table.rows(), partial.rows, None)), partial):
            partial.append([one if isinstance(one, str) else cells.of(card, one) for one in part])
            progress.advance(len(part))
        check_output(output, None, force=force)  # another process may have made it meanwhile
        _write(table, survey, card, output, cells, partial)
        partial.remove()
        return TableSummary(partial.rows, partial.unreadable, partial.below, partial.problem)


def _kept(parts: Iterator[list[Prediction]], partial: Partial) -> Iterator[list[Prediction]]:
    """The parts; where they end with an error, it tells what is kept."""
    try:
        yield from parts
    except PandaError as error:
        if not partial.rows:
            raise
        raise PandaError(
            f"{str(error).rstrip('.')} (the first {partial.rows:,} rows are kept in {partial.path.name}; the same "
            "command resumes after them)."
        ) from error


def _write(table: Table, survey: Survey, card: Card, output: Path, cells: Cells, partial: Partial) -> None:
    """Put rows and predictions together, under another name until all are there."""
    added = cells.columns(card)
    columns = Columns(survey.keys, survey.headers, survey.types, survey.schema, added)
    writing = output.with_name(f".{output.name}.writing")
    try:
        with write_errors(output, f"; the predictions are kept in {partial.path.name}"):
            writer = writer_for(output)(writing, columns)
            try:
                for row, line in zip(table.rows(), partial.lines(), strict=True):
                    writer.write(row.values, [None] * len(added) if isinstance(line, str) else line)
            finally:
                writer.close()
            sync(writing)
            os.replace(writing, output)
            sync(output.parent)
    finally:
        writing.unlink(missing_ok=True)
