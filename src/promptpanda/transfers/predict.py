"""Predictions of a trained prompt on rows of data, and its scores on a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_trained
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.tasks.inputs import Choices, Input, Passage, Split, Words
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.tags import spans_of
from promptpanda.tasks.task import Task
from promptpanda.training.inference import predict_outputs
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.objectives.spans import Spans

_TOGETHER = 1024  # inputs that are encoded and held in memory at a time

Given = str | Sequence[str] | Input


def predict(
    prompt: TrainedPrompt | Path | str,
    backbone: Backbone,
    inputs: Sequence[Given],
    *,
    bank: Bank | Path | str | None = None,
) -> list[dict[str, Any]]:
    """Predict labels, values, tags or answers.

    Args:
        prompt: a trained prompt, its folder, or, with a bank, its id or a task's name.
        backbone: the frozen model that it was trained on.
        inputs: what the task's template makes of rows (`read_inputs`): a string each, or a pair of strings for pairs;
            `Choices`; `Words`, or a list of words, or a string that is cut at white space; `Passage`, or a pair of
            question and context.
        bank: the bank, or its folder, where names are looked up.

    Returns:
        A dictionary for each input, with the keys `label` and `probabilities` ({name: p}) for classes and choices,
        `labels` (a list) and `probabilities` (of each label by itself) for several labels, `value` for a regression,
        `spans` (each start, end, label and text; places in words, end exclusive) and `tags` for words, `answer`,
        `start` (place in characters, -1 for no answer), `score` and `nbest` for questions.

    Raises:
        PandaError: no such prompt; an input is empty or no text, named by its number; or outputs are not finite.
    """
    return list(predictions(as_trained(prompt, backbone, bank), backbone, inputs))


def predictions(trained: TrainedPrompt, backbone: Backbone, inputs: Sequence[Given]) -> Iterator[dict[str, Any]]:
    """What `predict` gives, one by one: all inputs are checked first, and some hundreds are computed at a time."""
    ready = [_checked(trained.card, one, number) for number, one in enumerate(inputs, 1)]
    for start in range(0, len(ready), _TOGETHER):
        yield from _predicted(trained, backbone, ready[start : start + _TOGETHER])


def _predicted(trained: TrainedPrompt, backbone: Backbone, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    encoded = encode(backbone, inputs, trained.card.options.max_length)
    outputs = _finite_outputs(trained, backbone, encoded)
    objective = _objective(trained.card)
    kind = trained.card.task.kind
    if kind == Kind.REGRESSION:
        return [{"value": float(row[0])} for row in outputs]
    if kind == Kind.MULTI_LABEL:
        return _with_labels(trained.card, objective, outputs, encoded, inputs)
    if kind == Kind.TOKEN_CLASSIFICATION:
        return _tagged(trained.card, objective, outputs, encoded, inputs)
    if kind == Kind.EXTRACTIVE_QA:
        return _answered(objective, outputs, encoded, inputs)
    names = [one.names if isinstance(one, Choices) else trained.card.labels for one in inputs]
    found = [outputs[list(encoded.rows_of(example))].reshape(-1) for example in range(len(inputs))]
    return [_labelled(label, scores) for label, scores in zip(names, found, strict=True)]


def with_labels_of(card: Card, task: Task) -> Task:
    """A task with the classes of a prompt, in the prompt's order. Raises PandaError if they are not the same."""
    if task.kind != card.task.kind and not (task.kind.classifies and card.task.kind.classifies):
        mend = (
            f"say --kind {card.task.kind} if it is" if task.spec.files is not None else "evaluate it on one of its kind"
        )
        raise PandaError(f"Prompt {card.id} is for {card.task.kind}, task '{task.name}' is {task.kind}; {mend}.")
    if len(task.spec.segments) != len(card.task.segments):
        forms = {1: "single texts", 2: "pairs of texts (--text and --text2)"}
        raise PandaError(
            f"Prompt {card.id} reads {forms[len(card.task.segments)]}, task '{task.name}' has "
            f"{forms[len(task.spec.segments)]}."
        )
    if task.name == card.task.name and task.spec.metrics == card.task.metrics:
        # The same task is read as in training, also if that was by another template.
        written = {"segments": card.task.segments, "marks": card.task.marks, "values": card.task.values}
        task = Task(task.spec.model_copy(update=written), task.data_dir, task.classes)
    if not card.labels:
        return task
    if not task.spec.labels and not task.spec.label_columns:
        # Own files name their classes by the rows alone; metrics of the prompt's task apply.
        return Task(task.spec, task.data_dir, card.labels)
    if set(task.labels) != set(card.labels):
        raise PandaError(
            f"Prompt {card.id} predicts {', '.join(map(repr, card.labels[:8]))}, but task '{task.name}' has "
            f"{', '.join(map(repr, task.labels[:8]))}; evaluate it on a task with the same labels."
        )
    return task


