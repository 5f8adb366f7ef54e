"""What trained models give for inputs: outputs of their heads, and predictions made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.inputs import Choices, Input, Words
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.tags import spans_of
from promptpanda.training.inference import mixed_outputs
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.objectives.spans import Spans


def finite_outputs(trained: TrainedPrompt, backbone: Backbone, encoded: Encoded) -> np.ndarray:
    """The outputs of a model, as `predict_outputs` gives them. Raises PandaError as `outputs_together` does."""
    return outputs_together([trained], backbone, [encoded])[0]


def outputs_together(
    trained: Sequence[TrainedPrompt], backbone: Backbone, encoded: Sequence[Encoded]
) -> list[np.ndarray]:
    """The outputs of several models on inputs of their own, in shared batches (`mixed_outputs`).

    Raises:
        PandaError: a model's weights were not kept, or its outputs are not finite.
    """
    models = [(one.prompt, one.head) for one in map(_usable, trained)]
    found = mixed_outputs(backbone, models, encoded)
    for one, outputs in zip(trained, found, strict=True):
        if not np.isfinite(outputs).all():
            raise PandaError(
                f"The outputs of {one.card.id} are not finite: its numbers are too large for {backbone.name}; train it "
                "again with a lower --lr."
            )
    return found


def _usable(trained: TrainedPrompt) -> TrainedPrompt:
    if not trained.card.weights_kept:
        raise PandaError(
            f"{trained.card.id} was made by {trained.card.method}, of which the bank keeps the scores and not the "
            "weights; predict with a prompt."
        )
    return trained


def objective_of(card: Card) -> Objective:
    """The objective that a kept head was trained for."""
    return objective_for(card.task, len(card.labels), threshold=card.threshold)


def predictions_of(card: Card, outputs: np.ndarray, encoded: Encoded, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """A prediction for each input, as `predict` gives them, from the outputs of a kept head."""
    objective = objective_of(card)
    kind = card.task.kind
    if kind == Kind.REGRESSION:
        return [{"value": float(row[0])} for row in outputs]
    if kind == Kind.MULTI_LABEL:
        return _with_labels(card, objective, outputs, encoded, inputs)
    if kind == Kind.TOKEN_CLASSIFICATION:
        return _tagged(card, objective, outputs, encoded, inputs)
    if kind == Kind.EXTRACTIVE_QA:
        return _answered(objective, outputs, encoded, inputs)
    names = [one.names if isinstance(one, Choices) else card.labels for one in inputs]
    found = [outputs[list(encoded.rows_of(example))].reshape(-1) for example in range(len(inputs))]
    return [_labelled(label, scores) for label, scores in zip(names, found, strict=True)]


def _labelled(names: tuple[str, ...], scores: np.ndarray) -> dict[str, Any]:
    probabilities = softmax(scores)
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
    for example, (one, indices) in enumerate(zip(inputs, predictions, strict=True)):
        assert isinstance(one, Words)
        tags = [card.labels[index] for index in indices]
        found = [
            {"start": start, "end": end, "label": label, "text": " ".join(one.words[start:end])}
            for start, end, label in spans_of(tags)
        ]
        results.append({"spans": found, "tags": tags, "confidence": _confidence(outputs, encoded, example)})
    return results


def _confidence(outputs: np.ndarray, encoded: Encoded, example: int) -> float:
    """The probability of the tag of which the model is least sure; 1 where no word can be read."""
    assert encoded.places is not None
    least = 1.0
    for row in encoded.rows_of(example):
        scores = outputs[row, : len(encoded.places[row])].astype(np.float64)
        sums = np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
        least = min([least, *(1.0 / sums)])
    return float(least)


def _answered(
    objective: Objective, outputs: np.ndarray, encoded: Encoded, inputs: Sequence[Input]
) -> list[dict[str, Any]]:
    assert isinstance(objective, Spans)
    results = []
    for candidates in objective.candidates(outputs, encoded, tuple(inputs)):
        answer = objective.answer(candidates)
        # "No answer" is a candidate only where questions may have none.
        listed = candidates if objective.threshold is not None else candidates[:-1] or candidates
        shares = softmax(np.asarray([one.score for one in listed]))
        nbest = [
            {"answer": one.text, "start": one.start, "probability": float(share)}
            for one, share in zip(listed, shares, strict=True)
        ]
        results.append({"answer": answer.text, "start": answer.start, "score": answer.score, "nbest": nbest})
    return results


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis, in double precision."""
    shares: np.ndarray = special.softmax(scores.astype(np.float64), axis=-1)
    return shares
