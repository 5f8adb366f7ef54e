"""Predictions of rows by a server: sent in pieces of bounded size, several under way, answers in the rows' order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from promptpanda.bank.card import FORMAT, Card
from promptpanda.errors import PandaError
from promptpanda.serving.answers import prediction_of
from promptpanda.serving.client import Client, ServerRefusedError
from promptpanda.tasks.inputs import Choices, Input, Passage, Words
from promptpanda.tasks.tables import Read
from promptpanda.transfers.calibrated import check_temperature
from promptpanda.transfers.predict_table import Prediction, in_characters

_ROWS = 100  # of a piece
_CHARS = 500_000  # of all texts of a piece
_AHEAD = 4  # pieces under way
_NUMBERED = re.compile(r"^(?:Number 1 of '\w+'|(?:Text|Input) 1)(?= )")


class ServerPredictor:
    """A prompt that a server answers for (`Predictor`).

    Args:
        client: asks the server.
        reference: an id, or a task's name: its best prompt.
        calibrated: have probabilities scaled by the temperature of the prompt's card.

    Raises:
        PandaError: the server cannot be reached, refuses, does not serve such a prompt, or is none of ours.
    """

    def __init__(self, client: Client, reference: str, *, calibrated: bool = False) -> None:
        self._client, self._calibrated = client, calibrated
        self.card = _card(client, reference)
        if calibrated:
            check_temperature(self.card)

    @property
    def settings(self) -> list[Any]:
        card = self.card
        return [card.run, card.files, card.temperature, card.backbone.fingerprint, "served", self._calibrated]

    def parts(self, rows: Iterator[Read]) -> Iterator[list[Prediction]]:
        pieces = _pieces(rows)
        under_way: deque[Future[list[Prediction]]] = deque()
        threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="asking")
        try:
            while True:
                while len(under_way) < _AHEAD and (piece := next(pieces, None)) is not None:
                    under_way.append(threads.submit(self._answers, piece))
                if not under_way:
                    return
                yield under_way.popleft().result()
        except BaseException:
            self._client.close()
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _answers(self, rows: list[Read]) -> list[Prediction]:
        """As ModelPredictor has them. A piece that the server cannot take as a whole is asked for in halves."""
        readable = [row for row in rows if row.input is not None]
        try:
            found = iter(self._request([row.input for row in readable if row.input is not None], readable))
        except ServerRefusedError as error:
            if not _smaller_helps(error, readable):
                raise
            if len(readable) > 1:
                middle = len(rows) // 2
                return [*self._answers(rows[:middle]), *self._answers(rows[middle:])]
            if error.status not in (413, 422):
                raise
            problem = _NUMBERED.sub("The text", str(error)).replace("Question 1 (", "The question (", 1)
            found = iter([problem])
        return [str(row.problem) if row.input is None else next(found) for row in rows]

    def _request(self, inputs: list[Input], rows: list[Read]) -> list[Prediction]:
        card = self.card
        if any(isinstance(one, Choices) or (isinstance(one, Words) and one.predicate is not None) for one in inputs):
            given: dict[str, Any] = {"rows": [{name: row.values[name] for name in card.task.fields} for row in rows]}
        else:
            given = {"texts": [list(one.words if isinstance(one, Words) else one) for one in inputs]}
        answers = self._client.predict(card.id, **given, probabilities=True, calibrated=self._calibrated)
        found: list[Prediction] = []
        for one, row, answer in zip(inputs, rows, answers, strict=True):
            try:
                found.append(in_characters(prediction_of(card, one, answer), row))
            except ValueError as error:
                raise PandaError(
                    f"An answer of {self._client.url} is not a prediction of {card.id}; check the address, and that "
                    "both "
                    "sides have the same version."
                ) from error
        return found


def _smaller_helps(error: ServerRefusedError, rows: list[Read]) -> bool:
    if error.status == 422:
        # A question may leave no room for its context, which its tokens alone tell.
        return isinstance(rows[0].input, Passage)
    return error.status in (413, 429, 503)


def _pieces(rows: Iterator[Read]) -> Iterator[list[Read]]:
    piece: list[Read] = []
    chars = 0
    for row in rows:
        more = len(str(row.input))
        if piece and (len(piece) == _ROWS or chars + more > _CHARS):
            yield piece
            piece, chars = [], 0
        piece.append(row)
        chars += more
    if piece:
        yield piece


def _card(client: Client, reference: str) -> Card:
    """The card of the prompt that a server means by a reference."""
    found = client.prompt(reference)
    if found.get("served") is False:
        raise PandaError(f"The server at {client.url} does not serve {reference}: {found.get('problem')}")
    card = found.get("card")
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise _unknown(client, reference)
    try:
        return Card.model_validate(card)
    except ValidationError as error:
        raise _unknown(client, reference) from error


def _unknown(client: Client, reference: str) -> PandaError:
    return PandaError(
        f"The server at {client.url} gives no card of {reference!r} that this version can read; check the address, and "
        "that both sides have the same version."
    )
