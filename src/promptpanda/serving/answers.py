"""Predictions as they come from a server, checked before anything is made of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from promptpanda.bank.card import Card
from promptpanda.tasks.inputs import Choices, Input, Words
from promptpanda.tasks.spec import Kind

_Share = Annotated[float, Field(ge=0, le=1)]
_Place = Annotated[int, Field(ge=0)]


class _Outside(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


class _Labelled(_Outside):
    label: str
    probabilities: dict[str, _Share]


class _WithLabels(_Outside):
    labels: list[str]
    probabilities: dict[str, _Share]


class _Value(_Outside):
    value: float


class _Span(_Outside):
    start: _Place
    end: _Place
    label: str
    text: str


class _Tagged(_Outside):
    spans: list[_Span]
    tags: list[str]
    confidence: _Share


class _Candidate(_Outside):
    answer: str
    start: int
    probability: _Share


class _Answered(_Outside):
    answer: str
    start: int
    score: float
    nbest: Annotated[list[_Candidate], Field(min_length=1)]


_FORMS: dict[Kind, type[_Outside]] = {
    Kind.MULTI_LABEL: _WithLabels,
    Kind.REGRESSION: _Value,
    Kind.TOKEN_CLASSIFICATION: _Tagged,
    Kind.EXTRACTIVE_QA: _Answered,
}


def prediction_of(card: Card, given: Input, answer: Any) -> dict[str, Any]:
    """What a server says of an input, in the form in which `predict` gives it.

    Raises:
        ValueError: it is not a prediction of this prompt for this input (pydantic's ValidationError is one).
    """
    found = _FORMS.get(card.task.kind, _Labelled).model_validate(answer, strict=False)
    if isinstance(found, (_Labelled, _WithLabels)):
        names = given.names if isinstance(given, Choices) else card.labels
        if list(found.probabilities) != list(dict.fromkeys(names)):
            raise ValueError("the probabilities are of other labels")
        for label in [found.label] if isinstance(found, _Labelled) else found.labels:
            if label not in found.probabilities:
                raise ValueError("a label that the prompt does not have")
    if isinstance(found, _Tagged):
        words = len(given.words) if isinstance(given, Words) else 0
        if len(found.tags) != words or any(not one.start < one.end <= words for one in found.spans):
            raise ValueError("tags or spans of other words")
    return found.model_dump()
