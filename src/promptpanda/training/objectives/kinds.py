"""The objective of every task kind."""

from __future__ import annotations

import numpy as np

from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.training.objectives.choice import MultipleChoice
from promptpanda.training.objectives.label_sets import MultiLabel
from promptpanda.training.objectives.objective import Objective, Threshold
from promptpanda.training.objectives.sequence import Classification, Regression
from promptpanda.training.objectives.spans import Spans
from promptpanda.training.objectives.tokens import TokenClassification


def objective_for(
    spec: TaskSpec, labels: int, train_labels: np.ndarray | None = None, threshold: Threshold | None = None
) -> Objective:
    """The objective of a task.

    Args:
        labels: how many classes, labels or tags there are.
        train_labels: labels of the training part, which a regression is standardised by. None: to predict, with a head
            that was standardised when it was trained.
        threshold: for "no answer", or one a label, of a model that was calibrated.
    """
    if spec.kind == Kind.REGRESSION:
        if train_labels is None:
            return Regression()
        with np.errstate(over="ignore"):  # the objective refuses what becomes infinite
            spread = float(train_labels.std())
        return Regression(scale=spread if spread > 0 else 1.0, shift=float(train_labels.mean()))
    if spec.kind == Kind.MULTIPLE_CHOICE:
        return MultipleChoice()
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return TokenClassification(labels)
    if spec.kind == Kind.MULTI_LABEL:
        return MultiLabel(labels, threshold=threshold if isinstance(threshold, tuple) else (0.5,) * labels)
    if spec.kind == Kind.EXTRACTIVE_QA:
        given = 0.0 if threshold is None or isinstance(threshold, tuple) else threshold
        return Spans(threshold=given if spec.no_answer else None)
    return Classification(labels)
