"""Predictions of a trained prompt on raw rows or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Split, Task
from promptpanda.training.inference import predict_outputs


def predict(trained: TrainedPrompt, backbone: Backbone, texts: Sequence[str | tuple[str, ...]]) -> list[dict[str, Any]]:
    """Predict labels (or values) for texts.

    Args:
        texts: the segments as the task's template makes them: a string each, or a pair of strings for pair tasks.

    Returns:
        For each text `{"label": name, "probabilities": {name: p}}`, or `{"value": number}` for regression.
    """
    segments = len(trained.card.task.segments)
    rows = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    for number, row in enumerate(rows, 1):
        if len(row) != segments:
            raise PandaError(f"Text {number} has {len(row)} segments, task '{trained.card.task.name}' has {segments}.")
        if not all(segment.strip() for segment in row):
            raise PandaError(f"Text {number} is empty; there is nothing to predict from.")
    if not rows:
        return []
    outputs = predict_outputs(
        backbone, trained.prompt, trained.head, encode(backbone, rows, trained.card.options.max_length)
    )
    if trained.card.task.kind == Kind.REGRESSION:
        return [{"value": float(row[0])} for row in outputs]
    shifted = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    labels = trained.card.labels
    return [
        {"label": labels[int(row.argmax())], "probabilities": dict(zip(labels, map(float, row), strict=True))}
        for row in probabilities
    ]


def with_labels_of(card: Card, task: Task) -> Task:
    """A task with the classes of a prompt, in the prompt's order. Raises PandaError if they are not the same."""
    if (task.kind == Kind.REGRESSION) != (card.task.kind == Kind.REGRESSION):
        raise PandaError(
            f"Prompt {card.id} is for {card.task.kind}, task '{task.name}' is {task.kind}; say "
            f"--kind {card.task.kind} if it is."
        )
    if len(task.spec.segments) != len(card.task.segments):
        forms = {1: "single texts", 2: "pairs of texts (--text and --text2)"}
        raise PandaError(
            f"Prompt {card.id} reads {forms[len(card.task.segments)]}, task '{task.name}' has "
            f"{forms[len(task.spec.segments)]}."
        )
    if task.kind == Kind.REGRESSION:
        return task
    known = task.spec.labels
    if known and set(known) != set(card.labels):
        raise PandaError(
            f"Prompt {card.id} predicts {', '.join(map(repr, card.labels[:8]))}, but task '{task.name}' has "
            f"{', '.join(map(repr, known[:8]))}; evaluate it on a task with the same labels."
        )
    if not known:
        # Own files name their classes by the rows alone; metrics of the prompt's task apply.
        return Task(task.spec, task.data_dir, card.labels)
    return task


def evaluate(trained: TrainedPrompt, backbone: Backbone, task: Task, split: Split) -> dict[str, float]:
    """Metrics of a trained prompt on examples of a task with the same classes, in whatever order."""
    encoded = encode(backbone, split.texts, trained.card.options.max_length)
    outputs = predict_outputs(backbone, trained.prompt, trained.head, encoded)
    if task.kind == Kind.REGRESSION:
        return compute_metrics(task.spec, (), split.labels, outputs[:, 0].astype(np.float64))
    order = np.asarray([task.labels.index(name) for name in trained.card.labels])
    return compute_metrics(task.spec, task.labels, split.labels, order[outputs.argmax(axis=1)])
