"""Extractive question answering: a question, a context, and the answers that are spans of it."""

from __future__ import annotations

from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Answer, Passage, Split, ragged
from promptpanda.tasks.labels import LabelSpace
from promptpanda.tasks.reading import NumberedRows, Row
from promptpanda.tasks.spec import TaskSpec


def examples(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> Split:
    """Questions, contexts and answers of rows. Raises PandaError that names the row."""
    texts, labels = [], []
    for number, row in rows:
        where = f"Row {number} of {origin}"
        passage = passage_of(spec, row, where)
        texts.append(passage)
        labels.append(_answers(spec, passage.context, row[spec.label], where))
    return Split(tuple(texts), ragged(labels))


def passage_of(spec: TaskSpec, row: Row, where: str) -> Passage:
    """What a model reads of one row."""
    question, context = spec.render(row, where)
    # Leading white space in questions of SQuAD 2 fills the room of the context.
    return Passage(question.strip(), context)


def _answers(spec: TaskSpec, context: str, value: Any, where: str) -> tuple[Answer, ...]:
    if isinstance(value, str):
        value = {"text": [value], "answer_start": [context.find(value)]}
    texts, starts = (value.get("text"), value.get("answer_start")) if isinstance(value, dict) else (None, None)
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise PandaError(
            f"{where} has no answers in '{spec.label}'; expected an object with lists 'text' and 'answer_start' of one "
            "length, or one text."
        )
    if not texts and not spec.no_answer:
        raise PandaError(f"{where} has no answer; say `no_answer: true` in the spec if questions may have none.")
    answers = []
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not text.strip():
            raise PandaError(f"{where} has the answer {text!r} at {start!r}; expected a text and a whole number.")
        if start < 0 or context[start : start + len(text)] != text:
            place = context.find(text)
            wrong = f"at {start}, but it is at {place} of its context" if place >= 0 else "which is not in its context"
            raise PandaError(f"{where} has the answer {text[:60]!r} {wrong}; correct it or leave the row out.")
        answers.append(Answer(start, text))
    return tuple(answers)
