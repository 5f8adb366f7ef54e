"""What a request for predictions asks, read and checked, and the form in which predictions go back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.serving.limits import Limits, RefusedError, outward
from promptpanda.tasks.inputs import Input
from promptpanda.tasks.unlabeled import read_inputs
from promptpanda.transfers.cells import confidence_of
from promptpanda.transfers.given import checked


class PredictRequest(BaseModel):
    """The body of POST /v1/predict. Exactly one of `texts` and `rows` is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(description="Id of a prompt, or the name of a task: its best prompt.")
    texts: list[str | list[str]] | None = Field(
        None, description="A string each; [first, second] for pairs, [question, context], or a list of words."
    )
    rows: list[dict[str, Any]] | None = Field(None, description="Objects with the task's fields.")
    probabilities: bool = Field(False, description="Give the probabilities of all labels.")
    top: int | None = Field(None, ge=1, description="Give so many of the most probable labels or answers.")
    calibrated: bool = Field(False, description="Scale probabilities by the temperature in the prompt's card.")


class ErrorResponse(BaseModel):
    """The body of every answer that is not 200."""

    error: str


class PredictResponse(BaseModel):
    """The answer of POST /v1/predict."""

    prompt: str = Field(description="Id of the prompt that answered.")
    predictions: list[dict[str, Any]] = Field(
        description="One for every text or row, in order: label or labels, confidence, value, spans and tags, answer."
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises RefusedError (400) if it is none."""
    try:
        value = read_json(body.decode("utf-8"), "The body")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"The body is not UTF-8 (byte {error.start}); send JSON in UTF-8.") from error
    except PandaError as error:
        raise RefusedError(400, outward(error)) from error
    if not isinstance(value, dict):
        raise RefusedError(400, f"The body is a JSON {type(value).__name__}; expected an object.")
    return value


def parse_request(value: dict[str, Any], limits: Limits) -> PredictRequest:
    """What an object asks for. Raises RefusedError (413, 422)."""
    for name in ("texts", "rows"):
        if isinstance(value.get(name), list):
            check_rows(value[name], limits, name)
    try:
        request = PredictRequest.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        raise RefusedError(422, outward(f"'{where[:60]}' in the body is wrong: {first['msg'].lower()}.")) from error
    if (request.texts is None) == (request.rows is None):
        raise RefusedError(422, "The body needs either 'texts' or 'rows', and not both.")
    return request


def check_rows(rows: Sequence[object], limits: Limits, name: str) -> None:
    """Refuse more rows than one request may have, none, and rows with too much text. Raises RefusedError."""
    if not rows:
        raise RefusedError(422, f"'{name}' is empty; there is nothing to predict.")
    if len(rows) > limits.rows:
        raise RefusedError(413, f"There are {len(rows)} {name}, at most {limits.rows} are allowed; send them in parts.")
    for number, row in enumerate(rows, 1):
        if _chars(row) > limits.chars:
            raise RefusedError(
                413,
                f"Number {number} of '{name}' has {_chars(row)} characters, at most {limits.chars} are allowed; "
                "shorten it.",
            )


def _chars(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_chars, value.values()))
    return sum(map(_chars, value)) if isinstance(value, list) else 0


def inputs_of(card: Card, texts: Sequence[Any] | None, rows: Sequence[dict[str, Any]] | None) -> tuple[Input, ...]:
    """What the model reads. Raises RefusedError (422) that names the text or row that this prompt cannot read."""
    given: Sequence[Any]
    try:
        given = read_inputs(card.task, rows, "the request") if rows is not None else texts or ()
        return tuple(checked(card, one, number) for number, one in enumerate(given, 1))
    except PandaError as error:
        raise RefusedError(422, outward(error)) from error


def response_prediction(prediction: dict[str, Any], *, probabilities: bool, top: int | None) -> dict[str, Any]:
    """A prediction as it goes back: probabilities and further answers only where they were asked for."""
    found = dict(prediction)
    if (confidence := confidence_of(prediction)) is not None:
        found["confidence"] = confidence
    if "label" in found or "labels" in found:
        shares = found.pop("probabilities")
        if top is not None:
            best = sorted(shares, key=lambda name: (-shares[name], name))[:top]
            found["probabilities"] = {name: shares[name] for name in best}
        elif probabilities:
            found["probabilities"] = shares
    elif "nbest" in found:
        answers = found.pop("nbest")
        if top is not None or probabilities:
            found["nbest"] = answers if top is None else answers[:top]
    return found
