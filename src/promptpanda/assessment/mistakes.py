"""The examples that a model is wrong about and most sure of: often wrong labels, or a class that is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Form
from promptpanda.tasks.inputs import Choices, Input, Passage, Words

MOST = 25  # that are told


@dataclass(frozen=True)
class Mistake:
    """One example.

    Attributes:
        place: where it begins in the file, from 1.
        unit: what `place` counts: lines or rows.
        text: what the model read.
        expected, predicted: the right answer and the model's, in words.
        confidence: how sure the model is of its answer; None for values.
    """

    place: int
    unit: str
    text: str
    expected: str
    predicted: str
    confidence: float | None


def mistakes(evaluated: Evaluated, form: Form, answers: Answers | None) -> list[Mistake]:
    """Wrong answers, the surest first, one an example; values by how far they are off."""
    found = []
    for example, confidence in _worst(evaluated, answers)[:MOST]:
        written = form.written(evaluated, example)
        text = as_text(evaluated.split.texts[example])
        place, unit = evaluated.split.place(example), evaluated.split.unit
        found.append(Mistake(place, unit, text, written.expected, written.predicted, confidence))
    return found


def _worst(evaluated: Evaluated, answers: Answers | None) -> list[tuple[int, float | None]]:
    if answers is None:
        if not np.issubdtype(evaluated.split.labels.dtype, np.floating):
            return []
        return [(int(place), None) for place in np.argsort(-np.abs(evaluated.predictions - evaluated.split.labels))]
    wrong = np.flatnonzero(~answers.right)
    surest: dict[int, float | None] = {}
    for place in wrong[np.argsort(-answers.confidence[wrong], kind="stable")]:
        surest.setdefault(int(answers.row[place]), float(answers.confidence[place]))
    return list(surest.items())


def as_text(one: Input) -> str:
    """An input in one line, its segments apart."""
    if isinstance(one, Words):
        return " ".join(one.words)
    if isinstance(one, Choices):
        return " | ".join(" / ".join(text) for text in one.texts)
    if isinstance(one, Passage):
        return f"{one.question} / {one.context}"
    return " / ".join(one)