def evaluate(
    prompt: TrainedPrompt | Path | str,
    backbone: Backbone,
    task: Task,
    split: Split | None = None,
    *,
    bank: Bank | Path | str | None = None,
) -> dict[str, float]:
    """All metrics of a trained prompt on examples of a task with the same classes, in whatever order.

    Args:
        prompt: a trained prompt, its folder, or, with a bank, its id or a task's name.
        backbone: the frozen model that it was trained on.
        task: whose labels and metrics count.
        split: the examples; None takes the task's test data.
        bank: the bank, or its folder, where names are looked up.

    Raises:
        PandaError: no such prompt, a task of another kind or with other classes, or one without test data.
    """
    trained = as_trained(prompt, backbone, bank)
    task = with_labels_of(trained.card, task)
    split = task.test() if split is None else split
    if split is None:
        raise PandaError(f"Task '{task.name}' has no labelled test data; give examples, or a task that has.")
    encoded = encode(backbone, split.texts, trained.card.options.max_length)
    outputs = _finite_outputs(trained, backbone, encoded)
    objective = _objective(trained.card)
    if trained.card.labels:
        order = [trained.card.labels.index(name) for name in task.labels]
        outputs, objective = outputs[..., order], objective.reordered(order)
    predictions = objective.predictions(outputs, encoded, split.texts)
    return compute_metrics(task.spec, task.labels, split, predictions, objective.probabilities(outputs))


def _finite_outputs(trained: TrainedPrompt, backbone: Backbone, encoded: Encoded) -> np.ndarray:
    outputs = predict_outputs(backbone, trained.prompt, _usable(trained).head, encoded)
    if not np.isfinite(outputs).all():
        raise PandaError(
            f"The outputs of {trained.card.id} are not finite: its numbers are too large for {backbone.name}; train it "
            "again with a lower --lr."
        )
    return outputs


def _usable(trained: TrainedPrompt) -> TrainedPrompt:
    if not trained.card.weights_kept:
        raise PandaError(
            f"{trained.card.id} was made by {trained.card.method}, of which the bank keeps the scores and not the "
            "weights; predict with a prompt."
        )
    return trained


def _objective(card: Card) -> Objective:
    return objective_for(card.task, len(card.labels), threshold=card.threshold)


def _checked(card: Card, one: Given, number: int) -> Input:
    """The input, if it is one of the task's kind and not empty. Raises PandaError that tells its number."""
    kind, name = card.task.kind, card.task.name
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
                f"Input {number} is no {expected.__name__}, which task '{name}' reads; found {type(one).__name__}."
            )
        return one
    row = (one,) if isinstance(one, str) else tuple(one) if isinstance(one, (tuple, list)) else None
    if row is None or not _are_strings(row):
        found = type(one).__name__ if row is None else ", ".join(type(segment).__name__ for segment in row)
        raise PandaError(f"Text {number} is no text: found {found}; expected a string, or strings for its segments.")
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
            f"Input {number} is no Words, which task '{name}' reads: expected a string or a list of words."
        )
    if not words:
        raise PandaError(f"Text {number} is empty; there is nothing to predict from.")
    return Words(tuple(words), predicate)


def _are_strings(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _labelled(names: tuple[str, ...], scores: np.ndarray) -> dict[str, Any]:
    probabilities = _softmax(scores)
    return {
        "label": names[int(probabilities.argmax())],
        "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
    }


def _with_labels(
    card: Card, objective: Objective, outputs: np.ndarray, encoded: Encoded, inputs: Sequence[Input]
) -> list[dict[str, Any]]:
    given = objective.predictions(outputs, encoded, tuple(inputs))
    probabilities = objective.probabilities(outputs)
    assert probabilities is not None
    return [
        {
            "labels": [name for name, taken in zip(card.labels, row, strict=True) if taken],
            "probabilities": dict(zip(card.labels, map(float, each), strict=True)),
        }
        for row, each in zip(given, probabilities, strict=True)
    ]


def _tagged(
    card: Card, objective: Objective, outputs: np.ndarray, encoded: Encoded, inputs: Sequence[Input]
) -> list[dict[str, Any]]:
    results = []
    predictions = objective.predictions(outputs, encoded, tuple(inputs))
    for one, indices in zip(inputs, predictions, strict=True):
        assert isinstance(one, Words)
        tags = [card.labels[index] for index in indices]
        found = [
            {"start": start, "end": end, "label": label, "text": " ".join(one.words[start:end])}
            for start, end, label in spans_of(tags)
        ]
        results.append({"spans": found, "tags": tags})
    return results


def _answered(
    objective: Objective, outputs: np.ndarray, encoded: Encoded, inputs: Sequence[Input]
) -> list[dict[str, Any]]:
    assert isinstance(objective, Spans)
    results = []
    for candidates in objective.candidates(outputs, encoded, tuple(inputs)):
        answer = objective.answer(candidates)
        # "No answer" is a candidate only where questions may have none.
        listed = candidates if objective.threshold is not None else candidates[:-1] or candidates
        shares = _softmax(np.asarray([one.score for one in listed]))
        nbest = [
            {"answer": one.text, "start": one.start, "probability": float(share)}
            for one, share in zip(listed, shares, strict=True)
        ]
        results.append({"answer": answer.text, "start": answer.start, "score": answer.score, "nbest": nbest})
    return results


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores.astype(np.float64) - scores.max())
    shares: np.ndarray = shifted / shifted.sum()
    return shares
