"""Predictions of whole tables: some rows at a time, in constant memory, to a file that appears whole at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.files import digest, sync
from promptpanda.progress import Progress
from promptpanda.tasks.inputs import Passage, Words
from promptpanda.tasks.tables import Read, Survey, Table
from promptpanda.tasks.words import Word, words_in
from promptpanda.tasks.writing import Columns, check_output, writer_for
from promptpanda.transfers.cells import Cells
from promptpanda.transfers.partial import Partial, saying_where
from promptpanda.transfers.predict import predictions
from promptpanda.version import __version__

_TOGETHER = 256  # rows that are computed, and kept, at a time

Answered = dict[str, Any] | str  # a prediction, or why there is none


@dataclass(frozen=True)
class Told:
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


def answers(trained: TrainedPrompt, backbone: Backbone, rows: Iterator[Read]) -> Iterator[Answered]:
    """A prediction for every row, or why there is none, in order, as they are computed."""
    while part := list(islice(rows, _TOGETHER)):
        yield from _answers(trained, backbone, part)


def _answers(trained: TrainedPrompt, backbone: Backbone, rows: list[Read]) -> Iterator[Answered]:
    inputs = [row.input for row in rows if row.input is not None]
    try:
        found = iter(list(predictions(trained, backbone, inputs)))
    except PandaError as error:
        # A question may leave no room for its context, which its tokens alone tell.
        if not inputs or not isinstance(inputs[0], Passage):
            raise
        if len(rows) == 1:
            yield str(error).replace("Question 1 (", "The question (", 1)
            return
        middle = len(rows) // 2
        yield from _answers(trained, backbone, rows[:middle])
        yield from _answers(trained, backbone, rows[middle:])
        return
    for row in rows:
        yield str(row.problem) if row.input is None else _in_characters(next(found), row)


def _in_characters(prediction: dict[str, Any], row: Read) -> dict[str, Any]:
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
    trained: TrainedPrompt,
    backbone: Backbone,
    table: Table,
    survey: Survey,
    output: Path,
    cells: Cells,
    progress: Progress,
    *,
    force: bool = False,
) -> Told:
    """Write a table with its predictions beside its own columns.

    What is computed is kept in a file beside the output. If the same call is stopped and made again, it goes on from
    there; the output appears whole at the end.

    Args:
        force: replace an output that exists.

    Raises:
        PandaError: the output cannot be written; what was computed is kept.
    """
    card = trained.card
    model = [card.run, card.files, card.temperature, backbone.fingerprint]
    key = digest([__version__, table.digest(), *model, cells.settings()])
    with Partial(output, key, progress) as partial:
        if partial.rows:
            progress.note(f"{partial.rows:,} of {survey.rows:,} rows were predicted before; going on behind them.")
        progress.begin("Predicting", survey.rows - partial.rows)
        found = answers(trained, backbone, islice(table.rows(), partial.rows, None))
        while part := list(islice(found, _TOGETHER)):
            partial.append([one if isinstance(one, str) else cells.of(card, one) for one in part])
            progress.advance(len(part))
        check_output(output, None, force=force)  # another process may have made it meanwhile
        _write(table, survey, card, output, cells, partial)
        partial.remove()
        return Told(partial.rows, partial.unreadable, partial.below, partial.problem)


def _write(table: Table, survey: Survey, card: Card, output: Path, cells: Cells, partial: Partial) -> None:
    """Put rows and predictions together, under another name until all are there."""
    added = cells.columns(card)
    columns = Columns(survey.keys, survey.headers, survey.types, survey.schema, added)
    writing = output.with_name(f".{output.name}.writing")
    try:
        with saying_where(output, f"; the predictions are kept in {partial.path.name}"):
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
