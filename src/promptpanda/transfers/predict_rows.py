"""Predictions of rows by the model on this machine, some hundreds at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Passage
from promptpanda.tasks.tables import Read
from promptpanda.transfers.predict import predictions
from promptpanda.transfers.predict_table import Prediction, in_characters

_TOGETHER = 256  # rows that are computed, and kept, at a time


@dataclass(frozen=True)
class ModelPredictor:
    """A prompt on its backbone (`Predictor`)."""

    trained: TrainedPrompt
    backbone: Backbone

    @property
    def card(self) -> Card:
        return self.trained.card

    @property
    def settings(self) -> list[Any]:
        return [self.card.run, self.card.files, self.card.temperature, self.backbone.fingerprint]

    def parts(self, rows: Iterator[Read]) -> Iterator[list[Prediction]]:
        while part := list(islice(rows, _TOGETHER)):
            yield list(self._answers(part))

    def _answers(self, rows: list[Read]) -> Iterator[Prediction]:
        inputs = [row.input for row in rows if row.input is not None]
        try:
            found = iter(list(predictions(self.trained, self.backbone, inputs)))
        except PandaError as error:
            # A question may leave no room for its context, which its tokens alone tell.
            if not inputs or not isinstance(inputs[0], Passage):
                raise
            if len(rows) == 1:
                yield str(error).replace("Question 1 (", "The question (", 1)
                return
            middle = len(rows) // 2
            yield from self._answers(rows[:middle])
            yield from self._answers(rows[middle:])
            return
        for row in rows:
            yield str(row.problem) if row.input is None else in_characters(next(found), row)
