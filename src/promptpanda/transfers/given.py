"""What is given to predict from, checked before a model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Choices, Input, Passage, Words
from promptpanda.tasks.own_rows import check_columns
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.unlabeled import read_input

Given = str | Sequence[str] | Mapping[str, Any] | Input


def as_list(inputs: Any) -> Sequence[Any]:
    """The rows of a frame as dictionaries, without its gaps; the values of a series; a sequence as it is.

    Raises:
        PandaError: a frame that names a column twice, or one text where a list of them is expected.
    """
    if hasattr(inputs, "columns"):
        check_columns(inputs, "The frame")
    if hasattr(inputs, "to_dict"):
        inputs = inputs.astype(object).where(inputs.notna(), None)
        inputs = inputs.to_dict("records") if hasattr(inputs, "columns") else inputs.tolist()
    if isinstance(inputs, (str, bytes, Mapping)) or not hasattr(inputs, "__iter__"):
        raise PandaError(
            f"The inputs are of the type {type(inputs).__name__}; expected a list with an entry for each prediction, "
            "or "
            "a pandas frame."
        )
    rows: Sequence[Any] = inputs
    return rows


def checked(card: Card, one: Given, number: int) -> Input:
    """The input, if it is one of the task's kind and not empty. Raises PandaError that tells its number."""
    kind, name = card.task.kind, card.task.name
    if isinstance(one, Mapping):
        return read_input(card.task, dict(one), f"Row {number}")
    if kind == Kind.TOKEN_CLASSIFICATION and not isinstance(one, (Choices, Passage)):
        return _words(one, number, name)
    if kind == Kind.EXTRACTIVE_QA and isinstance(one, (tuple, list)) and len(one) == 2 and _are_strings(one):
        one = Passage(*one)
    read: dict[Kind, type[Choices | Words | Passage]] = {
        Kind.MULTIPLE_CHOICE: Choices,
        Kind.TOKEN_CLASSIFICATION: Words,
        Kind.EXTRACTIVE_QA: Passage,
    }
    expected = read.get(kind)
    if expected is not None:
        if not isinstance(one, expected):
            raise PandaError(
                f"Input {number} is not of the type {expected.__name__}, which task '{name}' reads; found "
                f"{type(one).__name__}."
            )
        return one
    row = (one,) if isinstance(one, str) else tuple(one) if isinstance(one, (tuple, list)) else None
    if row is None or not _are_strings(row):
        found = type(one).__name__ if row is None else ", ".join(type(segment).__name__ for segment in row)
        raise PandaError(f"Text {number} is not a text: found {found}; expected a string, or strings for its segments.")
    if len(row) != len(card.task.segments):
        raise PandaError(f"Text {number} has {len(row)} segments, task '{name}' has {len(card.task.segments)}.")
    if not all(segment.strip() for segment in row):
        raise PandaError(f"Text {number} is empty; there is nothing to predict from.")
    return tuple(row)


def _words(one: Given, number: int, name: str) -> Words:
    predicate = one.predicate if isinstance(one, Words) else None
    words = one.words if isinstance(one, Words) else one.split() if isinstance(one, str) else one
    if not isinstance(words, (tuple, list)) or not _are_strings(words):
        raise PandaError(
            f"Input {number} is not of the type Words, which task '{name}' reads: expected a string or a list of words."
        )
    if not words:
        raise PandaError(f"Text {number} is empty; there is nothing to predict from.")
    return Words(tuple(words), predicate)


def _are_strings(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)
